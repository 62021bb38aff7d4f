//! Results written through views with gaps: the elements are the same, and the gaps keep what they held.

use half::{bf16, f16};
use regard::{Element, GradsMut, Tensor};
use regard_testing::array::Array;
use regard_testing::case::Case;
use regard_testing::layout::{Layout, Stored};

/// The NaN of the gaps is the canary: no result is NaN.
fn gaps_stay<T: Element>(case: &Case) {
    let inputs = case.inputs::<T>();
    for kernel in regard::kernels() {
        let (expected, expected_grads) = crate::pass(case, kernel, &inputs, (inputs.k.view(), inputs.v.view()).into());
        let attention = crate::attention(case, kernel);
        let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
        for (layout, lse_layout) in Layout::ALL.into_iter().zip(Layout::ALL.into_iter().rev()) {
            let (mut out, mut lse) = (empty(&expected.out, layout), empty(&expected.lse, lse_layout));
            plan.forward_into(out.view_mut(), lse.view_mut()).unwrap();
            let context = format!("{kernel} {} {case} into {layout:?} and {lse_layout:?}", T::NAME);
            filled(&out, &expected.out, &context);
            filled(&lse, &expected.lse, &context);

            let [mut dq, mut dk, mut dv] =
                [(&expected_grads.dq, layout), (&expected_grads.dk, lse_layout), (&expected_grads.dv, layout)]
                    .map(|(like, layout)| empty(like, layout));
            let mut dsinks = expected_grads.dsinks.as_ref().map(|sinks| vec![f32::NAN; sinks.len()]);
            let grads =
                GradsMut { dq: dq.view_mut(), dk: dk.view_mut(), dv: dv.view_mut(), dbias: None, dsinks: dsinks.as_deref_mut() };
            plan.backward_into(out.view(), lse.view(), inputs.d_out.view(), grads).unwrap();
            filled(&dq, &expected_grads.dq, &context);
            filled(&dk, &expected_grads.dk, &context);
            filled(&dv, &expected_grads.dv, &context);
            assert_eq!(dsinks, expected_grads.dsinks, "{context}");
        }
    }
}

/// NaN everywhere.
fn empty<T: Element>(like: &Tensor<T>, layout: Layout) -> Stored<T> {
    Stored::new(&Array::from_fn(like.shape(), |_| f64::NAN), layout)
}

/// Asserts that the elements of an array were written, and nothing between them.
fn filled<T: Element>(got: &Stored<T>, expected: &Tensor<T>, context: &str) {
    assert!(Array::from_view(got.view()) == Array::from_tensor(expected), "{context}");
    assert_eq!(got.numbers(), expected.data().len(), "{context}");
}

#[test]
fn gaps_between_results_stay_as_they_are() {
    for (sizes, seed) in [[2, 4, 2, 3, 70, 7, 5], [1, 2, 1, 65, 66, 16, 17], [1, 1, 1, 1, 600, 33, 64]].into_iter().zip(500..) {
        let case = Case { sinks: seed == 501, ..Case::new(seed, sizes) };
        gaps_stay::<f32>(&case);
        gaps_stay::<bf16>(&case);
        gaps_stay::<f16>(&case);
    }
}
