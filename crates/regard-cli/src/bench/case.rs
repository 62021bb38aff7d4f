//! The cases of the benchmark, as data.

use std::error::Error;

use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// The time of a forward pass.
    Forward,
    /// The time of a forward and a backward pass.
    Backward,
    /// The resident memory that a forward pass adds to its inputs and outputs.
    Memory,
    /// The resident memory that a backward pass adds to its inputs and outputs.
    MemoryBackward,
    /// The time of a forward pass of linear attention with one decay for each head.
    Linear,
    /// The same, of the gated delta rule.
    LinearDelta,
    /// The time of a forward pass with facts about every row.
    Inspect,
    /// The resident memory that one adds to its inputs: the output, the facts, and what it works with.
    MemoryInspect,
    /// The time of the maps of a forward pass, by its log-sum-exp: 256 by 256 cells, and what every key receives.
    Maps,
    /// The time of a training step.
    Train,
}

impl Kind {
    /// Of the same passes, their memory; none of maps, linear attention and training.
    pub(super) fn memory(self) -> Option<Kind> {
        match self {
            Kind::Forward | Kind::Memory => Some(Kind::Memory),
            Kind::Backward | Kind::MemoryBackward => Some(Kind::MemoryBackward),
            Kind::Inspect | Kind::MemoryInspect => Some(Kind::MemoryInspect),
            Kind::Maps | Kind::Linear | Kind::LinearDelta | Kind::Train => None,
        }
    }

    /// Whether there is a backward pass.
    pub(super) fn backward(self) -> bool {
        matches!(self, Kind::Backward | Kind::MemoryBackward)
    }
}

/// The number type of queries, keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dtype {
    #[default]
    F32,
    Bf16,
    F16,
}

/// One case; `cases.toml` says what the fields mean.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) sizes: [usize; 6],
    #[serde(default)]
    pub(super) dtype: Dtype,
    #[serde(default)]
    pub(super) causal: bool,
    pub(super) window: Option<u32>,
    pub(super) documents: Option<Vec<u32>>,
    pub(super) blocks: Option<BigBird>,
    pub(super) page: Option<usize>,
    pub(super) lengths: Option<Vec<usize>>,
    pub(super) threads: Option<usize>,
    #[serde(default)]
    pub(super) slow: bool,
    pub(super) versus: Option<String>,
}

/// Blocks of positions that see their neighbours, the first ones, and some at random.
///
/// Source: Zaheer et al. 2020, "Big Bird: Transformers for Longer Sequences", §2.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BigBird {
    pub(super) size: usize,
    pub(super) window: usize,
    pub(super) global: usize,
    pub(super) random: usize,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

impl Case {
    pub(super) fn all() -> Result<Vec<Case>, Box<dyn Error>> {
        Ok(toml::from_str::<Cases>(include_str!("cases.toml"))?.case)
    }
}
