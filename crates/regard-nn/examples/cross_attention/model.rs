//! The encoder and the decoder, and the attention between them.

use candle_core::{D, Device, Tensor, Var};
use regard::Padding;
use regard_nn::align::{Additive, Alignment};
use regard_nn::{
    AttendOptions, Linear, MultiHeadAttention, NeedWeights, Result, RmsNorm, RopeStyle, Rotary, SwiGlu, cross_entropy, embedding,
};

use crate::dates::{Batch, IN_VOCABULARY, OUT_LEN, OUT_VOCABULARY, Rng, spell};

const WIDTH: usize = 64;
const HEADS: usize = 2;

/// Which attention reads the memory.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Additive,
    MultiHead,
}

enum Cross {
    /// The context goes through a matrix, as that of the heads does.
    Additive(Additive, Linear),
    MultiHead(MultiHeadAttention),
}

/// What the encoder made of the texts.
struct Memory<'a> {
    rows: Tensor,
    batch: &'a Batch,
    padding: Tensor,
}

impl Cross {
    fn context(&self, queries: &Tensor, memory: &Memory<'_>) -> Result<Tensor> {
        let rows = &memory.rows;
        match self {
            Self::Additive(align, out) => {
                out.forward(&align.context(queries, rows, rows, Padding::new(memory.batch.lengths.clone()))?)
            }
            Self::MultiHead(heads) => Ok(heads.attend(queries, rows, rows, &memory.options(NeedWeights::No))?.0),
        }
    }

    /// `[batch, heads, q_len, kv_len]`; additive attention has one head.
    fn weights(&self, queries: &Tensor, memory: &Memory<'_>) -> Result<Tensor> {
        let rows = &memory.rows;
        match self {
            Self::Additive(align, _) => {
                Ok(align.weights(queries, rows, &Padding::new(memory.batch.lengths.clone()))?.unsqueeze(1)?)
            }
            Self::MultiHead(heads) => {
                let (_, weights) = heads.attend(queries, rows, rows, &memory.options(NeedWeights::PerHead))?;
                Ok(weights.expect("weights were asked for"))
            }
        }
    }
}

impl Memory<'_> {
    fn options(&self, need_weights: NeedWeights) -> AttendOptions<'_> {
        AttendOptions { key_padding_mask: Some(&self.padding), need_weights, ..Default::default() }
    }
}

/// Self-attention and a feed-forward layer, each added to what goes in.
struct Block {
    norms: [RmsNorm; 2],
    attention: MultiHeadAttention,
    mlp: SwiGlu,
}

pub(crate) struct Translator {
    parameters: Vec<Var>,
    letters: Tensor,
    digits: Tensor,
    encoder: Block,
    memory_norm: RmsNorm,
    decoder: Block,
    cross_norm: RmsNorm,
    cross: Cross,
    out_norm: RmsNorm,
    out: Linear,
}

impl Translator {
    pub(crate) fn new(kind: Kind, rng: &mut Rng) -> Result<Self> {
        let mut make = Maker { rng, made: Vec::new() };
        let (letters, digits) = (make.matrix(IN_VOCABULARY, WIDTH)?, make.matrix(OUT_VOCABULARY, WIDTH)?);
        let encoder = make.block(4)?;
        let decoder = make.block(4)?;
        let cross = match kind {
            Kind::Additive => {
                let v = make.matrix(1, WIDTH)?.squeeze(0)?;
                Cross::Additive(
                    Additive::new(make.linear(WIDTH, WIDTH)?, make.linear(WIDTH, WIDTH)?, v)?,
                    make.linear(WIDTH, WIDTH)?,
                )
            }
            Kind::MultiHead => Cross::MultiHead(make.attention(HEADS)?),
        };
        let (memory_norm, cross_norm, out_norm) = (make.norm()?, make.norm()?, make.norm()?);
        let out = make.linear(OUT_VOCABULARY, WIDTH)?;
        let parameters = make.made;
        Ok(Self { parameters, letters, digits, encoder, memory_norm, decoder, cross_norm, cross, out_norm, out })
    }

    pub(crate) fn parameters(&self) -> Vec<Var> {
        self.parameters.clone()
    }

    /// The mean negative log-likelihood of the dates, each character given those before it.
    pub(crate) fn loss(&self, batch: &Batch) -> Result<Tensor> {
        cross_entropy(&self.decode(&self.before(&batch.date)?, &self.encode(batch)?)?, &batch.date)
    }

    /// Dates, one character after the other, the likeliest each time.
    pub(crate) fn write(&self, batch: &Batch) -> Result<Vec<String>> {
        let memory = self.encode(batch)?;
        let mut date = batch.date.narrow(1, 0, 0)?;
        for _ in 0..OUT_LEN {
            // The last character that goes in is a stand-in: no position sees itself or a later one.
            let open = Tensor::cat(&[&date, &batch.date.narrow(1, 0, 1)?.zeros_like()?], 1)?;
            let logits = self.decode(&self.before(&open)?, &memory)?;
            let next = logits.narrow(1, date.dim(1)?, 1)?.argmax(D::Minus1)?;
            date = Tensor::cat(&[&date, &next], 1)?;
        }
        Ok(date.to_vec2::<u32>()?.iter().map(|numbers| spell(numbers)).collect())
    }

    /// The weights with which each character of the date read each of the text, `[batch, heads, OUT_LEN, length]`.
    pub(crate) fn alignment(&self, batch: &Batch) -> Result<Tensor> {
        let memory = self.encode(batch)?;
        self.cross.weights(&self.queries(&self.before(&batch.date)?)?.1, &memory)
    }

    /// Self-attention over the text, of which each character sees two to either side: enough to know its word or its number, and too
    /// little to know the whole date, so that the reading is left to cross-attention. Padding is hidden.
    fn encode<'a>(&self, batch: &'a Batch) -> Result<Memory<'a>> {
        let padding = batch.padding()?;
        let x = embedding(&self.letters, &batch.text)?;
        let length = batch.text.dim(1)?;
        let far = (0..length * length).map(|i| u8::from((i / length).abs_diff(i % length) > 2)).collect();
        let far = Tensor::from_vec(far, (length, length), &Device::Cpu)?;
        let options = AttendOptions { key_padding_mask: Some(&padding), attn_mask: Some(&far), ..Default::default() };
        let x = self.encoder.listen(&x, &options)?;
        let x = self.encoder.think(&x)?;
        Ok(Memory { rows: self.memory_norm.forward(&x)?, batch, padding })
    }

    /// The characters before each of the date: shifted by one.
    fn before(&self, date: &Tensor) -> Result<Tensor> {
        let (_, length) = date.dims2()?;
        Ok(Tensor::cat(&[&date.narrow(1, 0, 1)?.zeros_like()?, &date.narrow(1, 0, length - 1)?], 1)?)
    }

    /// The decoder up to its questions to the memory: its state, and the questions.
    fn queries(&self, before: &Tensor) -> Result<(Tensor, Tensor)> {
        let y = embedding(&self.digits, before)?;
        let y = self.decoder.listen(&y, &AttendOptions { is_causal: true, ..Default::default() })?;
        let queries = self.cross_norm.forward(&y)?;
        Ok((y, queries))
    }

    /// Logits `[batch, length, OUT_VOCABULARY]`.
    fn decode(&self, before: &Tensor, memory: &Memory<'_>) -> Result<Tensor> {
        let (y, queries) = self.queries(before)?;
        let y = (y + self.cross.context(&queries, memory)?)?;
        let y = self.decoder.think(&y)?;
        self.out.forward(&self.out_norm.forward(&y)?)
    }
}

impl Block {
    fn listen(&self, x: &Tensor, options: &AttendOptions<'_>) -> Result<Tensor> {
        let normed = self.norms[0].forward(x)?;
        Ok((x + self.attention.attend(&normed, &normed, &normed, options)?.0)?)
    }

    fn think(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x + self.mlp.forward(&self.norms[1].forward(x)?)?)?)
    }
}

/// Makes parameters and keeps a list of them.
struct Maker<'a> {
    rng: &'a mut Rng,
    made: Vec<Var>,
}

impl Maker<'_> {
    fn keep(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        self.made.push(var.clone());
        Ok(var.as_tensor().clone())
    }

    /// Uniform with variance 1/inner: rows of it keep the size of what they multiply.
    fn matrix(&mut self, outer: usize, inner: usize) -> Result<Tensor> {
        let bound = (3.0 / inner as f32).sqrt();
        let values = (0..outer * inner).map(|_| bound * self.rng.signed()).collect();
        self.keep(values, &[outer, inner])
    }

    fn linear(&mut self, outer: usize, inner: usize) -> Result<Linear> {
        let weight = self.matrix(outer, inner)?;
        Linear::new(weight, Some(self.keep(vec![0.0; outer], &[outer])?))
    }

    fn norm(&mut self) -> Result<RmsNorm> {
        Ok(RmsNorm::new(self.keep(vec![1.0; WIDTH], &[WIDTH])?, 1e-5))
    }

    fn attention(&mut self, heads: usize) -> Result<MultiHeadAttention> {
        let mut part = || self.linear(WIDTH, WIDTH);
        MultiHeadAttention::new(part()?, part()?, part()?, part()?, heads, heads)
    }

    fn block(&mut self, heads: usize) -> Result<Block> {
        let rotary = Rotary::new(WIDTH / heads, 100.0, RopeStyle::HalfSplit)?;
        let attention = self.attention(heads)?.rotary(rotary)?;
        let mlp = SwiGlu::new(self.linear(2 * WIDTH, WIDTH)?, self.linear(2 * WIDTH, WIDTH)?, self.linear(WIDTH, 2 * WIDTH)?)?;
        Ok(Block { norms: [self.norm()?, self.norm()?], attention, mlp })
    }
}
