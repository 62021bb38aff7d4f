//! What regard does in a case.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use half::{bf16, f16};
use rayon::{ThreadPool, ThreadPoolBuilder};
use regard::{Attention, Cost, Element, Grid, Inspect, Mask};

use super::case::{Case, Dtype, Kind};
use super::inputs::Inputs;
use super::linear;
use super::pattern::Masked;
use super::training::Training;

/// What one call has to do at least.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Floating-point operations of the products.
    pub(super) flops: u64,
    /// Exponentials.
    pub(super) exps: u64,
    /// Bytes that the forward pass moves.
    pub(super) bytes: u64,
}

impl Load {
    fn of(cost: &Cost, backward: bool) -> Self {
        let passes = 1 + u64::from(backward); // the backward pass computes probabilities anew
        let flops = cost.forward_flops + if backward { cost.backward_flops } else { 0 };
        Load { flops, exps: passes * cost.pairs, bytes: cost.bytes }
    }
}

/// One case, ready to run again and again.
pub(super) struct Work {
    run: Call,
    /// Those of the case, where it does not take those of the run.
    pool: Option<ThreadPool>,
    /// None of training.
    pub(super) load: Option<Load>,
    /// Tokens that one call learns from.
    pub(super) tokens: Option<usize>,
}

pub(super) type Call = Box<dyn FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send>;

impl Work {
    pub(super) fn new(case: &Case) -> Result<Self, Box<dyn Error>> {
        let pool = case.threads.map(|n| ThreadPoolBuilder::new().num_threads(n).build()).transpose()?;
        if case.kind == Kind::Train {
            let mut training = Training::new(case)?;
            let tokens = Some(training.tokens());
            let run = move || training.step().map_err(|error| error.to_string().into());
            return Ok(Self { run: Box::new(run), pool, load: None, tokens });
        }
        let (run, load) = match (case.kind, case.dtype) {
            (Kind::Linear | Kind::LinearDelta, Dtype::F32) => linear::call::<f32>(case)?,
            (Kind::Linear | Kind::LinearDelta, Dtype::Bf16) => linear::call::<bf16>(case)?,
            (Kind::Linear | Kind::LinearDelta, Dtype::F16) => linear::call::<f16>(case)?,
            (_, Dtype::F32) => case.masked(Timed(case, Inputs::<f32>::new(case)?))?,
            (_, Dtype::Bf16) => case.masked(Timed(case, Inputs::<bf16>::new(case)?))?,
            (_, Dtype::F16) => case.masked(Timed(case, Inputs::<f16>::new(case)?))?,
        };
        Ok(Self { run, pool, load: Some(load), tokens: None })
    }

    /// The time of some calls.
    pub(super) fn seconds(&mut self, calls: u32) -> Result<f64, Box<dyn Error>> {
        let run = &mut self.run;
        let mut all = || {
            let began = Instant::now();
            (0..calls).try_for_each(|_| run())?;
            Ok(began.elapsed().as_secs_f64())
        };
        let done = match &self.pool {
            Some(pool) => pool.install(all),
            None => all(),
        };
        done.map_err(|error: Box<dyn Error + Send + Sync>| -> Box<dyn Error> { error })
    }
}

/// A case as a call.
struct Timed<'a, T>(&'a Case, Inputs<T>);

impl<T: Element> Masked for Timed<'_, T> {
    type Out = (Call, Load);

    fn with<M: Mask + Send + 'static>(self, mask: M) -> Result<(Call, Load), Box<dyn Error>> {
        let Timed(case, inputs) = self;
        let (attention, backward, kind) = (Attention::new().mask(mask), case.kind.backward(), case.kind);
        let cost = inputs.with_kv(|kv| Ok::<_, regard::Error>(attention.plan(inputs.q.view(), kv)?.cost()))?;
        let lse = match kind {
            Kind::Maps => Some(inputs.with_kv(|kv| attention.plan(inputs.q.view(), kv)?.forward())?.lse),
            _ => None,
        };
        let run = move || {
            inputs.with_kv(|kv| {
                let plan = attention.plan(inputs.q.view(), kv)?;
                if kind == Kind::Inspect {
                    black_box(plan.inspect(&Inspect::default())?);
                    return Ok(());
                }
                if let (Kind::Maps, Some(lse)) = (kind, &lse) {
                    let (q_len, kv_len) = (plan.shape().q_len, plan.shape().kv_len);
                    let map = Grid { rows: q_len.div_ceil(256), keys: kv_len.div_ceil(256) };
                    black_box(plan.maps(lse.view(), &plan.whole(), &[map, Grid { rows: q_len, keys: 1 }])?);
                    return Ok(());
                }
                let output = black_box(plan.forward()?);
                if backward {
                    black_box(plan.backward(&output, inputs.d_out.view())?);
                }
                Ok(())
            })
        };
        Ok((Box::new(run), Load::of(&cost, backward)))
    }
}
