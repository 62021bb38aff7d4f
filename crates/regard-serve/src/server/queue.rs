//! The way to the engine: a bounded channel in, a channel of outputs for each request back.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::drive::{Message, channel};
use super::log::Usage;
use super::problem::Problem;
use crate::{Finished, Outcome, Output, Request};

/// Who hands requests to the engine.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) sender: SyncSender<Message>,
    /// The zero of the engine's clock.
    pub(super) began: Instant,
    /// How long a request may take.
    pub(super) timeout: Duration,
}

/// A request of one prompt, whose first output is known. Dropped, the request is aborted.
pub(super) type Begun = (Output, mpsc::Receiver<Output>);

impl Queue {
    fn send(&self, message: Message) -> Result<(), Problem> {
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Problem::busy(),
            TrySendError::Disconnected(_) => Problem::internal("the engine has gone"),
        })
    }

    /// Hands requests in, and waits until each has begun or is over.
    pub(super) async fn begin(&self, requests: Vec<Request>, prompt: &str) -> Result<Vec<Begun>, Problem> {
        let deadline = Some(self.began.elapsed() + self.timeout);
        let mut streams = Vec::with_capacity(requests.len());
        for request in requests {
            let (sender, receiver) = channel(&request);
            self.send(Message::Submit(Box::new(Request { deadline, ..request }), sender))?;
            streams.push(receiver);
        }
        let mut begun = Vec::with_capacity(streams.len());
        for mut stream in streams {
            match stream.recv().await {
                Some(Output::Done { outcome, .. }) if !matches!(outcome, Outcome::Finished(_)) => {
                    return Err(Problem::of(outcome, prompt));
                }
                Some(output) => begun.push((output, stream)),
                None => return Err(Problem::internal("the engine broke")),
            }
        }
        Ok(begun)
    }

    /// Asks the engine to take no more and to end what it has within `grace`.
    pub(super) async fn shut_down(&self, grace: Duration) {
        let at = self.began.elapsed() + grace;
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Shutdown(at)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// All that comes of requests.
pub(super) async fn finish(begun: Vec<Begun>, prompt: &str, usage: &mut Usage) -> Result<Vec<Finished>, Problem> {
    let mut all = Vec::with_capacity(begun.len());
    for (first, mut stream) in begun {
        let mut next = Some(first);
        let finished = loop {
            match next {
                Some(Output::Done { outcome: Outcome::Finished(finished), .. }) => break finished,
                Some(Output::Done { outcome, .. }) => return Err(Problem::of(outcome, prompt)),
                Some(Output::Started { cached, .. }) => usage.cached += cached,
                Some(Output::Token { .. }) => {}
                None => return Err(Problem::internal("the engine broke")),
            }
            next = stream.recv().await;
        };
        usage.completion += finished.choices.iter().map(|choice| choice.tokens.len()).sum::<usize>();
        all.push(finished);
    }
    Ok(all)
}
