//! Rows that share their elements, as an expanded or unfolded array has them, are read as their copies are.

use regard::{Element, View};
use regard_testing::array::Array;
use regard_testing::layout::{Layout, Stored};

use super::{Drawn, Property, always};
use crate::run::{grad_bits, output_bits};

struct Shared;

impl Property for Shared {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let Drawn { case, inputs, .. } = problem;
        let numbers: Vec<T> = Array::from_view(inputs.k.view()).coordinates().map(|at| inputs.k.view().at(at)).collect();
        let [d, dv] = [inputs.k.view().shape()[3], inputs.v.view().shape()[3]];
        let attention = crate::run::attention(case, kernel, problem.mask, problem.score);
        let run = |k: View<'_, T>, v: View<'_, T>| {
            let plan = attention.plan(inputs.q.view(), (k, v)).unwrap();
            let output = plan.forward().unwrap();
            let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
            (output_bits(&output), grad_bits(&grads))
        };
        for step in [0, 1, 3] {
            let overlapping = |like: View<'_, T>| {
                let shape = like.shape();
                View::strided(&numbers, 0, shape, [0, 0, step, 1]).ok().filter(|_| !shape.contains(&0))
            };
            let (Some(k), Some(v)) = (overlapping(inputs.k.view()), overlapping(inputs.v.view())) else { continue };
            let copies = [k, v].map(|view| Stored::new(&Array::from_view(view), Layout::Contiguous));
            let context = problem.context(kernel, &format!("rows {step} apart of {d} and {dv} elements"));
            assert!(run(k, v) == run(copies[0].view(), copies[1].view()), "{context}");
        }
    }
}

#[test]
fn rows_may_share_their_elements() {
    always(&Shared, true, 60);
}
