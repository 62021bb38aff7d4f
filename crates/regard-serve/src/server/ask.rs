//! What completions and chats ask alike: how tokens are chosen, when a text ends, and what is told of it.

use serde_json::Value;

use super::attention::Attention;
use super::fields::{Fields, mismatch};
use super::problem::Problem;
use super::{Limits, Text};
use crate::{Adjustments, Decoding, Request, Sampling};

/// The fields that both have.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) decoding: Decoding,
    pub(super) stop: Vec<String>,
    pub(super) stop_tokens: Vec<u32>,
    pub(super) stream: bool,
    /// Where a stream tells its numbers of tokens.
    pub(super) usage: Tells,
    pub(super) priority: i32,
    pub(super) salt: Vec<u8>,
    /// Whom the client serves; for the log.
    pub(super) user: Option<String>,
    /// Where attention is to be told.
    pub(super) attention: Option<Attention>,
}

/// Which events of a stream tell the numbers of tokens so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    None,
    Last,
    Each,
}

/// The longest name, salt or stop string, in bytes.
const NAME: usize = 256;

impl Ask {
    pub(super) fn read(fields: &mut Fields, text: &Text, limits: &Limits) -> Result<Self, Problem> {
        let stream = fields.flag("stream")?;
        let decoding = decoding(fields, text, limits)?;
        let tells = matches!(decoding, Decoding::Sample { n, best_of, .. } if n == best_of);
        if stream && !tells {
            let message =
                "stream is true, which is not supported with best_of above n or with beam_width: their texts are known at the end";
            return Err(Problem::unsupported("stream", message));
        }
        let attention = Attention::read(fields, &decoding, text, limits)?;
        Ok(Self {
            decoding,
            attention,
            stop: stop(fields, limits)?,
            stop_tokens: if fields.flag("ignore_eos")? { Vec::new() } else { text.model.ends().to_vec() },
            stream,
            usage: usage(fields, stream)?,
            priority: fields.integer("priority", -1000..=1000)?.unwrap_or(0) as i32,
            salt: name(fields, "cache_salt")?.unwrap_or_default().into_bytes(),
            user: name(fields, "user")?,
        })
    }

    /// The engine's request for one prompt.
    pub(super) fn request(&self, prompt: Vec<u32>, max_tokens: usize) -> Request {
        Request {
            prompt,
            max_tokens,
            decoding: self.decoding.clone(),
            stop: self.stop.clone(),
            stop_tokens: self.stop_tokens.clone(),
            priority: self.priority,
            salt: self.salt.clone(),
            ..Request::default()
        }
    }
}

fn name(fields: &mut Fields, field: &str) -> Result<Option<String>, Problem> {
    match fields.text(field)? {
        Some(text) if text.len() > NAME => {
            Err(Problem::field(field, format!("{field} has {} bytes and may have {NAME}", text.len())))
        }
        text => Ok(text),
    }
}

fn usage(fields: &mut Fields, stream: bool) -> Result<Tells, Problem> {
    let Some(options) = fields.take("stream_options") else { return Ok(Tells::None) };
    if !stream {
        return Err(Problem::field("stream_options", "stream_options needs stream to be true"));
    }
    let mut options = Fields::within(options, "stream_options")?;
    let tells = match (options.flag("include_usage")?, options.flag("continuous_usage_stats")?) {
        (true, true) => Tells::Each,
        (true, false) => Tells::Last,
        (false, false) => Tells::None,
        (false, true) => {
            let message = "stream_options.continuous_usage_stats needs stream_options.include_usage to be true";
            return Err(Problem::field("stream_options", message));
        }
    };
    options.finish().map(|()| tells)
}

fn stop(fields: &mut Fields, limits: &Limits) -> Result<Vec<String>, Problem> {
    let strings = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(strings)) => strings,
        Some(one) => vec![one],
    };
    if strings.len() > limits.stop {
        return Err(Problem::field("stop", format!("stop has {} strings and may have {}", strings.len(), limits.stop)));
    }
    let one = |value: &Value| match value.as_str() {
        Some(text) if (1..=NAME).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(mismatch("stop", value, format!("a string of 1 to {NAME} bytes, or an array of such"))),
    };
    strings.iter().map(one).collect()
}

fn decoding(fields: &mut Fields, text: &Text, limits: &Limits) -> Result<Decoding, Problem> {
    let given = fields.count("n", 1..=limits.n)?;
    let n = given.unwrap_or(1);
    let best_of = fields.count("best_of", 1..=limits.best_of)?;
    if let Some(width) = fields.count("beam_width", 1..=limits.best_of)? {
        return beams(fields, n, width, best_of);
    }
    let best_of = best_of.unwrap_or(n);
    if best_of < n {
        return Err(Problem::field("best_of", format!("best_of is {best_of} and must be at least n, which is {n}")));
    }
    if let Some(value) = fields.take("length_penalty") {
        return Err(mismatch("length_penalty", &value, "absent without beam_width"));
    }
    let own = text.model.sampling();
    let sampling = Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(own.temperature),
        top_k: fields.count("top_k", 0..=usize::MAX)?.unwrap_or(own.top_k),
        top_p: fields.number("top_p", f32::MIN_POSITIVE..=1.0)?.unwrap_or(own.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(own.min_p),
        repetition_penalty: fields.number("repetition_penalty", 0.01..=100.0)?.unwrap_or(own.repetition_penalty),
        seed: match fields.integer("seed", i64::MIN..=i64::MAX)? {
            Some(seed) => seed as u64,
            None => getrandom::u64().map_err(|error| Problem::internal(error.to_string()))?,
        },
    };
    let adjustments = Adjustments {
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
    };
    Ok(Decoding::Sample { sampling, adjustments, n, best_of })
}

/// What beam search has no use for.
const SAMPLING: [&str; 9] =
    ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "presence_penalty", "frequency_penalty", "logit_bias"];

fn beams(fields: &mut Fields, n: usize, width: usize, best_of: Option<usize>) -> Result<Decoding, Problem> {
    if width < n {
        return Err(Problem::field("beam_width", format!("beam_width is {width} and must be at least n, which is {n}")));
    }
    let other = SAMPLING.into_iter().find(|name| fields.take(name).is_some());
    if let Some(name) = other.or(best_of.map(|_| "best_of")) {
        return Err(Problem::unsupported(name, format!("{name} is not supported with beam_width")));
    }
    let length_penalty = fields.number("length_penalty", -10.0..=10.0)?.unwrap_or(1.0);
    Ok(Decoding::Beam { width, n, length_penalty })
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, Problem> {
    let Some(value) = fields.take("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(map) = value else { return Err(mismatch("logit_bias", &value, "an object of token ids and numbers")) };
    let one = |(token, bias): (&String, &Value)| {
        let name = format!("logit_bias.{}", token.chars().take(20).collect::<String>());
        let id = token.parse::<u32>().map_err(|_| Problem::field("logit_bias", format!("{name} is no token id")))?;
        let bias = bias.as_f64().filter(|x| (-100.0..=100.0).contains(x));
        bias.map(|x| (id, x as f32)).ok_or_else(|| mismatch(&name, &map[token], "a number from -100 to 100"))
    };
    map.iter().map(one).collect()
}
