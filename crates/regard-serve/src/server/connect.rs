//! Connections: accepted until the server is asked to stop, then given time to end.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::{State, log, routes};

/// What is left, after the grace, for answers to reach their clients.
const LAST: Duration = Duration::from_secs(1);

/// Serves until asked to stop, and once more until nothing is left.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, stop: Arc<Notify>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut signals = Signals::listen()?;
    let most = state.settings.limits.connections as u32;
    let connections = Arc::new(Semaphore::new(most as usize));
    let (closing, closes) = watch::channel(false);
    loop {
        let next = async {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = stop.notified() => break,
            () = signals.next() => break,
        };
        match (accepted, permit) {
            (Ok((stream, _)), Ok(permit)) => drop(tokio::spawn(connection(stream, Arc::clone(&state), closes.clone(), permit))),
            (Err(error), _) => {
                log::write(&json!({ "time": log::seconds(), "accept": error.to_string() }));
                tokio::time::sleep(Duration::from_millis(50)).await; // such as no file descriptors left: they come back
            }
            (_, Err(_)) => break,
        }
    }
    drop(listener);
    state.stopping.store(true, Ordering::Relaxed);
    let _ = closing.send(true); // fails without connections
    let grace = state.settings.grace;
    if let Some(queue) = &state.queue {
        queue.shut_down(grace).await;
    }
    let ended = connections.acquire_many(most);
    tokio::pin!(ended);
    tokio::select! {
        _ = tokio::time::timeout(grace + LAST, &mut ended) => return Ok(()),
        () = stop.notified() => {}
        () = signals.next() => {}
    }
    if let Some(queue) = &state.queue {
        queue.shut_down(Duration::ZERO).await;
    }
    let _ = tokio::time::timeout(LAST, ended).await; // those that are left are cut off
    Ok(())
}

/// One connection, with one request after another.
async fn connection(stream: TcpStream, state: Arc<State>, mut closing: watch::Receiver<bool>, _permit: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true); // tokens go out as they come; without it they go out a little later
    let settings = &state.settings;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(settings.read_timeout)
        .max_headers(settings.limits.headers)
        .max_buf_size(settings.limits.head);
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(routes::answer(state, request).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        done = connection.as_mut() => done,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(ended); // a client that left, was too slow or spoke no HTTP
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await; // the sender goes after the last connection
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
