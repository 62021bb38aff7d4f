//! A Hugging Face `tokenizer.json` from a file's vocabulary.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Gguf, merges, wrong};
use crate::{Error, Result, Tokenizer};

/// The types of tokens that are more than a piece of text.
const NORMAL: u32 = 1;
const UNKNOWN: u32 = 2;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

/// The words of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The expressions that split a text into words, one after the other.
fn splits(pre: &str) -> Option<&'static [&'static str]> {
    Some(match pre {
        "llama-bpe" => &[LLAMA3],
        "qwen2" => &[QWEN2],
        "gpt-2" => &[GPT2],
        "smollm" => &[r"\p{N}", GPT2],
        "default" => &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        _ => return None,
    })
}

/// The tokens of a file, none of them twice, each with its type.
pub(super) struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<u32>,
    ids: HashMap<&'a str, u32>,
}

impl Gguf {
    /// The tokenizer. It puts the marks around a text that the file asks for.
    ///
    /// # Errors
    /// As [`Gguf::tokenizer_json`], or when the library refuses it.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_bytes(self.tokenizer_json()?.to_string().as_bytes()).map_err(|e| self.here(e))
    }

    /// The tokenizer as a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// When the model is neither "gpt2" nor "llama", the rule that splits words is not one of llama-bpe, qwen2, gpt-2, smollm and
    /// default, or the vocabulary, types, scores, merges and marks do not fit each other.
    pub fn tokenizer_json(&self) -> Result<Value> {
        let vocabulary = self.vocabulary()?;
        match self.text("tokenizer.ggml.model")? {
            "gpt2" => self.byte_level(&vocabulary),
            "llama" => self.sentence_piece(&vocabulary),
            given => self.refuse("tokenizer.ggml.model", format!("{given:?}"), "\"gpt2\" or \"llama\""),
        }
    }

    fn refuse<T>(&self, field: &str, given: impl ToString, needed: impl Into<String>) -> Result<T> {
        wrong(field, given, needed).map_err(|e| self.here(e))
    }

    pub(super) fn vocabulary(&self) -> Result<Vocabulary<'_>> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let missing = || Error::GgufMissing { field: TOKENS.to_owned(), needed: "a tokenizer needs it".to_owned() };
        let tokens: Vec<&str> = self.list(TOKENS)?.ok_or_else(|| self.here(missing()))?;
        let kinds = self.list("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        self.one_each("tokenizer.ggml.token_type", kinds.len(), tokens.len())?;
        let mut ids = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = ids.insert(*token, id as u32) {
                return self.refuse(&format!("{TOKENS}[{id}]"), format!("{token:?}"), format!("another than {TOKENS}[{first}]"));
            }
        }
        Ok(Vocabulary { tokens, kinds, ids })
    }

    fn one_each(&self, field: &str, given: usize, tokens: usize) -> Result<()> {
        if given == tokens {
            Ok(())
        } else {
            self.refuse(field, format!("{given} long"), format!("{tokens} long, as the tokens are"))
        }
    }

    /// Byte pairs within words, whose bytes are written as letters.
    fn byte_level(&self, vocabulary: &Vocabulary<'_>) -> Result<Value> {
        let pre = self.text("tokenizer.ggml.pre")?;
        let Some(splits) = splits(pre) else {
            return self.refuse("tokenizer.ggml.pre", format!("{pre:?}"), "llama-bpe, qwen2, gpt-2, smollm or default");
        };
        let merges: Vec<&str> = self.list("tokenizer.ggml.merges")?.unwrap_or_default();
        let merges = merges::listed(&merges, &vocabulary.ids).map_err(|e| self.here(e))?;
        let split =
            |regex: &&str| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
        let steps: Vec<Value> = splits.iter().map(split).chain([bytes.clone()]).collect();
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(vocabulary)?,
            // Qwen's own tokenizer composes characters first.
            "normalizer": (pre == "qwen2").then(|| json!({ "type": "NFC" })),
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
            "post_processor": self.marks(vocabulary, pre == "llama-bpe")?,
            "decoder": bytes,
            "model": { "type": "BPE", "ignore_merges": pre == "llama-bpe", "vocab": &vocabulary.ids, "merges": merges },
        }))
    }

    /// Byte pairs over whole texts, the best score first; characters without a piece become bytes.
    fn sentence_piece(&self, vocabulary: &Vocabulary<'_>) -> Result<Value> {
        const SCORES: &str = "tokenizer.ggml.scores";
        let missing = || Error::GgufMissing { field: SCORES.to_owned(), needed: "tokenizer model \"llama\" needs it".to_owned() };
        let scores: Vec<f64> = self.list(SCORES)?.ok_or_else(|| self.here(missing()))?;
        self.one_each(SCORES, scores.len(), vocabulary.tokens.len())?;
        if self.find("tokenizer.ggml.remove_extra_whitespaces")? == Some(true) {
            return self.refuse("tokenizer.ggml.remove_extra_whitespaces", true, "false: spaces are kept as they are");
        }
        let normal = (0..scores.len()).filter(|&id| vocabulary.kinds[id] == NORMAL);
        let pieces: Vec<(&str, f64)> = normal.map(|id| (vocabulary.tokens[id], scores[id])).collect();
        let merges = merges::scored(&pieces).map_err(|e| self.here(e))?;
        let unknown = self.token(vocabulary, "unknown")?.map(|(_, token)| token);
        let prefix = self.find("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let prepend = prefix.then(|| json!({ "type": "Prepend", "prepend": "▁" }));
        let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
        let strip = prefix.then(|| json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        let decoders = [replace("▁", " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(vocabulary)?,
            "normalizer": { "type": "Sequence", "normalizers": prepend.into_iter().chain([replace(" ", "▁")]).collect::<Vec<_>>() },
            "post_processor": self.marks(vocabulary, true)?,
            "decoder": { "type": "Sequence", "decoders": decoders.into_iter().chain(strip).collect::<Vec<_>>() },
            "model": { "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
                       "vocab": &vocabulary.ids, "merges": merges },
        }))
    }

    /// The token that the metadata names for a role.
    pub(super) fn token<'a>(&self, vocabulary: &Vocabulary<'a>, role: &str) -> Result<Option<(u32, &'a str)>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = self.find::<u32>(&key)? else { return Ok(None) };
        match vocabulary.tokens.get(id as usize) {
            Some(token) => Ok(Some((id, token))),
            None => self.refuse(&key, id, format!("below {}, the number of tokens", vocabulary.tokens.len())),
        }
    }

    /// Tokens that are found in a text before it is split, and those that text out of the model leaves out.
    fn added(&self, vocabulary: &Vocabulary<'_>) -> Result<Vec<Value>> {
        let ends = [self.token(vocabulary, "bos")?, self.token(vocabulary, "eos")?].map(|token| token.map(|(id, _)| id));
        let mut added = Vec::new();
        for (id, (token, kind)) in vocabulary.tokens.iter().zip(&vocabulary.kinds).enumerate() {
            let special = matches!(*kind, UNKNOWN | CONTROL) || ends.contains(&Some(id as u32));
            if special || *kind == USER_DEFINED {
                added.push(json!({ "id": id, "content": token, "special": special, "normalized": false,
                                   "single_word": false, "lstrip": false, "rstrip": false }));
            }
        }
        Ok(added)
    }

    /// The marks at the ends of a text. `begins` is what holds where the file does not say.
    fn marks(&self, vocabulary: &Vocabulary<'_>, begins: bool) -> Result<Option<Value>> {
        let mark = |role: &str, add: bool| match self.token(vocabulary, role)? {
            _ if !add => Ok(None),
            Some(token) => Ok(Some(token)),
            None => {
                let (field, needed) = (format!("tokenizer.ggml.{role}_token_id"), format!("its add_{role}_token needs it"));
                Err(self.here(Error::GgufMissing { field, needed }))
            }
        };
        let first = mark("bos", self.find("tokenizer.ggml.add_bos_token")?.unwrap_or(begins))?;
        let last = mark("eos", self.find("tokenizer.ggml.add_eos_token")?.unwrap_or(false))?;
        let special = |token: Option<(u32, &str)>| token.map(|(_, text)| json!({ "SpecialToken": { "id": text, "type_id": 0 } }));
        let text = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
        let around = |text: Value| special(first).into_iter().chain([text]).chain(special(last)).collect::<Vec<_>>();
        let entry = |(id, text): (u32, &str)| (text.to_owned(), json!({ "id": text, "ids": [id], "tokens": [text] }));
        let tokens: serde_json::Map<String, Value> = [first, last].into_iter().flatten().map(entry).collect();
        Ok((!tokens.is_empty()).then(|| {
            let pair: Vec<Value> = around(text("A", 0)).into_iter().chain(around(text("B", 1))).collect();
            json!({ "type": "TemplateProcessing", "single": around(text("A", 0)), "pair": pair, "special_tokens": tokens })
        }))
    }
}
