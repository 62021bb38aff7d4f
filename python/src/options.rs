//! The keyword arguments that all kinds of attention share, read once.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use regard::{Alibi, Attention, Bias, Causal, Mask, Slope, Softcap, Window};

use crate::array::{Array, Dtype};
use crate::error::{OrRaise, value, wrong_type};
use crate::layout::Layout;
use crate::masks::{self, BoolArray, Parts, Shared, broadcast_axes};
use crate::scores::{self, numbers};
use crate::threads::forced_kernel;

/// What a call was asked for beside its arrays.
#[derive(Default)]
pub(crate) struct Options<'py> {
    masks: Parts<'py>,
    causal: Option<Causal>,
    window: Option<Window>,
    documents: Option<(Vec<u32>, Option<Vec<u32>>)>,
    blocks: Option<regard::Blocks>,
    scores: Vec<scores::Shared>,
    softcap: Option<f32>,
    alibi: Option<AlibiSlopes>,
    pub(crate) bias: Option<Array<'py>>,
    pub(crate) bias_gradient: bool,
    pub(crate) sinks: Option<Vec<f32>>,
    scale: Option<f32>,
    dropout: Option<(f32, u64)>,
    pub(crate) layout: Layout,
    pub(crate) return_lse: bool,
    pub(crate) out: Option<Array<'py>>,
    pub(crate) layer: usize,
}

enum AlibiSlopes {
    Given(Alibi),
    /// The paper's, for as many heads as there are.
    Paper,
}

/// The attention of a call: masks and scores chosen at run time.
pub(crate) type Chosen<'a> = Attention<Box<dyn Mask + 'a>, Box<dyn Slope + 'a>>;

/// Which of the arguments a function has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Forward,
    Backward,
    Cache,
    Inspect,
}

impl<'py> Options<'py> {
    /// Reads keyword arguments.
    ///
    /// # Errors
    /// `TypeError` for one that is unknown or of the wrong type, `ValueError` for one outside its domain.
    pub(crate) fn of(call: Call, given: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        let mut options = Options::default();
        for (name, object) in given.into_iter().flatten() {
            if object.is_none() {
                options.know(call, name.cast::<PyString>()?.to_str()?)?;
            } else {
                options.take(call, name.cast::<PyString>()?.to_str()?, &object)?;
            }
        }
        if options.layout == Layout::Packed && options.documents.is_none() && call != Call::Cache {
            return Err(value("layout is 'packed' and needs documents: the boundaries of the sequences".into()));
        }
        Ok(options)
    }

    fn know(&self, call: Call, name: &str) -> PyResult<()> {
        let shared =
            ["mask", "score", "causal", "window", "documents", "blocks", "softcap", "alibi", "bias", "sinks", "scale", "dropout"];
        let own: &[&str] = match call {
            Call::Forward => &["layout", "return_lse", "out"],
            Call::Backward => &["layout", "bias_gradient"],
            Call::Cache => &["layout", "return_lse", "out", "layer"],
            Call::Inspect => &["layout"],
        };
        if shared.contains(&name) || own.contains(&name) {
            return Ok(());
        }
        Err(PyTypeError::new_err(format!("{name:?} is no option of this call: it has {}, {}", shared.join(", "), own.join(", "))))
    }

    fn take(&mut self, call: Call, name: &str, object: &Bound<'py, PyAny>) -> PyResult<()> {
        self.know(call, name)?;
        match name {
            "mask" => self.masks.take(object)?,
            "score" => scores::parts(object, &mut self.scores)?,
            "causal" => self.causal = Some(causal(object)?),
            "window" => {
                let needed = "a pair (left, right) of integers or None";
                let (left, right) = object.extract().map_err(|_| wrong_type(name, object, needed))?;
                self.window = Some(masks::window(left, right)?);
            }
            "documents" => self.documents = Some(documents(object)?),
            "blocks" => {
                let needed = "a triple (map, q_block, kv_block)";
                let (map, q, kv): (Bound<'_, PyAny>, i64, i64) = object.extract().map_err(|_| wrong_type(name, object, needed))?;
                self.blocks = Some(masks::blocks(&map, q, kv)?);
            }
            "softcap" => self.softcap = Some(number(name, object)?),
            "alibi" => self.alibi = alibi(object)?,
            "bias" => self.bias = Some(bias(object)?),
            "bias_gradient" => self.bias_gradient = flag(name, object)?,
            "sinks" => self.sinks = Some(numbers("sinks", object)?),
            "scale" => self.scale = Some(number(name, object)?),
            "dropout" => {
                let (p, seed) = object
                    .extract()
                    .map_err(|_| wrong_type(name, object, "a pair (p, seed): a number and an integer below 2^64"))?;
                self.set_dropout(p, seed)?;
            }
            "layout" => {
                self.layout = Layout::named(&object.extract::<String>().map_err(|_| wrong_type(name, object, "a string"))?)?
            }
            "return_lse" => self.return_lse = flag(name, object)?,
            "out" => self.out = Some(Array::of("out", object)?),
            "layer" => self.layer = object.extract().map_err(|_| wrong_type(name, object, "a number of a layer, 0 or more"))?,
            _ => unreachable!("`know` refuses other names"),
        }
        Ok(())
    }

    fn set_dropout(&mut self, p: f32, seed: u64) -> PyResult<()> {
        if !(0.0..1.0).contains(&p) {
            return Err(value(format!("dropout is {p} and must be at least 0 and below 1")));
        }
        self.dropout = (p > 0.0).then_some((p, seed));
        Ok(())
    }

    /// Arrays that an output must not share memory with.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array<'py>> {
        self.bias.iter().chain(&self.masks.bools)
    }

    /// The boolean arrays of the masks, in place where memory allows: [`Options::attention`] borrows them.
    pub(crate) fn bools(&self) -> PyResult<Vec<BoolArray<'_>>> {
        self.masks.bools.iter().map(masks::bools).collect()
    }

    /// The attention that was asked for, over arrays that stay where they are.
    pub(crate) fn attention<'a>(&'a self, bools: &'a [BoolArray<'a>], q_heads: usize) -> PyResult<Chosen<'a>> {
        let mut attention = Attention::new().mask(self.mask(bools)?).score(self.score(q_heads)?);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if let Some(sinks) = &self.sinks {
            attention = attention.sinks(sinks.clone());
        }
        if let Some((p, seed)) = self.dropout {
            attention = attention.dropout(p, seed);
        }
        Ok(match forced_kernel() {
            Some(kernel) => attention.kernel(kernel),
            None => attention,
        })
    }

    fn mask<'a>(&'a self, bools: &'a [BoolArray<'a>]) -> PyResult<Box<dyn Mask + 'a>> {
        let mut all: Vec<Box<dyn Mask + 'a>> = Vec::new();
        match &self.documents {
            Some((q, kv)) => all.push(Box::new(masks::documents(q, kv.as_deref(), self.in_document())?)),
            None => {
                self.causal.iter().for_each(|causal| all.push(Box::new(*causal)));
                self.window.iter().for_each(|window| all.push(Box::new(*window)));
            }
        }
        self.blocks.iter().for_each(|blocks| all.push(Box::new(blocks.clone())));
        self.masks.shared.iter().for_each(|mask| all.push(Box::new(mask.clone())));
        bools.iter().for_each(|bools| all.push(Box::new(bools.mask())));
        Ok(all.into_iter().reduce(|a, b| Box::new((a, b))).unwrap_or_else(|| Box::new(())))
    }

    /// Within documents, positions are those of the document: causal and window count there.
    fn in_document(&self) -> Option<Shared> {
        match (self.causal, self.window) {
            (None, None) => None,
            (causal, window) => Some(Shared::new((causal, window))),
        }
    }

    fn score<'a>(&'a self, q_heads: usize) -> PyResult<Box<dyn Slope + 'a>> {
        let mut all: Vec<Box<dyn Slope + 'a>> = Vec::new();
        for score in &self.scores {
            all.push(score.make().or_raise()?);
        }
        self.softcap.iter().for_each(|&cap| all.push(Box::new(Softcap(cap))));
        match &self.alibi {
            Some(AlibiSlopes::Given(alibi)) => all.push(Box::new(alibi.clone())),
            Some(AlibiSlopes::Paper) => all.push(Box::new(Alibi::new(q_heads))),
            None => {}
        }
        if let Some(bias) = &self.bias {
            let axes = broadcast_axes(bias)?;
            all.push(match bias.dtype {
                Dtype::F16 => boxed(Bias::new(bias.view::<half::f16>(axes)?), self.bias_gradient),
                Dtype::Bf16 => boxed(Bias::new(bias.view::<half::bf16>(axes)?), self.bias_gradient),
                _ => boxed(Bias::new(bias.view::<f32>(axes)?), self.bias_gradient),
            });
        }
        Ok(all.into_iter().reduce(|a, b| Box::new((a, b))).unwrap_or_else(|| Box::new(())))
    }
}

fn boxed<'a, T: regard::Element>(bias: Bias<'a, T>, gradient: bool) -> Box<dyn Slope + 'a> {
    if gradient { Box::new(bias.with_gradient()) } else { Box::new(bias) }
}

fn causal(object: &Bound<'_, PyAny>) -> PyResult<Causal> {
    let needed = "\"upper_left\" (query i sees keys up to i), \"lower_right\" (the last query sees the last key) or None";
    match object.cast::<PyString>().map(|name| name.to_string()) {
        Ok(name) if name == "upper_left" => Ok(Causal::UpperLeft),
        Ok(name) if name == "lower_right" => Ok(Causal::LowerRight),
        Ok(name) => Err(value(format!("causal is {name:?} and must be {needed}"))),
        Err(_) => Err(wrong_type("causal", object, needed)),
    }
}

/// One list of boundaries for queries and keys, or a pair of lists.
fn documents(object: &Bound<'_, PyAny>) -> PyResult<(Vec<u32>, Option<Vec<u32>>)> {
    if let Ok((q, kv)) = object.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
        && q.extract::<i64>().is_err()
    {
        return Ok((masks::positions("documents", &q)?, Some(masks::positions("documents", &kv)?)));
    }
    Ok((masks::positions("documents", object)?, None))
}

fn alibi(object: &Bound<'_, PyAny>) -> PyResult<Option<AlibiSlopes>> {
    match object.extract::<bool>() {
        Ok(paper) => Ok(paper.then_some(AlibiSlopes::Paper)),
        Err(_) => Ok(Some(AlibiSlopes::Given(scores::alibi("alibi", object)?))),
    }
}

fn bias<'py>(object: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let bias = Array::of("bias", object)?;
    match bias.dtype {
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => Ok(bias),
        Dtype::Bool => Err(PyTypeError::new_err("bias is bool and must be numbers: bools are a mask")),
        _ => Err(PyTypeError::new_err(format!("bias is {} and must be float32, float16 or bfloat16", bias.dtype.name()))),
    }
}

pub(crate) fn number(name: &str, object: &Bound<'_, PyAny>) -> PyResult<f32> {
    object.extract::<f64>().map(|x| x as f32).map_err(|_| wrong_type(name, object, "a number"))
}

fn flag(name: &str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.extract().map_err(|_| wrong_type(name, object, "True or False"))
}
