//! Linear attention against its oracle: every rule, gate, kernel, type and layout, forward and backward.

mod cases;
mod promises;
mod refusals;

use half::{bf16, f16};
use regard::{Element, Gate, Tensor, View};
use regard_testing::array::Array;
use regard_testing::tolerance::assert_close;

use cases::Case;

/// Asserts that every kernel agrees with the oracle about outputs, states and gradients, whatever the chunk.
fn agree<T: Element>(case: &Case)
where
    for<'a> Gate<'a>: From<View<'a, T>>,
{
    let inputs = case.inputs::<T>();
    let (mut oracle, of) = (case.oracle(&inputs), inputs.given(case));
    let (d_out, d_state) = (Array::from_view(inputs.d_out.view()), Array::from_view(inputs.d_state.view()));
    let (truth, gradients) = (oracle.forward(), oracle.backward(&d_out, &d_state));
    let bounds = oracle.bounds::<T>(&truth, &gradients, &d_out, &d_state);
    oracle.window = 200;
    let wide = oracle.bounds::<T>(&truth, &gradients, &d_out, &d_state);
    for kernel in regard::kernels() {
        let context = |what: &str| format!("{kernel} {} {what} {case:?}", T::NAME);
        for (chunk, bounds) in [(64, &bounds), (1, &bounds), (24, &bounds), (200, &wide)] {
            let output = case.attention(kernel).chunk(chunk).forward(of).unwrap();
            assert_close(&output.out, &truth.out, &bounds.out, &context(&format!("out in chunks of {chunk}")));
            assert_close(&output.state, &truth.state, &bounds.state, &context(&format!("state in chunks of {chunk}")));
        }
        let grads = case.attention(kernel).backward(of, inputs.d_out.view(), Some(inputs.d_state.view())).unwrap();
        let close = |got: &Tensor<f32>, expected, tolerance, what| assert_close(got, expected, tolerance, &context(what));
        assert_close(&grads.dq, &gradients.dq, &bounds.grads.dq, &context("dq"));
        assert_close(&grads.dk, &gradients.dk, &bounds.grads.dk, &context("dk"));
        assert_close(&grads.dv, &gradients.dv, &bounds.grads.dv, &context("dv"));
        close(&grads.dpast, &gradients.dpast, &bounds.grads.dpast, "dpast");
        assert_eq!((grads.ddecay.is_some(), grads.dbeta.is_some()), (case.rule.decays(), case.rule.corrects()));
        if let Some(ddecay) = &grads.ddecay {
            close(ddecay, &gradients.ddecay, &bounds.grads.ddecay, "ddecay");
        }
        if let Some(dbeta) = &grads.dbeta {
            let (expected, tolerance) = (gradients.dbeta.reduce(dbeta.shape()), bounds.grads.dbeta.reduce(dbeta.shape()));
            close(dbeta, &expected, &tolerance, "dbeta");
        }
    }
}

fn agree_in(dtype: usize, case: &Case) {
    match dtype % 3 {
        0 => agree::<f32>(case),
        1 => agree::<bf16>(case),
        _ => agree::<f16>(case),
    }
}

#[test]
fn every_rule_at_every_corner() {
    for sizes in Case::corners() {
        for case in Case::every_rule(1, sizes) {
            (0..3).for_each(|dtype| agree_in(dtype, &case));
        }
    }
}

#[test]
fn every_layout() {
    for (seed, layout) in regard_testing::layout::Layout::ALL.into_iter().enumerate() {
        for case in Case::every_rule(seed as u64, [2, 4, 2, 70, 20, 12]) {
            agree_in(seed, &Case { layout, ..case });
        }
    }
}

#[test]
fn every_strength_of_decay() {
    for strength in [0.0, 1e-3, 50.0, f64::INFINITY] {
        for case in Case::every_rule(5, [1, 2, 1, 130, 16, 16]) {
            agree::<f32>(&Case { strength, ..case.clone() });
            agree::<f32>(&Case { strength, mixed: true, ..case });
        }
    }
}

#[test]
fn nothing_in_some_dimension() {
    for zero in 0..6 {
        let mut sizes = [2, 4, 2, 9, 8, 6];
        sizes[zero] = 0;
        if zero == 2 {
            sizes[1] = 0;
        }
        for case in Case::every_rule(3, sizes) {
            agree::<f32>(&case);
        }
    }
}

#[test]
fn random_cases() {
    for seed in 0..60 {
        agree_in(seed as usize, &Case::random(seed));
    }
}

/// Ten thousand tokens: by the chunk, token by token, and as sums over pairs.
#[test]
fn chunks_tokens_and_pairs_agree_over_ten_thousand_tokens() {
    for case in Case::every_rule(7, [1, 1, 1, 10_000, 16, 8]) {
        let inputs = case.inputs::<f32>();
        let of = inputs.given(&case);
        let oracle = case.oracle(&inputs);
        let kernel = regard::kernels()[0];
        let chunked = case.attention(kernel).forward(of).unwrap();
        let recurrent = case.attention(kernel).chunk(1).forward(of).unwrap();
        let truth = oracle.forward();
        let (d_out, d_state) = (Array::zeros(truth.out.shape()), Array::zeros(truth.state.shape()));
        let tolerance = oracle.bounds::<f32>(&truth, &oracle.backward(&d_out, &d_state), &d_out, &d_state).out;
        let close = |got: f32, expected: f64, at: [usize; 4], what: &str| {
            let off = (f64::from(got) - expected).abs();
            assert!(off <= tolerance[at], "{what} {case:?} {at:?}: {got}, not {expected}, to {}", tolerance[at]);
        };
        for t in (0..10_000).step_by(371).chain([9_999]) {
            for (j, expected) in oracle.quadratic([0, 0, t]).into_iter().enumerate() {
                let at = [0, 0, t, j];
                close(chunked.out.view().at(at), expected, at, "chunks");
                close(recurrent.out.view().at(at), expected, at, "tokens");
            }
        }
    }
}
