//! Masks and scores chosen at run time, alone and as parts of others, give the bits of their own types.

use regard::{Alibi, Either, Mask, Pair, Slope, Softcap};
use regard_testing::by_ref::ByRef;
use regard_testing::case::Case;
use regard_testing::oracle::BiasTruth;
use regard_testing::zoo::{VisitMask, VisitScore, masks, scores};

use crate::run::{grad_bits, output_bits, run};

/// Asserts that two rules give the same output and gradients on every kernel.
fn same<M: Mask, S: Slope, N: Mask, U: Slope>(case: &Case, name: &str, own: (&M, &S), chosen: (&N, &U)) {
    let inputs = case.inputs::<f32>();
    for kernel in crate::run::kernels() {
        let (output, grads) = run(case, kernel, &inputs, own.0, own.1);
        let (again, grads_again) = run(case, kernel, &inputs, chosen.0, chosen.1);
        assert!(output_bits(&output) == output_bits(&again), "{kernel} {name} {case}");
        assert!(grad_bits(&grads) == grad_bits(&grads_again), "{kernel} {name} {case}");
    }
}

fn mask<'a>(mask: impl Mask + 'a) -> Box<dyn Mask + 'a> {
    Box::new(mask)
}

fn score<'a>(score: impl Slope + 'a) -> Box<dyn Slope + 'a> {
    Box::new(score)
}

/// Several heads in a tile, some of whose rows end within a vector, and a second tile of keys.
fn case() -> Case {
    Case { sinks: true, ..Case::new(80, [2, 4, 2, 37, 70, 8, 5]) }
}

struct EachMask(Case);

impl VisitMask for EachMask {
    fn mask<M: Mask>(&mut self, name: &str, own: &M) {
        let stripes = |p: Pair| !(p.kv + p.q).is_multiple_of(3);
        let chosen = || mask(ByRef(own));
        let same = |name: &str, own: &dyn Mask, chosen: Box<dyn Mask + '_>| {
            same(&self.0, name, (&ByRef(own), &()), (&chosen, &score(())));
        };
        same(name, own, chosen());
        same(&format!("{name}, stripes"), &(ByRef(own), stripes), mask((chosen(), mask(stripes))));
        same(&format!("{name} or stripes"), &Either(ByRef(own), stripes), mask(Either(chosen(), mask(stripes))));
        same(&format!("perhaps {name}"), &Some(ByRef(own)), mask(Some(chosen())));
    }
}

#[test]
fn every_mask() {
    let case = case();
    masks(&case.shape, 5, &mut EachMask(case.clone()));
}

struct EachScore(Case);

impl VisitScore for EachScore {
    fn score<S: Slope>(&mut self, name: &str, own: &S, _: Option<BiasTruth<'_>>) {
        let (case, chosen, cap, slopes) = (&self.0, || score(ByRef(own)), Softcap(6.0), Alibi::new(self.0.shape.q_heads));
        let all = mask(());
        same(case, name, (&(), own), (&all, &chosen()));
        let (own, slopes) = (ByRef(own), ByRef(&slopes));
        same(case, &format!("softcap, {name}"), (&(), &(cap, own)), (&all, &score((score(cap), chosen()))));
        same(case, &format!("{name}, alibi"), (&(), &(own, slopes)), (&all, &score((chosen(), score(slopes)))));
        same(case, &format!("perhaps {name}"), (&(), &Some(own)), (&all, &score(Some(chosen()))));
    }
}

#[test]
fn every_score() {
    let case = case();
    scores(&case.shape, 6, &mut EachScore(case.clone()));
}
