//! Encodings against those of SentencePiece and of Hugging Face's tokenizers, each trained by its own library.

use std::collections::BTreeMap;

use super::{fixture, open};

#[test]
fn texts_have_the_tokens_that_the_library_of_each_tokenizer_gives_them() {
    let text = std::fs::read_to_string(fixture("encodings.json")).unwrap();
    let encodings: BTreeMap<String, Vec<(String, Vec<u32>, String)>> = serde_json::from_str(&text).unwrap();
    assert_eq!(encodings.len(), 5);
    for (name, rows) in encodings {
        let tokenizer = open(&format!("{name}.gguf")).tokenizer().unwrap();
        for (text, ids, back) in rows {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name} {text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), back, "{name} {text:?}");
        }
    }
}

#[test]
fn marks_of_the_vocabulary_are_found_in_a_text() {
    let tokenizer = open("sentencepiece.gguf").tokenizer().unwrap();
    assert_eq!(tokenizer.encode("</s>").unwrap(), [1, 2]);
    let tokenizer = open("llama-bpe.gguf").tokenizer().unwrap();
    assert_eq!(tokenizer.encode("<|end|>").unwrap(), [0]);
}
