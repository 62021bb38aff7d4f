//! What a file recommends for generation: a chat template, and how tokens are chosen.

use serde_json::{Map, Value};

use super::Gguf;
use crate::{ChatTemplate, Error, Result};

/// ggml's roles of tokens, and their names in a template.
const ROLES: [(&str, &str); 7] = [
    ("bos", "bos_token"),
    ("eos", "eos_token"),
    ("unknown", "unk_token"),
    ("padding", "pad_token"),
    ("seperator", "sep_token"), // ggml's spelling
    ("cls", "cls_token"),
    ("mask", "mask_token"),
];

/// ggml's numbers for the choice of tokens that exist here, and their names in a `generation_config.json`.
const SAMPLING: [(&str, &str); 5] =
    [("temp", "temperature"), ("top_k", "top_k"), ("top_p", "top_p"), ("min_p", "min_p"), ("penalty_repeat", "repetition_penalty")];

impl Gguf {
    /// The chat template, `tokenizer.chat_template`; none where there is none.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`], with the file; or when there are templates, and none of them is the default one.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        let Some(source) = self.find::<&str>("tokenizer.chat_template")? else {
            let Some(names) = self.list::<&str>("tokenizer.chat_templates")? else { return Ok(None) };
            return Err(self.here(Error::NoDefaultTemplate { names: names.into_iter().map(str::to_owned).collect() }));
        };
        let vocabulary = self.vocabulary()?;
        let token =
            |(role, name): (&str, &str)| Ok(self.token(&vocabulary, role)?.map(|(_, text)| (name.to_owned(), text.to_owned())));
        let tokens = ROLES.into_iter().map(token).filter_map(Result::transpose).collect::<Result<_>>()?;
        let template = ChatTemplate::new(source, tokens).map_err(|e| self.here(e))?;
        Ok(Some(template.in_file(self.path())))
    }

    /// The fields of a Hugging Face `generation_config.json` that the metadata say.
    pub(crate) fn generation_config(&self) -> Result<Map<String, Value>> {
        let mut fields = Map::new();
        for (ggml, name) in SAMPLING {
            let key = format!("general.sampling.{ggml}");
            let number =
                if ggml == "top_k" { self.find::<u32>(&key)?.map(Value::from) } else { self.find::<f64>(&key)?.map(Value::from) };
            fields.extend(number.map(|number| (name.to_owned(), number)));
        }
        if !fields.is_empty() {
            fields.insert("do_sample".to_owned(), true.into());
        }
        Ok(fields)
    }
}
