//! Embeddings of a tiny BERT: the vectors of `Embedder::embed`, as numbers and as bytes.

use regard_nn::Embedder;
use regard_serve::Served;
use serde_json::json;

use crate::{Running, quiet};

fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    regard_testing::tiny::bert(dir.path()).unwrap();
    dir
}

#[test]
fn an_encoder_embeds_and_continues_nothing() {
    let dir = model();
    let server = Running::new(Served::open("tiny", dir.path(), None).unwrap(), quiet());
    let embedder = Embedder::open(dir.path()).unwrap();
    let expected: Vec<Vec<f32>> = ["w5 w6", "w7"].map(|text| embedder.embed(text, embedder.pooling()).unwrap()).to_vec();

    let told = server.post("/v1/embeddings", &json!({ "model": "tiny", "input": ["w5 w6", "w7"] })).json();
    for (i, vector) in expected.iter().enumerate() {
        let given: Vec<f32> = serde_json::from_value(told["data"][i]["embedding"].clone()).unwrap();
        assert_eq!((&told["data"][i]["index"], &given), (&json!(i), vector));
    }
    assert_eq!(told["usage"], json!({ "prompt_tokens": 7, "total_tokens": 7 }));

    let told = server.post("/v1/embeddings", &json!({ "input": "w7", "encoding_format": "base64" })).json();
    let bytes: Vec<u8> = expected[1].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(told["data"][0]["embedding"], base64(&bytes));

    for (field, value) in [
        ("input", json!("")),
        ("input", json!([])),
        ("input", json!([[5]])),
        ("encoding_format", json!("hex")),
        ("dimensions", json!(8)),
        ("unheard_of", json!(8)),
    ] {
        let mut ask = json!({ "input": "w5" });
        ask[field] = value;
        let answer = server.post("/v1/embeddings", &ask);
        assert_eq!((answer.status, answer.error().1.as_str()), (400, field), "{}", answer.body);
    }
    let (message, param) = server.post("/v1/completions", &json!({ "prompt": "w5" })).error();
    assert!(message.contains("an encoder") && param == "model", "{message}");
    server.end().unwrap();
}

/// RFC 4648, §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        let digit = move |i: usize| if i <= three.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char } else { '=' };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
