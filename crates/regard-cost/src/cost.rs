//! All figures together.

use serde::Serialize;

use crate::chip::{Chip, PassTime};
use crate::memory::{KvCache, Memory, Scores, Training};
use crate::pass::{Pass, attention_flops};
use crate::{Count, Dtype, Error, Parameters, Question, Result, Shape};

/// What a model costs. Sizes are in bytes, work in operations and times in nanoseconds, all of them integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// The model.
    pub model: Shape,
    /// Tokens of each sequence.
    pub length: u64,
    /// Sequences.
    pub batch: u64,
    /// The type of weights, activations, keys and values.
    pub dtype: Dtype,
    /// What it has learned.
    pub parameters: Parameters,
    /// The matrices that a fused kernel never writes.
    pub scores: Scores,
    /// What decoding goes back to; none for a model that does not write.
    pub kv_cache: Option<KvCache>,
    /// What running it needs.
    pub memory: Memory,
    /// All tokens from the first, and the logits of the last.
    pub prefill: Pass,
    /// One more token of each sequence, which sees `length` tokens, itself among them; none for a model that does not write.
    pub decode: Option<Pass>,
    /// What training it needs, where that was asked for.
    pub training: Option<Training>,
    /// From where on attention costs more than the rest.
    pub crossover: Crossover,
    /// What fits the memory, where that is known.
    pub fits: Option<Fits>,
    /// The least times on a chip, where one was given.
    pub time: Option<Time>,
}

/// Lengths from which on attention costs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Crossover {
    /// The first at which the operations of attention, [`Pass::attention`], are more than those of the feed-forward layers; none where
    /// windows keep them below, or only beyond 2⁴⁰.
    pub feed_forward: Option<u64>,
    /// The first at which one product of scores, n²d, has more than one projection, nd²: `d + 1`.
    ///
    /// Source: Vaswani et al. 2017, "Attention Is All You Need", §4.
    pub width: u64,
}

/// What fits a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fits {
    /// Bytes that there are.
    pub memory: u64,
    /// The most sequences of `length` that [`Memory::total`] or, for training, [`Training::total`] is within; 0 where one is too many.
    pub batch: Count,
}

/// The least times on a chip: see [`Chip::time`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Time {
    /// The chip.
    pub chip: Chip,
    /// Of the prefill.
    pub prefill: PassTime,
    /// Of one step of decoding.
    pub decode: Option<PassTime>,
    /// Of the passes of a training step.
    pub training: Option<StepTime>,
}

/// The least times of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepTime {
    /// The forward pass.
    pub forward: PassTime,
    /// The backward pass.
    pub backward: PassTime,
    /// Nanoseconds of the update.
    pub update_ns: Count,
    /// Of all.
    pub total_ns: Count,
}

impl Cost {
    /// What a model costs, and how long it takes on a chip, if one is given.
    ///
    /// # Errors
    /// When the length or the batch is zero, or a figure cannot be counted in 128 bits.
    pub fn of(shape: &Shape, ask: &Question, chip: Option<&Chip>) -> Result<Cost> {
        for (argument, given) in [("length", ask.length), ("batch", ask.batch)] {
            if given == 0 {
                return Err(Error::Zero { argument });
            }
        }
        let (prefill, decode) = (shape.forward(ask, 1), shape.causal.then(|| shape.decode(ask)));
        let training = ask.train.then(|| shape.training(ask));
        let time = chip.map(|chip| Time::of(chip, ask.dtype, &prefill, decode.as_ref(), training.as_ref()));
        let cost = Cost {
            model: shape.clone(),
            length: ask.length,
            batch: ask.batch,
            dtype: ask.dtype,
            parameters: shape.parameters(),
            scores: shape.scores(ask),
            kv_cache: shape.kv_cache(ask),
            memory: shape.memory(ask),
            prefill,
            decode,
            training,
            crossover: shape.crossover(),
            fits: ask.memory.or(chip.and_then(|chip| chip.memory)).map(|memory| shape.fits(ask, memory)),
            time,
        };
        cost.counted()
    }

    /// Refuses what was too large to be counted: each of these sums is, where a figure in it is.
    fn counted(self) -> Result<Cost> {
        let pass = |pass: &Pass| [pass.total.flops, pass.total.bytes];
        let mut sums = vec![
            ("parameters", self.parameters.total),
            ("scores", self.scores.traffic.max(self.scores.fused)),
            ("memory", self.memory.materialised),
        ];
        sums.extend(self.kv_cache.map(|cache| ("kv_cache", cache.without_windows + cache.per_token_of_all_heads)));
        sums.extend(pass(&self.prefill).map(|sum| ("prefill", sum)));
        sums.extend(self.decode.iter().flat_map(|decode| pass(decode).map(|sum| ("decode", sum))));
        if let Some(training) = &self.training {
            sums.push(("training", training.materialised + training.update.bytes));
            sums.extend([pass(&training.forward), pass(&training.backward)].concat().into_iter().map(|sum| ("training", sum)));
        }
        if let Some(time) = &self.time {
            let decode = time.decode.map_or(Count::ZERO, |decode| decode.total_ns);
            let training = time.training.map_or(Count::ZERO, |training| training.total_ns);
            sums.push(("time", time.prefill.total_ns + decode + training));
        }
        match sums.into_iter().find(|(_, sum)| *sum == Count::TOO_LARGE) {
            Some((figure, _)) => Err(Error::TooLarge { figure, length: self.length, batch: self.batch }),
            None => Ok(self),
        }
    }
}

impl Time {
    fn of(chip: &Chip, dtype: Dtype, prefill: &Pass, decode: Option<&Pass>, training: Option<&Training>) -> Time {
        let time = |pass: &Pass| chip.time(pass, dtype);
        let step = |training: &Training| {
            let (forward, backward) = (time(&training.forward), time(&training.backward));
            let update_ns = chip.move_ns(training.update.bytes);
            StepTime { forward, backward, update_ns, total_ns: forward.total_ns + backward.total_ns + update_ns }
        };
        Time { chip: chip.clone(), prefill: time(prefill), decode: decode.map(time), training: training.map(step) }
    }
}

/// The longest text for which a crossover is looked for.
const LONGEST: u64 = 1 << 40;

impl Shape {
    fn crossover(&self) -> Crossover {
        let a = &self.attention;
        let per_pair = a.query_heads * attention_flops(a.head_dim, a.value_dim, false);
        let ask = Question { length: 1, batch: 1, dtype: Dtype::F32, train: false, memory: None };
        let per_token = self.forward(&ask, 1).feed_forward.flops;
        let attention = |n| self.layers.iter().map(|layer| layer.pairs(n, self.causal)).sum::<Count>() * per_pair;
        // Seen keys per token grow with the length, or stay.
        Crossover {
            feed_forward: first(|n| attention(n) > per_token * n),
            width: self.hidden_size + 1, // n²d > nd²
        }
    }

    fn fits(&self, ask: &Question, memory: u64) -> Fits {
        let one = Question { batch: 1, ..*ask };
        let (fixed, each) = match ask.train {
            true => {
                let training = self.training(&one);
                (training.total.less(training.activations), training.activations)
            }
            false => {
                let memory = self.memory(&one);
                (memory.weights, memory.kv_cache + memory.activations)
            }
        };
        let batch = Count::from(memory).less(fixed).times_it_holds(each).unwrap_or_default();
        Fits { memory, batch }
    }
}

/// The first length at which something holds that holds from there on.
fn first(holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(LONGEST) {
        return None;
    }
    let (mut not, mut does) = (0, LONGEST);
    while does - not > 1 {
        let middle = not + (does - not) / 2;
        if holds(middle) { does = middle } else { not = middle }
    }
    Some(does)
}
