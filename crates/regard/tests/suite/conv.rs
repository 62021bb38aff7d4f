//! The causal convolution against its formula in f64, and what it promises.

use half::bf16;
use regard::{CausalConv, Element, Tensor, View};
use regard_testing::array::Array;
use regard_testing::layout::{Layout, Stored};
use regard_testing::rng::Rng;
use regard_testing::tolerance::{Rounding, assert_close, gamma};

/// Sizes `[batch, heads, length, dim]` and taps.
struct Case<T> {
    x: Stored<T>,
    weight: Stored<T>,
    bias: Stored<T>,
    past: Stored<T>,
    d_out: Stored<T>,
    d_state: Stored<T>,
}

fn case<T: Element>(seed: u64, [b, h, l, d]: [usize; 4], taps: usize, layout: Layout) -> Case<T> {
    let mut rng = Rng::new(seed);
    let mut stored = |shape| Stored::new(&Array::from_fn(shape, |_| rng.normal()), layout);
    let (x, weight, bias) = (stored([b, h, l, d]), stored([1, h, taps, d]), stored([1, h, 1, d]));
    Case { x, weight, bias, past: stored([b, h, taps - 1, d]), d_out: stored([b, h, l, d]), d_state: stored([b, h, taps - 1, d]) }
}

/// `[past, x, weight, bias]` in f64.
type Arrays = [Array; 4];

/// The input at `position` counted from the first of the past.
fn input([past, x, ..]: &Arrays, [b, h, position, d]: [usize; 4]) -> f64 {
    let before = past.shape()[2];
    if position < before { past[[b, h, position, d]] } else { x[[b, h, position - before, d]] }
}

/// `b + Σ_j w_j x_{t−K+1+j}`
fn sum(arrays: &Arrays, [b, h, t, d]: [usize; 4]) -> f64 {
    let taps = arrays[2].shape()[2];
    arrays[3][[0, h, 0, d]] + (0..taps).map(|j| arrays[2][[0, h, j, d]] * input(arrays, [b, h, t + j, d])).sum::<f64>()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn cases<T: Element>() -> Vec<(Case<T>, String)> {
    let sizes = [([1, 1, 1, 1], 1), ([2, 3, 9, 5], 4), ([1, 2, 2, 8], 4), ([1, 1, 600, 3], 3), ([2, 2, 5, 16], 1)];
    let each = |((shape, taps), layout): (([usize; 4], usize), Layout)| {
        (case(taps as u64, shape, taps, layout), format!("{} {shape:?} {taps} taps {layout:?}", T::NAME))
    };
    sizes.into_iter().flat_map(|size| Layout::ALL.map(|layout| (size, layout))).map(each).collect()
}

fn arrays<T: Element>(case: &Case<T>) -> Arrays {
    [&case.past, &case.x, &case.weight, &case.bias].map(|x| Array::from_view(x.view()))
}

fn agree<T: Element>() {
    for (case, name) in cases::<T>() {
        let all = arrays(&case);
        let sizes = all.clone().map(|x| x.abs());
        let taps = all[2].shape()[2];
        for smooth in [false, true] {
            let conv = CausalConv::new(case.weight.view()).bias(case.bias.view());
            let conv = if smooth { conv.silu() } else { conv };
            let got = conv.forward(case.x.view(), Some(case.past.view())).unwrap();
            let truth = Array::from_fn(all[1].shape(), |at| if smooth { silu(sum(&all, at)) } else { sum(&all, at) });
            // silu is no steeper than 1.1; its exponential and quotient are good to eight units.
            let tolerance = Array::from_fn(all[1].shape(), |at| {
                (1.1 * gamma(taps + 1) + gamma(8)) * sum(&sizes, at) + Rounding::of::<T>().at(truth[at])
            });
            assert_close(&got.out, &truth, &tolerance, &format!("{name} out"));
            let state = Array::from_fn(all[0].shape(), |[b, h, j, d]| input(&all, [b, h, all[1].shape()[2] + j, d]));
            assert_close(&got.state, &state, &Array::zeros(state.shape()), &format!("{name} state"));
        }
    }
}

#[test]
fn it_is_its_formula() {
    agree::<f32>();
    agree::<bf16>();
}

/// Central differences of the formula in f64, of `Σ d_out · out + Σ d_state · state`.
#[test]
fn gradients_are_finite_differences() {
    for (case, name) in cases::<f32>().into_iter().filter(|(case, _)| case.x.view().shape()[2] < 100) {
        for smooth in [false, true] {
            let conv = CausalConv::new(case.weight.view()).bias(case.bias.view());
            let conv = if smooth { conv.silu() } else { conv };
            let grads = conv.backward(case.x.view(), Some(case.past.view()), case.d_out.view(), Some(case.d_state.view())).unwrap();
            let (d_out, d_state) = (Array::from_view(case.d_out.view()), Array::from_view(case.d_state.view()));
            let loss = |all: &Arrays| {
                let out = d_out.coordinates().map(|at| d_out[at] * if smooth { silu(sum(all, at)) } else { sum(all, at) });
                let len = all[1].shape()[2];
                let state = d_state.coordinates().map(|at @ [b, h, j, d]| d_state[at] * input(all, [b, h, len + j, d]));
                out.sum::<f64>() + state.sum::<f64>()
            };
            let mut all = arrays(&case);
            for (which, gradient) in [&grads.dpast, &grads.dx, &grads.dweight, &grads.dbias].into_iter().enumerate() {
                let view = gradient.view();
                for at in all[which].coordinates() {
                    let mut moved = |step: f64| {
                        all[which][at] += step;
                        let loss = loss(&all);
                        all[which][at] -= step;
                        loss
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    // f32 sums of at most batch · length products of normal numbers; the differences are good to 1e-8.
                    let off = (slope - f64::from(view.at(at))).abs();
                    assert!(off <= 1e-7 + gamma(100) * 100.0, "{name} {which} {at:?}: {slope} {}", view.at(at));
                }
            }
        }
    }
}

/// A text in parts, down to single positions, with the state from each to the next.
#[test]
fn cuts_change_no_bit() {
    let case = case::<f32>(3, [2, 2, 600, 5], 4, Layout::HeadsInside);
    let conv = CausalConv::new(case.weight.view()).silu();
    let whole = conv.forward(case.x.view(), Some(case.past.view())).unwrap();
    let mut state = Tensor::from_vec(
        Array::from_view(case.past.view()).coordinates().map(|at| case.past.view().at(at)).collect(),
        [2, 2, 3, 5],
    )
    .unwrap();
    let mut start = 0;
    for end in [1, 2, 3, 260, 261, 599, 600] {
        let part = conv.forward(case.x.view().slice(2, start..end).unwrap(), Some(state.view())).unwrap();
        let of_whole = whole.out.view().slice(2, start..end).unwrap();
        assert_eq!(Array::from_view(part.out.view()), Array::from_view(of_whole), "{start}..{end}");
        (start, state) = (end, part.state);
    }
    assert_eq!(state, whole.state);
}

#[test]
fn shapes_that_do_not_fit() {
    let data = [0.5f32; 256];
    let view = |shape| View::new(&data, shape).unwrap();
    let x = view([2, 3, 4, 5]);
    let text = |conv: CausalConv<'_, f32>, past| conv.forward(x, past).unwrap_err().to_string();
    let conv = || CausalConv::new(view([1, 3, 4, 5]));
    assert_eq!(
        text(CausalConv::new(view([1, 2, 4, 5])), None),
        "weight of the convolution has shape [1, 2, 4, 5] and needs [1, 3, 4, 5]"
    );
    assert_eq!(text(CausalConv::new(view([1, 3, 0, 5])), None), "the number of taps is 0 and must be at least 1");
    assert!(text(conv().bias(view([1, 3, 4, 5])), None).starts_with("bias of the convolution has shape [1, 3, 4, 5] and needs"));
    assert!(text(conv(), Some(view([2, 3, 4, 5]))).starts_with("past state has shape [2, 3, 4, 5] and needs [2, 3, 3, 5]"));
    let wrong = conv().backward(x, None, view([2, 3, 4, 4]), None).unwrap_err().to_string();
    assert!(wrong.starts_with("gradient of the output has shape [2, 3, 4, 4]"), "{wrong}");
    for empty in [[0, 3, 4, 5], [2, 3, 0, 5]] {
        assert_eq!(conv().forward(view(empty), None).unwrap().out.shape(), empty);
    }
    assert!(CausalConv::new(view([1, 3, 4, 0])).forward(view([2, 3, 4, 0]), None).is_ok());
}
