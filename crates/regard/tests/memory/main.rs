//! Nothing outside the arguments is read or written: at the edges of memory, between strided rows, and under memory checkers. And what
//! is needed beside them is what the plan says.

mod checked;
#[cfg(all(target_os = "linux", not(miri)))]
mod edges;
mod gaps;
#[cfg(all(target_os = "linux", not(miri)))]
mod predicted;

use half::{bf16, f16};
use regard::{Attention, Causal, Element, Grads, Kv, Output, Softcap};
use regard_testing::case::{Case, Inputs};

/// The attention that all of these tests compute.
fn attention(case: &Case, kernel: &str) -> Attention<Causal, Softcap> {
    let attention = Attention::new().mask(Causal::LowerRight).score(Softcap(20.0)).kernel(kernel);
    match case.sinks() {
        Some(sinks) => attention.sinks(sinks),
        None => attention,
    }
}

/// Forward and backward. What is read between the elements of the inputs is NaN, and would show.
fn pass<T: Element>(case: &Case, kernel: &str, inputs: &Inputs<T>, kv: Kv<'_, T>) -> (Output<T>, Grads<T>) {
    println!("{kernel} {} {case}", T::NAME); // seen with --nocapture: the last line before a crash
    let attention = attention(case, kernel);
    let plan = attention.plan(inputs.q.view(), kv).unwrap();
    let output = plan.forward().unwrap();
    let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
    for results in [&output.out, &grads.dq, &grads.dk, &grads.dv] {
        assert!(results.data().iter().all(|x| x.to_f32().is_finite()), "{kernel} {} {case}", T::NAME);
    }
    (output, grads)
}

/// Forward and backward on every kernel.
fn on_every_kernel<T: Element>(case: &Case) {
    let inputs = case.inputs::<T>();
    for kernel in regard::kernels() {
        pass(case, kernel, &inputs, (inputs.k.view(), inputs.v.view()).into());
    }
}

fn in_every_type(case: &Case) {
    on_every_kernel::<f32>(case);
    on_every_kernel::<bf16>(case);
    on_every_kernel::<f16>(case);
}
