//! `regard serve`: a model behind the API of OpenAI.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use regard_serve::{Config, Limits, Preemption, Room, Served, Server, Settings};

use crate::place;
use crate::precision::Precision;

/// Serve a model to many clients at once, by the API of OpenAI, with a page to try it at /.
///
/// A decoder answers /v1/completions and, with a chat template, /v1/chat/completions; a BERT-type model answers /v1/embeddings. Each
/// request is a line of JSON on standard error, without its text. Ctrl-C or SIGTERM stops in order, a second one at once.
#[derive(Args)]
pub(crate) struct Serve {
    /// Hugging Face directory or GGUF file of a decoder, or directory of a BERT-type model [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    precision: Precision,
    /// What requests call the model [default: the last part of its path, or "story"]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Interface to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 for any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// What clients must show on every route but /health and /ready [default: REGARD_API_KEY of the environment, if set]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Tokens whose keys and values fit in memory, in each group of layers
    #[arg(long, value_name = "N", default_value_t = Room::default().tokens)]
    kv_tokens: usize,
    /// Tokens in a page
    #[arg(long, value_name = "N", default_value_t = Room::default().page_size)]
    page_size: usize,
    /// Tokens that one step reads at most
    #[arg(long, value_name = "N", default_value_t = Config::default().token_budget)]
    token_budget: usize,
    /// Sequences that run at once
    #[arg(long, value_name = "N", default_value_t = Config::default().max_sequences)]
    max_sequences: usize,
    /// Prompts that may wait for pages; more are turned away with 503
    #[arg(long, value_name = "N", default_value_t = Config::default().max_waiting)]
    max_waiting: usize,
    /// How a request gives up its pages for one that goes before it
    #[arg(long, value_enum, default_value_t = GivingUp::Recompute)]
    preemption: GivingUp,
    /// Keep no pages for requests that begin alike
    #[arg(long)]
    no_prefix_cache: bool,
    /// Requests that are answered at once; more are turned away with 429
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests)]
    max_requests: usize,
    /// Most tokens of a prompt [default: the model's context]
    #[arg(long, value_name = "N")]
    max_prompt_tokens: Option<usize>,
    /// Most tokens to generate for a choice [default: the model's context]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Most choices of a request, returned or drawn, and most beams
    #[arg(long, value_name = "N", default_value_t = Limits::default().n)]
    max_choices: usize,
    /// Tell clients that ask for it what each head read, of so many first tokens of a prompt and its answer: 0 refuses
    #[arg(long, value_name = "TOKENS", default_value_t = Limits::default().attention)]
    attention: usize,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,
    /// Seconds that requests may go on after the server was asked to stop
    #[arg(long, value_name = "S", default_value_t = 30)]
    grace: u64,
    /// Write no line for each request
    #[arg(long)]
    no_log: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum GivingUp {
    /// They are computed again
    Recompute,
    /// They are kept aside
    Swap,
}

impl Serve {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        let served = self.open()?;
        let server = Server::bind(served, self.settings()?)?;
        writeln!(io::stdout(), "serving at http://{}", server.addr())?;
        Ok(server.run()?)
    }

    fn open(&self) -> Result<Served, Box<dyn Error>> {
        let Some(path) = &self.model else {
            return Ok(Served::text(self.name.as_deref().unwrap_or("story"), place::story()?));
        };
        let last = || path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = self.name.clone().or_else(last).unwrap_or_else(|| "model".to_owned());
        Ok(Served::open(name, path, self.precision.get())?)
    }

    fn settings(&self) -> Result<Settings, Box<dyn Error>> {
        Ok(Settings {
            host: self.host.clone(),
            port: self.port,
            api_key: self.api_key()?,
            engine: Config {
                token_budget: self.token_budget,
                max_sequences: self.max_sequences,
                max_waiting: self.max_waiting,
                preemption: match self.preemption {
                    GivingUp::Recompute => Preemption::Recompute,
                    GivingUp::Swap => Preemption::Swap,
                },
                prefix_cache: !self.no_prefix_cache,
                ..Config::default()
            },
            room: Room { page_size: self.page_size, tokens: self.kv_tokens, swap_tokens: self.kv_tokens },
            limits: Limits {
                requests: self.max_requests,
                prompt_tokens: self.max_prompt_tokens.unwrap_or(usize::MAX),
                max_tokens: self.max_tokens.unwrap_or(usize::MAX),
                n: self.max_choices,
                best_of: self.max_choices,
                attention: self.attention,
                ..Limits::default()
            },
            request_timeout: Duration::from_secs(self.timeout),
            grace: Duration::from_secs(self.grace),
            log: !self.no_log,
            ..Settings::default()
        })
    }

    fn api_key(&self) -> Result<Option<String>, Box<dyn Error>> {
        match (&self.api_key, std::env::var("REGARD_API_KEY")) {
            (Some(key), _) => Ok(Some(key.clone())),
            (None, Ok(key)) => Ok(Some(key)),
            (None, Err(std::env::VarError::NotPresent)) => Ok(None),
            (None, Err(error)) => Err(format!("REGARD_API_KEY: {error}").into()),
        }
    }
}
