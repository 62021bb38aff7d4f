//! Threads, runs and strides.

use rayon::{ThreadPool, ThreadPoolBuilder};
use regard::Element;
use regard_testing::layout::Layout;

use super::{Drawn, Property, always};
use crate::run::{grad_bits, output_bits};

/// One core, a few, and eight times as many threads as the two cores of a small machine.
struct Threads(Vec<ThreadPool>);

impl Property for Threads {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let mut first = None;
        for pool in self.0.iter().chain(&self.0[1..2]) {
            let (output, grads) = pool.install(|| problem.run(kernel));
            let again = (output_bits(&output), grad_bits(&grads));
            let what = || problem.context(kernel, &format!("{} threads", pool.current_num_threads()));
            assert!(*first.get_or_insert_with(|| again.clone()) == again, "{}", what());
        }
    }
}

#[test]
fn threads_and_runs_change_nothing() {
    let pool = |n| ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    always(&Threads([1, 2, 3, 4, 16].map(pool).into()), true, 60);
}

struct Strides;

impl Property for Strides {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let (output, grads) = problem.run(kernel);
        let mut rng = problem.rng();
        let mut case = problem.case.clone();
        case.layout = rng.pick(&Layout::ALL);
        let (again, grads_again) = crate::run::run(&case, kernel, &case.inputs::<T>(), problem.mask, problem.score);
        let context = || problem.context(kernel, &format!("{:?}", case.layout));
        assert!(output_bits(&output) == output_bits(&again), "{}", context());
        assert!(grad_bits(&grads) == grad_bits(&grads_again), "{}", context());
    }
}

#[test]
fn strides_change_nothing() {
    always(&Strides, true, 60);
}
