//! Every mask: what it says of a tile is what it says of the tile's pairs. Every score: its slope is its derivative.

use std::ops::Range;

use regard::{
    BiasSink, Blockwise, Causal, Dilated, Either, Fixed, Global, Mask, Pair, Patch, PrefixLm, RandomKeys, Shape, Slope, Strided,
    Tile, Window,
};
use regard_testing::by_ref::ByRef;
use regard_testing::case::{Case, shape};
use regard_testing::oracle::BiasTruth;
use regard_testing::rng::Rng;
use regard_testing::zoo::{masks, scores};

/// What the pairs of a tile say.
fn by_pairs(mask: &dyn Mask, shape: &Shape, [batch, head]: [usize; 2], q: &Range<u32>, kv: &Range<u32>) -> Tile {
    let at = shape.pair(batch, head, 0, 0);
    let keeps: Vec<bool> = q.clone().flat_map(|i| kv.clone().map(move |j| mask.keep(at.with(i, j)))).collect();
    match (keeps.contains(&true), keeps.contains(&false)) {
        (true, false) => Tile::Clear,
        (false, _) => Tile::Hidden,
        (true, true) => Tile::Mixed,
    }
}

/// A non-empty range within `0..n`.
fn range(n: usize, rng: &mut Rng) -> Range<u32> {
    let start = rng.below(n);
    let len = if rng.chance(0.5) { 1 + rng.below(n - start) } else { (1 + rng.below(8)).min(n - start) };
    start as u32..(start + len) as u32
}

/// Random tiles of one mask: promised and true.
fn tiles(mask: &dyn Mask, shape: &Shape, rng: &mut Rng, mut check: impl FnMut(Tile, Tile, String)) {
    for _ in 0..400 {
        let place = [rng.below(shape.batch), rng.below(shape.q_heads)];
        let (q, kv) = (range(shape.q_len, rng), range(shape.kv_len, rng));
        let promised = mask.tile(q.clone(), kv.clone(), shape.pair(place[0], place[1], 0, 0));
        check(promised, by_pairs(mask, shape, place, &q, &kv), format!("batch, head {place:?} q {q:?} kv {kv:?}"));
    }
}

const SIZES: [[usize; 7]; 4] = [[3, 4, 2, 50, 50, 1, 1], [2, 2, 1, 20, 70, 1, 1], [2, 1, 1, 70, 20, 1, 1], [1, 2, 2, 1, 9, 1, 1]];

#[test]
fn hidden_and_clear_are_promises_that_every_mask_keeps() {
    for (sizes, seed) in SIZES.into_iter().zip(0..) {
        let shape = shape(sizes);
        let mut rng = Rng::new(seed);
        for seed in 0..10 {
            masks(&shape, seed, &mut |name: &str, mask: &dyn Mask| {
                mask.check(&shape).unwrap();
                tiles(mask, &shape, &mut rng, |promised, true_tile, place| {
                    assert!(promised == Tile::Mixed || promised == true_tile, "{name}: {promised:?} {place} {shape:?}");
                });
            });
        }
    }
}

/// A mask that answers Mixed too often is right and slow; those that are formulas of the position never do.
#[test]
fn masks_that_are_formulas_skip_every_tile_they_can() {
    for (sizes, seed) in SIZES.into_iter().zip(0..) {
        let shape = shape(sizes);
        let mut rng = Rng::new(seed);
        let lengths = PrefixLm { prefix: (0..shape.batch).map(|b| 7 * b as u32).collect() };
        let exact: [(&str, &dyn Mask); 16] = [
            ("upper-left", &Causal::UpperLeft),
            ("lower-right", &Causal::LowerRight),
            ("window", &Window { left: 9, right: 4 }),
            ("window to the left", &Window { left: u32::MAX, right: 0 }),
            ("prefix", &lengths),
            ("everything", &()),
            ("dilated", &Dilated::new(5, 3, 7).unwrap()),
            ("dilated without ends", &Dilated::new(u32::MAX, u32::MAX, 11).unwrap()),
            ("dilated by one", &Dilated::new(9, 4, 1).unwrap()),
            ("strided", &Strided::new(6).unwrap()),
            ("strided by one", &Strided::new(1).unwrap()),
            ("fixed", &Fixed::new(8, 3).unwrap()),
            ("fixed, all summary", &Fixed::new(5, 5).unwrap()),
            ("global", &Global::new([1, 8, 2, 3, 4, 5])),
            ("window of blocks", &Blockwise::new(6, Window { left: 1, right: 0 }).unwrap()),
            ("random keys", &RandomKeys::new(shape.kv_len as u32 - 5, [shape.q_heads, shape.kv_len], 3).unwrap()),
        ];
        for (name, mask) in exact {
            tiles(mask, &shape, &mut rng, |promised, true_tile, place| {
                assert_eq!(promised, true_tile, "{name} {place} {shape:?}");
            });
        }
    }
}

/// A row longer than any tile has, for every mask and score: as one pair after another.
#[test]
fn rows_are_their_pairs_one_after_another() {
    let shape = shape([2, 2, 1, 200, 150, 1, 1]);
    let mut rng = Rng::new(11);
    let row = |rng: &mut Rng| {
        let queries = range(shape.q_len, rng);
        let at = shape.pair(rng.below(2), rng.below(2), queries.start as usize, rng.below(shape.kv_len));
        (at, queries.map(|q| at.with(q, at.kv)).collect::<Vec<Pair>>())
    };
    masks(&shape, 0, &mut |name: &str, mask: &dyn Mask| {
        for _ in 0..40 {
            let (at, pairs) = row(&mut rng);
            let before: Vec<u32> = pairs.iter().map(|_| rng.pick(&[0, u32::MAX])).collect();
            for (name, mask) in [(name, mask), ("either", &Either(Causal::UpperLeft, ByRef(mask)))] {
                let mut keep = before.clone();
                mask.keep_row(at, &mut keep);
                let expected = pairs.iter().zip(&before).map(|(&p, &before)| if mask.keep(p) { before } else { 0 });
                assert!(keep.into_iter().eq(expected), "{name} at {at:?}");
            }
        }
    });
    scores(&shape, 0, &mut |name: &str, score: &dyn Slope, _: Option<BiasTruth<'_>>| {
        for _ in 0..40 {
            let (at, pairs) = row(&mut rng);
            let s: Vec<f32> = pairs.iter().map(|_| rng.normal() as f32).collect();
            let before: Vec<f32> = pairs.iter().map(|_| if rng.chance(0.2) { 0.0 } else { rng.normal() as f32 }).collect();
            let (mut scored, mut pulled, mut sink, mut expected_sink) = (s.clone(), before.clone(), Sum::default(), Sum::default());
            score.score_row(at, &mut scored);
            score.pull_row(at, &s, &mut pulled, &mut sink);
            let each = || pairs.iter().zip(&s);
            assert!(scored.into_iter().eq(each().map(|(&p, &s)| score.score(s, p))), "{name} at {at:?}");
            let expected = each().zip(&before).map(|((&p, &s), &ds)| match ds == 0.0 {
                true => 0.0,
                false => score.pull(s, p, ds, &mut expected_sink),
            });
            assert!(pulled.into_iter().eq(expected), "{name} at {at:?}");
            assert_eq!(sink.0, expected_sink.0, "{name} at {at:?}");
        }
    });
}

#[test]
fn patches_are_their_pairs() {
    let shape = shape([2, 2, 1, 200, 150, 1, 1]);
    let mut rng = Rng::new(13);
    scores(&shape, 0, &mut |name: &str, score: &dyn Slope, _: Option<BiasTruth<'_>>| {
        for _ in 0..40 {
            let (q, kv) = (range(shape.q_len, &mut rng), range(shape.kv_len, &mut rng));
            let (before, width) = (rng.below(4), rng.below(4) + q.len());
            let at = shape.pair(rng.below(2), rng.below(2), q.start as usize, kv.start as usize);
            let patch = Patch { lanes: before..before + q.len(), width: before + width, keys: kv.len(), at };
            let special = [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            let fresh = |_| if rng.chance(0.1) { rng.pick(&special) } else { rng.normal() as f32 };
            let s: Vec<f32> = (0..patch.width * (kv.len() + 1)).map(fresh).collect(); // a key more than there are
            let mut scored = s.clone();
            score.score_patch(&patch, &mut scored);
            for (i, (s, scored)) in s.iter().zip(&scored).enumerate() {
                let (key, lane) = (i / patch.width, i % patch.width);
                let inside = key < kv.len() && patch.lanes.contains(&lane);
                let p = || at.with(at.q + (lane - before) as u32, at.kv + key as u32);
                let expected = if inside { score.score(*s, p()) } else { *s };
                assert!(*scored == expected || scored.is_nan() && expected.is_nan(), "{name} {patch:?} {key} {lane}: {s} {scored}");
            }
        }
    });
}

/// What a score says it hides, it hides whatever is there; a bias says so of every tile that it hides.
#[test]
fn scores_hide_tiles_of_hidden_pairs() {
    let shape = shape([2, 2, 1, 200, 150, 1, 1]);
    let mut rng = Rng::new(14);
    let mut hidden = 0;
    scores(&shape, 0, &mut |name: &str, score: &dyn Slope, _: Option<BiasTruth<'_>>| {
        for _ in 0..200 {
            let (q, kv) = (range(shape.q_len, &mut rng), range(shape.kv_len, &mut rng));
            let at = shape.pair(rng.below(2), rng.below(2), q.start as usize, kv.start as usize);
            let mut pairs = q.clone().flat_map(|q| kv.clone().map(move |kv| at.with(q, kv)));
            let hides = |p: Pair| [0.0, f32::NAN, f32::INFINITY].iter().all(|s| score.score(*s, p) == f32::NEG_INFINITY);
            let (promised, true_of_all) = (score.hides_tile(&q, &kv, at), pairs.all(hides));
            assert!(!promised || true_of_all, "{name} {q:?} {kv:?}");
            assert!(promised || !true_of_all || !name.starts_with("bias that hides blocks"), "{name} {q:?} {kv:?}");
            hidden += u32::from(promised);
        }
    });
    assert!(hidden > 20, "{hidden}");
}

/// What a score gathers, pair by pair.
#[derive(Default)]
struct Sum(Vec<(Pair, f32)>);

impl BiasSink for Sum {
    fn add(&mut self, p: Pair, ds: f32) {
        self.0.push((p, ds));
    }
}

/// Central differences in f32: a step of 2⁻⁷ loses about 2⁻¹⁵ to rounding and as much to curvature.
#[test]
fn slopes_are_derivatives() {
    const STEP: f32 = 1.0 / 128.0;
    let case = Case::new(3, [2, 2, 1, 5, 6, 1, 1]);
    let mut rng = Rng::new(4);
    let mut examine = |name: &str, score: &dyn Slope, _: Option<BiasTruth<'_>>| {
        for _ in 0..200 {
            let at = case.shape.pair(rng.below(2), rng.below(2), rng.below(5), rng.below(6));
            let s = (2.0 * rng.normal()) as f32;
            let (above, below) = (score.score(s + STEP, at), score.score(s - STEP, at));
            if above.is_finite() {
                let difference = (above - below) / (2.0 * STEP);
                let slope = score.slope(s, at);
                assert!((difference - slope).abs() < 1e-3, "{name} at {s} {at:?}: {difference} {slope}");
            }
        }
    };
    scores(&case.shape, case.seed, &mut examine);
}

/// Sizes of nothing, and more queries than there are positions.
#[test]
fn random_keys_of_odd_sizes() {
    for (each, heads, len) in [(0, 1, 9), (0, 0, 0), (3, 0, 9), (0, 2, 0), (9, 2, 9), (1, 1, 1)] {
        let mask = RandomKeys::new(each, [heads, len], 5).unwrap();
        for (q_len, kv_len) in [(1, 1), (12, 9), (2, 9), (1, 30)] {
            let at = shape([1, 2, 2, q_len, kv_len, 1, 1]).pair(0, 1, 0, 0);
            let (q, kv) = (0..q_len as u32, 0..kv_len as u32);
            let seen = kv.clone().filter(|&j| mask.keep(at.with(q_len as u32 - 1, j))).count();
            assert!(seen <= each as usize, "{each} of {len}: {seen} of {kv_len}");
            let hidden = q.clone().all(|i| kv.clone().all(|j| !mask.keep(at.with(i, j))));
            assert_eq!(mask.tile(q, kv, at) == Tile::Hidden, hidden, "{each} of {len}, {q_len}x{kv_len}");
        }
    }
}
