//! Many texts in one step give each the bits that it gets alone, for every family: windows, rotary scalings, experts, sinks.

use std::path::Path;

use regard_nn::{Decoder, DecoderPages, Reading};

const PAGE: usize = 4;
const PAGES: usize = 100;

fn open(name: &str) -> Decoder {
    Decoder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name), None).unwrap()
}

/// Texts of these lengths, over tokens that the model has.
fn texts(decoder: &Decoder, lens: &[usize]) -> Vec<Vec<u32>> {
    let vocab = decoder.config().vocab_size;
    let text = |(i, len): (usize, &usize)| (0..*len).map(|t| ((t * 31 + i * 17 + t * t * 7) % vocab) as u32).collect();
    lens.iter().enumerate().map(text).collect()
}

/// Pages of a text's first `len` tokens, in no order; those behind a window are another text's.
fn table(decoder: &Decoder, text: usize, first: usize, len: usize) -> Vec<Vec<u32>> {
    let page = |text: usize, i: usize| ((text * 30 + i) * 37 % PAGES) as u32;
    let seen = |window: Option<usize>| window.map_or(0, |window| (first + 1).saturating_sub(window) / PAGE);
    let of = |window| (0..len.div_ceil(PAGE)).map(|i| page(if i < seen(window) { text + 1 } else { text }, i)).collect();
    decoder.windows().into_iter().map(of).collect()
}

/// All rows of each text, read side by side in pieces of these sizes.
fn together(decoder: &Decoder, texts: &[Vec<u32>], pieces: &[usize], pages: &mut DecoderPages) -> Vec<Vec<f32>> {
    let (mut read, mut rows) = (vec![0; texts.len()], vec![Vec::new(); texts.len()]);
    for step in 0.. {
        let piece = |i: usize| pieces[(step + i) % pieces.len()].min(texts[i].len() - read[i]);
        let some: Vec<usize> = (0..texts.len()).filter(|i| piece(*i) > 0).collect();
        if some.is_empty() {
            break;
        }
        let tables: Vec<Vec<Vec<u32>>> = some.iter().map(|&i| table(decoder, i, read[i], read[i] + piece(i))).collect();
        let mut batch = Vec::new();
        for (&i, tables) in some.iter().zip(&tables) {
            let tokens = &texts[i][read[i]..][..piece(i)];
            batch.push(Reading { tokens, first: read[i], logits: tokens.len(), tables });
        }
        let logits = decoder.read_batch(&batch, pages).unwrap();
        let mut rest = logits.as_slice();
        for (&i, text) in some.iter().zip(&batch) {
            let (own, others) = rest.split_at(text.tokens.len() * decoder.config().vocab_size);
            rows[i].extend_from_slice(own);
            rest = others;
            read[i] = text.first + text.tokens.len();
        }
    }
    rows
}

fn same_bits(name: &str) {
    let decoder = open(name);
    let texts = texts(&decoder, &[90, 40, 57]);
    let pools = vec![PAGES; decoder.windows().len()];
    for pieces in [&[1][..], &[13, 1, 1, 6], &[90]] {
        let rows = together(&decoder, &texts, pieces, &mut decoder.pages(&pools, PAGE).unwrap());
        for (text, rows) in texts.iter().zip(&rows) {
            let mut cache = decoder.cache(decoder.config().max_position_embeddings).unwrap();
            let alone = decoder.trace(text, &mut cache, &mut |_, _| {}).unwrap();
            assert!(alone == *rows, "{name}: other bits in pieces of {pieces:?}");
        }
    }
}

macro_rules! families {
    ($($name:ident),*) => { $(#[test] fn $name() { same_bits(stringify!($name)); })* };
}

families!(llama, mistral, qwen3, gemma2, gemma3_text, phi3_longrope, gpt2, gpt_neox, gpt_oss);

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let decoder = open("gemma2");
    assert_eq!(decoder.windows().len(), 2);
    assert!(decoder.pages(&[9], PAGE).unwrap_err().to_string().contains("one for each group of layers"));
    let mut pages = decoder.pages(&[9, 9], PAGE).unwrap();
    let tables = vec![vec![0], vec![3]];
    let text = Reading { tokens: &[1, 2], first: 0, logits: 1, tables: &tables };
    let nothing = decoder.read_batch(&[], &mut pages).unwrap_err().to_string();
    assert!(nothing.starts_with("tokens of a text") && nothing.contains("at least one token"), "{nothing}");
    let mut refused = |text: Reading<'_>| decoder.read_batch(&[text], &mut pages).unwrap_err().to_string();
    let vocab = decoder.config().vocab_size as u32;
    assert!(refused(Reading { tokens: &[], ..text }).contains("tokens of a text has shape [0] and needs at least one"));
    assert!(refused(Reading { logits: 3, ..text }).contains("3 for as many rows of logits"));
    assert!(refused(Reading { tokens: &[vocab], ..text }).contains("outside the vocabulary"));
    assert!(refused(Reading { first: usize::MAX, ..text }).contains("do not fit the model's context"));
    assert!(refused(Reading { first: 4, ..text }).contains("block table has 1 entries and needs 2"));
    assert!(refused(Reading { tables: &tables[..1], ..text }).contains("one for each group of layers"));
    assert!(refused(Reading { tables: &[vec![0], vec![9]], ..text }).contains("with this one outside it"));
    assert!(pages.copy(2, 0, 1).is_err() && pages.copy(0, 0, 9).is_err() && pages.swap_in(0, 5, 0).is_err());
}
