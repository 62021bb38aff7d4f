//! What linear attention promises beside its numbers: the same bits, states that carry on, tokens that do not look ahead.

use std::ops::Range;

use rayon::ThreadPoolBuilder;
use regard::{Gate, LinearInputs, LinearOutput, Tensor, UpdateRule, View};

use super::cases::Case;
use crate::run::bits;

/// Every input, and the state, cut along one axis.
fn cut<'a>(of: &LinearInputs<'a, f32>, axis: usize, range: Range<usize>, past: Option<View<'a, f32>>) -> LinearInputs<'a, f32> {
    let part = |x: View<'a, f32>| x.slice(axis, range.clone()).unwrap();
    let gate = |gate: Gate<'a>| match gate {
        Gate::F32(view) => Gate::F32(part(view)),
        other => other,
    };
    LinearInputs { q: part(of.q), k: part(of.k), v: part(of.v), decay: of.decay.map(gate), beta: of.beta.map(gate), past }
}

/// Sequence `b` alone.
fn alone<'a>(of: &LinearInputs<'a, f32>, b: usize) -> LinearInputs<'a, f32> {
    cut(of, 0, b..b + 1, of.past.map(|past| past.slice(0, b..b + 1).unwrap()))
}

fn output_bits(output: &LinearOutput<f32>) -> [Vec<u32>; 2] {
    [bits(&output.out), bits(&output.state)]
}

/// Many heads, whose chunks follow one another, and few, whose chunks are worked on together.
fn cases() -> Vec<Case> {
    let sizes = [[3, 4, 2, 150, 16, 8], [1, 1, 1, 1029, 32, 32], [1, 4, 2, 700, 20, 12]];
    sizes.into_iter().zip(40..).flat_map(|(sizes, seed)| Case::every_rule(seed, sizes)).collect()
}

#[test]
fn threads_and_runs_change_nothing() {
    for case in cases() {
        let inputs = case.inputs::<f32>();
        let of = inputs.given(&case);
        for kernel in regard::kernels() {
            let attention = case.attention(kernel);
            let on = |threads: usize| {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let both = || {
                    let grads = attention.backward(of, inputs.d_out.view(), Some(inputs.d_state.view())).unwrap();
                    (output_bits(&attention.forward(of).unwrap()), grads)
                };
                pool.install(both)
            };
            let (output, grads) = on(1);
            for threads in [1, 2, 3, 8] {
                let (again, grads_again) = on(threads);
                assert_eq!(output, again, "{kernel} {threads} threads {case:?}");
                assert_eq!(grads, grads_again, "{kernel} {threads} threads {case:?}");
            }
        }
    }
}

#[test]
fn a_sequence_is_the_same_alone_and_in_any_batch() {
    for case in cases().into_iter().filter(|case| case.sizes[0] > 1) {
        let inputs = case.inputs::<f32>();
        let of = inputs.given(&case);
        for kernel in regard::kernels() {
            let all = case.attention(kernel).forward(of).unwrap();
            let (d_out, d_state) = (inputs.d_out.view(), inputs.d_state.view());
            let grads = case.attention(kernel).backward(of, d_out, Some(d_state)).unwrap();
            for b in 0..case.sizes[0] {
                let one = case.attention(kernel).forward(alone(&of, b)).unwrap();
                let of_all =
                    |x: &Tensor<f32>| x.data()[b * x.data().len() / case.sizes[0]..][..x.data().len() / case.sizes[0]].to_vec();
                assert_eq!(
                    (one.out.data(), one.state.data()),
                    (&of_all(&all.out)[..], &of_all(&all.state)[..]),
                    "{kernel} {case:?}"
                );
                let up = (d_out.slice(0, b..b + 1).unwrap(), d_state.slice(0, b..b + 1).unwrap());
                let one = case.attention(kernel).backward(alone(&of, b), up.0, Some(up.1)).unwrap();
                assert_eq!(one.dk.data(), of_all(&grads.dk), "{kernel} {case:?}");
                assert_eq!(one.dq.data(), of_all(&grads.dq), "{kernel} {case:?}");
            }
        }
    }
}

/// A prompt in parts of the given lengths, then as one.
fn in_parts(case: &Case, kernel: &str, chunk: usize, ends: &[usize]) -> [LinearOutput<f32>; 2] {
    let inputs = case.inputs::<f32>();
    let of = inputs.given(case);
    let attention = case.attention(kernel).chunk(chunk);
    let whole = attention.forward(of).unwrap();
    let [batch, q_heads, _, len, _, w] = case.sizes;
    let mut all = LinearOutput { out: Tensor::zeros([batch, q_heads, len, w]).unwrap(), state: Tensor::zeros([0; 4]).unwrap() };
    let (mut start, mut state) = (0, Tensor::from_vec(flat(inputs.past.view()), whole.state.shape()).unwrap());
    for &end in ends.iter().chain([&len]) {
        let part = attention.forward(cut(&of, 2, start..end, Some(state.view()))).unwrap();
        for (i, row) in part.out.data().chunks_exact(w).enumerate() {
            let (head, t) = (i / (end - start), start + i % (end - start));
            all.out.data_mut()[(head * len + t) * w..][..w].copy_from_slice(row);
        }
        (start, state) = (end, part.state);
    }
    all.state = state;
    [whole, all]
}

fn flat(view: View<'_, f32>) -> Vec<f32> {
    regard_testing::array::Array::from_view(view).coordinates().map(|at| view.at(at)).collect()
}

#[test]
fn a_prompt_cut_at_chunks_has_the_bits_of_the_whole() {
    for case in cases() {
        for kernel in regard::kernels() {
            for (chunk, ends) in [(64, &[64][..]), (64, &[128]), (32, &[32, 96, 128])] {
                let [whole, parts] = in_parts(&case, kernel, chunk, ends);
                assert_eq!(output_bits(&whole), output_bits(&parts), "{kernel} {chunk} {case:?}");
            }
        }
    }
}

#[test]
fn token_by_token_every_cut_has_the_bits_of_the_whole() {
    for case in cases().into_iter().filter(|case| case.sizes[3] == 150) {
        for kernel in regard::kernels() {
            let [whole, parts] = in_parts(&case, kernel, 1, &[1, 2, 40, 41, 100, 149]);
            assert_eq!(output_bits(&whole), output_bits(&parts), "{kernel} {case:?}");
        }
    }
}

/// Prefill hands its state to decoding: tokens one by one after a prompt are rows of the whole, to f32 rounding.
#[test]
fn a_state_carries_from_prefill_to_decoding() {
    for case in Case::every_rule(50, [2, 4, 2, 90, 16, 8]) {
        let inputs = case.inputs::<f32>();
        let oracle = case.oracle(&inputs);
        let truth = oracle.forward();
        let up = regard_testing::array::Array::zeros(truth.out.shape());
        let state = regard_testing::array::Array::zeros(truth.state.shape());
        let bounds = oracle.bounds::<f32>(&truth, &oracle.backward(&up, &state), &up, &state);
        let ends: Vec<usize> = (70..90).collect();
        for kernel in regard::kernels() {
            let [_, parts] = in_parts(&case, kernel, 64, &ends);
            let context = format!("{kernel} {case:?}");
            regard_testing::tolerance::assert_close(&parts.out, &truth.out, &bounds.out, &context);
            regard_testing::tolerance::assert_close(&parts.state, &truth.state, &bounds.state, &context);
        }
    }
}

#[test]
fn a_later_token_is_never_observed() {
    for case in Case::every_rule(51, [1, 2, 1, 100, 16, 8]) {
        let mut inputs = case.inputs::<f32>();
        let clean: Vec<_> =
            regard::kernels().into_iter().map(|kernel| case.attention(kernel).forward(inputs.given(&case)).unwrap().out).collect();
        for x in [f32::NAN, f32::INFINITY] {
            inputs.k.fill_row([0, 0, 40], x);
            inputs.v.fill_row([0, 0, 40], x);
            inputs.q.fill_row([0, 0, 40], x);
            for (kernel, clean) in regard::kernels().into_iter().zip(&clean) {
                let got = case.attention(kernel).forward(inputs.given(&case)).unwrap().out;
                for head in 0..2 {
                    let rows = head * 800..head * 800 + 320;
                    assert_eq!(got.data()[rows.clone()], clean.data()[rows], "{kernel} {case:?}");
                }
            }
        }
    }
}

/// After a decay of −∞ nothing before is left.
#[test]
fn minus_infinity_forgets() {
    for case in Case::every_rule(52, [1, 1, 1, 100, 8, 8]).into_iter().filter(|case| case.rule == UpdateRule::GatedDelta) {
        let mut inputs = case.inputs::<f32>();
        inputs.decay.fill_row([0, 0, 64], f32::NEG_INFINITY);
        let of = inputs.given(&case);
        let zeros = Tensor::zeros([1, 1, 8, 8]).unwrap();
        for kernel in regard::kernels() {
            let whole = case.attention(kernel).forward(of).unwrap();
            let rest = case.attention(kernel).forward(cut(&of, 2, 64..100, Some(zeros.view()))).unwrap();
            assert_eq!(whole.out.data()[64 * 8..], *rest.out.data(), "{kernel}");
            assert_eq!(whole.state, rest.state, "{kernel}");
        }
    }
}
