//! Linear attention: a state of fixed size in place of keys and values that grow with the text.

use regard_core::{Element, Error, Feature, LinearInputs, LinearShape, Result, Tensor, UpdateRule, View, ViewMut};
use regard_cpu::Kernel;
use regard_cpu::linear::{self, Linear};

use crate::plan::expect;

/// A description of linear attention: its [`UpdateRule`], scale, feature map and normaliser.
///
/// ```text
///   S' = diag(e^{g_t}) S_{t−1}                  decay: none, one for each head, or one for each element of the key
///   u_t = v_t, or β_t (v_t − S'ᵀ k_t)           what is written: the value, or its difference from what the key finds
///   S_t = S' + k_t u_tᵀ      o_t = scale · S_tᵀ q_t
/// ```
///
/// **When to use it**: with a model that was trained for it (RetNet, GLA, Mamba-2, DeltaNet, Gated DeltaNet and the hybrids built on
/// them). It is no approximation of softmax attention: a state of `head_dim × value_dim` numbers forgets, so it recalls less exactly
/// from far away; in exchange a token costs the same at position 100 and at position 1,000,000, in time and in memory.
///
/// A prompt and a token are the same call: [`LinearOutput::state`] of one goes into [`LinearInputs::past`] of the next. Names and
/// semantics are those of ONNX's operator `LinearAttention` (opset 27), with `[batch, heads, length, dim]` in place of its
/// `[batch, length, heads · dim]` (the same memory, as [`View::permute`] gives it).
///
/// | question | answer |
/// |---|---|
/// | state | f32, `[batch, kv_heads, head_dim, value_dim]`; normalised, one more column: the sum of keys |
/// | precision | f32 throughout, for f32, f16 and bf16; sums of logarithms of decays in f64 |
/// | strong decays | every exponent is at most 0: nothing overflows, whatever the decays; −∞ forgets everything |
/// | chunks | 64 tokens unless [`LinearAttention::chunk`] says otherwise; what is left over, if fewer than 8, token by token |
/// | same bits | whatever the threads and the batch; however a prompt is cut at multiples of the chunk, and at any cut with `chunk(1)` |
/// | cut elsewhere, or another chunk | the same to f32 rounding |
/// | not finite | a token that is not finite reaches its own row and later ones, never an earlier one |
///
/// ```
/// use regard::{LinearAttention, LinearInputs, UpdateRule, View};
///
/// let data: Vec<f32> = (0..2 * 100 * 8).map(|i| (i as f32).sin() / 3.0).collect();
/// let x = View::new(&data, [1, 2, 100, 8])?; // two heads, a hundred tokens
/// let gates = vec![0.5f32; 200];
/// let beta = View::new(&gates, [1, 2, 100, 1])?;
/// let delta = LinearAttention::new(UpdateRule::Delta);
/// let whole = delta.forward(LinearInputs::new(x, x, x).beta(beta))?;
///
/// // The first 64 tokens as a prompt, then the rest from its state.
/// let part = |r: std::ops::Range<usize>| Ok::<_, regard::Error>((x.slice(2, r.clone())?, beta.slice(2, r)?));
/// let ((x0, beta0), (x1, beta1)) = (part(0..64)?, part(64..100)?);
/// let prompt = delta.forward(LinearInputs::new(x0, x0, x0).beta(beta0))?;
/// let rest = delta.forward(LinearInputs::new(x1, x1, x1).beta(beta1).past(prompt.state.view()))?;
/// assert_eq!(rest.state, whole.state);
/// # Ok::<(), regard::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    rule: UpdateRule,
    feature: Feature,
    normalised: bool,
    scale: Option<f32>,
    chunk: usize,
    kernel: Option<String>,
}

impl LinearAttention {
    /// Linear attention of one rule, with scale `1/√head_dim`.
    pub fn new(rule: UpdateRule) -> Self {
        LinearAttention { rule, feature: Feature::Identity, normalised: false, scale: None, chunk: linear::CHUNK, kernel: None }
    }

    /// What the output is multiplied by, instead of `1/√head_dim`. Must be finite.
    pub fn scale(self, scale: f32) -> Self {
        LinearAttention { scale: Some(scale), ..self }
    }

    /// What is done to every element of queries and keys first.
    pub fn feature(self, feature: Feature) -> Self {
        LinearAttention { feature, ..self }
    }

    /// Divides every output by the sum of its weights, `Σ_i e^{…} φ(q_t)·φ(k_i)`, so that it is a mean of values; a sum of 0 gives
    /// zeros. Features should be positive. The scale has no effect then. For [`UpdateRule::Linear`] and [`UpdateRule::Gated`].
    ///
    /// Source: Katharopoulos et al. 2020, "Transformers are RNNs", equation 4.
    pub fn normalised(self) -> Self {
        LinearAttention { normalised: true, ..self }
    }

    /// Tokens that are taken at once, 1 to 256; 64 is the fastest for most sizes. With 1 every token is taken by itself, so that no
    /// cut of a prompt changes a bit. The backward pass has chunks of its own.
    pub fn chunk(self, tokens: usize) -> Self {
        LinearAttention { chunk: tokens, ..self }
    }

    /// Asks for one of [`kernels`](crate::kernels) by name, instead of the best one or the one `REGARD_KERNEL` names.
    pub fn kernel(self, name: impl Into<String>) -> Self {
        LinearAttention { kernel: Some(name.into()), ..self }
    }

    /// Checks everything, and chooses the kernel.
    ///
    /// # Errors
    /// When the inputs do not fit together, a gate is missing or superfluous, or something is outside its domain; the error names it.
    pub fn plan<'a, T: Element>(&self, inputs: LinearInputs<'a, T>) -> Result<LinearPlan<'a, T>> {
        let shape = LinearShape::of(&inputs, self.rule, self.normalised)?;
        let scale = self.scale.unwrap_or(1.0 / (shape.head_dim.max(1) as f32).sqrt());
        if !scale.is_finite() {
            return Err(Error::Value { what: "scale", given: scale.into(), needed: "finite" });
        }
        if !(1..=256).contains(&self.chunk) {
            return Err(Error::Value { what: "chunk", given: self.chunk as f64, needed: "1 to 256 tokens" });
        }
        if self.normalised && self.rule.corrects() {
            let (what, instead) = ("a normalised output", "its weights may be negative, leave it as it is");
            return Err(Error::Unsupported { what, context: "with a delta rule", instead });
        }
        let kernel = self.kernel.as_deref().map_or_else(Kernel::best, Kernel::named)?;
        let LinearAttention { rule, feature, normalised, chunk, .. } = *self;
        Ok(LinearPlan(Linear { shape, inputs, rule, feature, normalised, scale, chunk, kernel }))
    }

    /// Plans and computes: the outputs, and the state to go on from.
    ///
    /// # Errors
    /// As [`LinearAttention::plan`].
    pub fn forward<T: Element>(&self, inputs: LinearInputs<'_, T>) -> Result<LinearOutput<T>> {
        self.plan(inputs)?.forward()
    }

    /// Plans and computes every gradient: see [`LinearPlan::backward`].
    ///
    /// # Errors
    /// As [`LinearAttention::plan`] and [`LinearPlan::backward`].
    pub fn backward<T: Element>(
        &self,
        inputs: LinearInputs<'_, T>,
        d_out: View<'_, T>,
        d_state: Option<View<'_, f32>>,
    ) -> Result<LinearGrads<T>> {
        self.plan(inputs)?.backward(d_out, d_state)
    }
}

/// The result of the forward pass of linear attention.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearOutput<T> {
    /// `[batch, q_heads, length, value_dim]`.
    pub out: Tensor<T>,
    /// The state after the last token, `[batch, kv_heads, head_dim, value_dim]`; of a normalised output with one more column.
    pub state: Tensor<f32>,
}

/// The result of the backward pass of linear attention: each in the shape of its argument.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearGrads<T> {
    /// Gradient of the queries.
    pub dq: Tensor<T>,
    /// Gradient of the keys, summed over the query heads that share them.
    pub dk: Tensor<T>,
    /// Gradient of the values, likewise.
    pub dv: Tensor<T>,
    /// Gradient of the logarithms of decays, where the rule has them.
    pub ddecay: Option<Tensor<f32>>,
    /// Gradient of the rates of correction, where the rule has them; summed over the heads that share them.
    pub dbeta: Option<Tensor<f32>>,
    /// Gradient of the state before the first token.
    pub dpast: Tensor<f32>,
}

/// One linear attention problem whose arguments fit together, with the kernel that will compute it.
#[derive(Debug)]
pub struct LinearPlan<'a, T>(Linear<'a, T>);

impl<T: Element> LinearPlan<'_, T> {
    /// The sizes of the problem.
    pub fn shape(&self) -> &LinearShape {
        &self.0.shape
    }

    /// The kernel that will run: one of [`kernels`](crate::kernels).
    pub fn kernel(&self) -> &'static str {
        self.0.kernel.name()
    }

    /// Floating-point operations of the forward pass in whole chunks `C` of tokens, a multiply-add counting two: for each query head
    /// and token `2·(C/2 + head_dim)·(head_dim + value_dim)` in round numbers, and for each KV head what its rule adds. Linear in the
    /// length.
    pub fn flops(&self) -> u64 {
        let (s, half) = (&self.0.shape, self.0.chunk.min(self.0.shape.len) as u64 / 2);
        let [d, w] = [s.head_dim as u64, s.state_dim as u64];
        let (q, kv) = ((s.batch * s.q_heads * s.len) as u64, (s.batch * s.kv_heads * s.len) as u64);
        let correction = if self.0.rule.corrects() { half * (d + w) + d * w } else { 0 };
        2 * (q * (half * (d + w) + d * w) + kv * (d * w + correction))
    }

    /// Computes the outputs and the state after the last token.
    ///
    /// # Errors
    /// When the output is larger than the machine can address.
    pub fn forward(&self) -> Result<LinearOutput<T>> {
        let mut output = LinearOutput { out: Tensor::zeros(self.0.shape.out())?, state: Tensor::zeros(self.0.shape.state())? };
        self.forward_into(output.out.view_mut(), output.state.view_mut())?;
        Ok(output)
    }

    /// As [`LinearPlan::forward`], into memory of yours, of any strides. Every element is written, whatever it held.
    ///
    /// # Errors
    /// When a shape differs.
    pub fn forward_into(&self, out: ViewMut<'_, T>, state: ViewMut<'_, f32>) -> Result<()> {
        expect("output", out.shape(), self.0.shape.out())?;
        expect("state", state.shape(), self.0.shape.state())?;
        linear::forward(&self.0, out, state);
        Ok(())
    }

    /// Computes every gradient of `Σ d_out · out + Σ d_state · state`, in memory linear in the length: one state for every 64 tokens
    /// of the KV heads that are being worked on, and the rest is computed again.
    ///
    /// # Errors
    /// When a gradient is not in the shape of its output.
    pub fn backward(&self, d_out: View<'_, T>, d_state: Option<View<'_, f32>>) -> Result<LinearGrads<T>> {
        let (p, s) = (&self.0, &self.0.shape);
        expect("gradient of the output", d_out.shape(), s.out())?;
        if let Some(d_state) = &d_state {
            expect("gradient of the state", d_state.shape(), s.state())?;
        }
        let zeros = |there: bool, shape| there.then(|| Tensor::zeros(shape)).transpose();
        let mut dbeta = zeros(p.rule.corrects(), [s.batch, s.kv_heads, s.len, 1])?;
        let mut grads = LinearGrads {
            dq: Tensor::zeros(p.inputs.q.shape())?,
            dk: Tensor::zeros(p.inputs.k.shape())?,
            dv: Tensor::zeros(p.inputs.v.shape())?,
            ddecay: p.inputs.decay.map(|decay| Tensor::zeros(decay.shape())).transpose()?,
            dbeta: None,
            dpast: Tensor::zeros(s.state())?,
        };
        let to = linear::Gradients {
            dq: grads.dq.view_mut(),
            dk: grads.dk.view_mut(),
            dv: grads.dv.view_mut(),
            ddecay: grads.ddecay.as_mut().map(Tensor::view_mut),
            dbeta: dbeta.as_mut().map(Tensor::view_mut),
            dpast: grads.dpast.view_mut(),
        };
        linear::backward(p, linear::Upstream { d_out, d_state }, to);
        grads.dbeta = match (dbeta, p.inputs.beta) {
            (Some(dbeta), Some(beta)) if beta.shape() != dbeta.shape() => Some(over_heads(&dbeta)?),
            (dbeta, _) => dbeta,
        };
        Ok(grads)
    }
}

/// The sum over heads, in order.
fn over_heads(of: &Tensor<f32>) -> Result<Tensor<f32>> {
    let [batch, heads, len, _] = of.shape();
    let mut sum = Tensor::zeros([batch, 1, len, 1])?;
    for (i, row) in of.data().chunks_exact(len.max(1)).enumerate() {
        sum.data_mut()[i / heads * len..][..len].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    Ok(sum)
}
