//! Whether a position sees what it must not: inputs are changed, and outputs compared bit for bit.
//!
//! In a decoder no position may see a later token. [`leaks`] replaces all tokens from some position on by others, reads both texts, and compares
//! the residual stream of the positions before, after every block. A row of regard has the same bits whatever else is computed, so any
//! difference is a leak. A leak that no drawn token shows would stay unseen; what is found is certain. [`mask_leaks`] does the same for one
//! attention and any rule of who may see whom: padding, documents, windows.

use regard::{Attention, Element, Mask, Pair, Score, Shape, Tensor, View};
use regard_nn::{Decoder, Observer};

use crate::Result;
use crate::random::Random;

/// A leak that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The first block after which something differs.
    pub layer: usize,
    /// The first position that differs there.
    pub position: usize,
    /// Tokens from this position on were changed.
    pub changed: usize,
}

/// Positions from which on tokens are changed, at most.
pub const CUTS: usize = 8;

/// Tokens of a text that [`inspect`](crate::inspect()) looks at: the text is read once for each cut, and held twice.
pub const TOKENS: usize = 4096;

/// The first leak of a decoder on a text, if there is any; and at how many positions it was looked for.
///
/// # Errors
/// When the decoder cannot read the text.
pub fn leaks(decoder: &Decoder, tokens: &[u32], seed: u64) -> Result<(Option<Leak>, usize)> {
    leaks_of(decoder, tokens, seed, || ())
}

/// As [`leaks`], of a decoder before observers that change what it does.
///
/// # Errors
/// As [`leaks`].
pub fn leaks_of<O: Observer + Send>(
    decoder: &Decoder,
    tokens: &[u32],
    seed: u64,
    mut observer: impl FnMut() -> O,
) -> Result<(Option<Leak>, usize)> {
    let (vocab, mut random) = (decoder.config().vocab_size, Random(seed));
    let mut read = |tokens: &[u32]| {
        let mut states = States { layers: Vec::new(), inner: observer() };
        decoder.observe(tokens, &mut states)?;
        Ok::<_, crate::Error>(states.layers)
    };
    let clean = read(tokens)?;
    let width = decoder.config().hidden_size;
    let mut cuts: Vec<usize> =
        (1..=CUTS).map(|i| (i * tokens.len()).div_ceil(CUTS + 1)).filter(|cut| (1..tokens.len()).contains(cut)).collect();
    cuts.dedup();
    let mut first: Option<Leak> = None;
    for &changed in &cuts {
        let mut other = tokens.to_vec();
        other[changed..].iter_mut().for_each(|token| *token = ((*token as usize + 1 + random.below(vocab - 1)) % vocab) as u32);
        // A difference in the rows before `changed`, in the order of layers; the stream before block 0 is the tokens themselves.
        let states = read(&other)?;
        let differs = clean.iter().zip(&states).enumerate().find_map(|(layer, (a, b))| {
            let mut rows = a.chunks(width).zip(b.chunks(width)).take(changed);
            Some((layer, rows.position(|(a, b)| a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits()))?))
        });
        if let Some((after, position)) = differs {
            let leak = Leak { layer: after.saturating_sub(1), position, changed };
            first = Some(first.filter(|first| (first.layer, first.position) <= (leak.layer, leak.position)).unwrap_or(leak));
        }
    }
    Ok((first, cuts.len()))
}

/// Keeps the residual stream.
struct States<O> {
    layers: Vec<Vec<f32>>,
    inner: O,
}

impl<O: Observer> Observer for States<O> {
    fn residual(&mut self, layer: usize, rows: &mut [f32]) -> regard_nn::Result<()> {
        self.layers.push(rows.to_vec());
        self.inner.residual(layer, rows)
    }

    fn attend<T: Element>(&mut self, attending: regard_nn::Attending<'_, T>) -> regard_nn::Result<()> {
        self.inner.attend(attending)
    }
}

/// The first pair of a query and a key that it must not see, and does: every key and value is changed in turn, and no row that `allowed` keeps
/// from it may change a bit. `q` `[batch, q_heads, q_len, dim]`, keys and values as in [`Attention::plan`], of f32.
///
/// # Errors
/// When the arguments do not fit together.
pub fn mask_leaks<M: Mask, S: Score>(
    attention: &Attention<M, S>,
    q: View<'_, f32>,
    (k, v): (View<'_, f32>, View<'_, f32>),
    allowed: impl Fn(Pair) -> bool,
) -> Result<Option<Pair>> {
    let shape = Shape::of(&q, &(k, v).into())?;
    let clean = attention.forward(q, (k, v))?;
    let (mut keys, mut values) = (copied(k)?, copied(v)?);
    for key in 0..shape.kv_len {
        let kept = [scrambled(&mut keys, key), scrambled(&mut values, key)];
        let changed = attention.forward(q, (keys.view(), values.view()))?;
        let rows = (0..shape.batch * shape.q_heads * shape.q_len).map(|i| {
            let (head, q) = (i / shape.q_len, i % shape.q_len);
            (i, shape.pair(head / shape.q_heads, head % shape.q_heads, q, key))
        });
        let dim = shape.value_dim;
        let row = |of: &Tensor<f32>, i: usize| of.data()[i * dim..][..dim].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let leak = rows.filter(|(_, pair)| !allowed(*pair)).find(|(i, _)| {
            clean.lse.data()[*i].to_bits() != changed.lse.data()[*i].to_bits() || row(&clean.out, *i) != row(&changed.out, *i)
        });
        if let Some((_, pair)) = leak {
            return Ok(Some(pair));
        }
        restore(&mut keys, key, &kept[0]);
        restore(&mut values, key, &kept[1]);
    }
    Ok(None)
}

fn copied(view: View<'_, f32>) -> Result<Tensor<f32>> {
    let [b, h, l, d] = view.shape();
    let all = (0..b * h * l * d).map(|i| view.at([i / d / l / h, i / d / l % h, i / d % l, i % d]));
    Ok(Tensor::from_vec(all.collect(), view.shape())?)
}

/// Changes a position in all heads, and returns what was there.
fn scrambled(of: &mut Tensor<f32>, at: usize) -> Vec<f32> {
    let [_, _, length, dim] = of.shape();
    let mut kept = Vec::new();
    for row in of.data_mut().chunks_mut((length * dim).max(1)) {
        let row = &mut row[at * dim..][..dim];
        kept.extend_from_slice(row);
        row.iter_mut().for_each(|x| *x = 3.0 - 1.7 * *x);
    }
    kept
}

fn restore(of: &mut Tensor<f32>, at: usize, kept: &[f32]) {
    let [_, _, length, dim] = of.shape();
    let rows = of.data_mut().chunks_mut((length * dim).max(1)).zip(kept.chunks(dim.max(1)));
    rows.for_each(|(row, kept)| row[at * dim..][..dim].copy_from_slice(kept));
}
