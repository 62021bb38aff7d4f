//! Looks on as a decoder reads a text, and keeps what the report needs.

use regard::{Element, Facts, Grid, Inspect, View};
use regard_nn::{Attending, Observer};

use crate::ablate::HeadId;
use crate::levels::{Level, block, top};
use crate::means::{Sums, profiles};
use crate::report::{Profiles, Top};

/// What is known of one head along the first text.
#[derive(Clone, Debug)]
pub(crate) struct Detail {
    pub(crate) profiles: Profiles,
    /// The mass that each bin of keys receives in all, by its keys.
    pub(crate) received: Vec<f32>,
    pub(crate) levels: Vec<Level>,
    pub(crate) top: Option<Top>,
}

/// An observer of one text.
pub(crate) struct Watch<'a> {
    pub(crate) what: &'a Inspect,
    /// Heads that give zeros.
    pub(crate) without: &'a [HeadId],
    /// Of every head, layer-major.
    pub(crate) sums: &'a mut [Sums],
    /// Sums of what heads give, `[layers · heads, dim]`, where they are wanted.
    pub(crate) outputs: Option<&'a mut [Vec<f64>]>,
    /// Of every head, where they are wanted, and the width of bins.
    pub(crate) details: Option<(&'a mut Vec<Detail>, usize)>,
    /// Called after each layer.
    pub(crate) step: &'a mut (dyn FnMut() + Send),
}

impl Observer for Watch<'_> {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        let facts = attending.inspect(self.what)?;
        let shape = attending.plan.shape();
        let (heads, n, dim, layer) = (shape.q_heads, shape.q_len, shape.value_dim, attending.layer);
        for (head, sums) in self.sums[layer * heads..][..heads].iter_mut().enumerate() {
            sums.add(&facts, attending.lse, self.what.recent, (head, n));
        }
        if let Some(outputs) = &mut self.outputs {
            let mut row = vec![0.0; heads * dim];
            for out in attending.out.chunks_exact(heads * dim) {
                T::widen(out, &mut row);
                let of_heads = outputs[layer * heads..].iter_mut().zip(row.chunks_exact(dim));
                of_heads.for_each(|(sums, x)| sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x)));
            }
        }
        if let Some((details, width)) = &mut self.details {
            details.extend(detail(&attending, &facts, *width)?);
        }
        for (_, head) in self.without.iter().filter(|(of, _)| *of == layer) {
            attending.head_rows(*head).for_each(|row| row.fill(T::default()));
        }
        (self.step)();
        Ok(())
    }
}

/// The details of all heads of a layer.
fn detail<T: Element>(attending: &Attending<'_, T>, facts: &Facts, width: usize) -> regard_nn::Result<Vec<Detail>> {
    let (plan, shape) = (attending.plan, attending.plan.shape());
    let (heads, n) = (shape.q_heads, shape.q_len);
    let lse = View::new(attending.lse, [1, heads, n, 1])?;
    let (edge, grids) = (block(n), [Grid { rows: block(n), keys: block(n) }, Grid { rows: n, keys: width }]);
    let maps = plan.maps(lse, &plan.whole(), &grids)?;
    let [map, received] = [0, 1].map(|i| maps[i].data());
    let (cells, bins) = (map.len() / heads, received.len() / heads);
    let of_head = |head: usize| {
        let keys = |bin: usize| width.min(n - bin * width) as f32;
        let received = received[head * bins..][..bins].iter().enumerate();
        Detail {
            profiles: profiles(facts, (head, n), width),
            received: received.map(|(bin, mean)| mean * n as f32 / keys(bin)).collect(),
            levels: Level::new(n, edge, map[head * cells..][..cells].to_vec()).pyramid(),
            top: top(facts, (head, n)),
        }
    };
    Ok((0..heads).map(of_head).collect())
}
