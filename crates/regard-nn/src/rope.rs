//! Rotary frequencies as Hugging Face's `config.json` writes them.

use regard::{Rope, RopeScaling, RopeStyle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The object `rope_parameters` of a `config.json`, or `rope_scaling` of older ones.
///
/// ```
/// use regard_nn::{RopeParameters, RopeScaling};
///
/// let json = serde_json::json!({ "rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0 });
/// let parameters = RopeParameters::from_json(&json, 8192)?;
/// assert_eq!(parameters.scaling, Some(RopeScaling::Linear { factor: 4.0 }));
/// # Ok::<(), regard_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies, where it is given.
    pub theta: Option<f64>,
    /// The part of a head that turns, where it is given.
    pub partial_rotary_factor: Option<f64>,
    /// How frequencies are changed; none for the type `default`.
    pub scaling: Option<RopeScaling>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unscaled {
    factor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Factor {
    factor: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Yarn {
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Llama3 {
    factor: f64,
    original_max_position_embeddings: Option<usize>,
    low_freq_factor: f64,
    high_freq_factor: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRope {
    short_factor: Vec<f64>,
    long_factor: Vec<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
}

impl RopeParameters {
    /// Reads the object, of a model whose configuration says `max_position_embeddings`.
    ///
    /// # Errors
    /// When the type is unknown, or a field is missing, unknown, or of another kind.
    pub fn from_json(json: &Value, max_position_embeddings: usize) -> Result<Self> {
        let mut fields: Map<String, Value> = read(json)?;
        let kinds = ["rope_type", "type"].map(|name| fields.remove(name));
        let kind = kinds.into_iter().flatten().next().map(|kind| read::<String>(&kind)).transpose()?;
        let mut number = |name| fields.remove(name).map(|value| read::<Option<f64>>(&value)).transpose();
        let (theta, partial_rotary_factor) = (number("rope_theta")?.flatten(), number("partial_rotary_factor")?.flatten());
        let rest = Value::Object(fields);
        let scaling = scaling(kind.as_deref().unwrap_or("default"), &rest, max_position_embeddings)?;
        Ok(Self { theta, partial_rotary_factor, scaling })
    }

    /// The embedding for heads of `head_dim` elements and texts of at most `length` positions; the base is 10,000 where none is
    /// given.
    ///
    /// # Errors
    /// When a number is outside its domain, or the part of a head that turns is not an even number of elements within it.
    pub fn rope(&self, head_dim: usize, style: RopeStyle, length: usize) -> Result<Rope> {
        let part = self.partial_rotary_factor.unwrap_or(1.0);
        if !(part > 0.0 && part <= 1.0) {
            return Err(Error::Value { what: "partial_rotary_factor", given: part, needed: "more than 0 and at most 1" });
        }
        let (dim, theta) = ((head_dim as f64 * part) as usize, self.theta.unwrap_or(10_000.0));
        Ok(match &self.scaling {
            None => Rope::new(dim, theta, style)?,
            Some(scaling) => Rope::scaled(dim, theta, style, scaling, length)?,
        })
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|source| Error::Json { what: "the rope parameters".into(), source })
}

/// The scaling of type `kind`, from its own fields.
fn scaling(kind: &str, fields: &Value, max: usize) -> Result<Option<RopeScaling>> {
    Ok(Some(match kind {
        "default" => match read::<Unscaled>(fields)?.factor.filter(|&factor| factor != 1.0) {
            None => return Ok(None),
            Some(given) => {
                let (what, supported) = ("rope scaling factor without a rope_type", "factors of a named type");
                return Err(Error::Unsupported { what, given: given.to_string(), supported });
            }
        },
        "linear" => RopeScaling::Linear { factor: read::<Factor>(fields)?.factor },
        "dynamic" => RopeScaling::Dynamic { factor: read::<Factor>(fields)?.factor, original: max },
        "yarn" => yarn(read(fields)?, max),
        "llama3" => {
            let Llama3 { factor, original_max_position_embeddings: original, low_freq_factor, high_freq_factor } = read(fields)?;
            RopeScaling::Llama3 { factor, original: original.unwrap_or(max), low_freq_factor, high_freq_factor }
        }
        "longrope" => {
            let LongRope { short_factor, long_factor, factor, original_max_position_embeddings: original, attention_factor } =
                read(fields)?;
            let original = original.unwrap_or(max);
            let grown = || RopeScaling::longrope_attention(factor.unwrap_or(max as f64 / original as f64), original);
            RopeScaling::LongRope { short_factor, long_factor, original, attention_factor: attention_factor.unwrap_or_else(grown) }
        }
        given => {
            let supported = "default, linear, dynamic, yarn, llama3 and longrope";
            return Err(Error::Unsupported { what: "rope_type", given: given.to_owned(), supported });
        }
    }))
}

/// The fields that are given, else the numbers of the paper. With `mscale` and `mscale_all_dim` (DeepSeek), the attention factor is
/// the ratio of `0.1 · mscale · ln(factor) + 1` to the same of `mscale_all_dim`.
fn yarn(given: Yarn, max: usize) -> RopeScaling {
    let original = given.original_max_position_embeddings.unwrap_or(max);
    let factor = given.factor.unwrap_or(max as f64 / original as f64);
    let sharpened = |mscale: f64| if factor > 1.0 { 0.1 * mscale * factor.ln() + 1.0 } else { 1.0 };
    let attention_factor = given.attention_factor.unwrap_or(match (given.mscale, given.mscale_all_dim) {
        (Some(a), Some(b)) if a != 0.0 && b != 0.0 => sharpened(a) / sharpened(b),
        _ => sharpened(1.0),
    });
    let (beta_fast, beta_slow) = (given.beta_fast.unwrap_or(32.0), given.beta_slow.unwrap_or(1.0));
    RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate: given.truncate.unwrap_or(true) }
}
