//! Every kernel × type × mask × score × sinks × dropout × layout, forward and backward, against the oracle.

use half::{bf16, f16};
use regard::{Causal, Element, Mask, Slope};
use regard_testing::case::{Case, Values};
use regard_testing::layout::Layout;
use regard_testing::oracle::BiasTruth;
use regard_testing::zoo::{VisitMask, VisitScore, drawn, masks, scores};

use crate::run::agree;

/// A case in one of the three types.
fn agree_in<M, S>(dtype: usize, case: &Case, name: &str, mask: &M, score: &S, bias: Option<&BiasTruth<'_>>)
where
    M: Mask + ?Sized,
    S: Slope + ?Sized,
{
    match dtype % 3 {
        0 => agree::<f32, M, S>(case, name, mask, score, bias),
        1 => agree::<bf16, M, S>(case, name, mask, score, bias),
        _ => agree::<f16, M, S>(case, name, mask, score, bias),
    }
}

/// Runs a case with each mask under the mask's own type, as a caller's closure would be.
struct EachMask<'a>(&'a Case);

impl VisitMask for EachMask<'_> {
    fn mask<M: Mask>(&mut self, name: &str, mask: &M) {
        (0..3).for_each(|dtype| agree_in(dtype, self.0, name, mask, &(), None));
    }
}

/// Runs a case with each score under the score's own type.
struct EachScore<'a>(&'a Case);

impl VisitScore for EachScore<'_> {
    fn score<S: Slope>(&mut self, name: &str, score: &S, bias: Option<BiasTruth<'_>>) {
        (0..3).for_each(|dtype| agree_in(dtype, self.0, name, &Causal::LowerRight, score, bias.as_ref()));
    }
}

#[test]
fn every_mask_at_every_corner() {
    Case::corners().iter().for_each(|case| masks(&case.shape, case.seed, &mut EachMask(case)));
}

#[test]
fn every_score_at_every_corner() {
    Case::corners().iter().for_each(|case| scores(&case.shape, case.seed, &mut EachScore(case)));
}

#[test]
fn every_layout_with_sinks_and_dropout() {
    for case in Case::corners() {
        for (layout, dtype) in Layout::ALL.into_iter().zip(0..) {
            for (sinks, dropout) in [(false, 0.0), (true, 0.25)] {
                let case = Case { layout, sinks, dropout, ..case.clone() };
                agree_in(dtype, &case, "causal", &Causal::UpperLeft, &(), None);
                agree_in(dtype + 1, &case, "everything", &(), &(), None);
            }
        }
    }
}

#[test]
fn every_mask_with_every_score() {
    let grouped = Case { sinks: true, dropout: 0.2, ..Case::new(21, [2, 6, 2, 23, 70, 8, 5]) };
    let plain = Case::new(22, [1, 2, 1, 66, 9, 4, 8]);
    for case in [grouped, plain] {
        masks(&case.shape, case.seed, &mut |mask_name: &str, mask: &dyn Mask| {
            scores(&case.shape, case.seed, &mut |name: &str, score: &dyn Slope, bias: Option<BiasTruth<'_>>| {
                agree::<f32, dyn Mask, dyn Slope>(&case, &format!("{mask_name}, {name}"), mask, score, bias.as_ref());
            });
        });
    }
}

#[test]
fn every_kind_of_value() {
    for values in Values::ALL {
        for (seed, sizes) in [(31, [1, 2, 1, 40, 600, 32, 16]), (32, [1, 1, 1, 130, 130, 64, 64])] {
            let case = Case { values, ..Case::new(seed, sizes) };
            (0..3).for_each(|dtype| agree_in(dtype, &case, "lower-right", &Causal::LowerRight, &(), None));
        }
    }
}

#[test]
fn nothing_in_some_dimension() {
    for case in Case::empty() {
        masks(&case.shape, 0, &mut |name: &str, mask: &dyn Mask| {
            (0..3).for_each(|dtype| agree_in(dtype, &case, name, mask, &(), None));
        });
        scores(&case.shape, 0, &mut |name: &str, score: &dyn Slope, bias: Option<BiasTruth<'_>>| {
            agree::<f32, (), dyn Slope>(&case, name, &(), score, bias.as_ref());
        });
    }
}

/// A random size, type, layout, mask, score, sinks and dropout; lengths around tiles of 64 and spans of 512 keys.
#[test]
fn random_cases() {
    for seed in 1000..1240 {
        let case = Case::random(seed, 2_000_000);
        drawn(&case.shape, case.seed, |name, mask, score, bias| agree_in(seed as usize, &case, name, mask, score, bias));
    }
}

/// The types are what they say they are: an f16 case is not silently run in f32.
#[test]
fn outputs_are_in_the_type_of_the_inputs() {
    fn name<T: Element>() -> &'static str {
        let case = Case::new(1, [1, 1, 1, 2, 2, 4, 4]);
        let (output, grads) = crate::run::run::<T, _, _>(&case, "scalar", &case.inputs(), &(), &());
        let rounded = |x: f32| T::from_f32(x).to_f32();
        assert!(output.out.data().iter().all(|x| rounded(x.to_f32()) == x.to_f32()));
        assert_eq!(grads.dq.data().len(), 8);
        T::NAME
    }
    assert_eq!([name::<f32>(), name::<f16>(), name::<bf16>()], ["f32", "f16", "bf16"]);
}
