//! A server over the story model, in this process, and clients that speak HTTP by hand.

mod attention;
mod chat;
mod client;
mod completions;
mod embeddings;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use regard_nn::Model;
use regard_serve::{ServeError, Served, Server, Settings, Stats, Stop};

fn story() -> Model {
    let [config, tokenizer, defaults] = [regard_story::CONFIG, regard_story::TOKENIZER, regard_story::GENERATION_CONFIG];
    Model::from_bytes(config.as_bytes(), regard_story::WEIGHTS, tokenizer.as_bytes(), Some(defaults.as_bytes())).unwrap()
}

fn quiet() -> Settings {
    Settings { port: 0, log: false, ..Settings::default() }
}

/// A running server, which is stopped at the end of the test.
struct Running {
    addr: SocketAddr,
    stop: Stop,
    stats: Arc<dyn Fn() -> Stats>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    fn story() -> Self {
        Self::new(Served::text("story", story()), quiet())
    }

    fn new(served: Served, settings: Settings) -> Self {
        let server = Server::bind(served, settings).unwrap();
        let (addr, stop, stats) = (server.addr(), server.stopper(), Arc::new(server.stats()));
        Self { addr, stop, stats, thread: Some(std::thread::spawn(move || server.run())) }
    }

    /// Waits until `seen` holds of the engine, and tells what did.
    fn until(&self, seen: impl Fn(&Stats) -> bool) -> Stats {
        let began = Instant::now();
        loop {
            let stats = (self.stats)();
            if seen(&stats) {
                return stats;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it never came to that: {stats:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it in order.
    fn end(mut self) -> Result<(), ServeError> {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        self.stop.stop();
    }
}
