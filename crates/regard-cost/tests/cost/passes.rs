//! Operations and bytes of passes.

use regard_cost::{Cost, Dtype, Pass, Shape, Work};

use super::{ask, cost, gpt, llama, train};

/// Karpathy's nanoGPT, transformer_sizing.ipynb: GPT-2 at 1024 tokens, part by part, with logits of all tokens.
#[test]
fn gpt2_part_by_part() {
    let forward = cost("gpt2", &train(1024, 1, Dtype::F32)).training.unwrap().forward;
    assert_eq!(forward.projections.flops, 12 * (3_623_878_656 + 1_207_959_552));
    assert_eq!(forward.feed_forward.flops, 12 * 9_663_676_416);
    assert_eq!(forward.output.flops, 79_047_426_048);
    // There the products of scores and of values are of all 1024² pairs, and softmax is not counted.
    let (pairs, heads) = (1024 * 1025 / 2, 12 * 12);
    assert_eq!((forward.attention.flops.get() - 2 * heads * pairs) * 1024 * 1024, 12 * 2 * 1_610_612_736 * pairs);
    assert_eq!(forward.attention.exps, heads * pairs);
}

fn shapes() -> [Shape; 6] {
    [
        gpt(2, 32, 4, 100),
        llama(r#""model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 5"#),
        llama(r#""model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 24, "sliding_window": 4"#),
        llama(r#""model_type": "qwen3", "num_key_value_heads": 4, "head_dim": 10"#),
        llama(r#""model_type": "mixtral", "num_key_value_heads": 4, "num_local_experts": 5, "num_experts_per_tok": 2"#),
        llama(
            r#""model_type": "gpt_oss", "num_key_value_heads": 4, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 3"#,
        ),
    ]
}

/// A step is what a prefill of n tokens does and one of n − 1 does not.
#[test]
fn a_prefill_is_as_many_steps_as_tokens() {
    for shape in shapes() {
        let of = |n| Cost::of(&shape, &ask(n, 3, Dtype::Bf16), None).unwrap();
        let parts =
            |pass: &Pass| [pass.projections, pass.attention, pass.feed_forward].map(|work| (work.flops.get(), work.exps.get()));
        let mut steps = [(0, 0); 3];
        for n in 1..=12 {
            let step = of(n).decode.unwrap();
            steps = std::array::from_fn(|i| (steps[i].0 + parts(&step)[i].0, steps[i].1 + parts(&step)[i].1));
            assert_eq!(parts(&of(n).prefill), steps, "{} at {n}", shape.name);
        }
    }
}

/// Every weight once: a step of one sequence moves little else, and two move them once, too.
#[test]
fn weights_are_read_once() {
    for (name, experts) in [("llama-2-7b", 0), ("opt-13b", 0), ("mixtral-8x7b", 32 * 2 * 3 * 4096 * 14336u64)] {
        let at = |batch| {
            let cost = cost(name, &ask(1, batch, Dtype::Bf16));
            let step = cost.decode.unwrap();
            let products = step.total.bytes.get() - step.attention.bytes.get();
            // Rows of tables that are looked up, and normalisations, are not in it.
            let p = cost.parameters;
            let tied = if p.head == 0 { p.embedding.get() } else { p.head.get() };
            let weights = p.active.get() - p.embedding.get() - p.positions.get() - p.norms.get() - p.head.get() + tied;
            (products as f64, 2.0 * weights as f64)
        };
        let ((one, weights), (two, _)) = (at(1), at(2));
        assert!(one > weights && one < weights * 1.001, "{name}: {one} and {weights}");
        let more = 2.0 * experts as f64; // two tokens use four experts, at most
        assert!((two - one - more).abs() < one * 0.001, "{name}: {one} and {two}");
    }
    // No more than all experts are read.
    let many = cost("mixtral-8x7b", &ask(1000, 1, Dtype::Bf16));
    let weights = many.parameters.feed_forward.get() * 2;
    let activations = 32 * (1000 * 2 * (2 * (4096 + 14336) + 14336 + 4096) * 2 + 2 * (1000 * (4096 + 8) + 4096 * 8));
    assert_eq!(many.prefill.feed_forward.bytes, weights + activations);
}

/// As `regard::Cost` counts a plan: queries, keys, values and outputs once, and a log-sum-exp for each row.
#[test]
fn fused_attention_moves_its_inputs_and_outputs() {
    let shape = llama(r#""model_type": "llama", "num_key_value_heads": 2, "head_dim": 16"#);
    let cost = Cost::of(&shape, &ask(100, 3, Dtype::Bf16), None).unwrap();
    let rows = 3 * 100 * (8 + 2) * 32 * 2;
    assert_eq!(cost.prefill.attention.bytes, 3 * (rows + 3 * 100 * 8 * 4));
    // A step reads the cache, and moves a query and an output.
    let cache = cost.kv_cache.unwrap();
    assert_eq!(cost.decode.unwrap().attention.bytes, cache.total.get() + 3 * 3 * 8 * 32 * 2);
}

/// Latent attention decodes on the vector itself: 576 elements of a key, 512 of a value, for all of 128 heads, and reads it once.
#[test]
fn latent_attention_decodes_absorbed() {
    let cost = cost("deepseek-v2", &ask(1000, 1, Dtype::Bf16));
    let step = cost.decode.unwrap();
    assert_eq!(step.attention.flops, 60 * 128 * 1000 * (2 * (576 + 512) + 2));
    assert_eq!(step.attention.bytes, 60 * 2 * (1000 * 576 + 128 * (576 + 512)));
    assert_eq!(cost.prefill.attention.flops, 60 * 128 * (1000 * 1001 / 2) * (2 * (192 + 128) + 2));
}

#[test]
fn windows_bound_pairs_and_cache() {
    let shape = llama(r#""model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 5"#);
    for n in 1..=12u64 {
        let cost = Cost::of(&shape, &ask(n, 1, Dtype::F32), None).unwrap();
        let pairs: u64 = (0..n).map(|q| (0..=q).filter(|kv| kv + 5 > q).count() as u64).sum();
        assert_eq!(cost.prefill.attention.exps, u128::from(3 * 8 * pairs));
        let cache = cost.kv_cache.unwrap();
        assert_eq!(cache.total, cache.per_token.get() * u128::from(n.min(5)));
        assert_eq!(cache.without_windows, cache.per_token.get() * u128::from(n));
    }
}

#[test]
fn a_reader_neither_caches_nor_decodes() {
    let cost = cost("bert-base", &train(512, 2, Dtype::F32));
    assert_eq!((cost.kv_cache, cost.decode, cost.memory.kv_cache.get()), (None, None, 0));
    assert_eq!(cost.prefill.attention.exps, 2 * 12 * 12 * 512 * 512);
    // Its pooler reads the first token of each sequence.
    assert_eq!(cost.prefill.output.flops, 2 * 2 * 768 * 768);
}

#[test]
fn backward_is_twice_the_products_and_totals_are_sums() {
    for shape in shapes() {
        let training = Cost::of(&shape, &train(9, 2, Dtype::F32), None).unwrap().training.unwrap();
        let (forward, backward) = (training.forward, training.backward);
        for [one, two] in [
            [forward.projections, backward.projections],
            [forward.feed_forward, backward.feed_forward],
            [forward.output, backward.output],
        ] {
            assert_eq!(two.flops, one.flops.get() * 2);
        }
        for pass in [forward, backward] {
            let parts = [pass.projections, pass.attention, pass.feed_forward, pass.output];
            let sum = |of: &dyn Fn(&Work) -> u128| parts.iter().map(of).sum::<u128>();
            assert_eq!(pass.total.flops, sum(&|work| work.flops.get()));
            assert_eq!(pass.total.bytes, sum(&|work| work.bytes.get()));
        }
        // Gradients, moments in and out, weights in and out.
        assert_eq!(training.update.bytes, (4 + 2 * 8 + 2 * 4) * shape.parameters().total.get());
    }
}

/// The crossover, by going through all lengths.
#[test]
fn the_crossover_is_the_first_length() {
    let bert = r#"{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
        "max_position_embeddings": 512, "vocab_size": 10}"#;
    for shape in shapes().into_iter().chain([Shape::from_json(bert).unwrap()]) {
        let at = |n| Cost::of(&shape, &ask(n, 1, Dtype::F32), None).unwrap();
        let more = |n| at(n).prefill.attention.flops > at(n).prefill.feed_forward.flops;
        assert_eq!(at(1).crossover.feed_forward, (1..3000).find(|&n| more(n)), "{}", shape.name);
    }
}

#[test]
fn the_largest_batch_is_the_largest() {
    for question in [ask(1000, 1, Dtype::Bf16), train(1000, 1, Dtype::Bf16)] {
        let at = |batch, memory| cost("gpt2", &regard_cost::Question { batch, memory: Some(memory), ..question });
        let memory = 8_000_000_000;
        let fits = at(7, memory).fits.unwrap();
        let batch = u64::try_from(fits.batch.get()).unwrap();
        let total = |batch| {
            let cost = at(batch, memory);
            cost.training.map_or(cost.memory.total, |training| training.total).get()
        };
        assert!(batch > 3 && total(batch) <= u128::from(memory) && total(batch + 1) > u128::from(memory), "{batch}");
        assert_eq!(at(1, 100_000_000).fits.unwrap().batch, 0);
    }
}
