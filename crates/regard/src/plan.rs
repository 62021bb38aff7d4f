//! Attention bound to its data: checked, with a kernel chosen, ready to run.

use std::sync::LazyLock;

use regard_core::{Dropout, Element, Error, Kv, Mask, Result, Score, Shape, Slope, Tensor, View, ViewMut};
use regard_cpu::{Gradients, Kernel, Problem, Rule, Upstream};

use crate::{Attention, Cost};

/// The result of the forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T> {
    /// `[batch, q_heads, q_len, value_dim]`; zeros where a query sees nothing.
    pub out: Tensor<T>,
    /// Natural log of the softmax denominator, sinks included, `[batch, q_heads, q_len, 1]`; −∞ where a query sees nothing.
    pub lse: Tensor<f32>,
}

/// The result of the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Grads<T> {
    /// Gradient of the queries, in their shape.
    pub dq: Tensor<T>,
    /// Gradient of the keys, `[batch, kv_heads, kv_len, head_dim]`, summed over the query heads that share them. For a paged
    /// cache, `kv_len` is that of the longest sequence, and the rest of the others is zero.
    pub dk: Tensor<T>,
    /// Gradient of the values, `[batch, kv_heads, kv_len, value_dim]`, likewise.
    pub dv: Tensor<T>,
    /// Gradient of a [`Bias::with_gradient`](regard_core::Bias::with_gradient), of the table of a
    /// [`RelativeBias`](regard_core::RelativeBias::with_gradient) or of the centres of a
    /// [`Gaussian`](regard_core::Gaussian::with_gradient), in its shape.
    pub dbias: Option<Tensor<f32>>,
    /// Gradient of the sinks, one for each query head, where there are sinks.
    pub dsinks: Option<Vec<f32>>,
}

/// Where [`Plan::backward_into`] writes: views of any strides, in the shapes that [`Grads`] has them. Every element is written,
/// whatever it held.
#[derive(Debug)]
pub struct GradsMut<'a, T> {
    /// Gradient of the queries.
    pub dq: ViewMut<'a, T>,
    /// Gradient of the keys.
    pub dk: ViewMut<'a, T>,
    /// Gradient of the values.
    pub dv: ViewMut<'a, T>,
    /// Gradient of the bias, row-major, where one is asked for.
    pub dbias: Option<&'a mut [f32]>,
    /// Gradient of the sinks, where there are sinks.
    pub dsinks: Option<&'a mut [f32]>,
}

/// One attention problem whose arguments fit together, with the kernel that will compute it.
///
/// ```
/// use regard::{Attention, Causal, View};
///
/// let x: Vec<f32> = (0..2 * 100 * 16).map(|i| (i as f32).sin()).collect();
/// let x = View::new(&x, [1, 2, 100, 16])?;
/// let attention = Attention::new().mask(Causal::UpperLeft);
/// let plan = attention.plan(x, (x, x))?;
/// println!("{}: {}", plan.kernel(), plan.why());
/// println!("{:?}", plan.cost());
/// let output = plan.forward()?;
/// let grads = plan.backward(&output, x)?; // with x as the gradient of the output
/// assert_eq!(grads.dq.shape(), [1, 2, 100, 16]);
/// # Ok::<(), regard::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan<'a, T, M, S> {
    pub(crate) problem: Problem<'a, T>,
    pub(crate) rule: Rule<'a, M, S>,
    /// Who chose the kernel.
    choice: Choice,
}

/// Whether the environment names a kernel, as [`Kernel::best`] found it.
static FORCED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("REGARD_KERNEL").is_some());

#[derive(Clone, Copy, Debug)]
enum Choice {
    Best,
    Variable,
    Caller,
}

impl<'a, T: Element, M: Mask, S: Score> Plan<'a, T, M, S> {
    pub(crate) fn new(attention: &'a Attention<M, S>, q: View<'a, T>, kv: Kv<'a, T>) -> Result<Self> {
        let shape = Shape::of(&q, &kv)?;
        attention.mask.check(&shape)?;
        attention.score.check(&shape)?;
        let scale = attention.scale.unwrap_or(1.0 / (shape.head_dim.max(1) as f32).sqrt());
        if !scale.is_finite() {
            return Err(Error::Value { what: "scale", given: scale.into(), needed: "finite" });
        }
        let sinks = attention.sinks.as_deref();
        check_sinks(sinks, &shape)?;
        let dropout = attention.dropout.map(|(p, seed)| Dropout::new(p, seed)).transpose()?;
        let (kernel, choice) = match &attention.kernel {
            Some(name) => (Kernel::named(name)?, Choice::Caller),
            None if *FORCED => (Kernel::best()?, Choice::Variable),
            None => (Kernel::best()?, Choice::Best),
        };
        let problem = Problem { shape, q, kv, scale, sinks: sinks.unwrap_or_default(), dropout, kernel };
        Ok(Plan { problem, rule: Rule { mask: &attention.mask, score: &attention.score }, choice })
    }

    /// The sizes of the problem.
    pub fn shape(&self) -> &Shape {
        &self.problem.shape
    }

    /// The queries `[batch, q_heads, q_len, head_dim]`.
    pub fn queries(&self) -> View<'a, T> {
        self.problem.q
    }

    /// The keys and values.
    pub fn kv(&self) -> Kv<'a, T> {
        self.problem.kv
    }

    /// The kernel that will run: one of [`kernels`](crate::kernels).
    pub fn kernel(&self) -> &'static str {
        self.problem.kernel.name()
    }

    /// In one sentence, why that kernel, and how it will share out the work.
    pub fn why(&self) -> String {
        let chosen = match self.choice {
            Choice::Best => "the widest instructions of this machine",
            Choice::Variable => "named by REGARD_KERNEL",
            Choice::Caller => "asked for by name",
        };
        let (blocks, threads) = (regard_cpu::row_blocks(&self.problem.shape), regard_cpu::forward_threads(&self.problem.shape));
        let (blocks, of) = (blocks, if blocks == 1 { "block" } else { "blocks" });
        let (batch, splits) = (self.problem.shape.batch, regard_cpu::splits_keys(&self.problem.shape));
        match (0..batch).filter(|&b| splits(b)).count() {
            _ if threads == 1 => format!("{chosen}; {blocks} {of} of query rows in one thread"),
            0 => format!("{chosen}; {blocks} {of} of query rows shared out over {threads} threads"),
            n if n == batch => {
                format!("{chosen}; {blocks} {of} of query rows for {threads} threads, so the keys are shared out too")
            }
            _ => format!("{chosen}; {blocks} {of} of query rows shared out over {threads} threads, and the keys of long sequences"),
        }
    }

    /// Whether the thread that calls does the forward pass alone, for it is small; others are not woken then.
    pub fn is_alone(&self) -> bool {
        regard_cpu::forward_alone(&self.problem.shape)
    }

    /// What the passes will cost: operations, bytes, tiles. Asks the mask about every tile, and computes nothing.
    pub fn cost(&self) -> Cost {
        Cost::of(&self.problem, &self.rule)
    }

    /// Computes the output and its log-sum-exp.
    ///
    /// # Errors
    /// When the output is larger than the machine can address.
    pub fn forward(&self) -> Result<Output<T>> {
        let shape = &self.problem.shape;
        let mut output = Output { out: Tensor::zeros(shape.out())?, lse: Tensor::zeros(lse_shape(shape))? };
        self.forward_into(output.out.view_mut(), output.lse.view_mut())?;
        Ok(output)
    }

    /// As [`Plan::forward`], into memory of yours, of any strides: `out` `[batch, q_heads, q_len, value_dim]` and `lse`
    /// `[batch, q_heads, q_len, 1]`. Every element is written, whatever it held.
    ///
    /// # Errors
    /// When a shape differs.
    pub fn forward_into(&self, out: ViewMut<'_, T>, lse: ViewMut<'_, f32>) -> Result<()> {
        expect("output", out.shape(), self.problem.shape.out())?;
        expect("log-sum-exp", lse.shape(), lse_shape(&self.problem.shape))?;
        regard_cpu::forward(&self.problem, &self.rule, out, lse);
        Ok(())
    }
}

impl<T: Element, M: Mask, S: Slope> Plan<'_, T, M, S> {
    /// Computes every gradient of `Σ d_out · out`, from the output of [`Plan::forward`]; `d_out` has its shape.
    ///
    /// Source: Dao 2023, "FlashAttention-2", Algorithm 2.
    ///
    /// # Errors
    /// When the output or its gradient is not of this problem's shape.
    pub fn backward(&self, output: &Output<T>, d_out: View<'_, T>) -> Result<Grads<T>> {
        let shape = &self.problem.shape;
        let kv = |dim| Tensor::zeros([shape.batch, shape.kv_heads, shape.kv_len, dim]);
        let mut grads = Grads {
            dq: Tensor::zeros(self.problem.q.shape())?,
            dk: kv(shape.head_dim)?,
            dv: kv(shape.value_dim)?,
            dbias: self.rule.score.bias_shape().map(Tensor::zeros).transpose()?,
            dsinks: (!self.problem.sinks.is_empty()).then(|| vec![0.0; shape.q_heads]),
        };
        let to = GradsMut {
            dq: grads.dq.view_mut(),
            dk: grads.dk.view_mut(),
            dv: grads.dv.view_mut(),
            dbias: grads.dbias.as_mut().map(Tensor::data_mut),
            dsinks: grads.dsinks.as_deref_mut(),
        };
        self.backward_into(output.out.view(), output.lse.view(), d_out, to)?;
        Ok(grads)
    }

    /// As [`Plan::backward`], into memory of yours, from the output `[batch, q_heads, q_len, value_dim]`, its log-sum-exp
    /// `[batch, q_heads, q_len, 1]` and the gradient of the output, all of any strides.
    ///
    /// # Errors
    /// When a shape differs, a gradient that is asked for has no place, or one that is not has one.
    pub fn backward_into(&self, out: View<'_, T>, lse: View<'_, f32>, d_out: View<'_, T>, grads: GradsMut<'_, T>) -> Result<()> {
        let GradsMut { dq, dk, dv, dbias, dsinks } = grads;
        let (dbias, dsinks) = (dbias.unwrap_or_default(), dsinks.unwrap_or_default());
        let shape = &self.problem.shape;
        let kv = |dim| [shape.batch, shape.kv_heads, shape.kv_len, dim];
        expect("output", out.shape(), shape.out())?;
        expect("log-sum-exp", lse.shape(), lse_shape(shape))?;
        expect("gradient of the output", d_out.shape(), shape.out())?;
        expect("gradient of the queries", dq.shape(), self.problem.q.shape())?;
        expect("gradient of the keys", dk.shape(), kv(shape.head_dim))?;
        expect("gradient of the values", dv.shape(), kv(shape.value_dim))?;
        let bias = self.rule.score.bias_shape().map_or(0, |sizes| sizes.iter().product());
        expect_elements("gradient of the bias", dbias.len(), bias, "those of the bias `with_gradient` (0 without one)")?;
        expect_elements("gradient of the sinks", dsinks.len(), self.problem.sinks.len(), "one for each sink")?;
        let to = Gradients { dq, dk, dv, dbias, dsinks };
        regard_cpu::backward(&self.problem, &self.rule, Upstream { out, lse, d_out }, to);
        Ok(())
    }
}

pub(crate) fn lse_shape(shape: &Shape) -> [usize; 4] {
    [shape.batch, shape.q_heads, shape.q_len, 1]
}

pub(crate) fn expect(what: &'static str, given: [usize; 4], needed: [usize; 4]) -> Result<()> {
    if given == needed { Ok(()) } else { Err(Error::Shape { what, given, needed }) }
}

fn expect_elements(what: &'static str, given: usize, needed: usize, why: &'static str) -> Result<()> {
    if given == needed { Ok(()) } else { Err(Error::Size { what, dim: "elements", given, needed, why }) }
}

fn check_sinks(sinks: Option<&[f32]>, shape: &Shape) -> Result<()> {
    let Some(sinks) = sinks else { return Ok(()) };
    if sinks.len() != shape.q_heads {
        let (given, needed) = (sinks.len(), shape.q_heads);
        return Err(Error::Size { what: "sinks", dim: "logits", given, needed, why: "one for each query head" });
    }
    match sinks.iter().find(|s| s.is_nan() || **s == f32::INFINITY) {
        Some(&bad) => Err(Error::Value { what: "a sink", given: bad.into(), needed: "finite or −∞" }),
        None => Ok(()),
    }
}
