//! Cases: the sizes, values and layouts that a kernel is put through, each the same on every machine.

use std::fmt;

use regard_core::{Dropout, Element, Shape};

use crate::array::Array;
use crate::layout::{Layout, Stored};
use crate::rng::Rng;

/// What the queries and keys are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Standard normal: scores of order 1.
    Normal,
    /// Eight times standard normal: scores of order 64, one key takes nearly everything.
    Large,
    /// Keys grow with their position, so that the largest score so far keeps rising.
    Growing,
    /// The first keys are the largest, so that everything later is nearly zero.
    Falling,
    /// All zeros: every weight is the same.
    Zero,
}

impl Values {
    /// Every kind.
    pub const ALL: [Values; 5] = [Values::Normal, Values::Large, Values::Growing, Values::Falling, Values::Zero];

    /// What multiplies a standard normal at position `l` of `len`.
    fn factor(self, l: usize, len: usize) -> f64 {
        let along = (l + 1) as f64 / len as f64;
        match self {
            Values::Normal => 1.0,
            Values::Large => 8.0,
            Values::Growing => 16.0 * along,
            Values::Falling => 16.0 * (1.0 - along),
            Values::Zero => 0.0,
        }
    }
}

/// One attention problem without its mask and score: sizes, values, layout, sinks and dropout.
#[derive(Clone, Debug)]
pub struct Case {
    /// Seed of every tensor of the case.
    pub seed: u64,
    /// Sizes.
    pub shape: Shape,
    /// Layout of every tensor of the case.
    pub layout: Layout,
    /// What the queries and keys are like.
    pub values: Values,
    /// Whether the heads have sinks.
    pub sinks: bool,
    /// Probability of dropping a weight.
    pub dropout: f32,
}

/// The tensors of a [`Case`], as a kernel receives them.
#[derive(Clone, Debug)]
pub struct Inputs<T> {
    /// Queries `[batch, q_heads, q_len, head_dim]`.
    pub q: Stored<T>,
    /// Keys `[batch, kv_heads, kv_len, head_dim]`.
    pub k: Stored<T>,
    /// Values `[batch, kv_heads, kv_len, value_dim]`.
    pub v: Stored<T>,
    /// Gradient of the output `[batch, q_heads, q_len, value_dim]`.
    pub d_out: Stored<T>,
}

/// Sizes from `[batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim]`.
pub fn shape([batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim]: [usize; 7]) -> Shape {
    Shape { batch, q_heads, kv_heads, q_len, kv_len, kv_lens: Vec::new(), head_dim, value_dim }
}

impl Case {
    /// A plain case: normal values, contiguous, neither sinks nor dropout.
    pub fn new(seed: u64, sizes: [usize; 7]) -> Self {
        let (layout, values) = (Layout::Contiguous, Values::Normal);
        Self { seed, shape: shape(sizes), layout, values, sinks: false, dropout: 0.0 }
    }

    /// Small cases at the corners: single elements, odd sizes, grouped heads, sizes one beside a tile of 64.
    pub fn corners() -> Vec<Case> {
        let sizes = [
            [1, 1, 1, 1, 1, 1, 1],
            [1, 2, 1, 3, 5, 4, 4],
            [2, 4, 2, 7, 13, 17, 5],
            [1, 6, 2, 17, 17, 8, 33],
            [2, 2, 2, 9, 64, 16, 16],
            [1, 1, 1, 65, 66, 31, 9],
            [1, 3, 1, 64, 63, 5, 64],
            [1, 4, 1, 1, 130, 64, 64],
            [1, 1, 1, 130, 31, 3, 2],
        ];
        sizes.iter().zip(0..).map(|(&sizes, seed)| Case::new(seed, sizes)).collect()
    }

    /// Cases with nothing in some dimension.
    pub fn empty() -> Vec<Case> {
        let mut cases = Vec::new();
        for zero in [vec![0], vec![1, 2], vec![3], vec![4], vec![5], vec![6], vec![3, 4], vec![0, 4, 6]] {
            let mut sizes = [2, 4, 2, 3, 5, 8, 6];
            zero.iter().for_each(|&i| sizes[i] = 0);
            cases.push(Case::new(0, sizes));
        }
        cases
    }

    /// A random case of at most about `budget` products `q·k`; the first lengths to be drawn are those around tiles (64
    /// keys or queries) and splits (512 keys).
    pub fn random(seed: u64, budget: usize) -> Case {
        let mut rng = Rng::new(seed);
        let mut fit = budget;
        let mut draw = |choices: &[usize], at_most: usize, rng: &mut Rng| {
            let n = if rng.chance(0.5) { rng.pick(choices) } else { 1 + rng.below(at_most) };
            let n = n.min(fit.max(1));
            fit /= n;
            n
        };
        let head_dim = draw(&[1, 7, 8, 16, 32, 64, 80, 96, 128, 255, 256], 100, &mut rng);
        let kv_len = draw(&[1, 63, 64, 65, 127, 129, 511, 512, 513, 1025], 300, &mut rng);
        let q_len = draw(&[1, 2, 63, 64, 65, 129], 100, &mut rng);
        let kv_heads = draw(&[1], 3, &mut rng);
        let group = draw(&[1], 8, &mut rng);
        let batch = draw(&[1], 3, &mut rng);
        let value_dim = if rng.chance(0.6) { head_dim } else { 1 + rng.below(head_dim + 16) };
        Case {
            layout: rng.pick(&Layout::ALL),
            values: rng.pick(&Values::ALL),
            sinks: rng.chance(0.3),
            dropout: rng.pick(&[0.0, 0.0, 0.1, 0.9]),
            ..Case::new(seed, [batch, kv_heads * group, kv_heads, q_len, kv_len, head_dim, value_dim])
        }
    }

    /// The tensors of the case, in its layout.
    pub fn inputs<T: Element>(&self) -> Inputs<T> {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = self.shape;
        let mut rng = Rng::new(self.seed);
        let mut normal = |shape: [usize; 4], values: Values| {
            let array = Array::from_fn(shape, |[_, _, l, _]| rng.normal() * values.factor(l, shape[2]));
            Stored::new(&array, self.layout)
        };
        let queries = if self.values == Values::Large { Values::Large } else { Values::Normal };
        Inputs {
            q: normal([batch, q_heads, q_len, head_dim], queries),
            k: normal([batch, kv_heads, kv_len, head_dim], self.values),
            v: normal([batch, kv_heads, kv_len, value_dim], Values::Normal),
            d_out: normal([batch, q_heads, q_len, value_dim], Values::Normal),
        }
    }

    /// One sink for each query head, where the case has sinks.
    pub fn sinks(&self) -> Option<Vec<f32>> {
        let mut rng = Rng::new(self.seed ^ 0x51);
        self.sinks.then(|| (0..self.shape.q_heads).map(|_| (2.0 * rng.normal()) as f32).collect())
    }

    /// Dropout with the seed of the case, where the case drops.
    pub fn dropout(&self) -> Option<Dropout> {
        (self.dropout > 0.0).then(|| Dropout::new(self.dropout, self.seed).expect("a probability"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = self.shape;
        write!(f, "seed {}: B{batch} H{q_heads}/{kv_heads} L{q_len}x{kv_len} D{head_dim}/{value_dim}", self.seed)?;
        write!(f, " {:?} {:?}", self.values, self.layout)?;
        if self.sinks {
            write!(f, " sinks")?;
        }
        if self.dropout > 0.0 {
            write!(f, " dropout {}", self.dropout)?;
        }
        Ok(())
    }
}
