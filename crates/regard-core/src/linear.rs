//! The nouns of linear attention: its update rules, its gates, and the checks that they fit together.

use half::{bf16, f16};

use crate::shape::same;
use crate::view::elements;
use crate::{Element, Error, Result, View};

/// How the state `S`, `[head_dim, value_dim]` for each KV head, takes in a key and a value; the output is `o_t = scale · S_tᵀ q_t`.
///
/// | rule | update | of |
/// |---|---|---|
/// | `Linear` | `S_t = S_{t−1} + k_t v_tᵀ` | Katharopoulos et al. 2020, "Transformers are RNNs", §3.3 |
/// | `Gated` | `S_t = diag(e^{g_t}) S_{t−1} + k_t v_tᵀ` | one decay for each head: Sun et al. 2023, "Retentive Network", §2.1; Dao & Gu 2024, "Transformers are SSMs", §3; one for each element of the key: Yang et al. 2023, "Gated Linear Attention Transformers", §4.1 |
/// | `Delta` | `S_t = S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ k_t)ᵀ` | Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule", §2.2 |
/// | `GatedDelta` | `S' = diag(e^{g_t}) S_{t−1}`, `S_t = S' + β_t k_t (v_t − S'ᵀ k_t)ᵀ` | Yang et al. 2024, "Gated Delta Networks", §3.1 |
///
/// The names and the semantics are those of ONNX's operator `LinearAttention` (opset 27). The delta rules keep the state bounded
/// when keys have length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRule {
    /// The state adds up.
    Linear,
    /// The state decays, then adds up.
    Gated,
    /// The state is corrected towards the value at the key.
    Delta,
    /// The state decays, then is corrected.
    GatedDelta,
}

impl UpdateRule {
    /// Every rule.
    pub const ALL: [UpdateRule; 4] = [UpdateRule::Linear, UpdateRule::Gated, UpdateRule::Delta, UpdateRule::GatedDelta];

    /// Whether the state decays.
    pub fn decays(self) -> bool {
        matches!(self, UpdateRule::Gated | UpdateRule::GatedDelta)
    }

    /// Whether the state is corrected rather than added to.
    pub fn corrects(self) -> bool {
        matches!(self, UpdateRule::Delta | UpdateRule::GatedDelta)
    }
}

/// What is done to every element of a query and a key first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feature {
    /// Nothing: `φ(x) = x`.
    #[default]
    Identity,
    /// `φ(x) = elu(x) + 1`: `x + 1` above 0 and `eˣ` below. Always positive, as a normalised output needs.
    ///
    /// Source: Katharopoulos et al. 2020, "Transformers are RNNs", equation 7.
    EluPlusOne,
}

/// A gate, `[batch, kv_heads, length, dim]`, in whichever type it was computed: that need not be the type of the keys.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// In f32.
    F32(View<'a, f32>),
    /// In f16.
    F16(View<'a, f16>),
    /// In bf16.
    Bf16(View<'a, bf16>),
}

impl<'a> From<View<'a, f32>> for Gate<'a> {
    fn from(view: View<'a, f32>) -> Self {
        Gate::F32(view)
    }
}

impl<'a> From<View<'a, f16>> for Gate<'a> {
    fn from(view: View<'a, f16>) -> Self {
        Gate::F16(view)
    }
}

impl<'a> From<View<'a, bf16>> for Gate<'a> {
    fn from(view: View<'a, bf16>) -> Self {
        Gate::Bf16(view)
    }
}

impl Gate<'_> {
    /// `[batch, kv_heads, length, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        match self {
            Gate::F32(view) => view.shape(),
            Gate::F16(view) => view.shape(),
            Gate::Bf16(view) => view.shape(),
        }
    }

    /// Row `[b, h, l, ..]` widened to f32 into the first `dim` elements of `to`; a single head stands for all.
    #[inline]
    pub fn row_into(&self, b: usize, h: usize, l: usize, to: &mut [f32]) {
        let h = if self.shape()[1] == 1 { 0 } else { h };
        match self {
            Gate::F32(view) => view.row_into(b, h, l, to),
            Gate::F16(view) => view.row_into(b, h, l, to),
            Gate::Bf16(view) => view.row_into(b, h, l, to),
        }
    }

    /// Checks that every element is between `low` and `high`.
    fn within(&self, what: &'static str, (low, high): (f32, f32), needed: &'static str) -> Result<()> {
        let [batch, heads, length, dim] = self.shape();
        let mut row = vec![0.0; dim];
        for at in 0..batch * heads * length {
            self.row_into(at / length / heads, at / length % heads, at % length, &mut row);
            if !row.iter().all(|x| (low..=high).contains(x)) {
                let given = row.iter().find(|x| !(low..=high).contains(*x)).copied().unwrap_or_default();
                return Err(Error::Value { what, given: given.into(), needed });
            }
        }
        Ok(())
    }
}

/// What linear attention reads: q `[batch, q_heads, length, head_dim]`, k `[batch, kv_heads, length, head_dim]`,
/// v `[batch, kv_heads, length, value_dim]`, its gates, and the state that came before.
#[derive(Clone, Copy, Debug)]
pub struct LinearInputs<'a, T> {
    /// Queries.
    pub q: View<'a, T>,
    /// Keys.
    pub k: View<'a, T>,
    /// Values.
    pub v: View<'a, T>,
    /// Natural logarithms of decays, at most 0.
    pub decay: Option<Gate<'a>>,
    /// Rates of correction, 0 to 2.
    pub beta: Option<Gate<'a>>,
    /// The state before the first position; zeros where there is none.
    pub past: Option<View<'a, f32>>,
}

impl<'a, T: Element> LinearInputs<'a, T> {
    /// Queries, keys and values, without gates and from an empty state.
    pub fn new(q: View<'a, T>, k: View<'a, T>, v: View<'a, T>) -> Self {
        LinearInputs { q, k, v, decay: None, beta: None, past: None }
    }

    /// Natural logarithms of decays, `[batch, kv_heads, length, 1]` or, one for each element of the key,
    /// `[batch, kv_heads, length, head_dim]`: at most 0; −∞ forgets everything.
    pub fn decay(self, decay: impl Into<Gate<'a>>) -> Self {
        LinearInputs { decay: Some(decay.into()), ..self }
    }

    /// Rates of correction `β`, `[batch, kv_heads, length, 1]`, or `[batch, 1, length, 1]` for all heads alike: 0 to 2, outside of
    /// which a correction overshoots by more than it corrects (with keys of length 1).
    pub fn beta(self, beta: impl Into<Gate<'a>>) -> Self {
        LinearInputs { beta: Some(beta.into()), ..self }
    }

    /// The state to begin from, as an earlier call returned it.
    pub fn past(self, state: View<'a, f32>) -> Self {
        LinearInputs { past: Some(state), ..self }
    }
}

/// The sizes of one linear attention problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub q_heads: usize,
    /// Key/value heads, each with a state; divides `q_heads`.
    pub kv_heads: usize,
    /// Positions in each sequence.
    pub len: usize,
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Elements of a row of the state: `value_dim`, and one more for the sum of keys where the output is normalised.
    pub state_dim: usize,
}

impl LinearShape {
    /// The sizes of `inputs` under a rule.
    ///
    /// # Errors
    /// When the inputs do not fit together, a gate is missing, superfluous or outside its domain; the error names it.
    pub fn of<T: Element>(inputs: &LinearInputs<'_, T>, rule: UpdateRule, normalised: bool) -> Result<LinearShape> {
        let ([batch, q_heads, len, head_dim], [_, kv_heads, ..]) = (inputs.q.shape(), inputs.k.shape());
        let [.., value_dim] = inputs.v.shape();
        same("keys", "sequences", inputs.k.shape()[0], batch, "as the query has")?;
        same("keys", "positions", inputs.k.shape()[2], len, "as the query has")?;
        same("keys", "elements in each head", inputs.k.shape()[3], head_dim, "as the query has")?;
        same("values", "sequences", inputs.v.shape()[0], batch, "as the keys have")?;
        same("values", "heads", inputs.v.shape()[1], kv_heads, "as the keys have")?;
        same("values", "positions", inputs.v.shape()[2], len, "as the keys have")?;
        if q_heads.checked_rem(kv_heads).unwrap_or(q_heads) != 0 {
            return Err(Error::Heads { q_heads, kv_heads });
        }
        let state_dim = value_dim + usize::from(normalised);
        let shape = LinearShape { batch, q_heads, kv_heads, len, head_dim, value_dim, state_dim };
        elements("output", shape.out())?;
        elements("state", shape.state())?;
        shape.check_decay(inputs.decay.as_ref(), rule)?;
        shape.check_beta(inputs.beta.as_ref(), rule)?;
        match inputs.past {
            Some(past) if past.shape() != shape.state() => {
                Err(Error::Shape { what: "past state", given: past.shape(), needed: shape.state() })
            }
            _ => Ok(shape),
        }
    }

    fn check_decay(&self, decay: Option<&Gate<'_>>, rule: UpdateRule) -> Result<()> {
        let Some(gate) = given("decay", decay, rule.decays())? else { return Ok(()) };
        let needed = [self.batch, self.kv_heads, self.len, if gate.shape()[3] == 1 { 1 } else { self.head_dim }];
        if gate.shape() != needed {
            return Err(Error::Shape { what: "decay", given: gate.shape(), needed });
        }
        gate.within("a decay", (f32::NEG_INFINITY, 0.0), "a natural logarithm of at most 0")
    }

    fn check_beta(&self, beta: Option<&Gate<'_>>, rule: UpdateRule) -> Result<()> {
        let Some(gate) = given("beta", beta, rule.corrects())? else { return Ok(()) };
        let needed = [self.batch, if gate.shape()[1] == 1 { 1 } else { self.kv_heads }, self.len, 1];
        if gate.shape() != needed {
            return Err(Error::Shape { what: "beta", given: gate.shape(), needed });
        }
        gate.within("a beta", (0.0, 2.0), "between 0 and 2")
    }

    /// Query heads that share one KV head and its state.
    pub fn group(&self) -> usize {
        self.q_heads.checked_div(self.kv_heads).unwrap_or(0)
    }

    /// `[batch, q_heads, length, value_dim]`.
    pub fn out(&self) -> [usize; 4] {
        [self.batch, self.q_heads, self.len, self.value_dim]
    }

    /// `[batch, kv_heads, head_dim, state_dim]`.
    pub fn state(&self) -> [usize; 4] {
        [self.batch, self.kv_heads, self.head_dim, self.state_dim]
    }
}

/// A gate that is there exactly when the rule needs it.
fn given<'a, 'b>(what: &'static str, gate: Option<&'a Gate<'b>>, needed: bool) -> Result<Option<&'a Gate<'b>>> {
    match (gate, needed) {
        (None, true) => Err(Error::Unsupported {
            what: if what == "decay" { "a gated rule" } else { "a delta rule" },
            context: if what == "decay" { "without a decay" } else { "without a beta" },
            instead: "give it to LinearInputs, [batch, kv_heads, length, 1]",
        }),
        (Some(_), false) => Err(Error::Unsupported {
            what,
            context: "with this update rule, which would ignore it",
            instead: if what == "decay" { "use Gated or GatedDelta" } else { "use Delta or GatedDelta" },
        }),
        (gate, _) => Ok(gate),
    }
}
