//! Looks on as a decoder reads a text, and keeps what the report needs.

use std::ops::Range;

use regard::{Element, Facts, Grid, Inspect, Region};
use regard_nn::{Attending, Decoder, Observer};

use crate::ablate::HeadId;
use crate::levels::{Level, block, top};
use crate::means::{Sums, profiles};
use crate::report::{Profiles, RangeMass, Rounding, Top, Zoomed, short};
use crate::resample::Samples;
use crate::rounding;
use crate::zoom::Zoom;

/// What is known of one head along the first text.
#[derive(Clone, Debug)]
pub(crate) struct Detail {
    pub(crate) profiles: Profiles,
    /// The mass that each bin of keys receives in all, by its keys.
    pub(crate) received: Vec<f32>,
    pub(crate) levels: Vec<Level>,
    pub(crate) zooms: Vec<Zoomed>,
    pub(crate) top: Option<Top>,
    /// The mass on each named range.
    pub(crate) ranges: Vec<RangeMass>,
    pub(crate) error: Rounding,
}

/// What heads give, before the output projection, in all positions of the texts that were read.
pub(crate) struct Outputs {
    /// Sums over positions, `[layers · heads, dim]`.
    sums: Vec<Vec<f64>>,
    pub(crate) samples: Samples,
    /// Positions of the texts before this one.
    pub(crate) begin: usize,
}

impl Outputs {
    pub(crate) fn new(decoder: &Decoder, samples: Samples) -> Self {
        let config = decoder.config();
        let sums = vec![vec![0.0; config.head_dim]; config.layers.len() * config.num_attention_heads];
        Outputs { sums, samples, begin: 0 }
    }

    fn add<T: Element>(&mut self, layer: usize, rows: &[T], [heads, dim]: [usize; 2]) {
        let (mut row, n) = (vec![0.0; heads * dim], rows.len() / (heads * dim));
        for out in rows.chunks_exact(heads * dim) {
            T::widen(out, &mut row);
            let of_heads = self.sums[layer * heads..].iter_mut().zip(row.chunks_exact(dim));
            of_heads.for_each(|(sums, x)| sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x)));
        }
        self.samples.keep(layer, self.begin, rows, n);
    }

    /// The mean over all positions, of each head.
    pub(crate) fn means(&self) -> Vec<Vec<f32>> {
        self.sums.iter().map(|sums| sums.iter().map(|sum| (sum / self.begin.max(1) as f64) as f32).collect()).collect()
    }
}

/// An observer of one text.
pub(crate) struct Watch<'a> {
    pub(crate) what: &'a Inspect,
    /// Where the text has special tokens.
    pub(crate) special: &'a [usize],
    /// Parts that are told beside the details.
    pub(crate) zooms: &'a [Zoom],
    /// Heads that give zeros.
    pub(crate) without: &'a [HeadId],
    /// Of every head, layer-major.
    pub(crate) sums: &'a mut [Sums],
    /// What heads give, where it is wanted.
    pub(crate) outputs: Option<&'a mut Outputs>,
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
        for (head, mass) in special(&attending, self.special)?.into_iter().enumerate() {
            self.sums[layer * heads + head].add_special(mass);
        }
        if let Some(outputs) = &mut self.outputs {
            outputs.add(layer, attending.out, [heads, dim]);
        }
        if let Some((details, width)) = &mut self.details {
            details.extend(detail(&attending, &facts, *width, self.what)?);
            for zoom in self.zooms.iter().filter(|zoom| zoom.head.0 == layer) {
                details[layer * heads + zoom.head.1].zooms.push(zoom.of(&attending)?);
            }
        }
        for (_, head) in self.without.iter().filter(|(of, _)| *of == layer) {
            attending.head_rows(*head).for_each(|row| row.fill(T::default()));
        }
        (self.step)();
        Ok(())
    }
}

/// The mass that tokens in some positions receive from all rows, of each head; nothing where there are none.
fn special<T: Element>(attending: &Attending<'_, T>, positions: &[usize]) -> regard_nn::Result<Vec<f64>> {
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else { return Ok(Vec::new()) };
    let (n, keys) = (attending.plan.shape().q_len, first..last + 1);
    let region = Region { keys: keys.clone(), ..attending.plan.whole() };
    let maps = attending.maps(&region, &[Grid { rows: n, keys: 1 }])?;
    // A cell of all rows is their mean.
    let mass = |cells: &[f32]| n as f64 * positions.iter().map(|at| f64::from(cells[at - first])).sum::<f64>();
    Ok(maps[0].data().chunks_exact(keys.len()).map(mass).collect())
}

/// The details of all heads of a layer.
fn detail<T: Element>(attending: &Attending<'_, T>, facts: &Facts, width: usize, what: &Inspect) -> regard_nn::Result<Vec<Detail>> {
    let (plan, shape) = (attending.plan, attending.plan.shape());
    let (heads, n) = (shape.q_heads, shape.q_len);
    let (edge, grids) = (block(n), [Grid { rows: block(n), keys: block(n) }, Grid { rows: n, keys: width }]);
    let maps = attending.maps(&plan.whole(), &grids)?;
    let [map, received] = [0, 1].map(|i| maps[i].data());
    let (cells, bins) = (map.len() / heads, received.len() / heads);
    let of_head = |(head, error): (usize, Rounding)| {
        let keys = |bin: usize| width.min(n - bin * width) as f32;
        let received = received[head * bins..][..bins].iter().enumerate();
        Detail {
            profiles: profiles(facts, (head, n), width),
            received: received.map(|(bin, mean)| mean * n as f32 / keys(bin)).collect(),
            levels: Level::new(n, edge, map[head * cells..][..cells].to_vec()).pyramid(),
            zooms: Vec::new(),
            top: top(facts, (head, n)),
            ranges: ranges(facts, (head, n), what),
            error,
        }
    };
    Ok(rounding::errors(plan)?.into_iter().enumerate().map(of_head).collect())
}

/// The mass on the named ranges, which follow that of the first token.
fn ranges(facts: &Facts, (head, n): (usize, usize), what: &Inspect) -> Vec<RangeMass> {
    let all = what.ranges.len();
    let mass = |range: usize, row: usize| f64::from(facts.ranges.data()[(head * n + row) * all + range]);
    let of = |(i, range): (usize, &Range<usize>)| {
        let rows = range.end - 1..n;
        let mean = rows.clone().map(|row| mass(i, row)).sum::<f64>() / rows.len() as f64;
        RangeMass { mass: short(mean), last: short(mass(i, n - 1)) }
    };
    what.ranges.iter().enumerate().skip(1).map(of).collect()
}
