//! Texts to vectors: an encoder with its tokenizer, and one vector of the states of all tokens.

mod layout;

use std::path::Path;

use serde_json::Value;

use self::layout::Layout;
use crate::encoder::load;
use crate::files::Files;
use crate::parts::add;
use crate::weights::read_file;
use crate::{Encoder, EncoderConfig, Error, Precision, Result, Tokenizer};

/// How the states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, those of the marks at both ends among them.
    Mean,
    /// The state of the first token, `[CLS]`.
    Cls,
}

/// An encoder with its tokenizer: text in, one vector out.
///
/// ```no_run
/// use regard_nn::Embedder;
///
/// let embedder = Embedder::open("all-MiniLM-L6-v2".as_ref())?;
/// let embed = |text| embedder.embed(text, embedder.pooling());
/// let (king, queen) = (embed("The king is old.")?, embed("The queen is young.")?);
/// let cosine: f32 = king.iter().zip(&queen).map(|(a, b)| a * b).sum();
/// # Ok::<(), regard_nn::Error>(())
/// ```
///
/// Source: Reimers & Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", §3.
#[derive(Debug)]
pub struct Embedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    pooling: Pooling,
    normalized: bool,
    /// Whether texts are made lower case before the tokenizer sees them.
    lowercase: bool,
}

impl Embedder {
    /// As [`Embedder::open_in`], with the weights as they are in the files.
    ///
    /// # Errors
    /// As [`Embedder::open_in`].
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_in(dir, None)
    }

    /// Reads a Hugging Face directory: `config.json`, `model.safetensors` or its shards, `tokenizer.json`; and what
    /// sentence-transformers puts beside them, if there: `modules.json` with the pooling and the normalisation it lists, and
    /// `sentence_bert_config.json`. Where there is no `modules.json`, vectors are normalised means. The weights are used in
    /// `precision`, if one is given.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, another kind of model, a module or a pooling that is not supported,
    /// impossible sizes, damaged weights, a tokenizer that does not fit.
    pub fn open_in(dir: &Path, precision: Option<Precision>) -> Result<Self> {
        let Layout { root, pooling, normalized, max_tokens, lowercase } = Layout::read(dir)?;
        let files = Files::open(&root)?;
        let config = files.config(EncoderConfig::from_json)?;
        let tokenizer = files.tokenizer(config.vocab_size)?;
        let most = max_tokens.unwrap_or(usize::MAX).min(config.max_position_embeddings);
        let tokenizer = tokenizer.cut_at(most).map_err(|e| e.within(&root))?;
        let encoder = files.weights(precision, |checkpoint| load::load(config, checkpoint))?;
        Ok(Self { encoder, tokenizer, pooling, normalized, lowercase })
    }

    /// Whether a directory is that of an embedder: sentence-transformers', or of a model of BERT's kind.
    pub fn is_at(dir: &Path) -> bool {
        let config = || serde_json::from_slice::<Value>(&read_file(&dir.join("config.json")).ok()?).ok();
        dir.join("modules.json").exists() || config().is_some_and(|config| config["model_type"] == "bert")
    }

    /// The same, with vectors of length 1 or as they come.
    #[must_use]
    pub fn normalized(self, normalized: bool) -> Self {
        Self { normalized, ..self }
    }

    /// Whether vectors have length 1.
    pub fn is_normalized(&self) -> bool {
        self.normalized
    }

    /// The pooling that the model was trained with, as its files say; else the mean.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The transformer.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The tokens of a text, with the marks around them. A text longer than the model reads is cut: the marks stay.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        if self.lowercase { self.tokenizer.encode(&text.to_lowercase()) } else { self.tokenizer.encode(text) }
    }

    /// The vector of a text, `[hidden_size]`.
    ///
    /// # Errors
    /// When the tokenizer refuses the text or gives no tokens for it, or the weights are damaged.
    pub fn embed(&self, text: &str, pooling: Pooling) -> Result<Vec<f32>> {
        self.embed_tokens(&self.tokens(text)?, pooling)
    }

    /// As [`Embedder::embed`], of tokens with their marks.
    ///
    /// # Errors
    /// As [`Encoder::hidden`], or when the weights are damaged.
    pub fn embed_tokens(&self, tokens: &[u32], pooling: Pooling) -> Result<Vec<f32>> {
        let mut vector = pooling.apply(self.encoder.hidden(tokens, &[])?, tokens.len());
        if self.normalized {
            normalize(&mut vector);
        }
        match vector.iter().find(|x| !x.is_finite()) {
            Some(&x) => {
                let needed = "finite: the weights are damaged, or diverged in training";
                Err(Error::Value { what: "an element of the embedding", given: x.into(), needed })
            }
            None => Ok(vector),
        }
    }
}

impl Pooling {
    /// States `[tokens, hidden]` to `[hidden]`.
    fn apply(self, mut states: Vec<f32>, tokens: usize) -> Vec<f32> {
        let hidden = states.len() / tokens;
        if self == Pooling::Mean {
            let (sum, others) = states.split_at_mut(hidden);
            others.chunks(hidden).for_each(|state| add(sum, state));
            sum.iter_mut().for_each(|x| *x /= tokens as f32);
        }
        states.truncate(hidden);
        states
    }
}

/// `x / max(|x|, 10⁻¹²)`, in place.
fn normalize(x: &mut [f32]) {
    let length = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
    x.iter_mut().for_each(|x| *x /= length);
}
