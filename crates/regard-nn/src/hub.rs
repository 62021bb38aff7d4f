//! Models by their names on the Hugging Face hub, downloaded once into the cache that Python's huggingface_hub uses.
//!
//! ```text
//!   CACHE/models--org--name/refs/main             the commit
//!   CACHE/models--org--name/snapshots/COMMIT/…    its files
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::weights::{read_file, shard_names};
use crate::{Error, Result};

/// A hub, and where its models are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
}

/// What the hub says of a model.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Files beside the weights.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const WELCOME: [&str; 7] = [
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
];
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Hub {
    /// The hub at `endpoint`, whose models are kept in the folder `cache`.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into().trim_end_matches('/').to_owned(), cache: cache.into(), token: None }
    }

    /// By the variables of Python's huggingface_hub: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME` and `HF_TOKEN`.
    ///
    /// # Errors
    /// When none of `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` and `HOME` says where to keep models.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = var("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache")));
        let home = var("HF_HOME").map(PathBuf::from).or_else(|| Some(home?.join("huggingface")));
        let cache = var("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub"))).ok_or(Error::NoHubCache)?;
        Ok(Self {
            token: var("HF_TOKEN"),
            ..Self::new(var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()), cache)
        })
    }

    /// The folder of a model, `org/name`. What is there is used as it is, without a look at the hub; what is missing is downloaded, and
    /// `listener` told the name of each file first.
    ///
    /// # Errors
    /// With the address: when the hub has no such model or file, cannot be reached, or a file ends early; or when a file cannot be
    /// written.
    pub fn fetch(&self, id: &str, listener: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let home = self.cache.join(format!("models--{}", id.replace('/', "--")));
        let (commit, snapshots) = (home.join("refs/main"), home.join("snapshots"));
        if let Ok(sha) = fs::read_to_string(&commit)
            && let Some(dir) = snapshot(&snapshots, sha.trim()).filter(|dir| is_whole(dir))
        {
            return Ok(dir);
        }
        let url = format!("{}/api/models/{id}/revision/main", self.endpoint);
        let failed = |reason: String| Error::Hub { url: url.clone(), reason };
        let text = self.get(&url)?.body_mut().read_to_string().map_err(|e| failed(e.to_string()))?;
        let Listing { sha, siblings } = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
        let dir = snapshot(&snapshots, &sha).ok_or_else(|| failed(format!("the commit is {sha:?}, which is not hexadecimal")))?;
        let names: Vec<&str> = siblings.iter().map(|sibling| &*sibling.rfilename).collect();
        for name in NEEDED.iter().chain(WELCOME.iter().filter(|name| names.contains(name))) {
            self.download(id, &sha, name, &dir, listener)?;
        }
        if names.contains(&WHOLE) || !names.contains(&INDEX) {
            self.download(id, &sha, WHOLE, &dir, listener)?;
        } else {
            self.download(id, &sha, INDEX, &dir, listener)?;
            for name in shards(&dir)? {
                self.download(id, &sha, &name, &dir, listener)?;
            }
        }
        write(&commit, |file| file.write_all(sha.as_bytes()))?;
        Ok(dir)
    }

    /// Brings one file, unless it is there. A file has its name only when it is whole.
    fn download(&self, id: &str, sha: &str, name: &str, dir: &Path, listener: &mut dyn FnMut(&str)) -> Result<()> {
        let path = dir.join(name);
        if path.exists() {
            return Ok(());
        }
        listener(name);
        let url = format!("{}/{id}/resolve/{sha}/{name}", self.endpoint);
        let mut response = self.get(&url)?;
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let mut broken = None;
        write(&path, |file| {
            let copied = io::copy(&mut response.body_mut().as_reader(), file);
            broken = match (copied, length) {
                (Err(error), _) => Some(error.to_string()),
                (Ok(got), Some(length)) if got != length => Some(format!("it ended after {got} of {length} bytes")),
                _ => return Ok(()),
            };
            Err(io::ErrorKind::UnexpectedEof.into())
        })
        .map_err(|error| broken.map_or(error, |reason| Error::Hub { url, reason }))
    }

    fn get(&self, url: &str) -> Result<ureq::http::Response<ureq::Body>> {
        let failed = |error: ureq::Error| {
            let reason = match error {
                ureq::Error::StatusCode(404) => "there is no such model or file (404): check the name".to_owned(),
                ureq::Error::StatusCode(status @ (401 | 403)) => {
                    format!("the hub refuses it ({status}): check the name, or set HF_TOKEN to a token that may read it")
                }
                other => other.to_string(),
            };
            Error::Hub { url: url.to_owned(), reason }
        };
        let config = ureq::Agent::config_builder().timeout_connect(Some(Duration::from_secs(30)));
        let agent: ureq::Agent = config.timeout_recv_response(Some(Duration::from_secs(60))).build().into();
        let request = agent.get(url);
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        request.call().map_err(failed)
    }
}

/// The folder of a commit, if it is one.
fn snapshot(snapshots: &Path, sha: &str) -> Option<PathBuf> {
    (!sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| snapshots.join(sha))
}

/// Whether a folder has all that a model needs.
fn is_whole(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).exists();
    NEEDED.iter().all(|name| has(name)) && (has(WHOLE) || shards(dir).is_ok_and(|names| names.iter().all(|name| has(name))))
}

fn shards(dir: &Path) -> Result<Vec<String>> {
    let path = dir.join(INDEX);
    shard_names(&String::from_utf8_lossy(&read_file(&path)?)).map_err(|e| e.within(path))
}

/// Writes a file beside its place, and moves it there when it is whole.
fn write(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut part = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fill(part.as_file_mut()).map_err(failed)?;
    part.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
