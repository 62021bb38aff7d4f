//! The messages of a conversation, and the tokens of what the chat template makes of them.

use regard_nn::{Error, Message};
use serde_json::Value;

use super::super::completions::check_length;
use super::super::fields::{Fields, mismatch};
use super::super::problem::Problem;
use super::super::{Limits, Text};

/// Who may speak.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// The tokens of a conversation, up to where the answer begins if `answer`.
pub(in super::super) fn rendered(messages: Option<Value>, text: &Text, limits: &Limits, answer: bool) -> Result<Vec<u32>, Problem> {
    let Some(template) = &text.template else {
        return Err(Problem::unsupported("messages", "the model has no chat template: ask /v1/completions"));
    };
    let messages = match messages {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        None => return Err(Problem::field("messages", "messages is missing and must be an array of at least one message")),
        Some(other) => return Err(mismatch("messages", &other, "an array of at least one message")),
    };
    let messages: Vec<Message> = messages.into_iter().enumerate().map(|(i, one)| message(i, one)).collect::<Result<_, _>>()?;
    for message in &messages {
        check_length(&message.content, "messages", text, limits)?;
    }
    let rendered = template.render(&messages, answer).map_err(refused)?;
    check_length(&rendered, "messages", text, limits)?;
    Ok(text.tokens(&rendered, false)?)
}

/// What a template says against messages is for the client; where its file is, is not.
fn refused(error: Error) -> Problem {
    match error {
        Error::InFile { source, .. } => refused(*source),
        error @ (Error::TemplateRefused { .. } | Error::Template { .. } | Error::TemplateBound { .. }) => {
            Problem::field("messages", error.to_string())
        }
        other => other.into(),
    }
}

fn message(i: usize, value: Value) -> Result<Message, Problem> {
    let place = format!("messages[{i}]");
    let mut fields = Fields::within(value, &place)?;
    let role = fields.text("role")?.filter(|role| ROLES.contains(&&**role));
    let role = role.ok_or_else(|| {
        let name = format!("{place}.role");
        Problem::field(&*name, format!("{name} must be one of {}", ROLES.join(", ")))
    })?;
    let content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let part = |(j, part)| part_text(&format!("{place}.content[{j}]"), part);
            parts.into_iter().enumerate().map(part).collect::<Result<String, _>>()?
        }
        other => return Err(mismatch(&format!("{place}.content"), &other.unwrap_or_default(), "a string or an array of texts")),
    };
    fields.finish()?;
    Ok(Message::new(role, content))
}

/// A part of a message's content, which must be text: what a URL names is never fetched.
fn part_text(place: &str, part: Value) -> Result<String, Problem> {
    let mut fields = Fields::within(part, place)?;
    let name = format!("{place}.type");
    match fields.text("type")?.as_deref() {
        Some("text") => {}
        given => {
            let given = given.unwrap_or("missing").chars().take(40).collect::<String>();
            return Err(Problem::unsupported(&*name, format!("{name} is {given}, and this server reads text only")));
        }
    }
    let text = fields.text("text")?.ok_or_else(|| Problem::field(place, format!("{place}.text is missing")))?;
    fields.finish().map(|()| text)
}
