//! A prompt read in pieces, down to single tokens, gives every row as the whole prompt does: decode is a row of prefill.

use regard::{Causal, Element, Lens, Pair, View};
use regard_testing::by_ref::ByRef;
use regard_testing::case::Inputs;
use regard_testing::part::Part;

use super::{Drawn, Property, always, bits_of, part};

struct Cuts;

impl Property for Cuts {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let Drawn { case, inputs, .. } = problem;
        let (q_len, kv_len) = (case.shape.q_len, case.shape.kv_len);
        let (output, grads) = crate::run::run(case, kernel, inputs, &(Causal::LowerRight, ByRef(problem.mask)), problem.score);
        let mut rng = problem.rng();
        let mut start = 0;
        while start < q_len {
            let end = (start + if rng.chance(0.3) { 1 } else { 1 + rng.below(60) }).min(q_len);
            let len = Lens { q: q_len as u32, kv: kv_len as u32 };
            let whole = |p: Pair| Pair { q: p.q + start as u32, len, ..p };
            let mask = (Causal::LowerRight, Part { of: problem.mask, whole: &whole });
            let score = Part { of: problem.score, whole: &whole };
            let seen = (kv_len + end).saturating_sub(q_len);
            let rows = |x: View<'_, T>| part(x, 2, start..end, case.layout);
            let keys = |x: View<'_, T>| part(x, 2, 0..seen, case.layout);
            let (q, d_out) = (rows(inputs.q.view()), rows(inputs.d_out.view()));
            let (k, v) = (keys(inputs.k.view()), keys(inputs.v.view()));
            let (piece, piece_grads) = crate::run::run(case, kernel, &Inputs { q, k, v, d_out }, &mask, &score);
            let all = 0..end - start;
            let context = |what| problem.context(kernel, &format!("{what} of {start}..{end}"));
            let same = |piece: View<'_, T>, of: View<'_, T>| bits_of(piece, 2, all.clone()) == bits_of(of, 2, start..end);
            assert!(same(piece.out.view(), output.out.view()), "{}", context("output"));
            assert!(
                bits_of(piece.lse.view(), 2, all.clone()) == bits_of(output.lse.view(), 2, start..end),
                "{}",
                context("log-sum-exp")
            );
            assert!(same(piece_grads.dq.view(), grads.dq.view()), "{}", context("dq"));
            start = end;
        }
    }
}

/// Without dropout, which is a function of the query's index. The gradients of keys and values are sums over the queries.
#[test]
fn cuts_of_a_prompt_change_nothing() {
    always(&Cuts, false, 60);
}
