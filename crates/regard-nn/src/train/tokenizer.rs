//! The tokenizer of a run: a byte-level BPE learned from the training text, in the format of Hugging Face.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerImpl};

use super::TrainError;

/// The mark at the beginning of a text (`bos`).
pub const BEGIN: &str = "<|begin|>";
/// The mark at the end of a text (`eos`).
pub const END: &str = "<|end|>";

/// Learns at most `vocab_size` tokens from `text`: the two marks, 256 bytes, then the most frequent pairs.
///
/// The pre-tokenizer is GPT-2's: words keep the space before them and merges never cross a word.
///
/// Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; Radford et al. 2019.
///
/// # Errors
/// [`TrainError::Tokenizer`] with the message of the tokenizer library.
pub fn learn(text: &str, vocab_size: usize) -> Result<Tokenizer, TrainError> {
    let bytes = ByteLevel::new(false, true, true);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab_size)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(BEGIN, true), AddedToken::from(END, true)])
        .build();
    let mut tokenizer = TokenizerImpl::<BPE, tokenizers::NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel>::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    tokenizer.train(&mut trainer, pieces(text).into_iter()).map_err(TrainError::tokenizer)?;
    let file = tokenizer.to_string(false).map_err(TrainError::tokenizer)?;
    file.parse().map_err(TrainError::tokenizer)
}

/// The tokens of `text`, found piece by piece on all threads.
///
/// # Errors
/// [`TrainError::Tokenizer`] with the message of the tokenizer library.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let parts = tokenizer.encode_batch_fast(pieces(text), false).map_err(TrainError::tokenizer)?;
    Ok(parts.iter().flat_map(|part| part.get_ids().iter().copied()).collect())
}

/// Cuts a text where a cut cannot change its tokens: before a line break that a visible character follows.
///
/// GPT-2's pattern takes white space up to, but not including, the last one before a visible character, so that
/// last line break is a word of its own on either side of such a cut.
fn pieces(text: &str) -> Vec<&str> {
    const LEAST: usize = 4096;
    let bytes = text.as_bytes();
    let (mut pieces, mut start) = (Vec::new(), 0);
    for at in 1..bytes.len().saturating_sub(1) {
        let next = bytes[at + 1];
        if at - start >= LEAST && bytes[at] == b'\n' && next.is_ascii_graphic() {
            pieces.push(&text[start..at]);
            start = at;
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// `tokenizer_config.json`, which tells `transformers` the class and the marks.
pub(crate) fn companion(context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let tale = "Once upon a time there was a king.\n\nHe had  three daughters,\nand \"caf\u{e9}s\" \u{2014} many.\n\n\n";
        tale.repeat(300)
    }

    #[test]
    fn decodes_to_the_text_it_encoded() {
        let tokenizer = learn(&text(), 300).unwrap();
        for sample in [text().as_str(), "unseen: \u{1f409} <|\t|> \r\n x", " ", ""] {
            let ids = encode(&tokenizer, sample).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), sample);
        }
    }

    #[test]
    fn pieces_do_not_change_the_tokens() {
        let tokenizer = learn(&text(), 320).unwrap();
        assert!(pieces(&text()).len() > 3);
        let whole = tokenizer.encode_fast(text(), false).unwrap();
        assert_eq!(encode(&tokenizer, &text()).unwrap(), whole.get_ids());
    }

    #[test]
    fn the_marks_are_the_first_two_tokens() {
        let tokenizer = learn(&text(), 258).unwrap();
        assert_eq!((tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)), (Some(0), Some(1)));
        assert_eq!(tokenizer.get_vocab_size(true), 258);
    }
}
