//! Every input, result and scratch buffer ends exactly at a forbidden page, then begins right behind one.

use half::{bf16, f16};
use regard::{CacheShape, Element, Kv, KvCache, PackedMatrix, Sequence};
use regard_cpu::Kernel;
use regard_testing::case::Case;
use regard_testing::guard::{Edge, Guard, guarded};
use regard_testing::layout::Layout;
use regard_testing::rng::Rng;

#[global_allocator]
static GUARD: Guard = Guard;

/// Vectors, pairs of vectors and pairs of numbers: whole, and one beside.
const DIMS: [usize; 10] = [1, 7, 16, 63, 64, 65, 80, 128, 255, 256];

/// Runs a test at both edges.
fn at_both_edges(test: impl Fn()) {
    for edge in [Edge::End, Edge::Start] {
        guarded(edge, || {
            let five = Vec::from([0f32; 5]);
            let at = if edge == Edge::End { five.as_ptr_range().end } else { five.as_ptr() };
            assert!((at as usize).is_multiple_of(4096), "{edge:?} at {at:?}: the allocator is not in use");
            test();
        });
    }
}

/// Each head dimension with each number of queries; key lengths, layouts and value dimensions take turns.
fn cases() -> impl Iterator<Item = Case> {
    let kv_lens = [63, 64, 65, 511, 512, 513];
    let pairs = (0..DIMS.len()).flat_map(|i| [1, 3, 64, 65].into_iter().zip(0..).map(move |(q_len, j)| (i, q_len, j)));
    pairs.map(move |(i, q_len, j)| {
        let value_dim = DIMS[if (i + j) % 3 == 0 { (i + 3) % DIMS.len() } else { i }];
        let sizes = [1, 2, 1 + j % 2, q_len, kv_lens[(i + j) % kv_lens.len()], DIMS[i], value_dim];
        let layout = [Layout::Contiguous, Layout::Gaps, Layout::HeadsInside, Layout::Reversed, Layout::Transposed][(i + j) % 5];
        Case { layout, sinks: j == 1, ..Case::new(300 + i as u64, sizes) }
    })
}

#[test]
fn dense_arrays() {
    at_both_edges(|| cases().for_each(|case| crate::in_every_type(&case)));
}

/// A pool whose last page is full, so that the last row of each side is the last of its memory.
fn full_pool<T: Element>(case: &Case, page_size: usize) {
    let shape = &case.shape;
    let (pages, [kv_heads, head_dim, value_dim]) =
        (shape.kv_len.div_ceil(page_size), [shape.kv_heads, shape.head_dim, shape.value_dim]);
    let mut cache = KvCache::<T>::new(CacheShape { layers: 1, pages, page_size, kv_heads, head_dim, value_dim }).unwrap();
    let mut seq: Sequence = cache.sequence();
    let inputs = case.inputs::<T>();
    cache.append(&mut seq, inputs.k.view(), inputs.v.view()).unwrap();
    for kernel in regard::kernels() {
        crate::pass(case, kernel, &inputs, Kv::Paged { cache: &cache, layer: 0, seqs: &[&seq] });
    }
}

#[test]
fn paged_caches() {
    at_both_edges(|| {
        for (dim, i) in DIMS.into_iter().zip(0..) {
            let (page_size, kv_len) = [(1, 65), (13, 130), (64, 64), (65, 65), (513, 513)][i % 5];
            let case = Case::new(400, [1, 2, 1, [1, 5, 33][i % 3], kv_len, dim, dim]);
            full_pool::<f32>(&case, page_size);
            full_pool::<bf16>(&case, page_size);
            full_pool::<f16>(&case, page_size);
        }
    });
}

#[test]
fn packed_matrices() {
    let sizes = [(1, 1, 1), (1, 64, 3), (5, 65, 7), (13, 130, 64), (100, 7, 33), (3, 2000, 300), (70, 257, 129)];
    at_both_edges(|| {
        for (kernel, (rows, outputs, inputs)) in Kernel::available().into_iter().flat_map(|k| sizes.map(|s| (k, s))) {
            println!("{kernel:?} {rows}x{outputs}x{inputs}");
            let mut rng = Rng::new(5);
            let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
            let (weight, x, bias) = (random(outputs * inputs), random(rows * inputs), random(outputs));
            let packed = PackedMatrix::with_kernel(&weight, outputs, inputs, kernel).unwrap();
            let mut y = vec![f32::NAN; rows * outputs];
            packed.apply(&x, Some(&bias), &mut y).unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{kernel:?} {rows}x{outputs}x{inputs}");
        }
    });
}
