//! Chat templates: messages to the text that a model was trained on, by the Jinja template in its directory.

mod clock;
mod engine;
mod guard;
mod json;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::weights::read_file;
use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, and what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// The chat template of a model, in the dialect of Jinja that Hugging Face defines.
///
/// A template is a program by a stranger, so it reads no files and its work, its memory and its text are bounded.
/// `tools` and `documents` are `none` to it, and `strftime_now` tells the time in UTC.
///
/// ```
/// use std::collections::BTreeMap;
/// use regard_nn::{ChatTemplate, Message};
///
/// let source = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}\n{% endfor %}";
/// let template = ChatTemplate::new(source, BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]))?;
/// assert_eq!(template.render(&[Message::new("user", " Who? ")], false)?, "[user] Who?</s>\n");
/// # Ok::<(), regard_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    /// `bos_token` and the others that are variables of the template.
    tokens: BTreeMap<String, String>,
    /// The file that holds the template.
    file: Option<PathBuf>,
    now: Option<SystemTime>,
}

/// What `tokenizer_config.json` says of chats.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
    sep_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl ChatTemplate {
    /// A template from its text, with special tokens by their names: `bos_token`, `eos_token`, ….
    ///
    /// # Errors
    /// [`Error::Template`] with the line that is not Jinja; [`Error::TemplateBound`] when it is too long.
    pub fn new(source: impl Into<String>, tokens: BTreeMap<String, String>) -> Result<Self> {
        let source = guard::with_generation(&source.into());
        engine::check(&source)?;
        Ok(Self { source, tokens, file: None, now: None })
    }

    /// The template of a Hugging Face directory: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`, of
    /// several the one named `default`; none when there is neither.
    ///
    /// # Errors
    /// With the file at fault: one that cannot be read, is not JSON or not Jinja, or has no default.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let (own, shared) = (dir.join("chat_template.jinja"), dir.join("tokenizer_config.json"));
        let config = if shared.exists() { TokenizerConfig::open(&shared)? } else { TokenizerConfig::default() };
        let tokens = config.tokens();
        let (source, file) = if own.exists() {
            let text = String::from_utf8(read_file(&own)?).map_err(|wrong| not_utf8(&wrong).within(&own))?;
            (text, own)
        } else {
            let Some(templates) = config.chat_template else { return Ok(None) };
            (templates.default().map_err(|e| e.within(&shared))?, shared)
        };
        let template = Self::new(source, tokens).map_err(|e| e.within(&file))?;
        Ok(Some(template.in_file(&file)))
    }

    /// The same template, whose errors name this file.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    /// The same template at a fixed time, which `strftime_now` then tells instead of the clock's.
    #[must_use]
    pub fn at(self, now: SystemTime) -> Self {
        Self { now: Some(now), ..self }
    }

    /// The text of a conversation, which ends where the assistant is to go on when `add_generation_prompt`. It already
    /// has every special token, so it is tokenized without adding any.
    ///
    /// # Errors
    /// [`Error::TemplateRefused`] with what the template says against the messages, [`Error::Template`] when it fails, and
    /// [`Error::TemplateBound`] when it works, nests or writes too much.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let now = self.now.unwrap_or_else(SystemTime::now);
        let text = engine::render(&self.source, messages, &self.tokens, add_generation_prompt, now);
        text.map_err(|error| match &self.file {
            Some(file) => error.within(file),
            None => error,
        })
    }
}

impl TokenizerConfig {
    fn open(path: &Path) -> Result<Self> {
        let json = |source| Error::Json { what: path.display().to_string(), source };
        serde_json::from_slice(&read_file(path)?).map_err(json)
    }

    fn tokens(&self) -> BTreeMap<String, String> {
        let named = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
            ("sep_token", &self.sep_token),
            ("cls_token", &self.cls_token),
            ("mask_token", &self.mask_token),
        ];
        let text = |token: &Token| match token {
            Token::Text(text) | Token::Added { content: text } => text.clone(),
        };
        named.into_iter().filter_map(|(name, token)| Some((name.to_owned(), text(token.as_ref()?)))).collect()
    }
}

impl Templates {
    fn default(self) -> Result<String> {
        match self {
            Self::One(template) => Ok(template),
            Self::Named(named) => {
                let names = named.iter().map(|one| one.name.clone()).collect();
                let default = named.into_iter().find(|one| one.name == "default");
                default.map(|one| one.template).ok_or(Error::NoDefaultTemplate { names })
            }
        }
    }
}

fn not_utf8(wrong: &std::string::FromUtf8Error) -> Error {
    let valid = wrong.utf8_error().valid_up_to();
    let line = 1 + wrong.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
    Error::Template { line, reason: format!("the byte at offset {valid} begins no UTF-8 character") }
}
