//! What heads give in other positions, to be put in the place of what they give here.
//!
//! Resample ablation replaces the output of a head in each position by its output in a random position of the texts. What takes its place is
//! something that the head does give, so that the model is not led where it never is, as by zeros or by a mean that is no output of any
//! position. Sources: Chan et al. 2022, "Causal Scrubbing"; Zhang & Nanda 2023, "Towards Best Practices of Activation Patching in Language
//! Models", §2. Positions are drawn by a seed: at most [`MOST`] of all texts are kept, each as likely, and each position then takes one of
//! these, its own among them. All heads of one position take the same, so what they give together stays together.

use regard::Element;
use regard_nn::{Attending, Decoder, Observer};

use crate::random::{Random, shuffle};
use crate::{Result, Text};

/// Positions that are kept: their outputs take `MOST · layers · heads · head_dim` numbers.
pub const MOST: usize = 256;

/// What all heads give in some positions of some texts.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The positions, ascending, counted through all texts.
    positions: Vec<usize>,
    /// Of each layer `[positions, heads · head_dim]`.
    layers: Vec<Vec<f32>>,
    /// The state of the generator after these were drawn.
    random: u64,
}

impl Samples {
    /// Reads texts and keeps what all heads give in some positions.
    ///
    /// # Errors
    /// When the decoder cannot read a text.
    pub fn of(decoder: &Decoder, texts: &[Text], seed: u64) -> Result<Self> {
        let mut samples = Samples::new(decoder, texts, seed);
        let mut begin = 0;
        for text in texts {
            decoder.observe(&text.tokens, &mut Keep { samples: &mut samples, begin })?;
            begin += text.tokens.len();
        }
        Ok(samples)
    }

    /// Draws positions; [`Samples::keep`] fills them.
    pub(crate) fn new(decoder: &Decoder, texts: &[Text], seed: u64) -> Self {
        let mut random = Random(seed);
        let mut positions: Vec<usize> = (0..texts.iter().map(|text| text.tokens.len()).sum()).collect();
        let kept = MOST.min(positions.len());
        shuffle(&mut positions, kept, &mut random);
        positions.truncate(kept);
        positions.sort_unstable();
        Samples { positions, layers: vec![Vec::new(); decoder.config().layers.len()], random: random.0 }
    }

    /// Keeps what a layer gives, `[n, heads · head_dim]`, in the positions of a text, the first of which is `begin`.
    pub(crate) fn keep<T: Element>(&mut self, layer: usize, begin: usize, rows: &[T], n: usize) {
        let width = rows.len() / n.max(1);
        for position in self.positions.iter().filter(|position| (begin..begin + n).contains(*position)) {
            let kept = &mut self.layers[layer];
            kept.resize(kept.len() + width, 0.0);
            let to = kept.len() - width;
            T::widen(&rows[(position - begin) * width..][..width], &mut kept[to..]);
        }
    }

    /// For each text the sample that each of its positions takes.
    pub(crate) fn sources(&self, texts: &[Text]) -> Vec<Vec<usize>> {
        let mut random = Random(self.random);
        let of = |text: &Text| text.tokens.iter().map(|_| random.below(self.positions.len().max(1))).collect();
        texts.iter().map(of).collect()
    }

    /// What a head of `dim` numbers gives in a sample.
    pub(crate) fn head(&self, (layer, head): (usize, usize), dim: usize, sample: usize) -> &[f32] {
        let width = self.layers[layer].len() / self.positions.len().max(1);
        &self.layers[layer][sample * width + head * dim..][..dim]
    }
}

struct Keep<'a> {
    samples: &'a mut Samples,
    begin: usize,
}

impl Observer for Keep<'_> {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        self.samples.keep(attending.layer, self.begin, attending.out, attending.plan.shape().q_len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// All rows of a layer's heads.
    struct Rows(Vec<Vec<f32>>);

    impl Observer for Rows {
        fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
            attending.forward()?;
            let width = attending.out.len() / attending.plan.shape().q_len;
            if attending.layer == 1 {
                self.0.extend(attending.out.chunks(width).map(|row| {
                    let mut wide = vec![0.0; width];
                    T::widen(row, &mut wide);
                    wide
                }));
            }
            Ok(())
        }
    }

    #[test]
    fn samples_are_rows_of_all_texts_and_each_position_takes_one() {
        let llama = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-nn/tests/families/llama");
        let decoder = Decoder::open(&llama, None).unwrap();
        let n = decoder.config().max_position_embeddings.min(200);
        let texts = [1, 2, 3].map(|seed| {
            let tokens: Vec<u32> = (0..n as u32).map(|i| (i * (2 * seed + 5) + seed) % 61 + 2).collect();
            Text { name: String::new(), pieces: vec![String::new(); n], tokens }
        });
        let mut rows = Rows(Vec::new());
        texts.iter().for_each(|text| _ = decoder.observe(&text.tokens, &mut rows).unwrap());
        let samples = Samples::of(&decoder, &texts, 9).unwrap();
        assert!(samples.positions.len() == MOST.min(3 * n) && samples.positions.is_sorted_by(|a, b| a < b));
        let dim = decoder.config().head_dim;
        for (i, position) in samples.positions.iter().enumerate() {
            assert_eq!(samples.head((1, 2), dim, i), &rows.0[*position][2 * dim..3 * dim], "position {position}");
        }
        let sources = samples.sources(&texts);
        assert!(sources.iter().all(|of| of.len() == n && of.iter().all(|source| *source < samples.positions.len())));
        assert!(sources[0] != sources[1] && sources == samples.sources(&texts));
        // Each third of the positions is as likely.
        let third = |k: usize| {
            samples.positions.iter().filter(|position| **position / n == k).count() as f64 / samples.positions.len() as f64
        };
        assert!((0..3).all(|k| (third(k) - 1.0 / 3.0).abs() < 0.1), "{:?}", samples.positions);
    }
}
