//! The report: what `--json` writes and the page reads, "regard-lens/1".
//!
//! One object; arrays of many numbers are base64 of little-endian values. Heads are layer-major: `heads[layer · model.heads + head]`.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use crate::Result;

/// What the format is called.
pub const FORMAT: &str = "regard-lens/1";

/// Everything that was seen of a model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// The model.
    pub model: ModelFacts,
    /// What was done.
    pub run: Run,
    /// The texts.
    pub texts: Vec<TextFacts>,
    /// Every head of every layer.
    pub heads: Vec<Head>,
    /// What the loss becomes without all heads of a layer, of each that was ablated.
    pub layers: Vec<Layer>,
    /// The loss without the heads that matter least, from none of them on; empty where it was not measured.
    pub pruning: Vec<Pruned>,
    /// How much the last row of the first text draws on each token through all layers; null where it was not measured.
    pub through: Option<Through>,
    /// How alike any two heads attend, 0 to 1, `[heads, heads]`, symmetric; see [`clusters`](crate::clusters). In JSON base64 of a byte for each:
    /// `round(255 · similarity)`.
    #[serde(serialize_with = "bytes")]
    pub similarities: Vec<Vec<f64>>,
    /// The positions of the profiles of the first text.
    pub bins: Bins,
    /// The first text's loss in these bins, nats; null where no token of a bin has one.
    pub position_loss: Vec<Option<f64>>,
}

/// A model's name and sizes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelFacts {
    /// What it is called.
    pub name: String,
    /// Its family, as `config.json` names it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Blocks.
    pub layers: usize,
    /// Query heads of each.
    pub heads: usize,
    /// Key and value heads of each.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Most tokens of a text.
    pub context: usize,
    /// Learned numbers.
    pub parameters: usize,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// The attention kernel.
    pub kernel: String,
    /// How long it took.
    pub seconds: f64,
    /// Texts read.
    pub texts: usize,
    /// Tokens of all texts.
    pub tokens: usize,
    /// What "sink" means: so many tokens at the beginning.
    pub first_tokens: usize,
    /// What "recent" means: so many tokens up to the query's own.
    pub recent_tokens: usize,
    /// How many of the largest weights each row names.
    pub top: usize,
    /// A sentence for everything that is sampled or approximate.
    pub labels: Vec<String>,
    /// Ranges of the first text on which the mass of every head is measured.
    pub ranges: Vec<RangeFacts>,
}

/// A named range of tokens of the first text.
#[derive(Clone, Debug, Serialize)]
pub struct RangeFacts {
    /// What it is called.
    pub name: String,
    /// Its first token.
    pub start: usize,
    /// The first token after it.
    pub end: usize,
}

/// A text and how surprising its tokens are.
#[derive(Clone, Debug, Serialize)]
pub struct TextFacts {
    /// What it is called.
    pub name: String,
    /// Its tokens, as one reads them.
    pub tokens: Vec<String>,
    /// Its tokens, as the model reads them; left out where they are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u32>,
    /// The loss of each token given those before it, nats; the first has none.
    pub loss: Vec<Option<f64>>,
}

/// Shares of the rows that have a token before, the largest logit, and what rounding costs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Numerics {
    /// Rows with a weight of at least 0.99: where many have one, softmax saturates, and gradients vanish.
    pub one_hot: f64,
    /// Rows that read all they read alike: their largest weight is at most 0.5, and at most 1.1 of the weight `e^−entropy` that it would then be.
    pub uniform: f64,
    /// The largest logit of all rows of all texts.
    pub peak_logit: f64,
    /// What rounding costs; null where it was not measured.
    pub error: Option<Rounding>,
}

/// How far the outputs of some rows of the first text lie from those in f64, where queries, keys and values are rounded to a type and attention
/// is computed in it: the root mean square of the error, over that of the outputs; null where something is beyond the range of the type.
///
/// It is the error of attention alone, given these queries, keys and values, not that of a model in this type.
///
/// Source: Shah et al. 2024, "FlashAttention-3", §4.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "each is the type of numbers")]
pub struct Rounding {
    pub f32: Option<f64>,
    pub bf16: Option<f64>,
    pub f16: Option<f64>,
}

/// What one head does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Head {
    /// Its layer.
    pub layer: usize,
    /// Its number in the layer.
    pub head: usize,
    /// Means over all rows of all texts.
    pub means: Means,
    /// Whether its softmax saturates.
    pub numerics: Numerics,
    /// What it looks for, 0 to 1 each; null where it was not measured.
    pub scores: HeadScores,
    /// Heads of one cluster attend alike; null where it was not measured.
    pub cluster: Option<usize>,
    /// What the loss becomes without it; null where it was not measured.
    pub ablation: Option<Ablation>,
    /// The mass at distance 0, 1, 2–3, 4–7, …: means over all rows, which sum to 1.
    pub distances: Vec<f64>,
    /// The mass on each range of [`Run::ranges`].
    pub ranges: Vec<RangeMass>,
    /// Profiles along the first text.
    pub by_position: Profiles,
    /// The mean mass that a key of each bin of the first text receives.
    pub received: Vec<f64>,
    /// Maps of the first text, finest first.
    pub maps: Vec<Map>,
    /// Parts of the first text's weights, each computed by itself; see [`Zoom`](crate::Zoom).
    pub zooms: Vec<Zoomed>,
    /// The largest weights of the first text, where it has at most 2,048 tokens.
    pub top: Option<Top>,
}

/// Means over rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Means {
    /// Entropy, nats.
    pub entropy: f64,
    /// The largest weight.
    pub max_weight: f64,
    /// The mass of the first tokens.
    pub sink: f64,
    /// The mass of the query's own token.
    #[serde(rename = "self")]
    pub own: f64,
    /// The mass of the recent tokens.
    pub recent: f64,
    /// The distance, tokens.
    pub distance: f64,
    /// The largest logit.
    pub max_logit: f64,
    /// The log-sum-exp.
    pub lse: f64,
    /// The mass of the text's special tokens, which mark where it begins, ends or is parted; null where no text has any, or they are not known.
    pub special: Option<f64>,
}

/// What a head looks for; see [`scores`](crate::scores).
#[derive(Clone, Debug, Default, Serialize)]
pub struct HeadScores {
    /// The token before.
    pub previous: Option<f64>,
    /// The first token.
    pub first: Option<f64>,
    /// The recent tokens.
    pub local: Option<f64>,
    /// Earlier occurrences of the same token.
    pub duplicate: Option<f64>,
    /// What followed the same token before.
    pub induction: Option<f64>,
    /// The token of a needle that comes next.
    pub retrieval: Option<f64>,
}

/// A layer without its attention.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Which.
    pub layer: usize,
    /// What the loss becomes.
    pub ablation: Ablation,
}

/// The change of the mean loss, nats per token; see [`ablate`](crate::ablate).
#[derive(Clone, Debug, Serialize)]
pub struct Ablation {
    /// When the head, or each of the layer, gives zeros.
    pub zero: f64,
    /// When it gives its mean.
    pub mean: f64,
    /// When it gives in each position what it gives in another.
    pub resample: f64,
}

/// A point of the curve of pruning: what the loss becomes when the heads that matter least give zeros, in the order of
/// [`Ablation::zero`], least first.
///
/// Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", §4.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pruned {
    /// How many heads give zeros.
    pub heads: usize,
    /// The mean loss of all texts, nats per token.
    pub loss: f64,
}

/// How much one row of the last layer draws on each token of the first text: two approximations; see [`rollout`](crate::rollout).
///
/// Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", §§2–3.
#[derive(Clone, Debug, Serialize)]
pub struct Through {
    /// The row: the text's last.
    pub row: usize,
    /// By rollout, of each token; sums to 1.
    pub rollout: Vec<f64>,
    /// By flow, of each token, from 0 to 1: the most that could come from it.
    pub flow: Vec<f64>,
}

/// The mass of a head on a range of the first text's tokens.
#[derive(Clone, Debug, Serialize)]
pub struct RangeMass {
    /// The mean over the rows from the range's last token on, which have all of it before them.
    pub mass: f64,
    /// Of the text's last row, from which the next token is predicted.
    pub last: f64,
}

/// Profiles along the first text: means over the rows of each bin.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "as in `Means`")]
pub struct Profiles {
    pub entropy: Vec<f64>,
    pub sink: Vec<f64>,
    pub recent: Vec<f64>,
    pub distance: Vec<f64>,
    pub max_weight: Vec<f64>,
}

/// A pooled map of weights.
#[derive(Clone, Debug, Serialize)]
pub struct Map {
    /// Tokens on the edge of a cell.
    pub block: usize,
    /// Rows of cells.
    pub rows: usize,
    /// Columns of cells.
    pub columns: usize,
    /// Base64 of a byte for each cell: `round(255 · √mass)`, of the mean over the cell's rows of the mass of its keys.
    pub data: String,
}

/// A part of a head's weights on the first text.
#[derive(Clone, Debug, Serialize)]
pub struct Zoomed {
    /// Its first row, and the first after it.
    pub rows: [usize; 2],
    /// Its first key, and the first after it.
    pub keys: [usize; 2],
    /// The weights, pooled where there are more than 256 rows or keys.
    pub map: Map,
}

/// The largest weights of every row.
#[derive(Clone, Debug, Serialize)]
pub struct Top {
    /// Base64 of u32, `[tokens, top]`; 4294967295 where a row sees fewer keys.
    pub keys: String,
    /// Base64 of f32, `[tokens, top]`.
    pub weights: String,
}

/// Positions of a profile.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bins {
    /// How many there are.
    pub count: usize,
    /// Positions of each but the last.
    pub width: usize,
}

/// Bytes that a report may take, so that a browser opens it at once.
pub const MOST_BYTES: usize = 19 << 20;

impl Report {
    /// Of nothing.
    pub(crate) fn empty() -> Self {
        Report { format: FORMAT, ..Report::default() }
    }

    /// The report as JSON, of at most [`MOST_BYTES`] where that can be; see [`json_within`](Self::json_within).
    ///
    /// # Errors
    /// When the library refuses, which it has no reason to.
    pub fn json(&self) -> Result<String> {
        self.json_within(MOST_BYTES)
    }

    /// The report as JSON, of at most so many bytes where that can be: the largest weights and the similarities are left out first,
    /// then coarse maps; then a coarser map stands for the finest. Zooms are kept.
    ///
    /// # Errors
    /// When the library refuses, which it has no reason to.
    pub fn json_within(&self, most: usize) -> Result<String> {
        let mut text = serde_json::to_string(self)?;
        let mut levels = 0..usize::MAX;
        while text.len() > most {
            let mut smaller = self.clone();
            smaller.heads.iter_mut().for_each(|head| head.keep(&levels));
            smaller.similarities.clear();
            text = serde_json::to_string(&smaller)?;
            if !self.heads.iter().any(|head| head.maps.len() > levels.start + 1) {
                break;
            }
            levels = if levels.end == usize::MAX { 0..1 } else { levels.start + 1..levels.end + 1 };
        }
        Ok(text)
    }
}

impl Head {
    /// Leaves out the largest weights, and all maps but those of some levels.
    fn keep(&mut self, levels: &Range<usize>) {
        self.top = None;
        self.maps = self.maps.drain(..).enumerate().filter(|(level, _)| levels.contains(level)).map(|(_, map)| map).collect();
    }
}

/// Shares as base64 of a byte each.
fn bytes<S: Serializer>(rows: &[Vec<f64>], to: S) -> std::result::Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = rows.iter().flatten().map(|share| (255.0 * share.clamp(0.0, 1.0)).round() as u8).collect();
    to.serialize_str(&STANDARD.encode(bytes))
}

/// A number of a report, to six digits: more would say what f32 does not.
pub(crate) fn short(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return if x.is_finite() { x } else { 0.0 };
    }
    format!("{x:.5e}").parse().unwrap_or(x)
}
