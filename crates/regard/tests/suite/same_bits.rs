//! The same bits: whatever the threads, the batch, the pages, the strides, the cuts of a prompt, the time when a mask is chosen, and
//! from run to run.
//!
//! Every property is tested on the same kind of random problems: sizes, type, layout, mask, score, sinks and dropout.

mod batches;
mod chosen;
mod cuts;
mod pages;
mod shared;
mod threads;

use half::{bf16, f16};
use regard::{Causal, Element, Grads, Mask, Output, Slope, Softcap, View};
use regard_testing::array::Array;
use regard_testing::case::{Case, Inputs};
use regard_testing::layout::{Layout, Stored};
use regard_testing::rng::Rng;
use regard_testing::zoo;

/// One random problem.
struct Drawn<'a, T> {
    case: Case,
    inputs: Inputs<T>,
    mask: &'a dyn Mask,
    score: &'a dyn Slope,
    /// Mask and score.
    name: &'a str,
}

impl<T: Element> Drawn<'_, T> {
    fn run(&self, kernel: &str) -> (Output<T>, Grads<T>) {
        crate::run::run(&self.case, kernel, &self.inputs, self.mask, self.score)
    }

    /// What a failure says.
    fn context(&self, kernel: &str, what: &str) -> String {
        format!("{kernel} {} {what}: {}, {}", T::NAME, self.name, self.case)
    }

    /// Choices of a test, which belong to the problem.
    fn rng(&self) -> Rng {
        Rng::new(self.case.seed ^ 0x5a3e)
    }
}

/// Something that changes no bit.
trait Property {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str);
}

/// Asserts a property for every kernel: on sizes that share out keys, row blocks, groups and chunks, and sizes that one thread does,
/// causal and with a softcap, in each type, and on `random` problems.
fn always(property: &impl Property, dropout: bool, random: u64) {
    let sizes = [
        [1, 1, 1, 1, 5000, 128, 100],
        [1, 8, 2, 1, 1500, 64, 64],
        [3, 4, 2, 70, 150, 16, 8],
        [1, 3, 1, 200, 600, 8, 8],
        [2, 2, 2, 33, 64, 20, 12],
    ];
    let shared = |&[b, h, _, q, kv, d, dv]: &[usize; 7]| b * h * q * kv * (d + dv) >= 1 << 20;
    assert_eq!(sizes.iter().filter(|sizes| shared(sizes)).count(), 4, "what is smaller is not shared out");
    for (sizes, seed) in sizes.into_iter().zip(70..) {
        let dropout = if dropout { 0.2 } else { 0.0 };
        let case = Case { sinks: seed % 2 == 0, dropout, ..Case::new(seed, sizes) };
        (0..3).for_each(|dtype| in_type(dtype, property, &case, ("causal, softcap", &Causal::LowerRight, &Softcap(20.0))));
    }
    for seed in 2000..2000 + random {
        let mut case = Case::random(seed, 1_000_000);
        case.dropout *= f32::from(u8::from(dropout));
        zoo::drawn(&case.shape, seed, |name, mask, score, _| in_type(seed, property, &case, (name, mask, score)));
    }
}

fn in_type(dtype: u64, property: &impl Property, case: &Case, rule: (&str, &dyn Mask, &dyn Slope)) {
    match dtype % 3 {
        0 => on_every_kernel::<f32>(property, case, rule),
        1 => on_every_kernel::<bf16>(property, case, rule),
        _ => on_every_kernel::<f16>(property, case, rule),
    }
}

fn on_every_kernel<T: Element>(property: &impl Property, case: &Case, (name, mask, score): (&str, &dyn Mask, &dyn Slope)) {
    let problem = Drawn { case: case.clone(), inputs: case.inputs::<T>(), mask, score, name };
    crate::run::kernels().into_iter().for_each(|kernel| property.holds(&problem, kernel));
}

/// Elements `range` along `axis`, in memory of their own.
fn part<T: Element>(view: View<'_, T>, axis: usize, range: std::ops::Range<usize>, layout: Layout) -> Stored<T> {
    Stored::new(&Array::from_view(view.slice(axis, range).unwrap()), layout)
}

/// The bits of elements `range` along `axis`.
fn bits_of<T: Element>(view: View<'_, T>, axis: usize, range: std::ops::Range<usize>) -> Vec<u32> {
    let view = view.slice(axis, range).unwrap();
    Array::zeros(view.shape()).coordinates().map(|at| view.at(at).to_f32().to_bits()).collect()
}
