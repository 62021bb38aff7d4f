//! `tokenizer.json`, as far as tokens of a text and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regard_nn::Tokenizer;

// Panics of the library that are caught are no findings; what escapes still ends the process.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |json: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_bytes(json)
        && let Ok(tokens) = tokenizer.encode("Once upon a time: 東京 é 12")
    {
        let _ = tokenizer.decode(&tokens);
    }
});
