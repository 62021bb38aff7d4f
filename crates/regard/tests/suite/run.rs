//! Running a case through a kernel, and asking the oracle about it.

use regard::{Attention, Element, Grads, Mask, Output, Slope, Tensor};
use regard_testing::array::Array;
use regard_testing::by_ref::ByRef;
use regard_testing::case::{Case, Inputs};
use regard_testing::oracle::{BiasTruth, Problem, lift};
use regard_testing::tolerance::{Rounding, worst};

/// The attention that a case asks for.
pub(crate) fn attention<'a, M, S>(case: &Case, kernel: &str, mask: &'a M, score: &'a S) -> Attention<ByRef<'a, M>, ByRef<'a, S>>
where
    M: Mask + ?Sized,
    S: Slope + ?Sized,
{
    let mut attention = Attention::new().mask(ByRef(mask)).score(ByRef(score)).kernel(kernel);
    if let Some(sinks) = case.sinks() {
        attention = attention.sinks(sinks);
    }
    if case.dropout > 0.0 {
        attention = attention.dropout(case.dropout, case.seed);
    }
    attention
}

/// Forward and backward on one kernel.
pub(crate) fn run<T, M, S>(case: &Case, kernel: &str, inputs: &Inputs<T>, mask: &M, score: &S) -> (Output<T>, Grads<T>)
where
    T: Element,
    M: Mask + ?Sized,
    S: Slope + ?Sized,
{
    let attention = attention(case, kernel, mask, score);
    let plan = attention.plan(inputs.q.view(), (inputs.k.view(), inputs.v.view())).unwrap();
    assert_eq!(plan.kernel(), kernel);
    let output = plan.forward().unwrap();
    let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
    (output, grads)
}

/// Asserts that every kernel agrees with the oracle about a case: output, log-sum-exp and every gradient.
pub(crate) fn agree<T, M, S>(case: &Case, name: &str, mask: &M, score: &S, bias: Option<&BiasTruth<'_>>)
where
    T: Element,
    M: Mask + ?Sized,
    S: Slope + ?Sized,
{
    agree_on::<T, M, S>(case, &case.inputs(), name, mask, score, bias);
}

/// As [`agree`], with tensors of the caller's.
pub(crate) fn agree_on<T, M, S>(case: &Case, inputs: &Inputs<T>, name: &str, mask: &M, score: &S, bias: Option<&BiasTruth<'_>>)
where
    T: Element,
    M: Mask + ?Sized,
    S: Slope + ?Sized,
{
    let mut problem = Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view());
    let (mask_ref, score_fn) = (ByRef(mask), lift(score));
    let slope = |s: f64, p| f64::from(score.slope(s as f32, p));
    (problem.mask, problem.score) = (&mask_ref, &score_fn);
    problem.sinks = case.sinks().map(|sinks| sinks.into_iter().map(f64::from).collect());
    problem.dropout = case.dropout();
    let truth = problem.forward();
    let d_out = Array::from_view(inputs.d_out.view());
    let gradients = problem.backward(&truth, &d_out, &slope);
    for (weight_unit, kernels) in by_weight_unit::<T>() {
        problem.weight_unit = weight_unit;
        let bounds = problem.bounds::<T>(&truth);
        let tolerances = problem.gradient_bounds::<T>(&truth, &bounds, &gradients, &d_out, &slope);
        let dbias = bias.map(|bias| problem.bias_gradient(&truth, &bounds, &gradients, &tolerances, bias));
        for kernel in kernels {
            let (output, grads) = run(case, kernel, inputs, mask, score);
            let context = |what: &str| format!("{kernel} {} {name} {what} {case}", T::NAME);
            assert_agrees(&output.out, &truth.out, &bounds.out, &context("out"));
            assert_agrees(&output.lse, &truth.lse, &bounds.lse, &context("lse"));
            assert_agrees(&grads.dq, &gradients.dq, &tolerances.dq, &context("dq"));
            assert_agrees(&grads.dk, &gradients.dk, &tolerances.dk, &context("dk"));
            assert_agrees(&grads.dv, &gradients.dv, &tolerances.dv, &context("dv"));
            assert_eq!(grads.dbias.is_some(), dbias.is_some(), "{}", context("dbias"));
            if let (Some(got), Some((expected, tolerance))) = (&grads.dbias, &dbias) {
                assert_agrees(got, expected, tolerance, &context("dbias"));
            }
            assert_eq!(grads.dsinks.is_some(), case.sinks, "{}", context("dsinks"));
            if let Some(dsinks) = grads.dsinks {
                let along = |x: &[f64]| Array::from_fn([1, 1, 1, x.len()], |[_, _, _, h]| x[h]);
                let got = Tensor::from_vec(dsinks, [1, 1, 1, case.shape.q_heads]).unwrap();
                assert_agrees(&got, &along(&gradients.dsinks), &along(&tolerances.dsinks), &context("dsinks"));
            }
        }
    }
}

/// Asserts that a result is within its tolerance, and NaN exactly where the oracle says so.
fn assert_agrees<T: Element>(got: &Tensor<T>, expected: &Array, tolerance: &Array, context: &str) {
    let got = Array::from_tensor(got);
    let numbers =
        |of: &Array| Array::from_fn(of.shape(), |at| if expected[at].is_nan() && got[at].is_nan() { 0.0 } else { of[at] });
    if let Some(worst) = worst(&numbers(&got), &numbers(expected), &numbers(tolerance)) {
        assert!(worst.ratio <= 1.0, "{context}: {worst}");
    }
}

/// Every kernel; that of AMX too, emulated where the machine has none.
#[allow(unsafe_code)]
pub(crate) fn kernels() -> Vec<&'static str> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
    if !regard::kernels().contains(&"amx") {
        regard_testing::amx::emulate();
        // SAFETY: the handler executes what the processor does not.
        unsafe { regard_cpu::assume_amx() };
    }
    regard::kernels()
}

/// The kernels by how they round weights: some multiply bf16 as it is, and round the weights of bf16 values to bf16.
fn by_weight_unit<T: Element>() -> [(f64, Vec<&'static str>); 2] {
    let pairs = ["amx", "avx512bf16"];
    let (paired, wide) = kernels().into_iter().partition(|kernel| T::NAME == "bf16" && pairs.contains(kernel));
    [(0.0, wide), (Rounding::of::<T>().unit, paired)]
}

/// The bits of a tensor, so that NaN equals itself and 0 differs from −0.
pub(crate) fn bits<T: Element>(tensor: &Tensor<T>) -> Vec<u32> {
    tensor.data().iter().map(|x| x.to_f32().to_bits()).collect()
}

/// The bits of an output and its log-sum-exp.
pub(crate) fn output_bits<T: Element>(output: &Output<T>) -> [Vec<u32>; 2] {
    [bits(&output.out), bits(&output.lse)]
}

/// The bits of every gradient.
pub(crate) fn grad_bits<T: Element>(grads: &Grads<T>) -> [Vec<u32>; 5] {
    let dsinks = grads.dsinks.iter().flatten().map(|x| x.to_bits()).collect();
    let dbias = grads.dbias.as_ref().map(bits).unwrap_or_default();
    [bits(&grads.dq), bits(&grads.dk), bits(&grads.dv), dbias, dsinks]
}
