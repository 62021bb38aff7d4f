//! The server: HTTP as a shell around the engine.
//!
//! ```text
//!   connection ──▶ door ──▶ routes ──▶ a request's fields ──▶ Queue ──▶ the engine's thread
//!                                                               │            │
//!   client ◀── Reply ◀── JSON, whole or in events ◀── outputs ◀─┴────────────┘
//! ```

mod ask;
mod attention;
mod chat;
mod completions;
mod connect;
mod door;
mod drive;
mod embeddings;
mod fields;
mod likely;
mod log;
mod metrics;
mod problem;
mod queue;
mod reply;
mod routes;
mod served;
mod settings;
mod tokens;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{Notify, Semaphore, oneshot};

use self::door::Key;
use self::drive::Drive;
use self::fields::Fields;
use self::metrics::Metrics;
use self::problem::Problem;
use self::queue::Queue;
pub use self::served::Served;
use self::served::{Kind, Text};
pub use self::settings::{Limits, Settings};
use crate::{Config, Error, RunnerError, Stats};

/// Why a server does not start, or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named in the messages")]
pub enum ServeError {
    /// A setting that cannot be used.
    #[error("{what} is {given} and must be {needed}")]
    Setting { what: &'static str, given: String, needed: &'static str },
    /// The address cannot be had.
    #[error("cannot listen on {host}:{port}: {source}")]
    Listen { host: String, port: u16, source: std::io::Error },
    /// A setting of the engine.
    #[error(transparent)]
    Engine(#[from] Error),
    /// A model that cannot be served.
    #[error("{0}")]
    Model(RunnerError),
    /// The system gives no thread, no randomness or no signals.
    #[error("the server cannot start: {0}")]
    System(String),
}

/// What all connections share.
struct State {
    settings: Settings,
    served: Arc<Served>,
    queue: Option<Queue>,
    metrics: Arc<Metrics>,
    /// For the requests that are answered at once.
    permits: Arc<Semaphore>,
    attention: attention::Room,
    key: Option<Key>,
    addr: SocketAddr,
    /// When the model was loaded, in seconds since 1970.
    created: u64,
    stopping: AtomicBool,
}

/// A server whose address is taken and whose model is loaded.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    stop: Stop,
}

/// Asks a server to stop, as a signal would: the first time in order, the second time at once.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Asks.
    pub fn stop(&self) {
        self.0.notify_one();
    }
}

/// Messages that the engine has not seen yet.
const MESSAGES: usize = 1024;

impl Server {
    /// Takes the address and lays out the pages of the model.
    ///
    /// # Errors
    /// With the setting at fault; when the address is not to be had; when the model cannot be served, or there is no memory for its pages.
    pub fn bind(served: Served, settings: Settings) -> Result<Self, ServeError> {
        settings.validate()?;
        let (listener, addr) = listen(&settings)?;
        let (served, metrics) = (Arc::new(served), Arc::new(Metrics::default()));
        let key = settings.api_key.as_deref().map(|key| Key::new(key, random()?)).transpose()?;
        let (queue, thread) = match &served.kind {
            Kind::Embedder(_) if settings.limits.attention > 0 => {
                let needed = "0: an encoder writes no text whose attention could be told";
                return Err(ServeError::Setting { what: "limits.attention", given: settings.limits.attention.to_string(), needed });
            }
            Kind::Embedder(_) => (None, None),
            Kind::Text(_) => start(&served, &settings, &metrics)?,
        };
        let permits = Arc::new(Semaphore::new(settings.limits.requests));
        let (created, stopping) = (log::seconds() as u64, AtomicBool::new(false));
        let attention = attention::Room::default();
        let state = Arc::new(State { settings, served, queue, metrics, permits, attention, key, addr, created, stopping });
        Ok(Self { listener, state, thread, stop: Stop(Arc::new(Notify::new())) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.state.addr
    }

    /// What stops it.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// What its engine holds and did, from the last step on; kept after the server has gone.
    pub fn stats(&self) -> impl Fn() -> Stats + Send + Sync + 'static {
        let metrics = Arc::clone(&self.state.metrics);
        move || *metrics.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers until it is asked to stop, by [`Stop`], SIGTERM or SIGINT. Then it takes no more connections, finishes what it has, or
    /// ends it when [`Settings::grace`] is over or it is asked again.
    ///
    /// # Errors
    /// When the system does not give what a server needs.
    pub fn run(self) -> Result<(), ServeError> {
        let system = |error: std::io::Error| ServeError::System(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build().map_err(system)?;
        let done = runtime.block_on(connect::serve(self.listener, Arc::clone(&self.state), self.stop.0)).map_err(system);
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        drop(self.state);
        if let Some(thread) = self.thread.filter(JoinHandle::is_finished) {
            let _ = thread.join(); // its faults are counted
        }
        done
    }
}

fn listen(settings: &Settings) -> Result<(TcpListener, SocketAddr), ServeError> {
    let Settings { host, port, .. } = settings;
    let failed = |source| ServeError::Listen { host: host.clone(), port: *port, source };
    let addresses: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs().map_err(failed)?.collect();
    let listener = TcpListener::bind(&*addresses).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

fn random() -> Result<[u8; 16], ServeError> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|error| ServeError::System(error.to_string()))?;
    Ok(secret)
}

type Started = (Option<Queue>, Option<JoinHandle<()>>);

/// The engine's thread, once it has its pages.
fn start(served: &Arc<Served>, settings: &Settings, metrics: &Arc<Metrics>) -> Result<Started, ServeError> {
    let (sender, messages) = sync_channel(MESSAGES);
    let (ready, loaded) = oneshot::channel();
    let began = Instant::now();
    let config = Config { secret: random()?, ..settings.engine };
    let drive = Drive { served: Arc::clone(served), config, room: settings.room, messages, metrics: Arc::clone(metrics), began };
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || drive.run(ready))
        .map_err(|error| ServeError::System(error.to_string()))?;
    match loaded.blocking_recv() {
        Ok(Ok(())) => Ok((Some(Queue { sender, began, timeout: settings.request_timeout }), Some(thread))),
        Ok(Err(error)) => Err(match error.downcast::<Error>() {
            Ok(setting) => ServeError::Engine(*setting),
            Err(error) => ServeError::Model(error),
        }),
        Err(_) => Err(ServeError::System("the engine's thread ended".to_owned())),
    }
}

impl State {
    /// The language model.
    fn text(&self) -> Result<&Text, Problem> {
        match &self.served.kind {
            Kind::Text(text) => Ok(text),
            Kind::Embedder(_) => {
                Err(self.other_kind("an encoder, which embeds texts and does not continue them: ask /v1/embeddings"))
            }
        }
    }

    fn other_kind(&self, what: &str) -> Problem {
        Problem::unsupported("model", format!("the model {} is {what}", self.served.name))
    }

    fn queue(&self) -> Result<&Queue, Problem> {
        self.queue.as_ref().ok_or_else(|| Problem::internal("there is no engine"))
    }

    /// Whether the model that is asked for is the one that is served.
    fn check_model(&self, fields: &mut Fields) -> Result<(), Problem> {
        match fields.text("model")? {
            Some(name) if name != self.served.name => Err(self.no_such_model()),
            _ => Ok(()),
        }
    }

    fn no_such_model(&self) -> Problem {
        let message = format!("model is not {:?}, the one that is served here", self.served.name);
        Problem { status: hyper::StatusCode::NOT_FOUND, code: Some("model_not_found"), ..Problem::field("model", message) }
    }
}

/// Runs what computes for a while beside the loop that waits on connections. A fault in it is this request's alone.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Problem::internal(error.to_string())))
}
