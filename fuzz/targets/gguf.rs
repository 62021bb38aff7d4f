//! GGUF files, as far as a model that runs.
#![no_main]

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use regard_nn::{Generate, Gguf, Model};

// Panics of the library that are caught are no findings; what escapes still ends the process.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let Ok(gguf) = Gguf::open(file.path()) else { return };
    for key in gguf.keys() {
        let _ = format!("{:?}", gguf.value(key));
    }
    for name in gguf.tensor_names() {
        let _ = gguf.tensor(&name).map(|tensor| tensor.values());
    }
    let _ = gguf.chat_template();
    if let Ok(model) = Model::open(file.path()) {
        let options = Generate { max_tokens: 2, ..Generate::default() };
        let _ = model.generate("the king", &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(()));
    }
});
