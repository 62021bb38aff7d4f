//! The batch: a sequence is the same alone, in any company and in any place.

use regard::{Element, Pair, View};
use regard_testing::array::Array;
use regard_testing::case::{Case, Inputs};
use regard_testing::layout::Stored;
use regard_testing::part::Part;

use super::{Drawn, Property, always, bits_of};

/// Some sequences, in the order given, repeated ones too.
fn gather<T: Element>(x: View<'_, T>, order: &[usize], case: &Case) -> Stored<T> {
    let [_, heads, length, dim] = x.shape();
    let element = |[b, h, l, d]: [usize; 4]| f64::from(x.at([order[b], h, l, d]).to_f32());
    Stored::new(&Array::from_fn([order.len(), heads, length, dim], element), case.layout)
}

struct Company;

impl Property for Company {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let mut rng = problem.rng();
        let (output, grads) = problem.run(kernel);
        let batch = problem.case.shape.batch;
        for size in [1, 1 + rng.below(batch + 2)] {
            let order: Vec<usize> = (0..size).map(|_| rng.below(batch)).collect();
            let whole = |p: Pair| Pair { batch: order[p.batch as usize] as u32, ..p };
            let [q, k, v, d_out] = [&problem.inputs.q, &problem.inputs.k, &problem.inputs.v, &problem.inputs.d_out]
                .map(|x| gather(x.view(), &order, &problem.case));
            let (mask, score) = (Part { of: problem.mask, whole: &whole }, Part { of: problem.score, whole: &whole });
            let (some, some_grads) = crate::run::run(&problem.case, kernel, &Inputs { q, k, v, d_out }, &mask, &score);
            for (place, &b) in order.iter().enumerate() {
                let same = |a: View<'_, T>, b_: View<'_, T>| bits_of(a, 0, place..place + 1) == bits_of(b_, 0, b..b + 1);
                let context = |what| problem.context(kernel, &format!("{what} of {b} in {order:?}"));
                assert!(same(some.out.view(), output.out.view()), "{}", context("output"));
                let [lse, all] = [(&some.lse, place), (&output.lse, b)].map(|(x, b)| bits_of(x.view(), 0, b..b + 1));
                assert!(lse == all, "{}", context("log-sum-exp"));
                assert!(same(some_grads.dq.view(), grads.dq.view()), "{}", context("dq"));
                assert!(same(some_grads.dk.view(), grads.dk.view()), "{}", context("dk"));
                assert!(same(some_grads.dv.view(), grads.dv.view()), "{}", context("dv"));
            }
        }
    }
}

/// Without dropout, which is a function of the place in the batch. The gradients of bias and sinks are sums over the batch.
#[test]
fn company_and_place_in_a_batch_change_nothing() {
    always(&Company, false, 60);
}
