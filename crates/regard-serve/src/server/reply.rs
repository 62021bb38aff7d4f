//! The body of an answer: all of it at once, or the events of a stream, read from the engine as the client takes them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::ask::Tells;
use super::attention::{Telling, Wanted};
use super::log::{Entry, Usage};
use super::problem::Problem;
use super::queue::{Begun, finish};
use crate::{Finished, Outcome, Output};

/// An answer, and what goes when it has been sent or nobody waits for it any more.
pub(super) struct Reply {
    content: Content,
    pub(super) entry: Option<Entry>,
    pub(super) permits: Vec<OwnedSemaphorePermit>,
}

enum Content {
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

/// Outputs to the JSON of events.
pub(super) trait Render: Send {
    /// What an output of the request for prompt number `prompt` tells.
    fn output(&mut self, prompt: usize, output: Output, events: &mut Vec<Value>);

    /// Which events tell the numbers of tokens.
    fn tells_usage(&self) -> Tells;

    /// An event without choices.
    fn bare(&self) -> Value;

    /// What the requests for all prompts came to, at once.
    fn whole(&self, finished: &[Finished]) -> Value;
}

/// Server-sent events.
pub(super) struct Events {
    /// Of each prompt; none once it is over.
    streams: Vec<Option<mpsc::Receiver<Output>>>,
    render: Box<dyn Render>,
    ready: VecDeque<Bytes>,
    usage: Usage,
    attention: Telling,
    /// Whether all choices have been told.
    over: bool,
    ended: bool,
    cause: Option<String>,
}

impl Reply {
    fn new(content: Content) -> Self {
        Self { content, entry: None, permits: Vec::new() }
    }

    pub(super) fn whole(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Self> {
        let mut response = Response::new(Self::new(Content::Whole(Some(bytes.into()))));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    pub(super) fn json(value: &Value) -> Response<Self> {
        Self::whole(StatusCode::OK, "application/json", value.to_string())
    }

    /// All of it or a stream, as `stream` says, with attention where it is wanted; `prompt` is what the field of the prompt is called.
    pub(super) async fn of(
        (begun, attention): (Vec<Begun>, Option<Wanted>),
        render: impl Render + 'static,
        (stream, prompt): (bool, &str),
        mut usage: Usage,
        entry: &mut Entry,
    ) -> Result<Response<Self>, Problem> {
        if stream {
            let attention = attention.map_or(Telling::Nothing, |wanted| Telling::Wanted(Box::new(wanted)));
            return Ok(Self::events(begun, Box::new(render), usage, attention));
        }
        let finished = finish(begun, prompt, &mut usage).await?;
        entry.usage = usage;
        let mut object = render.whole(&finished);
        object["usage"] = usage.json();
        let Some(wanted) = attention else { return Ok(Self::json(&object)) };
        let told = wanted.told(tokens(&finished)).await?;
        let mut response = Self::whole(StatusCode::OK, "application/json", told.beside(&object));
        response.body_mut().permits.push(told.seat);
        Ok(response)
    }

    /// A stream; `first` holds the first output of each prompt's request, which has been awaited.
    fn events(streams: Vec<Begun>, render: Box<dyn Render>, usage: Usage, attention: Telling) -> Response<Self> {
        let (heard, ready) = (Vec::with_capacity(streams.len()), VecDeque::new());
        let mut events = Events { streams: heard, render, ready, usage, attention, over: false, ended: false, cause: None };
        for (prompt, (first, stream)) in streams.into_iter().enumerate() {
            events.streams.push(Some(stream));
            events.hear(prompt, first);
        }
        let mut response = Response::new(Self::new(Content::Events(Box::new(events))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

impl From<Problem> for Response<Reply> {
    fn from(problem: Problem) -> Self {
        let mut response = Reply::whole(problem.status, "application/json", problem.json().to_string());
        if problem.passes() {
            response.headers_mut().insert(hyper::header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Events {
    fn hear(&mut self, prompt: usize, output: Output) {
        match &output {
            Output::Done { outcome: Outcome::Finished(finished), .. } => {
                self.streams[prompt] = None;
                self.attention.finished(|| tokens(std::slice::from_ref(finished)));
            }
            Output::Done { outcome, .. } => return self.fail(Problem::of(outcome.clone(), "prompt")),
            Output::Started { cached, .. } => self.usage.cached += *cached,
            Output::Token { .. } => self.usage.completion += 1, // each, as none is streamed that is not told
        }
        let mut events = Vec::new();
        self.render.output(prompt, output, &mut events);
        if self.render.tells_usage() == Tells::Each {
            events.iter_mut().for_each(|event| event["usage"] = self.usage.json());
        }
        self.ready.extend(events.iter().map(event));
    }

    /// The head is sent, so an error is an event too, and the last one.
    fn fail(&mut self, problem: Problem) {
        self.ready.push_back(event(problem.json()));
        self.cause = problem.cause;
        self.streams.clear();
        self.ended = true;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let mut pending = false;
            for prompt in 0..self.streams.len() {
                match self.streams.get_mut(prompt).and_then(Option::as_mut).map(|stream| stream.poll_recv(cx)) {
                    None => {}
                    Some(Poll::Pending) => pending = true,
                    Some(Poll::Ready(Some(output))) => self.hear(prompt, output),
                    Some(Poll::Ready(None)) => self.fail(Problem::internal("the engine broke")),
                }
            }
            if self.ready.is_empty() && pending && !self.ended {
                return Poll::Pending;
            }
            if !self.ended && self.streams.iter().all(Option::is_none) && self.poll_end(cx).is_pending() && self.ready.is_empty() {
                return Poll::Pending;
            }
        }
    }

    /// What comes after all choices: the numbers of tokens, the attention, the end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (render, usage, tells) = (&self.render, self.usage, self.render.tells_usage());
        let bare = |with_usage: bool| {
            let mut object = render.bare();
            if with_usage {
                object["usage"] = usage.json();
            }
            object
        };
        if !std::mem::replace(&mut self.over, true) && tells != Tells::None {
            self.ready.push_back(event(bare(true)));
        }
        match self.attention.poll(cx, || bare(tells == Tells::Each)) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Err(problem))) => {
                self.fail(problem);
                return Poll::Ready(());
            }
            Poll::Ready(told) => self.ready.extend(told.into_iter().flatten().map(event)),
        }
        self.ended = true;
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        Poll::Ready(())
    }
}

fn event(json: impl std::fmt::Display) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// The tokens of all choices.
fn tokens(finished: &[Finished]) -> Vec<u32> {
    finished.iter().flat_map(|finished| &finished.choices).flat_map(|choice| &choice.tokens).copied().collect()
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take()),
            Content::Events(events) => events.poll(cx),
        };
        if self.is_end_stream() || matches!(bytes, Poll::Ready(None)) {
            self.entry.iter_mut().for_each(|entry| entry.whole = true);
        }
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Events(events) => events.ended && events.ready.is_empty(),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match &self.content {
            Content::Whole(bytes) => hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let (Content::Events(events), Some(entry)) = (&mut self.content, &mut self.entry) {
            entry.usage = events.usage;
            entry.cause = events.cause.take();
        }
    }
}
