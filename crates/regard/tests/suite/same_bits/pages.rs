//! Pages: of any size, in any order, shared or not, they give what dense arrays give.

use regard::{CacheShape, Element, Grads, GradsMut, Kv, KvCache, Mask, Output, Pair, Plan, Sequence, Slope, Tensor, View};
use regard_testing::case::{Case, Inputs};
use regard_testing::layout::Layout;
use regard_testing::part::Part;
use regard_testing::rng::Rng;

use super::{Drawn, Property, always, bits_of, part};
use crate::run::{bits, grad_bits, output_bits};

/// One sequence of a cache for each batch entry, with its keys and values, in pages that follow no order.
fn paged<T: Element>(case: &Case, inputs: &Inputs<T>, page_size: usize, rng: &mut Rng) -> (KvCache<T>, Vec<Sequence>) {
    let shape = &case.shape;
    let pages = shape.batch * shape.kv_len.div_ceil(page_size) + 7;
    let [kv_heads, head_dim, value_dim] = [shape.kv_heads, shape.head_dim, shape.value_dim];
    let mut cache = KvCache::new(CacheShape { layers: 1, pages, page_size, kv_heads, head_dim, value_dim }).unwrap();
    let mut seqs: Vec<Sequence> = (0..shape.batch).map(|_| cache.sequence()).collect();
    loop {
        let open: Vec<usize> = (0..shape.batch).filter(|&b| seqs[b].len() < shape.kv_len).collect();
        if open.is_empty() {
            return (cache, seqs);
        }
        let b = rng.pick(&open);
        let from = seqs[b].len();
        let tokens = from..(from + 1 + rng.below(40)).min(shape.kv_len);
        let rows = |x| part(part(x, 0, b..b + 1, Layout::Contiguous).view(), 2, tokens.clone(), Layout::HeadsInside);
        let (k, v) = (rows(inputs.k.view()), rows(inputs.v.view()));
        cache.append(&mut seqs[b], k.view(), v.view()).unwrap();
    }
}

fn page_size(rng: &mut Rng) -> usize {
    if rng.chance(0.5) { rng.pick(&[1, 3, 16, 64, 256, 2000]) } else { 1 + rng.below(256) }
}

struct Pages;

impl Property for Pages {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let Drawn { case, inputs, .. } = problem;
        let mut rng = problem.rng();
        let page_size = page_size(&mut rng);
        let (cache, seqs) = paged(case, inputs, page_size, &mut rng);
        let (dense, dense_grads) = problem.run(kernel);
        let attention = crate::run::attention(case, kernel, problem.mask, problem.score);
        let seqs: Vec<&Sequence> = seqs.iter().collect();
        let plan = attention.plan(inputs.q.view(), Kv::Paged { cache: &cache, layer: 0, seqs: &seqs }).unwrap();
        let output = plan.forward().unwrap();
        let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
        let context = || problem.context(kernel, &format!("pages of {page_size}"));
        assert!(output_bits(&dense) == output_bits(&output), "{}", context());
        assert!(grad_bits(&dense_grads) == grad_bits(&grads), "{}", context());
    }
}

#[test]
fn pages_change_nothing_of_what_dense_arrays_give() {
    always(&Pages, true, 60);
}

/// Sequences of different lengths, in one paged call, and each alone.
struct Ragged;

impl Ragged {
    /// Sequence `b`, of `len` keys, alone and dense.
    fn alone<T: Element>(problem: &Drawn<'_, T>, kernel: &str, b: usize, len: usize) -> (Output<T>, Grads<T>) {
        let whole = |p: Pair| Pair { batch: b as u32, ..p };
        let (mask, score) = (Part { of: problem.mask, whole: &whole }, Part { of: problem.score, whole: &whole });
        let one = |x| part(x, 0, b..b + 1, Layout::Contiguous);
        let keys = |x| part(one(x).view(), 2, 0..len, Layout::Gaps);
        let Inputs { q, k, v, d_out } = &problem.inputs;
        let inputs = Inputs { q: one(q.view()), k: keys(k.view()), v: keys(v.view()), d_out: one(d_out.view()) };
        crate::run::run(&problem.case, kernel, &inputs, &mask, &score)
    }
}

impl Property for Ragged {
    fn holds<T: Element>(&self, problem: &Drawn<'_, T>, kernel: &str) {
        let Drawn { case, inputs, .. } = problem;
        let mut rng = problem.rng();
        let (mut cache, mut seqs) = paged(case, inputs, page_size(&mut rng), &mut rng);
        for seq in &mut seqs {
            let len = if rng.chance(0.2) { rng.below(2).min(seq.len()) } else { rng.below(seq.len() + 1) };
            cache.truncate(seq, len).unwrap();
        }
        let (mask, score) = (Part { of: problem.mask, whole: &|p| p }, Part { of: problem.score, whole: &|p| p });
        let attention = crate::run::attention(case, kernel, &mask, &score);
        let refs: Vec<&Sequence> = seqs.iter().collect();
        let plan = attention.plan(inputs.q.view(), Kv::Paged { cache: &cache, layer: 0, seqs: &refs }).unwrap();
        let output = plan.forward().unwrap();
        let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
        assert!(
            grad_bits(&grads) == grad_bits(&into_nan(&plan, &output, inputs.d_out.view())),
            "{}",
            problem.context(kernel, "into NaN")
        );
        for (b, len) in seqs.iter().map(Sequence::len).enumerate() {
            let (one, one_grads) = Ragged::alone(problem, kernel, b, len);
            let context = |what| problem.context(kernel, &format!("{what} of {b} with {len} keys"));
            let of = |x: &Tensor<T>| bits_of(x.view(), 0, b..b + 1);
            let of_keys = |x: &Tensor<T>| bits_of(x.view().slice(0, b..b + 1).unwrap(), 2, 0..len);
            assert!(bits(&one.out) == of(&output.out), "{}", context("output"));
            assert!(bits(&one.lse) == bits_of(output.lse.view(), 0, b..b + 1), "{}", context("log-sum-exp"));
            assert!(bits(&one_grads.dq) == of(&grads.dq), "{}", context("dq"));
            assert!(bits(&one_grads.dk) == of_keys(&grads.dk), "{}", context("dk"));
            assert!(bits(&one_grads.dv) == of_keys(&grads.dv), "{}", context("dv"));
        }
    }
}

/// The gradients, written to memory that held NaN.
fn into_nan<T: Element, M: Mask, S: Slope>(plan: &Plan<'_, T, M, S>, output: &Output<T>, d_out: View<'_, T>) -> Grads<T> {
    let nan = |like: &Tensor<T>| Tensor::from_vec(vec![T::from_f32(f32::NAN); like.data().len()], like.shape()).unwrap();
    let mut grads = plan.backward(output, d_out).unwrap();
    (grads.dq, grads.dk, grads.dv) = (nan(&grads.dq), nan(&grads.dk), nan(&grads.dv));
    grads.dbias.iter_mut().for_each(|dbias| dbias.data_mut().fill(f32::NAN));
    grads.dsinks.iter_mut().for_each(|dsinks| dsinks.fill(f32::NAN));
    let to = GradsMut {
        dq: grads.dq.view_mut(),
        dk: grads.dk.view_mut(),
        dv: grads.dv.view_mut(),
        dbias: grads.dbias.as_mut().map(Tensor::data_mut),
        dsinks: grads.dsinks.as_deref_mut(),
    };
    plan.backward_into(output.out.view(), output.lse.view(), d_out, to).unwrap();
    grads
}

#[test]
fn ragged_sequences_are_the_same_as_alone() {
    always(&Ragged, false, 60);
}
