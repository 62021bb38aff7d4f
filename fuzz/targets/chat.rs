//! Chat templates: whatever is written in one, it ends, and in an error or a text.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use regard_nn::{ChatTemplate, Message};

fuzz_target!(|source: &str| {
    let tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())]);
    if let Ok(template) = ChatTemplate::new(source, tokens) {
        let _ = template.render(&[Message::new("system", "Be kind."), Message::new("user", " Who? ")], true);
    }
});
