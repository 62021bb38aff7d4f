//! The engine's thread: it alone owns the engine, steps while there is work, and sends each request's outputs down its own channel.
//!
//! A reader that has gone is seen before the next step, and its request aborted in it; one that falls behind stands still.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::metrics::Metrics;
use super::served::{Kind, Served};
use crate::{Config, Engine, Event, ModelRunner, Output, Request, RequestId, Room, RunnerError};

/// What the engine's thread is told.
pub(super) enum Message {
    Submit(Box<Request>, mpsc::Sender<Output>),
    /// Take no more, and end what is there at this time.
    Shutdown(Duration),
}

/// What the thread works with.
pub(super) struct Drive {
    pub(super) served: Arc<Served>,
    pub(super) config: Config,
    pub(super) room: Room,
    pub(super) messages: Receiver<Message>,
    pub(super) metrics: Arc<Metrics>,
    /// The zero of the engine's clock.
    pub(super) began: Instant,
}

/// Outputs that a reader may leave unread: for one sequence, and beside those.
const UNREAD: (usize, usize) = (16, 64);

/// A channel wide enough for a request.
pub(super) fn channel(request: &Request) -> (mpsc::Sender<Output>, mpsc::Receiver<Output>) {
    mpsc::channel(UNREAD.0 * request.decoding.sequences().min(1024) + UNREAD.1)
}

impl Drive {
    /// Until nobody can send messages any more. `ready` hears once whether there is an engine.
    pub(super) fn run(self, ready: oneshot::Sender<Result<(), RunnerError>>) {
        let Kind::Text(text) = &self.served.kind else { return };
        let mut ready = Some(ready);
        let mut shutdown = None;
        loop {
            let engine = ModelRunner::new(&text.model, self.room)
                .and_then(|runner| Engine::new(runner, self.config).map_err(RunnerError::from));
            let engine = match engine {
                Ok(engine) => engine,
                Err(error) => return drop(ready.take().map(|ready| ready.send(Err(error)))),
            };
            ready.take().map(|ready| ready.send(Ok(())));
            // A fault fails the requests that were there: their channels close. A new engine goes on with the others.
            match catch_unwind(AssertUnwindSafe(|| self.steps(engine, &mut shutdown))) {
                Ok(()) => return,
                Err(_) => self.metrics.fault(),
            }
        }
    }

    fn steps(&self, mut engine: Engine<ModelRunner<'_>>, shutdown: &mut Option<Duration>) {
        let mut streams = Streams { next: 0, open: HashMap::new(), metrics: &self.metrics };
        let mut events: Vec<Event> = shutdown.iter().map(|at| Event::Shutdown(*at)).collect();
        let mut stalled = false;
        loop {
            let first = match (engine.is_idle() && events.is_empty(), stalled) {
                (true, _) => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (false, true) => self.messages.recv_timeout(Duration::from_millis(5)),
                (false, false) => self.messages.try_recv().map_err(|_| RecvTimeoutError::Timeout),
            };
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            for message in first.into_iter().chain(self.messages.try_iter()) {
                match message {
                    Message::Submit(request, outputs) => events.push(streams.open(request, outputs)),
                    Message::Shutdown(at) => {
                        *shutdown = Some(shutdown.map_or(at, |before| before.min(at)));
                        events.push(Event::Shutdown(at));
                    }
                }
            }
            streams.watch(&mut events);
            let steps = engine.stats().steps;
            let outputs = engine.step(events.drain(..), self.began.elapsed());
            stalled = outputs.is_empty() && engine.stats().steps == steps;
            // First, so that whoever has an answer finds it counted.
            *self.metrics.stats.lock().unwrap_or_else(PoisonError::into_inner) = engine.stats();
            outputs.into_iter().for_each(|output| streams.tell(output));
        }
    }
}

/// The requests in the engine, and who reads them.
struct Streams<'m> {
    next: RequestId,
    open: HashMap<RequestId, Stream>,
    metrics: &'m Metrics,
}

struct Stream {
    outputs: mpsc::Sender<Output>,
    /// Outputs that one step may have: a token for each sequence, a beginning and an end.
    step: usize,
    paused: bool,
    submitted: Instant,
    /// Tokens told.
    tokens: u64,
    /// When each choice had its last token.
    told: HashMap<usize, Instant>,
}

impl Streams<'_> {
    fn open(&mut self, request: Box<Request>, outputs: mpsc::Sender<Output>) -> Event {
        let (id, step) = (self.next, request.decoding.sequences() + 2);
        self.next += 1;
        self.metrics.prompt_tokens.add(request.prompt.len() as u64);
        let submitted = Instant::now();
        self.open.insert(id, Stream { outputs, step, paused: false, submitted, tokens: 0, told: HashMap::new() });
        Event::Submit(id, request)
    }

    /// Readers that have gone, fall behind or have caught up.
    fn watch(&mut self, events: &mut Vec<Event>) {
        for (&id, stream) in &mut self.open {
            let free = stream.outputs.capacity();
            if stream.outputs.is_closed() {
                events.push(Event::Abort(id));
            } else if !stream.paused && free < stream.step {
                stream.paused = true;
                events.push(Event::Pause(id));
            } else if stream.paused && 2 * free >= stream.outputs.max_capacity() {
                stream.paused = false;
                events.push(Event::Resume(id));
            }
        }
    }

    /// Sends an output to its reader. There is room: a request without it stands still.
    fn tell(&mut self, output: Output) {
        let (Output::Started { request: id, .. } | Output::Token { request: id, .. } | Output::Done { request: id, .. }) = output;
        let Some(stream) = self.open.get_mut(&id) else { return };
        match &output {
            Output::Started { .. } => {}
            Output::Token { choice, .. } => {
                stream.tokens += 1;
                self.metrics.generation_tokens.add(1);
                let now = Instant::now();
                match stream.told.insert(*choice, now) {
                    Some(before) => self.metrics.between_tokens.observe(now - before),
                    None if stream.told.len() == 1 => self.metrics.first_token.observe(now - stream.submitted),
                    None => {}
                }
            }
            Output::Done { outcome, .. } => self.metrics.ended(outcome, stream.tokens, stream.submitted.elapsed()),
        }
        let done = matches!(output, Output::Done { .. });
        let _ = stream.outputs.try_send(output); // fails when the reader has gone, which `watch` sees
        if done {
            self.open.remove(&id);
        }
    }
}
