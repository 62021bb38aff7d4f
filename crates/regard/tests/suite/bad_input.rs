//! Arguments that do not fit: each refused with a text that names it, what it got and what it needs.

use regard::{
    Alibi, Around, Attention, Bias, Blocks, Blockwise, Bools, CacheShape, Causal, Dilated, Documents, Either, Error, Fixed,
    Gaussian, Global, GradsMut, KvCache, Mask, Output, Padding, Pair, PrefixLm, RandomKeys, RelativeBias, Score, Softcap, Spans,
    Strided, Tensor, View, ViewMut, Window, sdpa, with_slope,
};

const DATA: [f32; 4096] = [0.25; 4096];

fn view(shape: [usize; 4]) -> View<'static, f32> {
    View::new(&DATA, shape).unwrap()
}

/// The text of the refusal of `q`, `k` and `v` of these shapes.
fn refuse(q: [usize; 4], k: [usize; 4], v: [usize; 4]) -> String {
    sdpa(view(q), view(k), view(v), ()).unwrap_err().to_string()
}

#[test]
fn shapes_that_do_not_fit_together() {
    let q = [2, 6, 3, 8];
    let cases = [
        (
            [2, 4, 5, 8],
            [2, 4, 5, 8],
            "query has 6 heads and keys have 4: the number of query heads must be a multiple of the number of KV heads",
        ),
        (
            [2, 0, 5, 8],
            [2, 0, 5, 8],
            "query has 6 heads and keys have 0: the number of query heads must be a multiple of the number of KV heads",
        ),
        ([1, 6, 5, 8], [1, 6, 5, 8], "keys has 1 sequences and needs 2, as the query has"),
        ([2, 6, 5, 7], [2, 6, 5, 8], "keys has 7 elements in each head and needs 8, as the query has"),
        ([2, 6, 5, 8], [1, 6, 5, 8], "values has 1 sequences and needs 2, as the keys have"),
        ([2, 6, 5, 8], [2, 3, 5, 8], "values has 3 heads and needs 6, as the keys have"),
        ([2, 6, 5, 8], [2, 6, 4, 8], "values has 4 positions and needs 5, as the keys have"),
    ];
    for (k, v, text) in cases {
        assert_eq!(refuse(q, k, v), text);
    }
}

#[test]
fn views_that_leave_their_slice() {
    let short = View::new(&DATA[..10], [1, 1, 3, 4]).unwrap_err().to_string();
    assert_eq!(short, "view needs 12 elements for shape [1, 1, 3, 4] with strides [12, 12, 4, 1], and its slice has 10");
    let before = View::strided(&DATA, 3, [1, 1, 3, 4], [0, 0, -4, 1]).unwrap_err().to_string();
    assert!(before.contains("reaches before the start of its slice"), "{before}");
    let far = View::strided(&DATA, 0, [1, 1, 3, 4], [0, 0, isize::MAX, 1]).unwrap_err().to_string();
    assert!(far.contains("its slice has 4096"), "{far}");
    let huge = View::new(&DATA, [usize::MAX, 2, 2, 2]).unwrap_err().to_string();
    assert!(huge.contains("more elements than the machine can address"), "{huge}");
    assert!(View::strided(&DATA, usize::MAX, [1, 1, 1, 1], [0; 4]).is_err());
    assert!(Tensor::<f32>::zeros([1 << 20, 1 << 20, 1 << 20, 1 << 20]).is_err());
    assert!(Tensor::from_vec(vec![0f32; 5], [1, 1, 2, 3]).unwrap_err().to_string().contains("tensor has 5 elements and needs 6"));
    assert!(view([1, 2, 3, 4]).slice(2, 1..5).unwrap_err().to_string().contains("range 1..5 leaves axis 2, which has 3 elements"));
    assert!(view([1, 2, 3, 4]).slice(4, 0..1).is_err() && view([1, 2, 3, 4]).permute([0, 1, 1, 3]).is_err());
}

#[test]
fn mutable_views_that_overlap() {
    let mut data = [0f32; 64];
    let broadcast = ViewMut::strided(&mut data, 0, [1, 2, 3, 4], [0, 0, 4, 1]).unwrap_err().to_string();
    assert!(broadcast.contains("names some element twice"), "{broadcast}");
    assert!(ViewMut::strided(&mut data, 0, [1, 1, 3, 4], [0, 0, 3, 1]).is_err(), "rows that share their ends");
    assert!(ViewMut::strided(&mut data, 0, [2, 1, 3, 4], [12, 99, 4, 1]).is_ok(), "an axis of one element may have any stride");
    assert!(ViewMut::strided(&mut data, 63, [1, 1, 8, 8], [0, 0, -8, -1]).is_ok(), "backwards is no overlap");
    let far = isize::MAX;
    assert!(ViewMut::strided(&mut data, 0, [0, 3, 3, 3], [1, far, far, 1]).is_ok(), "nothing overlaps nothing");
}

#[test]
fn outputs_of_another_shape() {
    let attention = Attention::new();
    let x = view([1, 2, 3, 4]);
    let plan = attention.plan(x, (x, x)).unwrap();
    let (mut out, mut lse) = ([0f32; 24], [0f32; 24]);
    let wrong = plan.forward_into(ViewMut::new(&mut out, [1, 2, 4, 3]).unwrap(), ViewMut::new(&mut lse, [1, 2, 3, 1]).unwrap());
    assert_eq!(wrong.unwrap_err().to_string(), "output has shape [1, 2, 4, 3] and needs [1, 2, 3, 4]");
    let wrong = plan.forward_into(ViewMut::new(&mut out, [1, 2, 3, 4]).unwrap(), ViewMut::new(&mut lse, [1, 2, 3, 4]).unwrap());
    assert_eq!(wrong.unwrap_err().to_string(), "log-sum-exp has shape [1, 2, 3, 4] and needs [1, 2, 3, 1]");
    let output = plan.forward().unwrap();
    let wrong = plan.backward(&output, view([1, 2, 3, 5])).unwrap_err().to_string();
    assert_eq!(wrong, "gradient of the output has shape [1, 2, 3, 5] and needs [1, 2, 3, 4]");
    let foreign = Output { out: Tensor::<f32>::zeros([1, 1, 1, 1]).unwrap(), lse: output.lse.clone() };
    assert!(plan.backward(&foreign, x).unwrap_err().to_string().starts_with("output has shape [1, 1, 1, 1]"));
}

#[test]
fn gradients_of_another_shape() {
    let (x, bias) = (view([1, 2, 3, 4]), Bias::new(view([1, 2, 1, 3])).with_gradient());
    let attention = Attention::new().score(bias).sinks([0.0, 1.0]);
    let plan = attention.plan(x, (x, x)).unwrap();
    let output = plan.forward().unwrap();
    let refuse = |shapes: [[usize; 4]; 3], dbias: Option<usize>, dsinks: Option<usize>| {
        let [mut dq, mut dk, mut dv, mut dbias_to, mut dsinks_to] = [[0f32; 64]; 5];
        let [dq, dk, dv] = [(&mut dq, shapes[0]), (&mut dk, shapes[1]), (&mut dv, shapes[2])]
            .map(|(data, shape)| ViewMut::new(data, shape).unwrap());
        let (dbias, dsinks) = (dbias.map(|n| &mut dbias_to[..n]), dsinks.map(|n| &mut dsinks_to[..n]));
        let grads = GradsMut { dq, dk, dv, dbias, dsinks };
        plan.backward_into(output.out.view(), output.lse.view(), x, grads).map_err(|error| error.to_string()).err()
    };
    let (fits, wrong) = ([1, 2, 3, 4], [1, 2, 4, 3]);
    assert_eq!(refuse([fits; 3], Some(6), Some(2)), None);
    for (i, what) in ["queries", "keys", "values"].into_iter().enumerate() {
        let mut shapes = [fits; 3];
        shapes[i] = wrong;
        let text = format!("gradient of the {what} has shape [1, 2, 4, 3] and needs [1, 2, 3, 4]");
        assert_eq!(refuse(shapes, Some(6), Some(2)), Some(text));
    }
    let text = "gradient of the bias has 0 elements and needs 6, those of the bias `with_gradient` (0 without one)";
    assert_eq!(refuse([fits; 3], None, Some(2)).as_deref(), Some(text));
    let text = "gradient of the sinks has 3 elements and needs 2, one for each sink";
    assert_eq!(refuse([fits; 3], Some(6), Some(3)).as_deref(), Some(text));
}

/// Sizes within what can be addressed and beyond any memory: refused, where a `vec!` would end the process.
#[test]
fn memory_that_nobody_has() {
    let refused = |what: &str, result: Result<(), Error>| {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(what) && text.ends_with("than the machine can address or has memory for"), "{text}");
    };
    refused("tensor", Tensor::<f32>::zeros([1 << 20, 1 << 20, 1 << 15, 1]).map(drop));
    refused("random keys", RandomKeys::new(1 << 16, [1 << 10, 1 << 29], 0).map(drop));
    let pool = CacheShape { layers: 1, pages: 1 << 31, page_size: 1 << 20, kv_heads: 2, head_dim: 8, value_dim: 8 };
    refused("cache", KvCache::<f32>::new(pool).map(drop));
    let x = View::strided(&DATA, 0, [1 << 20, 1 << 20, 1 << 15, 1], [0; 4]).unwrap();
    refused("tensor", Attention::new().forward(x, (x, x)).map(drop));
    assert!(
        Documents::new(&[0, 4_000_000_000], ()).unwrap_err().to_string().starts_with("query document boundary 1 is 4000000000")
    );
    assert!(Documents::new(&[0, (1 << 30) - 1], ()).is_ok(), "no memory for each position");
}

/// The text of the refusal of a mask or a score over 2 sequences, 4 heads, 3 queries and 5 keys.
fn refuse_mask(mask: impl Mask) -> String {
    sdpa(view([2, 4, 3, 8]), view([2, 4, 5, 8]), view([2, 4, 5, 8]), mask).unwrap_err().to_string()
}

fn refuse_score(score: impl Score) -> String {
    let attention = Attention::new().score(score);
    attention.forward(view([2, 4, 3, 8]), (view([2, 4, 5, 8]), view([2, 4, 5, 8]))).unwrap_err().to_string()
}

#[test]
fn masks_of_another_problem() {
    let bools = [true; 64];
    let wrong = refuse_mask(Bools(View::new(&bools, [2, 3, 3, 3]).unwrap()));
    assert_eq!(wrong, "boolean mask has shape [2, 3, 3, 3] and scores have shape [2, 4, 3, 5]: each size must be equal or 1");
    assert_eq!(
        refuse_mask(Padding::new([1, 2, 3])),
        "padding mask has 3 lengths and needs 2, one for each sequence (or a single one for all)"
    );
    assert!(refuse_mask(PrefixLm { prefix: vec![] }).contains("prefix-LM mask has 0 lengths"));
    assert!(refuse_mask(Documents::new(&[0, 2], ()).unwrap()).contains("query documents has 2 positions and needs 3"));
    assert!(refuse_mask(Documents::with_keys(&[0, 3], &[0, 4], ()).unwrap()).contains("key documents has 4 positions and needs 5"));
    let positions = [0; 64];
    let spans = |first, end| {
        let [first, end] = [first, end].map(|shape| View::new(&positions, shape).unwrap());
        refuse_mask(Spans::new(first, end))
    };
    assert!(spans([2, 4, 2, 1], [1; 4]).starts_with("first keys of spans has shape [2, 4, 2, 1] and scores have"));
    assert_eq!(spans([1; 4], [1, 1, 3, 5]), "ends of spans has 5 elements for each query and needs 1, a position among the keys");
    assert!(refuse_mask(Blocks::new(2, 2, vec![true; 4], [1, 1, 2, 2]).unwrap()).contains("block map has shape [1, 1, 2, 2]"));
    assert!(refuse_mask((Causal::UpperLeft, Padding::new([1, 2, 3]))).contains("padding"), "inside a tuple too");
    assert!(refuse_mask(Some(Padding::new([1, 2, 3]))).contains("padding"));
}

#[test]
fn sparse_masks_of_another_problem() {
    let global = Either(Window { left: 1, right: 1 }, Global::new([0, 5]));
    assert_eq!(refuse_mask(global), "a global position is 5, and there are 5 keys: it must be below 5");
    let short = RandomKeys::new(1, [1, 4], 0).unwrap();
    assert_eq!(refuse_mask(short.clone()), "random keys has 4 positions and needs 5, the length of the keys, or more");
    let heads = RandomKeys::new(1, [3, 5], 0).unwrap();
    assert_eq!(refuse_mask(heads), "random keys has 3 heads and needs 4, as the query has (or 1 for all)");
    assert!(refuse_mask(Blockwise::new(1, short).unwrap()).contains("random keys"), "inside blocks too");
    assert!(refuse_mask(Blockwise::new(2, Global::new([3])).unwrap()).contains("there are 3 keys"), "which are blocks");
    assert!(refuse_mask(Around { centres: view([1, 1, 2, 1]), radius: 1.0 }).contains("centres has shape [1, 1, 2, 1]"));
    assert!(refuse_mask(Around { centres: view([1, 1, 3, 5]), radius: 1.0 }).contains("centres has 5 elements for each query"));
    for radius in [-1.0, f32::NAN, f32::INFINITY] {
        assert!(
            refuse_mask(Around { centres: view([1, 1, 3, 1]), radius }).starts_with("radius around the centres is "),
            "{radius}"
        );
    }
    let nan = [0.0, f32::NAN, 1.0];
    let centres = View::new(&nan, [1, 1, 3, 1]).unwrap();
    assert_eq!(refuse_mask(Around { centres, radius: 1.0 }), "a centre is NaN and must be finite");
}

#[test]
fn masks_that_cannot_be() {
    let text = |e: Error| e.to_string();
    assert_eq!(text(Dilated::new(1, 1, 0).unwrap_err()), "dilation of a window is 0 and must be from 1 to 2^30");
    assert_eq!(text(Strided::new(0).unwrap_err()), "stride of strided attention is 0 and must be from 1 to 2^30");
    assert_eq!(text(Fixed::new(0, 1).unwrap_err()), "block of fixed attention is 0 and must be from 1 to 2^30");
    for summary in [0, 5] {
        assert!(
            text(Fixed::new(4, summary).unwrap_err()).starts_with("number of summary keys of fixed attention is "),
            "{summary}"
        );
    }
    assert_eq!(text(Blockwise::new(0, ()).unwrap_err()), "size of the blocks of a mask is 0 and must be from 1 to 2^30");
    assert!(text(RandomKeys::new(6, [1, 5], 0).unwrap_err()).starts_with("number of random keys is 6 and must be at most"));
    assert!(Dilated::new(1, 1, u32::MAX).is_err() && Strided::new(u32::MAX).is_err() && Blockwise::new(u32::MAX, ()).is_err());
    assert!(RandomKeys::new(1 << 29, [usize::MAX, 1 << 29], 0).is_err());
    assert_eq!(text(Documents::new(&[1, 2], ()).unwrap_err()), "query document boundary 0 is 1 and must be 0");
    assert_eq!(
        text(Documents::new(&[0, 4, 3], ()).unwrap_err()),
        "query document boundary 2 is 3 and must be at least 4, the one before it, and below 2^30"
    );
    assert!(
        text(Documents::with_keys(&[0, 1], &[0, 1, 2], ()).unwrap_err()).contains("key documents has 3 boundaries and needs 2")
    );
    assert_eq!(text(Blocks::new(0, 1, vec![], [0; 4]).unwrap_err()), "query block of the block mask is 0 and must be at least 1");
    assert!(text(Blocks::new(1, 1, vec![true; 3], [1, 1, 2, 2]).unwrap_err()).contains("block map has 3 elements and needs 4"));
}

#[test]
fn scores_of_another_problem() {
    assert_eq!(refuse_score(Alibi::new(3)), "ALiBi has 3 slopes and needs 4, one for each query head");
    assert!(refuse_score(Bias::new(view([2, 4, 5, 3]))).contains("bias has shape [2, 4, 5, 3] and scores have shape [2, 4, 3, 5]"));
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(refuse_score(Softcap(cap)).starts_with("softcap is "), "{cap}");
        assert!(refuse_score(Gaussian::new(view([1, 1, 3, 1]), cap)).starts_with("deviation of a Gaussian is "), "{cap}");
    }
    assert!(refuse_score(Gaussian::new(view([1, 1, 3, 5]), 1.0)).contains("centres has 5 elements for each query"));
    let table = |heads| RelativeBias::causal(view([1, heads, 1, 8]), 16).unwrap();
    assert!(refuse_score(table(3)).contains("relative bias has shape [1, 3, 1, 1] and scores have shape [2, 4, 3, 5]"));
    let two = (table(4).with_gradient(), Gaussian::new(view([1, 1, 3, 1]), 1.0).with_gradient());
    assert!(refuse_score(two).starts_with("a second gradient besides queries, keys and values is not supported in one call"));
}

#[test]
fn relative_biases_that_cannot_be() {
    let causal = |shape, max| RelativeBias::causal(view(shape), max).unwrap_err().to_string();
    let both = |shape, max| RelativeBias::bidirectional(view(shape), max).unwrap_err().to_string();
    assert_eq!(causal([1, 4, 1, 7], 16), "number of buckets of a causal relative bias is 7 and must be a positive multiple of 2");
    assert_eq!(
        both([1, 4, 1, 6], 16),
        "number of buckets of a bidirectional relative bias is 6 and must be a positive multiple of 4"
    );
    assert!(
        causal([1, 4, 1, 8], 4).starts_with("largest distance of a relative bias is 4 and must be more than half of the buckets")
    );
    assert!(both([1, 4, 1, 8], 2).starts_with("largest distance of a relative bias is 2"));
    assert!(causal([1, 4, 1, 8], u32::MAX).contains("at most 2^20"));
    assert!(causal([1, 4, 2, 8], 16).starts_with("relative bias has 2 query positions and needs 1"));
}

/// softcap(−∞) = −cap, so a key hidden by a bias would be seen again.
#[test]
fn a_hiding_bias_ahead_of_a_softcap() {
    let mut data = [0f32; 15];
    data[7] = f32::NEG_INFINITY;
    let bias = Bias::new(View::new(&data, [1, 1, 3, 5]).unwrap());
    let text = refuse_score((bias, Softcap(5.0)));
    assert!(text.contains("bias holds −∞ at [0, 0, 1, 2]") && text.contains("use a mask"), "{text}");
    let (four, five) = (Alibi::new(4), Softcap(5.0));
    assert!(refuse_score(((bias, four.clone()), five)).contains("bias holds −∞"), "with a score between");
    let closure = |s: f32, _: Pair| s.max(-10.0);
    assert!(refuse_score((bias, closure)).contains("bias holds −∞"), "a closure that reveals, too");
    let attention = Attention::new().score((five, bias));
    assert!(attention.forward(view([2, 4, 3, 8]), (view([2, 4, 5, 8]), view([2, 4, 5, 8]))).is_ok(), "after the softcap it hides");
    let bent = with_slope(|s: f32, _: Pair| 2.0 * s, |_: f32, _: Pair| 2.0);
    assert!(Attention::new().score((bias, bent)).forward(view([2, 4, 3, 8]), (view([2, 4, 5, 8]), view([2, 4, 5, 8]))).is_ok());
}

#[test]
fn numbers_outside_their_domain() {
    let x = view([1, 2, 3, 4]);
    let text = |attention: Attention| attention.forward(x, (x, x)).unwrap_err().to_string();
    assert_eq!(text(Attention::new().scale(f32::NAN)), "scale is NaN and must be finite");
    assert_eq!(text(Attention::new().scale(f32::INFINITY)), "scale is inf and must be finite");
    assert_eq!(text(Attention::new().sinks([1.0])), "sinks has 1 logits and needs 2, one for each query head");
    assert_eq!(text(Attention::new().sinks([1.0, f32::NAN])), "a sink is NaN and must be finite or −∞");
    for p in [-0.5, 1.5, f32::NAN] {
        assert!(text(Attention::new().dropout(p, 0)).starts_with("dropout is "), "{p}");
    }
    let kernel = text(Attention::new().kernel("abacus"));
    assert!(kernel.starts_with("kernel \"abacus\" is not available here; available: ") && kernel.contains("scalar"), "{kernel}");
}

/// Positions of 2³⁰ and more would overflow the arithmetic of masks.
#[test]
fn lengths_beyond_positions() {
    let long = View::strided(&DATA, 0, [1, 1, 1 << 30, 1], [0; 4]).unwrap();
    let text = sdpa(view([1, 1, 1, 1]), long, long, ()).unwrap_err().to_string();
    assert!(text.starts_with("key length is 1073741824 and must be below 2^30"), "{text}");
}
