//! Chips: the rates that bound every pass.

use serde::{Deserialize, Serialize};

use crate::{Count, Dtype, Error, Pass, Result};

/// What a chip allows at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chip {
    /// Its name.
    pub name: String,
    /// Where its rates are from.
    pub source: String,
    /// Products of f32: operations per second, a multiply-add counting two, without sparsity.
    pub f32_flops: u64,
    /// Those of f16.
    pub f16_flops: u64,
    /// Those of bf16.
    pub bf16_flops: u64,
    /// Exponentials per second, where they are known.
    #[serde(default)]
    pub exps: Option<u64>,
    /// Its caches, from the nearest, where they are known.
    #[serde(default)]
    pub caches: Vec<Cache>,
    /// Bytes per second from its memory.
    pub bandwidth: u64,
    /// Bytes of its memory, where there is one number.
    #[serde(default)]
    pub memory: Option<u64>,
}

/// A level of caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// What it holds.
    pub bytes: u64,
    /// Bytes per second from it.
    pub rate: u64,
}

/// The least time of a pass, part after part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PassTime {
    /// Nanoseconds of the projections.
    pub projections_ns: Count,
    /// Of attention itself.
    pub attention_ns: Count,
    /// Of the feed-forward layers.
    pub feed_forward_ns: Count,
    /// Of the embedding and what comes after the last layer.
    pub output_ns: Count,
    /// Of all.
    pub total_ns: Count,
}

const NS: u64 = 1_000_000_000;

fn table() -> Result<Vec<Chip>> {
    let json = |source| Error::Json { what: "chips.json".into(), source };
    serde_json::from_str(include_str!("chips.json")).map_err(json)
}

impl Chip {
    /// A chip by its name: see [`Chip::names`].
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn named(name: &str) -> Result<Chip> {
        let unknown = || Error::UnknownChip { given: name.to_owned() };
        table()?.into_iter().find(|chip| chip.name == name).ok_or_else(unknown)
    }

    /// The names of all chips.
    pub fn names() -> Vec<String> {
        table().unwrap_or_default().into_iter().map(|chip| chip.name).collect()
    }

    /// The least time of a pass.
    ///
    /// ```text
    ///   Σ over parts  max(operations / products, exponentials / exps, bytes / reading)
    /// ```
    /// Parts follow each other. A pass that moves less than the caches hold is read from there.
    ///
    /// Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".
    pub fn time(&self, pass: &Pass, dtype: Dtype) -> PassTime {
        let flops = match dtype {
            Dtype::F32 => self.f32_flops,
            Dtype::F16 => self.f16_flops,
            Dtype::Bf16 => self.bf16_flops,
        };
        let rate = self.reading(pass.total.bytes);
        let [projections_ns, attention_ns, feed_forward_ns, output_ns] = pass.parts().map(|work| {
            let exps = self.exps.map_or(Count::ZERO, |rate| (work.exps * NS).over(rate));
            (work.flops * NS).over(flops).max(exps).max((work.bytes * NS).over(rate))
        });
        let total_ns = projections_ns + attention_ns + feed_forward_ns + output_ns;
        PassTime { projections_ns, attention_ns, feed_forward_ns, output_ns, total_ns }
    }

    /// Nanoseconds in which bytes are moved from and to memory.
    pub(crate) fn move_ns(&self, bytes: Count) -> Count {
        (bytes * NS).over(self.bandwidth)
    }

    /// Bytes per second, when so many are read again and again: what the caches hold comes from there.
    fn reading(&self, bytes: Count) -> u64 {
        // Whole nanoseconds would be too coarse for few bytes.
        const FINE: u64 = 1_000_000_000_000_000;
        let (mut rest, mut time) = (bytes, Count::ZERO);
        for cache in &self.caches {
            let here = rest.min(Count::from(cache.bytes));
            (rest, time) = (rest.less(here), time + (here * FINE).over(cache.rate));
        }
        let time = time + (rest * FINE).over(self.bandwidth);
        let rate = (bytes * FINE).times_it_holds(time).and_then(|rate| u64::try_from(rate.get()).ok());
        rate.filter(|rate| *rate > 0 && !self.caches.is_empty()).unwrap_or(self.bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_a_cache_is_read_at_its_rate() {
        let caches = vec![Cache { bytes: 100, rate: 100 }, Cache { bytes: 1000, rate: 50 }];
        let chip = Chip { caches, bandwidth: 10, ..Chip::named("h100").unwrap() };
        // Bytes over seconds, as crates/regard-cpu/src/roofline.rs has them: 1, 3, 21, 31 s.
        for (bytes, rate) in [(50, 100), (100, 100), (200, 66), (1100, 52), (1200, 38)] {
            assert_eq!(chip.reading(Count::from(bytes)), rate, "{bytes}");
        }
        assert_eq!(Chip::named("h100").unwrap().reading(Count::from(1 << 30)), 3_350_000_000_000);
    }
}
