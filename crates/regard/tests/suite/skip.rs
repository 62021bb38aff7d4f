//! What a mask hides is skipped in pieces as large as it can be; what it shows is all computed.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use regard::{Inspect, Mask, Pair, Tile, Window};
use regard_testing::case::Case;
use regard_testing::zoo::masks;

use crate::run::{attention, grad_bits, kernels, output_bits, run};

/// A mask that counts how often it is asked about areas, and says of none more than that it must be asked about each pair if `blind`.
struct Asked<'a> {
    mask: &'a dyn Mask,
    blind: bool,
    questions: AtomicUsize,
}

impl<'a> Asked<'a> {
    fn new(mask: &'a dyn Mask, blind: bool) -> Self {
        Asked { mask, blind, questions: AtomicUsize::new(0) }
    }
}

impl Mask for Asked<'_> {
    fn keep(&self, p: Pair) -> bool {
        self.mask.keep(p)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.questions.fetch_add(1, Ordering::Relaxed);
        if self.blind { Tile::Mixed } else { self.mask.tile(q, kv, at) }
    }
}

/// More spans, bands and chunks than one, of two heads that share keys.
const SIZES: [usize; 7] = [2, 2, 1, 600, 1300, 4, 4];

#[test]
fn a_skipped_area_changes_no_bit() {
    let case = Case::new(71, SIZES);
    let (inputs, what) = (case.inputs::<f32>(), Inspect { top: 2, ..Inspect::default() });
    let kernel = kernels()[0];
    masks(&case.shape, 72, &mut |name: &str, mask: &dyn Mask| {
        let [seeing, blind] = [false, true].map(|blind| {
            let mask = Asked::new(mask, blind);
            let (output, grads) = run(&case, kernel, &inputs, &mask, &());
            let attention = attention(&case, kernel, &mask, &());
            let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
            let facts = plan.inspect(&what).unwrap().facts.entropy.data().to_vec();
            (output_bits(&output), grad_bits(&grads), facts)
        });
        assert_eq!(seeing, blind, "{name}");
    });
}

/// Four times the length has four times the pairs within a window, and sixteen times the tiles.
#[test]
fn questions_grow_with_what_is_seen() {
    let window = Window { left: 100, right: 0 };
    let [short, long] = [1024, 4096].map(|n| {
        let case = Case::new(73, [1, 2, 1, n, n, 4, 4]);
        let (inputs, mask) = (case.inputs::<f32>(), Asked::new(&window, false));
        let attention = attention(&case, kernels()[0], &mask, &());
        let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        let questions = || mask.questions.swap(0, Ordering::Relaxed);
        questions(); // of the plan
        let output = plan.forward().unwrap();
        let forward = questions();
        plan.backward(&output, inputs.d_out.view()).unwrap();
        let backward = questions();
        plan.inspect(&Inspect::default()).unwrap();
        [forward, backward, questions()]
    });
    for ((pass, short), long) in ["forward", "backward", "inspect"].iter().zip(short).zip(long) {
        assert!(long < 6 * short, "{pass}: {short} questions, and {long} for four times the length");
    }
}
