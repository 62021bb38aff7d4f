//! The same bits: whatever the threads, the batch, the pages, the cuts of a prompt, and from run to run.

use half::{bf16, f16};
use rayon::ThreadPoolBuilder;
use regard::{Attention, CacheShape, Causal, Element, Kv, KvCache, Mask, Sequence, Softcap, Tensor, View, Window};
use regard_testing::array::Array;
use regard_testing::case::{Case, Inputs};
use regard_testing::layout::{Layout, Stored};
use regard_testing::rng::Rng;

use crate::run::{bits, grad_bits, output_bits, run};

/// Runs `f` on a pool of its own.
fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Sizes of which some share out row blocks, some keys, some groups and some chunks, with 1 to 4 threads.
fn cases() -> Vec<Case> {
    let sizes = [
        [1, 1, 1, 1, 1500, 16, 16],
        [1, 8, 2, 1, 700, 32, 32],
        [3, 4, 2, 70, 150, 16, 8],
        [1, 3, 1, 200, 600, 8, 8],
        [2, 2, 2, 33, 64, 20, 12],
    ];
    let case = |(sizes, seed)| Case { sinks: seed % 2 == 0, dropout: 0.2, ..Case::new(seed, sizes) };
    sizes.into_iter().zip(70..).map(case).collect()
}

fn threads_change_nothing<T: Element>() {
    for case in cases() {
        let inputs = case.inputs::<T>();
        for kernel in regard::kernels() {
            let score = Softcap(20.0);
            let once = || run(&case, kernel, &inputs, &Causal::LowerRight, &score);
            let (output, grads) = on(1, once);
            for threads in [1, 2, 3, 4, 8] {
                let (again, grads_again) = on(threads, once);
                assert_eq!(output_bits(&output), output_bits(&again), "{kernel} {threads} threads {case}");
                assert_eq!(grad_bits(&grads), grad_bits(&grads_again), "{kernel} {threads} threads {case}");
            }
        }
    }
}

#[test]
fn threads_and_runs_change_nothing() {
    threads_change_nothing::<f32>();
    threads_change_nothing::<bf16>();
    threads_change_nothing::<f16>();
}

/// Elements `range` along `axis`, in memory of their own.
fn part(view: View<'_, f32>, axis: usize, range: std::ops::Range<usize>) -> Stored<f32> {
    Stored::new(&Array::from_view(view.slice(axis, range).unwrap()), Layout::Contiguous)
}

#[test]
fn a_sequence_is_the_same_alone_and_in_any_batch() {
    for case in cases() {
        // Dropout and per-sequence masks are functions of the place in the batch; everything else is not.
        let case = Case { dropout: 0.0, ..Case::new(case.seed, [5, case.shape.q_heads, case.shape.kv_heads, 70, 150, 16, 8]) };
        let inputs = case.inputs::<f32>();
        let [q, k, v, d_out] = [&inputs.q, &inputs.k, &inputs.v, &inputs.d_out].map(|x| x.view());
        let mask = Window { left: 90, right: 3 };
        for kernel in regard::kernels() {
            let (all, all_grads) = run(&case, kernel, &inputs, &mask, &());
            for b in 0..5 {
                let one = |x| part(x, 0, b..b + 1);
                let alone = Inputs { q: one(q), k: one(k), v: one(v), d_out: one(d_out) };
                let (output, grads) = run(&case, kernel, &alone, &mask, &());
                let of = |x: &Tensor<f32>| bits_of(x.view().slice(0, b..b + 1).unwrap());
                assert_eq!(bits(&output.out), of(&all.out), "{kernel} {b} {case}");
                assert_eq!(bits(&output.lse), of(&all.lse), "{kernel} {b} {case}");
                assert_eq!(bits(&grads.dq), of(&all_grads.dq), "{kernel} {b} {case}");
                assert_eq!(bits(&grads.dk), of(&all_grads.dk), "{kernel} {b} {case}");
                assert_eq!(bits(&grads.dv), of(&all_grads.dv), "{kernel} {b} {case}");
            }
        }
    }
}

fn bits_of<T: Element>(view: View<'_, T>) -> Vec<u32> {
    Array::from_view(view).coordinates().map(|at| view.at(at).to_f32().to_bits()).collect()
}

/// One sequence of a cache that holds the keys and values of batch entry `b`, in pages that follow no order.
fn paged<T: Element>(case: &Case, inputs: &Inputs<T>, page_size: usize, rng: &mut Rng) -> (KvCache<T>, Vec<Sequence>) {
    let shape = &case.shape;
    let pages = shape.batch * shape.kv_len.div_ceil(page_size) + 7;
    let [kv_heads, head_dim, value_dim] = [shape.kv_heads, shape.head_dim, shape.value_dim];
    let mut cache = KvCache::new(CacheShape { layers: 1, pages, page_size, kv_heads, head_dim, value_dim }).unwrap();
    let mut seqs: Vec<Sequence> = (0..shape.batch).map(|_| cache.sequence()).collect();
    let mut done = vec![0; shape.batch];
    loop {
        let open: Vec<usize> = (0..shape.batch).filter(|&b| done[b] < shape.kv_len).collect();
        if open.is_empty() {
            return (cache, seqs);
        }
        let b = rng.pick(&open);
        let n = (1 + rng.below(40)).min(shape.kv_len - done[b]);
        let take = |x: &Stored<T>| {
            let view = x.view().slice(0, b..b + 1).unwrap().slice(2, done[b]..done[b] + n).unwrap();
            Stored::<T>::new(&Array::from_view(view), Layout::HeadsInside)
        };
        let (k, v) = (take(&inputs.k), take(&inputs.v));
        cache.append(&mut seqs[b], k.view(), v.view()).unwrap();
        done[b] += n;
    }
}

fn pages_change_nothing<T: Element>() {
    let mut rng = Rng::new(5);
    for case in cases() {
        let case = Case { dropout: 0.3, ..case };
        let inputs = case.inputs::<T>();
        for page_size in [1, 3, 16, 64, 256, 2000] {
            let (cache, seqs) = paged(&case, &inputs, page_size, &mut rng);
            let seqs: Vec<&Sequence> = seqs.iter().collect();
            for kernel in regard::kernels() {
                let (dense, dense_grads) = run(&case, kernel, &inputs, &Causal::LowerRight, &Softcap(20.0));
                let attention = crate::run::attention(&case, kernel, &Causal::LowerRight, &Softcap(20.0));
                let plan = attention.plan(inputs.q.view(), Kv::Paged { cache: &cache, layer: 0, seqs: &seqs }).unwrap();
                let output = plan.forward().unwrap();
                let grads = plan.backward(&output, inputs.d_out.view()).unwrap();
                assert_eq!(output_bits(&dense), output_bits(&output), "{kernel} pages of {page_size} {case}");
                assert_eq!(grad_bits(&dense_grads), grad_bits(&grads), "{kernel} pages of {page_size} {case}");
            }
        }
    }
}

#[test]
fn pages_change_nothing_of_what_dense_arrays_give() {
    pages_change_nothing::<f32>();
    pages_change_nothing::<bf16>();
}

/// Sequences of different lengths in one paged call are each what they are alone.
#[test]
fn ragged_sequences_are_the_same_as_alone() {
    let case = Case { sinks: true, ..Case::new(81, [4, 6, 2, 3, 300, 16, 8]) };
    let inputs = case.inputs::<f32>();
    let (mut cache, mut seqs) = paged(&case, &inputs, 16, &mut Rng::new(6));
    let lengths = [300, 0, 65, 1];
    for (seq, len) in seqs.iter_mut().zip(lengths) {
        cache.truncate(seq, len).unwrap();
    }
    let seqs: Vec<&Sequence> = seqs.iter().collect();
    for kernel in regard::kernels() {
        let attention = crate::run::attention(&case, kernel, &Causal::LowerRight, &());
        let together = attention.forward(inputs.q.view(), Kv::Paged { cache: &cache, layer: 0, seqs: &seqs }).unwrap();
        for (b, len) in lengths.into_iter().enumerate() {
            let one = |x: View<'_, f32>, len| part(x.slice(2, 0..len).unwrap(), 0, b..b + 1);
            let (q, k, v) = (one(inputs.q.view(), 3), one(inputs.k.view(), len), one(inputs.v.view(), len));
            let alone = attention.forward(q.view(), (k.view(), v.view())).unwrap();
            assert_eq!(bits(&alone.out), bits_of(together.out.view().slice(0, b..b + 1).unwrap()), "{kernel} {len} keys");
            assert_eq!(bits(&alone.lse), bits_of(together.lse.view().slice(0, b..b + 1).unwrap()), "{kernel} {len} keys");
        }
    }
}

/// A prompt read in pieces, down to single tokens, gives every row as the whole prompt does: decode is a row of prefill.
fn cuts_change_nothing<T: Element>(mask: &dyn Mask) {
    let case = Case::new(82, [1, 4, 2, 700, 700, 16, 16]);
    let inputs = case.inputs::<T>();
    let (q, k, v) = (inputs.q.view(), inputs.k.view(), inputs.v.view());
    let mut rng = Rng::new(8);
    for kernel in regard::kernels() {
        let attention = Attention::new().mask(regard_testing::by_ref::ByRef(mask)).kernel(kernel);
        let whole = attention.forward(q, (k, v)).unwrap();
        let mut start = 0;
        while start < 700 {
            let end = (start + if rng.chance(0.3) { 1 } else { 1 + rng.below(150) }).min(700);
            let seen = |x: View<'_, T>| Stored::<T>::new(&Array::from_view(x.slice(2, 0..end).unwrap()), Layout::Gaps);
            let (k, v) = (seen(k), seen(v));
            let rows = attention.forward(q.slice(2, start..end).unwrap(), (k.view(), v.view())).unwrap();
            let of_whole = |x: View<'_, T>| bits_of(x.slice(2, start..end).unwrap());
            assert_eq!(bits(&rows.out), of_whole(whole.out.view()), "{kernel} {start}..{end}");
            assert_eq!(bits(&rows.lse), bits_of(whole.lse.view().slice(2, start..end).unwrap()), "{kernel} {start}..{end}");
            start = end;
        }
    }
}

#[test]
fn cuts_of_a_prompt_change_nothing() {
    cuts_change_nothing::<f32>(&Causal::LowerRight);
    cuts_change_nothing::<bf16>(&Causal::LowerRight);
    cuts_change_nothing::<f16>(&(Causal::LowerRight, Window { left: 100, right: 0 }));
}
