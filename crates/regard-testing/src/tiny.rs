//! Tiny models on disk, for tests of what opens them.

use std::fs;
use std::io::Result;
use std::path::Path;

/// Writes the tiny BERT of regard-nn's tests into a directory, with a tokenizer of the words w3 … w63.
///
/// # Errors
/// When a file cannot be read or written.
pub fn bert(dir: &Path) -> Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-nn/tests/families/bert");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), dir.join(name))?;
    }
    let words: String = (3..64).map(|i| format!(r#", "w{i}": {i}"#)).collect();
    let tokenizer = r#"{
        "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null, "truncation": null, "padding": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] },
        "model": { "type": "WordLevel", "vocab": { "[UNK]": 0, "[CLS]": 1, "[SEP]": 2 WORDS }, "unk_token": "[UNK]" }
    }"#;
    fs::write(dir.join("tokenizer.json"), tokenizer.replace(" WORDS", &words))
}
