//! Models by name, from a hub that this test serves.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use super::{regard, stderr};

/// A hub of one model, the built-in one, as `tales/story`.
struct Served {
    endpoint: String,
    requests: Arc<AtomicUsize>,
    /// How many bytes of weights are kept back.
    missing: Arc<AtomicUsize>,
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn serve() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut files = HashMap::new();
    let mut siblings = Vec::new();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../regard-story/model")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        files.insert(format!("/tales/story/resolve/{SHA}/{name}"), fs::read(&path).unwrap());
        siblings.push(serde_json::json!({ "rfilename": name }));
    }
    let listing = serde_json::json!({ "sha": SHA, "siblings": siblings }).to_string();
    files.insert("/api/models/tales/story/revision/main".to_owned(), listing.into_bytes());
    let (requests, missing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let served = Served { endpoint, requests: requests.clone(), missing: missing.clone() };
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            let _ = lines.take_while(|line| !line.is_empty()).count();
            requests.fetch_add(1, Ordering::Relaxed);
            let path = first.split(' ').nth(1).unwrap();
            let found = files.get(path);
            let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
            let body = found.map_or(&[][..], Vec::as_slice);
            let kept_back = if path.ends_with("safetensors") { missing.load(Ordering::Relaxed) } else { 0 };
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&body[..body.len() - kept_back]);
        }
    });
    served
}

fn run(hub: &Served, cache: &Path, id: &str) -> Output {
    let arguments = ["run", "A fox met", "--max-tokens", "12", "--seed", "5", "--model", id];
    let mut command = regard();
    command.args(arguments).env("HF_ENDPOINT", &hub.endpoint).env("HF_HUB_CACHE", cache).env_remove("HF_TOKEN");
    command.output().unwrap()
}

fn story() -> Vec<u8> {
    regard().args(["run", "A fox met", "--max-tokens", "12", "--seed", "5"]).output().unwrap().stdout
}

#[test]
fn a_model_is_downloaded_once() {
    let (hub, cache) = (serve(), tempfile::tempdir().unwrap());
    let first = run(&hub, cache.path(), "tales/story");
    assert!(first.status.success() && stderr(&first).contains("downloading tales/story: model.safetensors"), "{}", stderr(&first));
    assert_eq!(first.stdout, story());
    let asked = hub.requests.load(Ordering::Relaxed);
    let again = run(&hub, cache.path(), "tales/story");
    assert_eq!((again.stdout, again.stderr.len(), hub.requests.load(Ordering::Relaxed)), (first.stdout, 0, asked));
}

#[test]
fn a_file_that_ends_early_is_not_kept() {
    let (hub, cache) = (serve(), tempfile::tempdir().unwrap());
    hub.missing.store(100, Ordering::Relaxed);
    let cut = run(&hub, cache.path(), "tales/story");
    let said = stderr(&cut);
    let url = format!("{}/tales/story/resolve/{SHA}/model.safetensors", hub.endpoint);
    assert!(cut.status.code() == Some(1) && said.contains(&format!("cannot download {url}: ")), "{said}");
    let left = || fs::read_dir(cache.path().join(format!("models--tales--story/snapshots/{SHA}"))).unwrap();
    let names: Vec<String> = left().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.contains(&"config.json".to_owned()) && names.iter().all(|name| !name.ends_with("safetensors")), "{names:?}");
    hub.missing.store(0, Ordering::Relaxed);
    let whole = run(&hub, cache.path(), "tales/story");
    assert_eq!((stderr(&whole).lines().count(), whole.stdout), (1, story()), "the rest is downloaded, and nothing twice");
    assert_eq!(left().count(), names.len() + 1, "and nothing else is left");
}

#[test]
fn a_model_that_the_hub_does_not_have_and_a_hub_that_is_not_there_are_errors() {
    let (mut hub, cache) = (serve(), tempfile::tempdir().unwrap());
    let missing = run(&hub, cache.path(), "tales/novel");
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/api/models/tales/novel/revision/main: there is no such model or file (404)"));
    hub.endpoint = "http://127.0.0.1:9".to_owned();
    let nobody = run(&hub, cache.path(), "tales/story");
    assert!(stderr(&nobody).contains("cannot download http://127.0.0.1:9/api/models/tales/story"), "{}", stderr(&nobody));
}
