//! Means of a head over the rows of all texts, and its profiles along one.

use regard::Facts;

use crate::report::{HeadScores, Means, Numerics, Profiles, short};

/// Sums over rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    rows: usize,
    /// In the order of [`Means`], but for special tokens.
    means: [f64; 8],
    distances: Vec<f64>,
    /// Of rows that have a token before: their number, the mass on that token and on the first.
    previous: (usize, f64, f64),
    /// Of rows that see more than the recent tokens: their number, and the mass on those.
    local: (usize, f64),
    /// Rows with a token before whose largest weight is all but everything.
    one_hot: usize,
    /// Those that read all they read alike.
    uniform: usize,
    /// The largest logit of all.
    peak: Option<f32>,
    /// The mass on special tokens, where a text has any.
    special: Option<f64>,
}

/// The least weight that is all but everything.
const ONE_HOT: f64 = 0.99;

/// The most that the largest weight of a row that reads some keys alike may be, of all and of what it would be if it did so exactly.
const UNIFORM: (f64, f64) = (0.5, 1.1);

impl Sums {
    /// Adds the rows of a text, `[heads, n]`, of one head. The first range of the facts is the first token.
    pub(crate) fn add(&mut self, facts: &Facts, lse: &[f32], recent: usize, (head, n): (usize, usize)) {
        let (classes, top) = (facts.distances.shape()[3], facts.top_weights.shape()[3]);
        self.distances.resize(self.distances.len().max(classes), 0.0);
        for q in 0..n {
            let row = head * n + q;
            let at = |fact: &regard::Tensor<f32>, width: usize| f64::from(fact.data()[row * width]);
            let distances = &facts.distances.data()[row * classes..][..classes];
            let means = [
                at(&facts.entropy, 1),
                at(&facts.top_weights, top),
                at(&facts.first, 1),
                f64::from(distances[0]),
                at(&facts.recent, 1),
                at(&facts.distance, 1),
                at(&facts.max_logit, 1),
                f64::from(lse[row]),
            ];
            self.means.iter_mut().zip(means).for_each(|(sum, x)| *sum += x);
            self.distances.iter_mut().zip(distances).for_each(|(sum, x)| *sum += f64::from(*x));
            let logit = facts.max_logit.data()[row];
            self.peak = Some(self.peak.map_or(logit, |peak| peak.max(logit)));
            if q > 0 {
                let [entropy, largest, ..] = means;
                self.one_hot += usize::from(largest >= ONE_HOT);
                self.uniform += usize::from(largest > 0.0 && largest <= UNIFORM.0.min(UNIFORM.1 * (-entropy).exp()));
                let (rows, before, first) = &mut self.previous;
                (*rows, *before, *first) =
                    (*rows + 1, *before + f64::from(distances[1]), *first + at(&facts.ranges, facts.ranges.shape()[3]));
            }
            if q >= recent {
                self.local = (self.local.0 + 1, self.local.1 + means[4]);
            }
        }
        self.rows += n;
    }

    /// Adds the mass that special tokens of a text receive from all of its rows.
    #[cfg(feature = "models")]
    pub(crate) fn add_special(&mut self, mass: f64) {
        *self.special.get_or_insert_default() += mass;
    }

    pub(crate) fn means(&self) -> Means {
        let mean = |sum: f64| short(sum / self.rows.max(1) as f64);
        let [entropy, max_weight, sink, own, recent, distance, max_logit, lse] = self.means.map(mean);
        Means { entropy, max_weight, sink, own, recent, distance, max_logit, lse, special: self.special.map(mean) }
    }

    pub(crate) fn numerics(&self) -> Numerics {
        let share = |rows: usize| short(rows as f64 / self.previous.0.max(1) as f64);
        let peak_logit = short(f64::from(self.peak.unwrap_or_default()));
        Numerics { one_hot: share(self.one_hot), uniform: share(self.uniform), peak_logit, error: None }
    }

    /// Shares of the mass that is on keys: learned sinks take some.
    pub(crate) fn distances(&self) -> Vec<f64> {
        let all: f64 = self.distances.iter().sum();
        self.distances.iter().map(|mass| short(mass / all.max(f64::MIN_POSITIVE))).collect()
    }

    /// What these rows tell; the rest is as it was.
    pub(crate) fn scores(&self, rest: HeadScores) -> HeadScores {
        let mean = |rows: usize, sum: f64| (rows > 0).then(|| short(sum / rows as f64));
        let (rows, previous, first) = self.previous;
        HeadScores { previous: mean(rows, previous), first: mean(rows, first), local: mean(self.local.0, self.local.1), ..rest }
    }
}

/// The means of each bin of `width` rows.
pub(crate) fn binned(rows: &[f32], stride: usize, width: usize) -> Vec<f64> {
    let mean = |bin: &[f32]| {
        let values = bin.iter().step_by(stride);
        short(values.clone().map(|x| f64::from(*x)).sum::<f64>() / values.len().max(1) as f64)
    };
    rows.chunks(width * stride).map(mean).collect()
}

/// Profiles of one head along a text of `n` tokens.
pub(crate) fn profiles(facts: &Facts, (head, n): (usize, usize), width: usize) -> Profiles {
    let of = |fact: &regard::Tensor<f32>| {
        let stride = fact.shape()[3];
        binned(&fact.data()[head * n * stride..][..n * stride], stride, width)
    };
    Profiles {
        entropy: of(&facts.entropy),
        sink: of(&facts.first),
        recent: of(&facts.recent),
        distance: of(&facts.distance),
        max_weight: of(&facts.top_weights),
    }
}
