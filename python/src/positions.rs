//! Rotary and sinusoidal positions.

use numpy::{PyArray1, PyArray2, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{Angles, Element, RopeScaling, RopeStyle, Tensor};

use crate::array::{Array, Item};
use crate::attention::for_type;
use crate::error::{OrRaise, filled, value, wrong_type};
use crate::layout::Layout;
use crate::masks::row_major;
use crate::threads::compute;

fn style(name: &str) -> PyResult<RopeStyle> {
    match name {
        "half" => Ok(RopeStyle::HalfSplit),
        "interleaved" => Ok(RopeStyle::Interleaved),
        _ => Err(value(format!("style is {name:?} and must be \"half\" or \"interleaved\""))),
    }
}

/// Rotary position embedding: pair `i` of a head turns by `position · theta^(−2i/dim)`.
///
/// `scaling` is a dictionary as in a Hugging Face configuration: `rope_type` "linear", "dynamic", "yarn", "llama3" or "longrope", and its
/// numbers; `length` is that of the longest text to come, which decides for "dynamic" and "longrope".
///
/// Source: Su et al. 2021, "RoFormer", §3.2.
#[pyclass(frozen, name = "Rope", module = "regard")]
pub(crate) struct PyRope(regard::Rope);

#[pymethods]
impl PyRope {
    #[new]
    #[pyo3(signature = (dim, *, theta = 10_000.0, style = "half", scaling = None, length = 0))]
    fn new(dim: usize, theta: f64, style: &str, scaling: Option<&Bound<'_, PyDict>>, length: usize) -> PyResult<Self> {
        let style = self::style(style)?;
        let rope = match scaling.map(|fields| Scaling(fields.clone()).read()).transpose()?.flatten() {
            Some(scaling) => regard::Rope::scaled(dim, theta, style, &scaling, length),
            None => regard::Rope::new(dim, theta, style),
        };
        rope.map(PyRope).or_raise()
    }

    /// Elements of a head that turn.
    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    /// Radians per position, `[dim / 2]`.
    #[getter]
    fn frequencies<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.0.frequencies().to_pyarray(py)
    }

    /// What cosines and sines are multiplied by.
    #[getter]
    fn attention_factor(&self) -> f64 {
        self.0.attention_factor()
    }

    /// x `[batch, heads, length, head_dim]` turned by positions `first..first + length`.
    #[pyo3(signature = (x, first = 0))]
    fn turn<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>, first: usize) -> PyResult<Bound<'py, PyAny>> {
        let x = Array::of("x", x)?;
        for_type!(&x, T => self.each::<T>(py, &x, |rope, view| rope.turn(view, first)))
    }

    /// Turned by the opposite angles: the gradient of `x` from that of `turn(x)`.
    #[pyo3(signature = (dx, first = 0))]
    fn turn_back<'py>(&self, py: Python<'py>, dx: &Bound<'py, PyAny>, first: usize) -> PyResult<Bound<'py, PyAny>> {
        let dx = Array::of("dx", dx)?;
        for_type!(&dx, T => self.each::<T>(py, &dx, |rope, view| rope.turn_back(view, first)))
    }
}

impl PyRope {
    fn each<'py, T: Item + Element>(
        &self,
        py: Python<'py>,
        x: &Array<'py>,
        turn: impl Fn(&regard::Rope, regard::View<'_, T>) -> regard::Result<Tensor<T>> + Sync,
    ) -> PyResult<Bound<'py, PyAny>> {
        let view = x.view::<T>(Layout::Bhld.axes(x)?)?;
        let turned = compute(py, || turn(&self.0, view))?.or_raise()?;
        let mut array = x.new_like(py, "output", T::DTYPE, x.shape())?;
        array.fill(turned.data(), row_major(turned.shape()))?;
        array.into_object(py)
    }
}

/// The fields of a scaling, as Hugging Face configurations name them.
struct Scaling<'py>(Bound<'py, PyDict>);

impl Scaling<'_> {
    fn read(self) -> PyResult<Option<RopeScaling>> {
        let kind = match self.0.get_item("rope_type")?.or(self.0.get_item("type")?) {
            Some(kind) => kind.extract::<String>().map_err(|_| wrong_type("rope_type of scaling", &kind, "a string"))?,
            None => return Err(value("scaling has no rope_type: it names the kind".into())),
        };
        let (allowed, scaling): (&[&str], _) = match kind.as_str() {
            "default" => return Ok(None),
            "linear" => (&["factor"], RopeScaling::Linear { factor: self.needed("factor")? }),
            "dynamic" => {
                (&["factor", ORIGINAL], RopeScaling::Dynamic { factor: self.needed("factor")?, original: self.original()? })
            }
            "yarn" => (
                &["factor", ORIGINAL, "attention_factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"],
                self.yarn()?,
            ),
            "llama3" => (
                &["factor", ORIGINAL, "low_freq_factor", "high_freq_factor"],
                RopeScaling::Llama3 {
                    factor: self.needed("factor")?,
                    original: self.original()?,
                    low_freq_factor: self.needed("low_freq_factor")?,
                    high_freq_factor: self.needed("high_freq_factor")?,
                },
            ),
            "longrope" => (&["factor", ORIGINAL, "attention_factor", "short_factor", "long_factor"], self.longrope()?),
            _ => {
                let known = "default, linear, dynamic, yarn, llama3 and longrope";
                return Err(value(format!("scaling has rope_type {kind:?}, and there are {known}")));
            }
        };
        for name in self.0.keys() {
            let name = name.extract::<String>().map_err(|_| wrong_type("a field of scaling", &name, "a string"))?;
            if !allowed.contains(&name.as_str()) && !["rope_type", "type", "rope_theta"].contains(&name.as_str()) {
                return Err(value(format!(
                    "scaling has a field {name:?}, which {kind:?} does not have: it has {}",
                    allowed.join(", ")
                )));
            }
        }
        Ok(Some(scaling))
    }

    fn number(&self, name: &str) -> PyResult<Option<f64>> {
        let field = self.0.get_item(name)?.filter(|field| !field.is_none());
        field
            .map(|field| field.extract::<f64>().map_err(|_| wrong_type(&format!("{name} of scaling"), &field, "a number")))
            .transpose()
    }

    fn needed(&self, name: &str) -> PyResult<f64> {
        self.number(name)?.ok_or_else(|| value(format!("scaling has no {name}")))
    }

    fn original(&self) -> PyResult<usize> {
        Ok(self.needed(ORIGINAL)? as usize)
    }

    /// With `mscale` and `mscale_all_dim` (DeepSeek), the attention factor is a ratio of theirs.
    fn yarn(&self) -> PyResult<RopeScaling> {
        let factor = self.needed("factor")?;
        let sharpened = |mscale: f64| if factor > 1.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 };
        let ratio = match (self.number("mscale")?, self.number("mscale_all_dim")?) {
            (Some(a), Some(b)) if a != 0.0 && b != 0.0 => sharpened(a) / sharpened(b),
            _ => sharpened(1.0),
        };
        Ok(RopeScaling::Yarn {
            factor,
            original: self.original()?,
            attention_factor: self.number("attention_factor")?.unwrap_or(ratio),
            beta_fast: self.number("beta_fast")?.unwrap_or(32.0),
            beta_slow: self.number("beta_slow")?.unwrap_or(1.0),
            truncate: self.0.get_item("truncate")?.map_or(Ok(true), |field| field.is_truthy())?,
        })
    }

    fn longrope(&self) -> PyResult<RopeScaling> {
        let factors = |name: &str| -> PyResult<Vec<f64>> {
            let field = self.0.get_item(name)?.ok_or_else(|| value(format!("scaling has no {name}")))?;
            field.extract().map_err(|_| wrong_type(&format!("{name} of scaling"), &field, "a list of numbers"))
        };
        let original = self.original()?;
        let attention_factor = match self.number("attention_factor")? {
            Some(given) => given,
            None => RopeScaling::longrope_attention(self.needed("factor")?, original),
        };
        let (short_factor, long_factor) = (factors("short_factor")?, factors("long_factor")?);
        Ok(RopeScaling::LongRope { short_factor, long_factor, original, attention_factor })
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// x `[batch, heads, length, head_dim]` turned by given angles: cos and sin float32 `[length, pairs]` or `[batch, length, pairs]`, with
/// `2 · pairs` at most `head_dim`; the rest of a head stays.
#[pyfunction]
#[pyo3(signature = (x, cos, sin, *, style = "half"))]
fn rotate<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    cos: &Bound<'py, PyAny>,
    sin: &Bound<'py, PyAny>,
    style: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let style = self::style(style)?;
    let (x, cos, sin) = (Array::of("x", x)?, Array::of("cos", cos)?, Array::of("sin", sin)?);
    let (shape, _) = Layout::Bhld.axes(&x)?;
    let [batch, _, length, head_dim] = shape;
    let pairs = cos.shape().last().copied().unwrap_or(0);
    let together = match *cos.shape() {
        [l, _] => l == length,
        [b, l, _] => b == batch && l == length,
        _ => false,
    };
    if !together || sin.shape() != cos.shape() || pairs.checked_mul(2).is_none_or(|n| n > head_dim) {
        let (c, s) = (cos.shape(), sin.shape());
        let needed = format!("[{length}, pairs] or [{batch}, {length}, pairs], with at most {} pairs", head_dim / 2);
        return Err(value(format!("cos has shape {c:?} and sin {s:?}, and both need {needed}")));
    }
    let angles = Angles::new(cos.elements("as cosines are")?, sin.elements("as sines are")?, pairs, style).or_raise()?;
    let each = cos.shape().len() == 3;
    for_type!(&x, T => turned::<T>(py, &x, shape, &angles, each))
}

fn turned<'py, T: Item + Element>(
    py: Python<'py>,
    x: &Array<'py>,
    [_, heads, length, head_dim]: [usize; 4],
    angles: &Angles,
    each: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let view = x.view::<T>(Layout::Bhld.axes(x)?)?;
    let mut array = x.new_like(py, "output", x.dtype, x.shape())?;
    let mut all = filled::<T>("output", x.shape().iter().product())?;
    let (mut from, mut to) = (vec![0.0; head_dim], vec![0.0; head_dim]);
    for (i, row) in all.chunks_mut(head_dim.max(1)).enumerate() {
        let (b, h, l) = (i / length / heads, i / length % heads, i % length);
        view.row_into(b, h, l, &mut from);
        match angles.positions() {
            0 => to.copy_from_slice(&from), // no pairs
            _ => angles.turn(if each { b * length + l } else { l }, &from, &mut to),
        }
        T::narrow(&to, row);
    }
    array.fill(&all, row_major([1, 1, 1, all.len()]))?;
    array.into_object(py)
}

/// Sinusoidal positions `[length, dim]`, to be added to embeddings.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.5.
#[pyfunction]
#[pyo3(signature = (length, dim, *, first = 0, style = "interleaved"))]
fn sinusoidal<'py>(py: Python<'py>, length: usize, dim: usize, first: usize, style: &str) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let table = regard::sinusoidal(first..first.saturating_add(length), dim, self::style(style)?).or_raise()?;
    table.data().to_pyarray(py).reshape([length, dim])
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyRope>()?;
    module.add_function(wrap_pyfunction!(rotate, module)?)?;
    module.add_function(wrap_pyfunction!(sinusoidal, module)?)
}
