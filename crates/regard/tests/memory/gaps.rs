//! Results written through views with gaps: the elements are the same, and the gaps keep what they held.

use half::{bf16, f16};
use regard::Element;
use regard_testing::array::Array;
use regard_testing::case::Case;
use regard_testing::layout::{Layout, Stored};

/// The NaN of the gaps is the canary: no result is NaN.
fn gaps_stay<T: Element>(case: &Case) {
    let inputs = case.inputs::<T>();
    for kernel in regard::kernels() {
        let (expected, _) = crate::pass(case, kernel, &inputs, (inputs.k.view(), inputs.v.view()).into());
        let attention = crate::attention(case, kernel);
        let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        for (layout, lse_layout) in Layout::ALL.into_iter().zip(Layout::ALL.into_iter().rev()) {
            let empty = |shape| Array::from_fn(shape, |_| f64::NAN);
            let mut out = Stored::<T>::new(&empty(expected.out.shape()), layout);
            let mut lse = Stored::<f32>::new(&empty(expected.lse.shape()), lse_layout);
            plan.forward_into(out.view_mut(), lse.view_mut()).unwrap();
            let context = || format!("{kernel} {} {case} into {layout:?} and {lse_layout:?}", T::NAME);
            assert!(Array::from_view(out.view()) == Array::from_tensor(&expected.out), "{}", context());
            assert!(Array::from_view(lse.view()) == Array::from_tensor(&expected.lse), "{}", context());
            assert_eq!(out.numbers(), expected.out.data().len(), "{}", context());
            assert_eq!(lse.numbers(), expected.lse.data().len(), "{}", context());
        }
    }
}

#[test]
fn gaps_between_results_stay_as_they_are() {
    for (sizes, seed) in [[2, 4, 2, 3, 70, 7, 5], [1, 2, 1, 65, 66, 16, 17], [1, 1, 1, 1, 600, 33, 64]].into_iter().zip(500..) {
        let case = Case::new(seed, sizes);
        gaps_stay::<f32>(&case);
        gaps_stay::<bf16>(&case);
        gaps_stay::<f16>(&case);
    }
}
