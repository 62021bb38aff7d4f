//! Prompts: a text, the tokens of one, or an array of either.

use serde_json::Value;

use super::super::fields::mismatch;
use super::super::problem::Problem;
use super::super::{Limits, Text};
use super::check_prompt;

const NEEDED: &str = "a string, an array of token ids, or an array of strings or of such arrays";

/// The tokens of each prompt.
pub(super) fn read(prompt: Option<Value>, text: &Text, limits: &Limits) -> Result<Vec<Vec<u32>>, Problem> {
    let prompts = match prompt {
        None => return Err(Problem::field("prompt", format!("prompt is missing and must be {NEEDED}"))),
        Some(Value::Array(many)) if many.iter().all(|one| one.is_string() || one.is_array()) => many,
        Some(one) => vec![one],
    };
    let (given, most) = (prompts.len(), limits.prompts);
    if given == 0 || given > most {
        return Err(Problem::field("prompt", format!("prompt is an array of {given} prompts and must have from 1 to {most}")));
    }
    prompts.iter().map(|prompt| check_prompt(tokens(prompt, text, limits)?, "prompt", text, limits)).collect()
}

fn tokens(prompt: &Value, text: &Text, limits: &Limits) -> Result<Vec<u32>, Problem> {
    match prompt {
        Value::String(prompt) if prompt.is_empty() => Ok(Vec::new()),
        Value::String(prompt) => {
            check_length(prompt, "prompt", text, limits)?;
            Ok(text.tokens(prompt, true)?)
        }
        Value::Array(tokens) => token_ids("prompt", tokens, text),
        other => Err(mismatch("prompt", other, NEEDED)),
    }
}

/// Ids that are in the vocabulary.
pub(in super::super) fn token_ids(name: &str, tokens: &[Value], text: &Text) -> Result<Vec<u32>, Problem> {
    let size = text.model.decoder().map_or(0, |decoder| decoder.config().vocab_size);
    let id = |token: &Value| token.as_u64().filter(|id| *id < size as u64).and_then(|id| u32::try_from(id).ok());
    let needed = || format!("token ids below {size}, the size of the vocabulary");
    tokens.iter().map(|token| id(token).ok_or_else(|| mismatch(name, token, needed()))).collect()
}

/// The most bytes that a token is thought to have; a text of more than these for each token is too long for sure.
const TOKEN_BYTES: usize = 256;

/// Refuses a text that cannot fit before it is cut into tokens, which takes long.
pub(in super::super) fn check_length(given: &str, name: &str, text: &Text, limits: &Limits) -> Result<(), Problem> {
    let most = limits.prompt_tokens.min(text.model.context());
    if given.len() / TOKEN_BYTES > most {
        return Err(Problem::too_long(name, format!("{name} has {} bytes and may have {most} tokens", given.len())));
    }
    Ok(())
}
