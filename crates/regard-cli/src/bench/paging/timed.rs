//! A runner that computes nothing but the time a model would take: the engine decides as it would for that model.

use regard_serve::{Detokenizer, Group, Keep, Runner, RunnerError, Work};

/// A model on a chip: a step takes as long as the slower of reading memory and multiplying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Bytes that each step reads.
    pub(super) weights: f64,
    /// Bytes of a token's keys and values.
    pub(super) kv: f64,
    /// Operations of a token.
    pub(super) flops: f64,
    /// Bytes a second.
    pub(super) bandwidth: f64,
    /// Operations a second.
    pub(super) rate: f64,
    /// Tokens whose keys and values fit.
    pub(super) slots: usize,
    /// Tokens that a text may have.
    pub(super) context: usize,
}

/// OPT-13B in f16 on an A100 of 40 GB: the sizes of table 1 of Kwon et al. 2023, and the chip's published rates.
pub(super) const OPT_13B: Timing = Timing {
    weights: 26e9,
    kv: (2 * 5120 * 40 * 2) as f64,
    flops: 2.0 * 13e9,
    bandwidth: 1.555e12,
    rate: 312e12,
    slots: 15_700,
    context: 2048,
};

/// Tokens in a page.
pub(super) const PAGE: usize = 16;

/// The model, and how long its last step took.
#[derive(Debug)]
pub(super) struct Timed {
    timing: Timing,
    groups: [Group; 1],
    /// Seconds of the last step.
    pub(super) seconds: f64,
}

impl Timed {
    pub(super) fn new(timing: Timing, slots: usize) -> Self {
        let group = Group { pages: (slots / PAGE) as u32, page_size: PAGE, swap_pages: 0, keep: Keep::All };
        Self { timing, groups: [group], seconds: 0.0 }
    }
}

impl Runner for Timed {
    fn groups(&self) -> &[Group] {
        &self.groups
    }

    fn vocab_size(&self) -> usize {
        1
    }

    fn context(&self) -> usize {
        self.timing.context
    }

    fn run(&mut self, batch: &[Work<'_>]) -> Result<Vec<f32>, RunnerError> {
        let sum = |of: fn(&Work<'_>) -> usize| batch.iter().map(of).sum::<usize>() as f64;
        let Timing { weights, kv, flops, bandwidth, rate, .. } = self.timing;
        let read = (weights + kv * sum(|work| work.first + work.tokens.len())) / bandwidth;
        self.seconds = read.max(flops * sum(|work| work.tokens.len()) / rate);
        Ok(vec![0.0; sum(|work| work.logits) as usize])
    }

    fn copy_page(&mut self, _: usize, _: u32, _: u32) -> Result<(), RunnerError> {
        Ok(())
    }

    fn swap_out(&mut self, _: usize, _: u32, _: u32) -> Result<(), RunnerError> {
        Err("there is no swap space".into())
    }

    fn swap_in(&mut self, _: usize, _: u32, _: u32) -> Result<(), RunnerError> {
        Err("there is no swap space".into())
    }
}

impl Detokenizer for Timed {
    type Text = ();

    fn text(&self, _: &[u32]) {}

    fn push(&self, (): &mut (), _: u32) -> Result<String, RunnerError> {
        Ok(String::new())
    }

    fn finish(&self, (): &mut ()) -> Result<String, RunnerError> {
        Ok(String::new())
    }
}
