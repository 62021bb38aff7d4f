//! Partial softmax states: parts of a row, merged, are the row.

use regard::{Attention, Error, Pair, State, View};
use regard_testing::array::Array;
use regard_testing::case::Case;
use regard_testing::layout::{Layout, Stored};
use regard_testing::oracle::Problem;
use regard_testing::rng::Rng;

/// The states of all rows of some keys, through the library.
fn states(case: &Case, keys: std::ops::Range<usize>) -> Vec<State> {
    let inputs = case.inputs::<f32>();
    let part = |x: View<'_, f32>| Stored::<f32>::new(&Array::from_view(x.slice(2, keys.clone()).unwrap()), Layout::Contiguous);
    let (k, v) = (part(inputs.k.view()), part(inputs.v.view()));
    let output = Attention::new().forward(inputs.q.view(), (k.view(), v.view())).unwrap();
    let dim = case.shape.value_dim;
    let rows = output.out.data().chunks(dim).zip(output.lse.data());
    rows.map(|(out, &lse)| State::of_row(out.to_vec(), lse)).collect()
}

#[test]
fn parts_in_any_order_and_grouping_merge_to_the_whole_row() {
    let case = Case::new(91, [1, 2, 1, 5, 200, 16, 8]);
    let inputs = case.inputs::<f32>();
    let problem = Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view());
    let truth = problem.forward();
    let bounds = problem.bounds::<f32>(&truth);
    let mut rng = Rng::new(1);
    for _ in 0..30 {
        let mut cuts: Vec<usize> = (0..5).map(|_| rng.below(201)).chain([0, 200]).collect();
        cuts.sort_unstable();
        let mut parts: Vec<Vec<State>> = cuts.windows(2).map(|c| states(&case, c[0]..c[1])).collect();
        while parts.len() > 1 {
            let (i, j) = (rng.below(parts.len()), rng.below(parts.len() - 1));
            let taken = parts.swap_remove(i);
            let into = j.min(parts.len() - 1);
            for (a, b) in parts[into].iter_mut().zip(&taken) {
                a.merge(b).unwrap();
            }
        }
        for (r, state) in parts[0].iter().enumerate() {
            let (h, i) = (r / 5, r % 5);
            // Each of at most six merges rounds a few times: 32 units of the largest value beside the kernel's own tolerance.
            let extra = 32.0 * regard_testing::tolerance::U;
            let lse = truth.lse[[0, h, i, 0]];
            let off = (f64::from(state.lse()) - lse).abs();
            assert!(off <= bounds.lse[[0, h, i, 0]] + extra * (1.0 + lse.abs()), "{cuts:?} {off}");
            for (d, &o) in state.out.iter().enumerate() {
                let at = [0, h, i, d];
                assert!((f64::from(o) - truth.out[at]).abs() <= bounds.out[at] + 4.0 * extra, "{cuts:?}");
            }
        }
    }
}

#[test]
fn an_empty_state_is_neutral_on_both_sides() {
    let some = State { max: 2.0, sum: 3.0, out: vec![1.0, -4.0] };
    let mut left = State::empty(2);
    left.merge(&some).unwrap();
    let mut right = some.clone();
    right.merge(&State::empty(2)).unwrap();
    assert_eq!((left.out.clone(), left.lse()), (some.out.clone(), some.lse()));
    assert_eq!(right, some);
    let mut nothing = State::empty(2);
    nothing.merge(&State::empty(2)).unwrap();
    assert_eq!((nothing.lse(), nothing.out), (f32::NEG_INFINITY, vec![0.0, 0.0]));
}

/// A row that sees nothing of one part takes all from the other.
#[test]
fn rows_that_see_nothing_of_a_part_are_not_changed_by_it() {
    let case = Case::new(92, [1, 1, 1, 4, 10, 4, 4]);
    let inputs = case.inputs::<f32>();
    let kv = (inputs.k.view(), inputs.v.view());
    let low = Attention::new().mask(|p: Pair| p.kv < 5 && p.q < 2).forward(inputs.q.view(), kv).unwrap();
    let high = Attention::new().mask(|p: Pair| p.kv >= 5).forward(inputs.q.view(), kv).unwrap();
    for i in 2..4 {
        let row = |o: &regard::Output<f32>| State::of_row(o.out.data()[i * 4..][..4].to_vec(), o.lse.data()[i]);
        let merged = State::merge_all([&row(&low), &row(&high)]).unwrap();
        assert_eq!((merged.out.as_slice(), merged.lse()), (&high.out.data()[i * 4..][..4], high.lse.data()[i]));
    }
}

#[test]
fn states_that_do_not_fit_are_refused_by_name() {
    let wrong = State::empty(2).merge(&State::empty(3)).unwrap_err();
    assert_eq!(wrong.to_string(), "state has 3 elements in its output and needs 2, as the state it joins has");
    let none = State::merge_all([]).unwrap_err();
    assert!(matches!(none, Error::Size { what: "states", given: 0, .. }));
}
