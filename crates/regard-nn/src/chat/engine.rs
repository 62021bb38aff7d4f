//! The environment that Hugging Face gives a template: Jinja, Python's methods, and a few functions.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::thread;
use std::time::SystemTime;

use minijinja::machinery::{CodeGenerator, ast, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::guard::{self, Stop};
use super::{Message, clock, json, tree};
use crate::{Error, Result};

const NAME: &str = "chat template";
/// Stack for the deepest template and values that the guard lets through; pages that are not touched cost nothing.
const STACK: usize = 64 << 20;

/// Letters of what a template says against messages.
const REASON: usize = 1000;

/// Whether a text is a template.
pub(super) fn check(source: &str) -> Result<()> {
    apart(|| parsed(source).map(|_| ()))
}

/// The text of a conversation by a template.
pub(super) fn render(
    source: &str,
    messages: &[Message],
    tokens: &BTreeMap<String, String>,
    add_generation_prompt: bool,
    now: SystemTime,
) -> Result<String> {
    apart(|| {
        let tree = parsed(source)?;
        let mut generator = CodeGenerator::new(NAME, source);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let variables = variables(messages, tokens, add_generation_prompt);
        eval(&environment(now), &instructions, variables, &blocks, &mut output, AutoEscape::None).map(|_| ()).map_err(failed)?;
        Ok(text)
    })
}

/// Runs on a stack of its own.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let joined = thread.map_err(|source| wrong(&format!("no thread to run it on ({source})")))?.join();
        joined.map_err(|_| wrong("the template engine gave up"))?
    })
}

fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().expect("Jinja's own delimiters")
}

fn parsed(source: &str) -> Result<ast::Stmt<'_>> {
    guard::check_size(source, syntax())?;
    tree::statement(&parse(source, NAME, syntax()).map_err(failed)?)
}

fn variables(messages: &[Message], tokens: &BTreeMap<String, String>, add_generation_prompt: bool) -> Value {
    let message = |message: &Message| Value::from_pairs([("role", &*message.role), ("content", &*message.content)]);
    let none = || Value::from(());
    let own = [
        ("messages", messages.iter().map(message).collect()),
        ("tools", none()),
        ("documents", none()),
        ("add_generation_prompt", Value::from(add_generation_prompt)),
    ];
    let tokens = tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
    Value::from_pairs(tokens.chain(own))
}

fn environment(now: SystemTime) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(guard::FUEL));
    environment.set_formatter(guard::write);
    environment.set_unknown_method_callback(method);
    environment.add_filter(guard::WEIGHED, guard::weighed);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", |reason: String| -> std::result::Result<Value, minijinja::Error> {
        Err(Stop::Refused(reason.chars().take(REASON).collect()).into())
    });
    environment.add_function("strftime_now", move |format: &str| {
        clock::strftime(now, format).map_err(|reason| minijinja::Error::new(ErrorKind::InvalidOperation, reason))
    });
    environment
}

/// Python's methods. `format` is bounded here: it makes the spaces that it is asked for before they are counted.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> std::result::Result<Value, minijinja::Error> {
    let digits = |text: &str| text.split(|letter: char| !letter.is_ascii_digit()).any(|number| number.len() > 4);
    if name == "format" && value.as_str().is_some_and(digits) {
        let reason = "str.format got a number of more than 4 digits, and needs widths below 10000";
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    }
    pycompat::unknown_method_callback(state, value, name, arguments)
}

/// minijinja's error as ours.
fn failed(error: minijinja::Error) -> Error {
    let line = error.line().unwrap_or(1);
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<Stop>() {
            Some(Stop::Refused(reason)) => return Error::TemplateRefused { reason: reason.clone() },
            Some(&Stop::Bound(what, limit)) => return Error::TemplateBound { what, line, limit },
            None => source = cause.source(),
        }
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::TemplateBound { what: "does more steps of work than allowed", line, limit: guard::FUEL as usize };
    }
    let reason = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    Error::Template { line, reason }
}

fn wrong(reason: &str) -> Error {
    Error::Template { line: 1, reason: reason.to_owned() }
}
