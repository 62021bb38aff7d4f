//! `regard embed`: texts to vectors, one line of JSON for each.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use regard_nn::{Embedder, Pooling};
use serde::Serialize;

use crate::place;
use crate::precision::Precision;

/// Turn texts into vectors that are close where the texts mean the same, by a BERT-type model.
///
/// Texts come from the command line, or line by line from standard input. Each becomes one line of standard output: an array of
/// numbers. Texts longer than the model reads are cut.
#[derive(Args)]
pub(crate) struct Embed {
    /// Texts [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Hugging Face or sentence-transformers directory, or org/name on the hub, of a BERT-type model
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: Precision,
    /// How the states of a text's tokens become one vector [default: the model's, else mean]
    #[arg(long, value_enum)]
    pooling: Option<Pool>,
    /// Leave the length of the vectors as it is [default: 1, unless the model's files say otherwise]
    #[arg(long)]
    no_normalize: bool,
    /// Print an object with text, number of tokens and embedding for each text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pool {
    /// The mean of all tokens
    Mean,
    /// The first token, [CLS]
    Cls,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Embedded<'a> {
    text: &'a str,
    tokens: usize,
    embedding: &'a [f32],
}

impl Embed {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        let embedder = Embedder::open_in(&place::path(&self.model)?, self.precision.get())?;
        let embedder = if self.no_normalize { embedder.normalized(false) } else { embedder };
        for text in &self.texts {
            self.print(&embedder, text)?;
        }
        if self.texts.is_empty() {
            for (number, line) in io::stdin().lock().split(b'\n').enumerate() {
                let line = String::from_utf8(line?).map_err(|_| format!("line {} of standard input is not UTF-8", number + 1))?;
                self.print(&embedder, line.strip_suffix('\r').unwrap_or(&line))?;
            }
        }
        Ok(())
    }

    fn print(&self, embedder: &Embedder, text: &str) -> Result<(), Box<dyn Error>> {
        let tokens = embedder.tokens(text)?;
        let embedding = embedder.embed_tokens(&tokens, self.pooling(embedder))?;
        let line = match self.json {
            true => serde_json::to_string(&Embedded { text, tokens: tokens.len(), embedding: &embedding })?,
            false => serde_json::to_string(&embedding)?,
        };
        Ok(writeln!(io::stdout(), "{line}")?)
    }

    fn pooling(&self, embedder: &Embedder) -> Pooling {
        match self.pooling {
            Some(Pool::Mean) => Pooling::Mean,
            Some(Pool::Cls) => Pooling::Cls,
            None => embedder.pooling(),
        }
    }
}
