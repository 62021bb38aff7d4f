//! What each head looks for, on sequences made for the purpose. A score is a mean attention weight or a share of steps, 0 to 1.
//!
//! **Previous token** (`previous`): the mean weight on the token before, over all rows of the texts that have one. Elhage et al. 2021, "A
//! Mathematical Framework for Transformer Circuits". A high score says where a head looks, not that it copies anything.
//!
//! **First token** (`first`): the mean weight on the first token, over the same rows. Xiao et al. 2023, "Efficient Streaming Language Models
//! with Attention Sinks". Mass there mostly means that a head found nothing to read.
//!
//! **Local** (`local`): the mean mass on the recent tokens, over rows that see more than those; none where no text is so long.
//!
//! **Duplicate token** (`duplicate`): in a random sequence that is repeated once, the mean weight from a token of the second half on the same
//! token of the first. Wang et al. 2022, "Interpretability in the Wild", §3.
//!
//! **Induction** (`induction`): in the same sequences, the mean weight on the token *after* the same token of the first half, the "prefix
//! matching score" of Olsson et al. 2022, "In-context Learning and Induction Heads", §"Argument 1". Whether the head then copies what it
//! reads is another question, which the ablation answers.
//!
//! **Retrieval** (`retrieval`): random tokens, the needle, are put into a filler of other random tokens, and written again at its end; the
//! share of these steps in which the head's largest weight is on the needle's next token. After Wu et al. 2024, "Retrieval Head
//! Mechanistically Explains Long-Context Factuality", §2, with the answer given instead of generated, so that a model that fails can be
//! measured too.

use regard::{Element, Grid, Inspect, Region};
use regard_nn::{Attending, Decoder, Model, Observer};

use crate::Result;
use crate::random::{Random, Vocabulary};
use crate::report::{HeadScores, short};
use crate::text::decoder;

/// Tokens of a random sequence that is repeated, and how many are drawn.
const REPEATED: usize = 32;
const DRAWS: usize = 4;
/// Tokens of a needle and of its haystack, and where needles lie, in eighths.
const NEEDLE: usize = 8;
const HAYSTACK: usize = 256;
const DEPTHS: [usize; 3] = [1, 4, 7];

/// How many sequences [`synthetic`] reads.
pub const SEQUENCES: usize = DRAWS + DEPTHS.len();

/// Duplicate-token, induction and retrieval scores of all heads, layer-major; `step` is called after each of the [`SEQUENCES`]. None of those
/// that do not fit the context.
///
/// # Errors
/// When the model is no decoder, or cannot read.
pub fn synthetic(model: &Model, seed: u64, step: &mut dyn FnMut()) -> Result<Vec<HeadScores>> {
    let decoder = decoder(model)?;
    let config = decoder.config();
    let vocabulary = Vocabulary::of(model, config.vocab_size, config.bos_token_id);
    let (mut random, heads) = (Random(seed), config.layers.len() * config.num_attention_heads);
    let begin: Vec<u32> = vocabulary.begin.into_iter().collect();
    let room = config.max_position_embeddings.saturating_sub(begin.len());
    let mut all = vec![HeadScores::default(); heads];

    let n = REPEATED.min(room / 2);
    for _ in 0..DRAWS {
        if n >= 2 {
            let sequence = vocabulary.draw(n, &[], &mut random);
            let tokens: Vec<u32> = begin.iter().chain(&sequence).chain(&sequence).copied().collect();
            for (scores, [duplicate, induction]) in all.iter_mut().zip(repeats(decoder, &tokens, n)?) {
                *scores.duplicate.get_or_insert(0.0) += duplicate / DRAWS as f64;
                *scores.induction.get_or_insert(0.0) += induction / DRAWS as f64;
            }
        }
        step();
    }
    let filler = HAYSTACK.min(room).saturating_sub(2 * NEEDLE);
    for depth in DEPTHS {
        if filler >= NEEDLE {
            let needle = vocabulary.draw(NEEDLE, &[], &mut random);
            let filler = vocabulary.draw(filler, &needle, &mut random);
            let (before, after) = filler.split_at(filler.len() * depth / 8);
            let tokens: Vec<u32> = [&begin[..], before, &needle, after, &needle].concat();
            let found = retrieved(decoder, &tokens, begin.len() + before.len(), NEEDLE)?;
            for (scores, found) in all.iter_mut().zip(found) {
                *scores.retrieval.get_or_insert(0.0) += found / DEPTHS.len() as f64;
            }
        }
        step();
    }
    for scores in &mut all {
        let HeadScores { duplicate, induction, retrieval, .. } = scores;
        [duplicate, induction, retrieval].into_iter().flatten().for_each(|score| *score = short(*score));
    }
    Ok(all)
}

/// Of every head, the mean weight from the last `n` tokens on the tokens `n` before them, and on those after these: the duplicate-token and the
/// induction score of a text that ends with a sequence of `n` tokens twice.
///
/// # Errors
/// When the decoder cannot read the text, or it is shorter than two sequences.
pub fn repeats(decoder: &Decoder, tokens: &[u32], n: usize) -> Result<Vec<[f64; 2]>> {
    let mut watch = Repeats { n, scores: Vec::new() };
    decoder.observe(tokens, &mut watch)?;
    Ok(watch.scores)
}

struct Repeats {
    n: usize,
    /// Of every head, layer-major.
    scores: Vec<[f64; 2]>,
}

impl Observer for Repeats {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let (all, n) = (attending.plan.shape().q_len, self.n);
        let region = Region { rows: all.saturating_sub(n)..all, ..attending.plan.whole() };
        let weights = attending.maps(&region, &[Grid { rows: 1, keys: 1 }])?;
        for weights in weights[0].data().chunks_exact(n * all) {
            // The row of query all − n + i; the same token is n before it.
            let mean = |after: usize| (0..n).map(|i| f64::from(weights[i * all + all - 2 * n + i + after])).sum::<f64>() / n as f64;
            self.scores.push([mean(0), mean(1)]);
        }
        Ok(())
    }
}

/// Of every head, the share of the steps of writing the needle again, at the end of a text, in which the largest weight is on the token that
/// comes next in the needle, which begins at `first`.
///
/// # Errors
/// When the decoder cannot read the text.
pub fn retrieved(decoder: &Decoder, tokens: &[u32], first: usize, needle: usize) -> Result<Vec<f64>> {
    let mut watch = Retrieved { first, needle, scores: Vec::new() };
    decoder.observe(tokens, &mut watch)?;
    Ok(watch.scores)
}

struct Retrieved {
    first: usize,
    needle: usize,
    scores: Vec<f64>,
}

impl Observer for Retrieved {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        let facts = attending.inspect(&Inspect::default())?;
        let (n, steps) = (attending.plan.shape().q_len, self.needle - 1);
        for keys in facts.top_keys.chunks_exact(n) {
            let right = (0..steps).filter(|i| keys[n - self.needle + i] as usize == self.first + i + 1);
            self.scores.push(right.count() as f64 / steps as f64);
        }
        Ok(())
    }
}
