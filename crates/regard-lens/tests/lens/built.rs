//! A model built by hand, of which every head's attention is known: a GPT-2 of two layers of two heads, without feed-forward layers.
//!
//! ```text
//!   residual stream   token (40) | position (96) | token before (40) | nothing (80)
//!   0.0  reads the token before, and writes it        q = position − 1   k = position       v = token
//!   0.1  reads all alike                               q = 0              k = 0              v = 0
//!   1.0  reads what followed the same token (induction), and adds it to the prediction
//!                                                      q = token          k = token before   v = token
//!   1.1  reads the same token (duplicates, and itself) q = token          k = token          v = 0
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use regard_lens::Text;
use regard_nn::Model;
use safetensors::tensor::{Dtype, TensorView, serialize};
use tempfile::TempDir;

pub(crate) const WORDS: usize = 40;
pub(crate) const CONTEXT: usize = 96;
const HIDDEN: usize = 256;
const DIM: usize = HIDDEN / 2;
const TOKEN: usize = 0;
const POSITION: usize = WORDS;
const BEFORE: usize = WORDS + CONTEXT;
/// How much scores of what is sought exceed others, before the scale.
const STRONG: f32 = 3.0;

/// Matrices `[inputs, outputs]` and vectors, by name.
pub(crate) struct Weights(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    fn zeros(&mut self, name: &str, shape: &[usize]) -> &mut [f32] {
        let entry = self.0.entry(name.to_owned()).or_insert_with(|| (shape.to_vec(), vec![0.0; shape.iter().product()]));
        &mut entry.1
    }

    /// Ones from some inputs to as many outputs.
    fn join(&mut self, name: &str, shape: [usize; 2], (from, to, n): (usize, usize, usize), x: f32) {
        let all = self.zeros(name, &shape);
        (0..n).for_each(|i| all[(from + i) * shape[1] + to + i] = x);
    }

    /// The numbers of a tensor.
    pub(crate) fn of(&mut self, name: &str) -> &mut [f32] {
        &mut self.0.get_mut(name).expect("a tensor of that name").1
    }

    pub(crate) fn new() -> Self {
        let mut all = Weights(BTreeMap::new());
        all.join("transformer.wte.weight", [WORDS, HIDDEN], (0, TOKEN, WORDS), 1.0);
        all.join("transformer.wpe.weight", [CONTEXT, HIDDEN], (0, POSITION, CONTEXT), 1.0);
        for norm in
            ["transformer.ln_f", "transformer.h.0.ln_1", "transformer.h.0.ln_2", "transformer.h.1.ln_1", "transformer.h.1.ln_2"]
        {
            all.zeros(&format!("{norm}.weight"), &[HIDDEN]).fill(1.0);
            all.zeros(&format!("{norm}.bias"), &[HIDDEN]);
        }
        for layer in 0..2 {
            let name = |part: &str| format!("transformer.h.{layer}.{part}");
            all.zeros(&name("attn.c_attn.weight"), &[HIDDEN, 3 * HIDDEN]);
            all.zeros(&name("attn.c_attn.bias"), &[3 * HIDDEN]);
            all.zeros(&name("attn.c_proj.weight"), &[HIDDEN, HIDDEN]);
            all.zeros(&name("attn.c_proj.bias"), &[HIDDEN]);
            all.zeros(&name("mlp.c_fc.weight"), &[HIDDEN, 8]);
            all.zeros(&name("mlp.c_fc.bias"), &[8]);
            all.zeros(&name("mlp.c_proj.weight"), &[8, HIDDEN]);
            all.zeros(&name("mlp.c_proj.bias"), &[HIDDEN]);
        }
        let (first, second) = ("transformer.h.0.attn.c_attn.weight", "transformer.h.1.attn.c_attn.weight");
        let qkv = [HIDDEN, 3 * HIDDEN];
        // 0.0: the query of position p is that of the key of p − 1. A normalised one is 1 / 0.088.
        all.join(first, qkv, (POSITION + 1, 0, CONTEXT - 1), STRONG);
        all.join(first, qkv, (POSITION, HIDDEN, CONTEXT), STRONG);
        all.join(first, qkv, (TOKEN, 2 * HIDDEN, WORDS), 0.088);
        all.join("transformer.h.0.attn.c_proj.weight", [HIDDEN, HIDDEN], (0, BEFORE, WORDS), 1.0);
        // 1.0 and 1.1
        all.join(second, qkv, (TOKEN, 0, WORDS), STRONG);
        all.join(second, qkv, (BEFORE, HIDDEN, WORDS), STRONG);
        all.join(second, qkv, (TOKEN, 2 * HIDDEN, WORDS), 0.1);
        all.join(second, qkv, (TOKEN, DIM, WORDS), STRONG);
        all.join(second, qkv, (TOKEN, HIDDEN + DIM, WORDS), STRONG);
        all.join("transformer.h.1.attn.c_proj.weight", [HIDDEN, HIDDEN], (0, TOKEN, WORDS), 4.0);
        all
    }

    /// The model, as a directory.
    pub(crate) fn write(&self) -> TempDir {
        self.write_with("")
    }

    /// The same with some added tokens of the tokenizer, as JSON.
    pub(crate) fn write_with(&self, added: &str) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let bytes: BTreeMap<&String, (Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, (shape, numbers))| (name, (shape.clone(), numbers.iter().flat_map(|x| x.to_le_bytes()).collect())))
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        std::fs::write(dir.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
        std::fs::write(dir.path().join("config.json"), config()).unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer(added)).unwrap();
        dir
    }

    pub(crate) fn model(&self) -> Model {
        Model::open(self.write().path()).unwrap()
    }
}

fn config() -> String {
    format!(
        r#"{{ "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": {WORDS}, "n_embd": {HIDDEN}, "n_head": 2,
        "n_layer": 2, "n_positions": {CONTEXT}, "n_inner": 8, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": true }}"#
    )
}

fn tokenizer(added: &str) -> String {
    let words: Vec<String> = (0..WORDS).map(|i| format!(r#""w{i}": {i}"#)).collect();
    format!(
        r#"{{ "version": "1.0", "added_tokens": [{added}], "normalizer": null, "decoder": null, "truncation": null, "padding": null,
        "pre_tokenizer": {{ "type": "WhitespaceSplit" }}, "post_processor": null,
        "model": {{ "type": "WordLevel", "vocab": {{ {} }}, "unk_token": "w0" }} }}"#,
        words.join(", ")
    )
}

/// Words 2 … n + 1, and again.
pub(crate) fn twice(model: &Model, n: usize) -> Text {
    let words: Vec<String> = (2..n + 2).chain(2..n + 2).map(|i| format!("w{i}")).collect();
    Text::new(model, "twice", &words.join(" ")).unwrap()
}

/// A model of regard-nn's tests.
pub(crate) fn family(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-nn/tests/families").join(name)
}
