//! What memory checkers run: small, since a checker makes it some fifty (valgrind) or ten thousand (Miri) times slower.

use half::bf16;
use regard::{CacheShape, Kv, KvCache, PackedMatrix};
use regard_cpu::Kernel;
use regard_testing::case::Case;
use regard_testing::layout::Layout;

/// Few rows and many, whole vectors and parts of one, one tile and a second, one span and a second; each size in its layout.
fn cases() -> Vec<Case> {
    let small = [([1, 2, 1, 2, 66, 5, 3], Layout::Gaps), ([1, 1, 1, 9, 3, 4, 8], Layout::Contiguous)];
    let large = [
        ([1, 2, 1, 3, 514, 7, 16], Layout::Contiguous),
        ([1, 2, 2, 65, 66, 63, 17], Layout::Gaps),
        ([2, 4, 2, 9, 63, 80, 33], Layout::HeadsInside),
        ([1, 1, 1, 1, 65, 255, 256], Layout::Reversed),
    ];
    let all = small.iter().chain(if cfg!(miri) { &large[..0] } else { &large });
    all.zip(0..).map(|(&(sizes, layout), seed)| Case { layout, sinks: seed == 1, ..Case::new(600 + seed, sizes) }).collect()
}

#[test]
fn checked_dense_arrays() {
    cases().iter().for_each(crate::in_every_type);
}

#[test]
fn checked_paged_caches() {
    for case in cases() {
        let [kv_heads, head_dim, value_dim] = [case.shape.kv_heads, case.shape.head_dim, case.shape.value_dim];
        let case = Case { shape: regard::Shape { batch: 1, ..case.shape }, ..case };
        let pages = case.shape.kv_len.div_ceil(5);
        let mut cache = KvCache::new(CacheShape { layers: 1, pages, page_size: 5, kv_heads, head_dim, value_dim }).unwrap();
        let mut seq = cache.sequence();
        let inputs = case.inputs::<bf16>();
        cache.append(&mut seq, inputs.k.view(), inputs.v.view()).unwrap();
        for kernel in regard::kernels() {
            crate::pass(&case, kernel, &inputs, Kv::Paged { cache: &cache, layer: 0, seqs: &[&seq] });
        }
    }
}

#[test]
fn checked_packed_matrices() {
    for (rows, outputs, inputs) in [(1, 1, 1), (5, 9, 7), (13, 66, 10)] {
        for kernel in Kernel::available() {
            let packed = PackedMatrix::with_kernel(&vec![0.5; outputs * inputs], outputs, inputs, kernel).unwrap();
            let mut y = vec![f32::NAN; rows * outputs];
            packed.apply(&vec![2.0; rows * inputs], Some(&vec![1.0; outputs]), &mut y).unwrap();
            assert!(y.iter().all(|&y| y == 1.0 + inputs as f32), "{kernel:?}");
        }
    }
}
