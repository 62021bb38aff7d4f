//! What a plan says about itself: its counts against counting pair by pair.

use regard::{
    Attention, Blockwise, CacheShape, Causal, Cost, Dilated, Either, Fixed, Global, Kv, KvCache, Mask, Padding, RandomKeys,
    Sequence, Shape, Strided, Tiles, View, Window,
};
use regard_testing::by_ref::ByRef;
use regard_testing::case::Case;
use regard_testing::zoo::masks;

const TILE: usize = 64;

/// Tiles of one head, 64 queries by 64 keys, judged by all their pairs.
fn by_pairs(mask: &dyn Mask, shape: &Shape, [b, h]: [usize; 2]) -> (Tiles, u64) {
    let (mut tiles, mut pairs) = (Tiles::default(), 0);
    for q in (0..shape.q_len).step_by(TILE) {
        for kv in (0..shape.kv_len).step_by(TILE) {
            let (rows, keys) = (q..(q + TILE).min(shape.q_len), kv..(kv + TILE).min(shape.kv_len));
            let seen: Vec<bool> = rows.clone().flat_map(|i| keys.clone().map(move |j| mask.keep(shape.pair(b, h, i, j)))).collect();
            let kind = match (seen.contains(&true), seen.contains(&false)) {
                (false, _) => &mut tiles.hidden,
                (true, false) => &mut tiles.clear,
                (true, true) => &mut tiles.mixed,
            };
            *kind += 1;
            pairs += if seen.contains(&true) { (rows.len() * keys.len()) as u64 } else { 0 };
        }
    }
    (tiles, pairs)
}

fn cost(case: &Case, mask: &dyn Mask) -> Cost {
    let inputs = case.inputs::<f32>();
    let attention = Attention::new().mask(ByRef(mask));
    attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap().cost()
}

#[test]
fn tiles_are_counted_as_the_mask_shows_them() {
    let case = Case::new(1, [2, 2, 2, 200, 330, 8, 4]);
    let formulas: [(&str, &dyn Mask); 10] = [
        ("everything", &()),
        ("upper-left", &Causal::UpperLeft),
        ("lower-right", &Causal::LowerRight),
        ("window", &Window { left: 70, right: 10 }),
        ("padding", &Padding::new([100, 330])),
        ("dilated", &Dilated::new(1, 1, 130).unwrap()),
        ("strided", &Strided::new(150).unwrap()),
        ("fixed", &Fixed::new(192, 8).unwrap()),
        ("window and global", &Either(Window { left: 10, right: 10 }, Global::new([5]))),
        ("sinks and window", &(Causal::LowerRight, Either(Window { left: 20, right: 0 }, Global::first(4)))),
    ];
    for (name, mask) in formulas {
        let (mut tiles, mut pairs) = (Tiles::default(), 0);
        for place in [[0, 0], [0, 1], [1, 0], [1, 1]] {
            let (of_head, pairs_of_head) = by_pairs(mask, &case.shape, place);
            tiles.hidden += of_head.hidden;
            tiles.clear += of_head.clear;
            tiles.mixed += of_head.mixed;
            pairs += pairs_of_head;
        }
        let cost = cost(&case, mask);
        assert_eq!((cost.tiles, cost.pairs), (tiles, pairs), "{name}");
        assert_eq!(cost.forward_flops, 2 * (8 + 4) * pairs, "{name}");
        assert_eq!(cost.backward_flops, 2 * (3 * 8 + 2 * 4) * pairs, "{name}");
    }
}

#[test]
fn no_mask_is_counted_below_what_it_shows() {
    let case = Case::new(2, [2, 4, 2, 70, 130, 4, 4]);
    masks(&case.shape, 3, &mut |name: &str, mask: &dyn Mask| {
        let visible = (0..2 * 4 * 70 * 130usize).filter(|i| {
            let [b, h, q, kv] = [i / 130 / 70 / 4, i / 130 / 70 % 4, i / 130 % 70, i % 130];
            mask.keep(case.shape.pair(b, h, q, kv))
        });
        let cost = cost(&case, mask);
        assert!(cost.pairs >= visible.count() as u64, "{name}");
        let Tiles { hidden, clear, mixed } = cost.tiles;
        assert_eq!(hidden + clear + mixed, 2 * 2 * 3 * 3, "{name}: 140 rows of a group in 3 blocks, 130 keys in 3 tiles");
    });
}

/// Four times the length at the same width costs four times the tiles, where the global tokens see all in one row of tiles each.
#[test]
fn sparse_patterns_cost_in_proportion_to_the_length() {
    let of = |len: usize, mask: &dyn Mask| cost(&Case::new(4, [1, 1, 1, len, len, 1, 1]), mask).pairs / 4096;
    let streaming = (Causal::LowerRight, Either(Window { left: 63, right: 0 }, Global::first(4)));
    let longformer = Either(Window { left: 63, right: 63 }, Global::new([0]));
    for len in [1024, 4096] {
        let rows = (len / 64) as u64;
        assert_eq!(of(len, &streaming), 3 * rows - 3, "itself, the one before, the first");
        assert_eq!(
            of(len, &longformer),
            5 * rows - 6,
            "three on the diagonal, less two at its ends, and a row and a column of others"
        );
        let random = RandomKeys::new(2, [1, len / 64], 9).unwrap();
        let big_bird = Blockwise::new(64, Either(Either(Window { left: 1, right: 1 }, Global::first(1)), random)).unwrap();
        let all = of(len, &big_bird);
        assert!((5 * rows - 6..=7 * rows).contains(&all), "{len}: {all}");
        let case = Case::new(4, [1, 1, 1, len, len, 1, 1]);
        let tiles = cost(&case, &big_bird).tiles;
        assert_eq!((tiles, tiles.mixed), (by_pairs(&big_bird, &case.shape, [0, 0]).0, 0), "blocks of 64 are tiles");
    }
}

/// Decoding with 32 query heads and 8 KV heads: each key and value is counted once for its KV head, not for every query head.
#[test]
fn grouped_decoding_moves_each_key_and_value_once() {
    let case = Case::new(3, [1, 32, 8, 1, 4096, 128, 128]);
    let cost = cost(&case, &Causal::LowerRight);
    let (kv, rows) = (8 * 4096 * 2 * 128 * 4, 32 * (2 * 128 * 4 + 4));
    assert_eq!(cost.bytes, kv + rows);
    assert_eq!(cost.tiles, Tiles { hidden: 0, clear: 8 * 64, mixed: 0 });
}

#[test]
fn a_plan_says_why() {
    let x = [0.5f32; 64];
    let x = View::new(&x, [1, 1, 16, 4]).unwrap();
    let attention = Attention::new().kernel("scalar");
    let plan = attention.plan(x, (x, x)).unwrap();
    assert_eq!(plan.kernel(), "scalar");
    assert!(plan.why().starts_with("asked for by name; 1 block of query rows"), "{}", plan.why());
    let attention = Attention::new();
    let plan = attention.plan(x, (x, x)).unwrap();
    assert!(crate::run::kernels().contains(&plan.kernel()) && !plan.why().is_empty());
}

/// A batch of short sequences and a long one: one thread would still read the long one when all others are done.
#[test]
fn a_plan_shares_out_the_keys_of_long_sequences() {
    let mut cache =
        KvCache::new(CacheShape { layers: 1, pages: 400, page_size: 16, kv_heads: 1, head_dim: 128, value_dim: 128 }).unwrap();
    let seqs: Vec<Sequence> = [3, 5000, 7, 1]
        .into_iter()
        .map(|len| {
            let mut seq = cache.sequence();
            cache.grow(&mut seq, len).unwrap();
            seq
        })
        .collect();
    let q = [0.5f32; 4 * 128];
    let (attention, seqs) = (Attention::new(), seqs.iter().collect::<Vec<_>>());
    let why = |seqs: &[&Sequence]| {
        let q = View::new(&q[..128 * seqs.len()], [seqs.len(), 1, 1, 128]).unwrap();
        attention.plan(q, Kv::Paged { cache: &cache, layer: 0, seqs }).unwrap().why()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        assert!(why(&seqs).ends_with("over 2 threads, and the keys of long sequences"), "{}", why(&seqs));
        assert!(why(&[seqs[1]; 4]).ends_with("4 blocks of query rows shared out over 2 threads"), "{}", why(&[seqs[1]; 4]));
        assert!(why(&[seqs[1]]).ends_with("so the keys are shared out too"), "{}", why(&[seqs[1]]));
        assert!(why(&[seqs[0]; 2]).ends_with("2 blocks of query rows in one thread"), "{}", why(&[seqs[0]; 2]));
    });
}
