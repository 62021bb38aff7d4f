//! Files that lie: each gets a clear error, and no damage anywhere panics or asks for more than the file holds.

use std::path::Path;

use regard_nn::Gguf;

use super::fixture;

/// The parts of a header; each lie replaces one.
pub(crate) fn header(magic: &[u8], version: u32, tensors: u64, entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    [magic, &version.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()]
        .into_iter()
        .chain(rest.iter().copied())
        .flatten()
        .copied()
        .collect()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A metadata entry of this type.
pub(crate) fn entry(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name)[..], &kind.to_le_bytes(), value].concat()
}

/// The description of a tensor.
fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dims.iter().flat_map(|size| size.to_le_bytes()).collect();
    [&text(name)[..], &(dims.len() as u32).to_le_bytes(), &sizes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

fn array(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

#[test]
fn each_lie_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lie.gguf");
    let meta = |entries: &[Vec<u8>]| header(b"GGUF", 3, 0, entries.len() as u64, &[&entries.concat()]);
    let described = |tensors: &[Vec<u8>]| header(b"GGUF", 3, tensors.len() as u64, 0, &[&tensors.concat(), &[0; 64]]);
    let many = 1u64 << 60;
    for (lie, expected) in [
        (
            vec![],
            "GGUF the magic number is 4 bytes long at byte 0 and must be within the 0 bytes of the file: copy or download it again",
        ),
        (header(b"GGML", 3, 0, 0, &[]), "GGUF the magic number is \"GGML\" and must be \"GGUF\": this is another kind of file"),
        (header(b"GGUF", 1, 0, 0, &[]), "GGUF the version is 1 and must be 2 or 3: convert the model again with a newer converter"),
        (header(b"GGUF", 4, 0, 0, &[]), "GGUF the version is 4 and must be 2 or 3: convert the model again with a newer converter"),
        (
            header(b"GGUF", 3 << 24, 0, 0, &[]),
            "GGUF the byte order is big-endian and must be little-endian: convert the file with gguf_convert_endian",
        ),
        (
            header(b"GGUF", 3, 0, many, &[]),
            "GGUF the number of metadata entries is 1152921504606846976 and must be at most 0, what the rest of the file can hold",
        ),
        (
            header(b"GGUF", 3, u64::MAX, 0, &[]),
            "GGUF the number of tensors is 18446744073709551615 and must be at most 0, what the rest of the file can hold",
        ),
        (
            meta(&[entry("a", 4, &[1, 0, 0, 0]), entry("a", 4, &[1, 0, 0, 0])]),
            "GGUF metadata \"a\" is there twice and must be there once",
        ),
        (meta(&[entry("a", 13, &[0; 8])]), "GGUF a is of type 13 and must be of a type from 0 to 12"),
        // A long name is cut, whatever it says.
        (meta(&[entry(&"é".repeat(400), 13, &[0; 8])]), &format!("GGUF {}… is of type 13", "é".repeat(300))),
        (meta(&[entry("a", 7, &[2])]), "GGUF a is a boolean of 2 and must be 0 or 1"),
        (
            meta(&[entry("a", 8, &[many.to_le_bytes()].concat())]),
            "GGUF a is 1152921504606846976 bytes long at byte 45 and must be within the 45 bytes of the file: copy or download it again",
        ),
        (meta(&[entry("a", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff])]), "GGUF a is not UTF-8 from its byte 0 and must be text in UTF-8"),
        (
            meta(&[entry("a", 9, &array(9, 0, &[]))]),
            "GGUF a is an array of arrays and must be an array of numbers, booleans or texts",
        ),
        (
            meta(&[entry("a", 9, &array(4, many, &[]))]),
            "GGUF the length of a is 1152921504606846976 and must be at most 0, what the rest of the file can hold",
        ),
        (
            meta(&[entry("a", 9, &array(8, many, &[0; 16]))]),
            "GGUF the length of a is 1152921504606846976 and must be at most 2, what the rest of the file can hold",
        ),
        (
            meta(&[entry("general.alignment", 4, &[3, 0, 0, 0])]),
            "GGUF general.alignment is 3 and must be a power of two, at most 2^30",
        ),
        (
            meta(&[entry("split.count", 2, &[3, 0])]),
            "GGUF split.count is 3 and must be 1: join the parts with llama-gguf-split --merge",
        ),
        (described(&[tensor("a", &[], 0, 0)]), "GGUF tensor \"a\" is of 0 dimensions and must be of 1 to 4 dimensions"),
        (described(&[tensor("a", &[1], 99, 0)]), "GGUF tensor \"a\" is of the unknown type 99 and must be of F32,"),
        (described(&[tensor("a", &[256], 10, 0)]), "GGUF tensor \"a\" is of Q2_K and must be of F32,"),
        (
            described(&[tensor("a", &[33], 8, 0)]),
            "GGUF tensor \"a\" is 33 numbers to a row and must be whole blocks of 32, as Q8_0 needs",
        ),
        (
            described(&[tensor("a", &[many, many], 0, 0)]),
            "GGUF tensor \"a\" is of shape [1152921504606846976, 1152921504606846976] and must be of dimensions from 1 on whose product memory can hold",
        ),
        (
            described(&[tensor("a", &[0], 0, 0)]),
            "GGUF tensor \"a\" is of shape [0] and must be of dimensions from 1 on whose product memory can hold",
        ),
        (described(&[tensor("a", &[1], 0, 4)]), "GGUF the offset of tensor \"a\" is 4 and must be a multiple of the alignment, 32"),
        (
            described(&[tensor("a", &[1], 0, !31)]),
            "GGUF tensor \"a\" is 4 bytes long at byte 64 + 18446744073709551584 and must be within the 121 bytes of the file: copy or download it again",
        ),
        (
            described(&[tensor("a", &[16], 0, 0)]),
            "GGUF tensor \"a\" is 64 bytes long at byte 64 + 0 and must be within the 121 bytes of the file: copy or download it again",
        ),
        (described(&[tensor("a", &[1], 0, 0), tensor("a", &[1], 0, 0)]), "GGUF tensor \"a\" is there twice and must be there once"),
    ] {
        std::fs::write(&path, lie).unwrap();
        let error = Gguf::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {expected}", path.display())), "{error}\nexpected: {expected}");
    }
}

#[test]
fn models_that_are_more_than_their_type_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.gguf");
    let arch = |name: &str| entry("general.architecture", 8, &text(name));
    for (entries, expected) in [
        (vec![arch("mamba")], "GGUF general.architecture is \"mamba\" and must be llama, qwen2, qwen3, phi3 or gemma"),
        (
            vec![arch("llama"), entry("llama.expert_count", 4, &[8, 0, 0, 0])],
            "GGUF llama.expert_count is 8 and must be 0: mixtures of",
        ),
        (vec![arch("llama"), entry("llama.logit_scale", 4, &[8, 0, 0, 0])], "GGUF llama.logit_scale is 8 and must be left out"),
        (
            vec![arch("qwen2"), entry("qwen2.attention.sliding_window", 4, &[8, 0, 0, 0])],
            "GGUF qwen2.attention.sliding_window is 8 and must be left out: which blocks",
        ),
        (vec![arch("llama")], "the GGUF file has no llama.embedding_length: an integer"),
    ] {
        std::fs::write(&path, header(b"GGUF", 2, 0, entries.len() as u64, &[&entries.concat()])).unwrap();
        let error = Gguf::open(&path).unwrap().config_json().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {expected}", path.display())), "{error}");
    }
}

#[test]
fn tokenizers_that_would_say_something_else_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.gguf");
    let texts = |name: &str, all: &[&str]| {
        entry(name, 9, &array(8, all.len() as u64, &all.iter().flat_map(|one| text(one)).collect::<Vec<u8>>()))
    };
    let string = |name: &str, value: &str| entry(name, 8, &text(value));
    let (tokens, bpe) = (texts("tokenizer.ggml.tokens", &["a", "b", "abc"]), string("tokenizer.ggml.model", "gpt2"));
    let pre = string("tokenizer.ggml.pre", "gpt-2");
    let long = "x".repeat(600);
    for (entries, expected) in [
        (
            vec![texts("tokenizer.ggml.tokens", &["a", "b", "a"]), bpe.clone()],
            "GGUF tokenizer.ggml.tokens[2] is \"a\" and must be another than",
        ),
        (
            vec![tokens.clone(), string("tokenizer.ggml.model", "bert")],
            "GGUF tokenizer.ggml.model is \"bert\" and must be \"gpt2\" or",
        ),
        (
            vec![tokens.clone(), bpe.clone(), string("tokenizer.ggml.pre", "tekken")],
            "GGUF tokenizer.ggml.pre is \"tekken\" and must be",
        ),
        (
            // A merge whose result is longer than every token panics inside of the library.
            vec![tokens.clone(), bpe.clone(), pre.clone(), texts("tokenizer.ggml.merges", &["abc abc"])],
            "GGUF tokenizer.ggml.merges[0] is \"abc abc\" and must be of tokens, and \"abcabc\" is none",
        ),
        (
            vec![tokens.clone(), bpe.clone(), pre.clone(), texts("tokenizer.ggml.merges", &["abc"])],
            "GGUF tokenizer.ggml.merges[0] is \"abc\" and must be two tokens with a space between",
        ),
        (
            vec![tokens.clone(), bpe, pre, entry("tokenizer.ggml.add_bos_token", 7, &[1])],
            "the GGUF file has no tokenizer.ggml.bos_token_id: its add_bos_token needs it",
        ),
        (vec![tokens, string("tokenizer.ggml.model", "llama")], "the GGUF file has no tokenizer.ggml.scores"),
        (
            vec![
                texts("tokenizer.ggml.tokens", &[&long]),
                string("tokenizer.ggml.model", "llama"),
                entry("tokenizer.ggml.scores", 9, &array(6, 1, &[0; 4])),
            ],
            "GGUF tokenizer.ggml.tokens is a piece of 600 bytes and must be of pieces of at most 512 bytes",
        ),
    ] {
        std::fs::write(&path, header(b"GGUF", 3, 0, entries.len() as u64, &[&entries.concat()])).unwrap();
        let error = Gguf::open(&path).unwrap().tokenizer().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: {expected}", path.display())), "{error}");
    }
}

/// Numbers from a linear congruence with the constants of Knuth's MMIX.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Everything that can be asked of a file.
fn ask(path: &Path) -> Result<(), regard_nn::Error> {
    let gguf = Gguf::open(path)?;
    for key in gguf.keys() {
        let _ = format!("{:?}", gguf.value(key));
    }
    for name in gguf.tensor_names() {
        if let Ok(tensor) = gguf.tensor(&name) {
            let length: usize = tensor.shape().iter().product();
            assert_eq!(tensor.to_f32().len(), length);
        }
    }
    let config = gguf.config_json().map(drop);
    let tokenizer = gguf.tokenizer().map(|tokenizer| drop(tokenizer.encode("Once upon a time 東京")));
    config.and(tokenizer)
}

/// One damage of a file: its end cut off, or some bytes replaced, most of them in the header, where the claims are.
pub(crate) fn damage(whole: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if numbers.below(4) == 0 {
        bytes.truncate(numbers.below(whole.len()));
        return bytes;
    }
    for _ in 0..=numbers.below(3) {
        let within = if numbers.below(4) == 0 { whole.len() } else { whole.len().min(4000) };
        let at = numbers.below(within);
        bytes[at] = [0, 1, 0x7f, 0x80, 0xff, numbers.below(256) as u8][numbers.below(6)];
    }
    bytes
}

#[test]
fn no_damage_panics() {
    let dir = tempfile::tempdir().unwrap();
    let (mut numbers, mut errors) = (Numbers(1), 0);
    for name in ["tied", "scaled", "blocks", "sentencepiece", "llama-bpe"] {
        let whole = std::fs::read(fixture(&format!("{name}.gguf"))).unwrap();
        for turn in 0..1000 {
            let path = dir.path().join(format!("{turn}.gguf"));
            std::fs::write(&path, damage(&whole, &mut numbers)).unwrap();
            if let Err(error) = ask(&path) {
                errors += 1;
                let error = error.to_string();
                assert!(error.contains(&path.display().to_string()) && error.len() < 1200, "{error}");
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
    assert!(errors > 2500, "{errors} of 5000");
}
