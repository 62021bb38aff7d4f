//! Attention through all layers: rollout and flow, two approximations of how much each position of the last layer draws on each token.
//!
//! ```text
//!   A_l = ½ I + ½ Ā_l                  Ā_l the mean of a layer's heads
//!   rollout = A_L · … · A_1            the weights of all paths, each multiplied
//!   flow(i, j)                         the most that can go from i down to j, where no step carries more than its weight in A_l
//! ```
//! Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", §§2–3. Both take the residual stream and attention to matter
//! alike, and know nothing of values, projections and feed-forward layers: **approximate**, by design. Texts of more than 256 tokens are
//! pooled, which approximates further.

use std::collections::VecDeque;

use regard::{Element, Grid, View};
use regard_nn::{Attending, Decoder, Observer};

use crate::Result;
use crate::levels::block;

/// What each layer mixes: `A_l` of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// Tokens on the edge of a cell.
    pub block: usize,
    /// Rows and columns.
    pub edge: usize,
    /// For each layer, from the first, `[edge, edge]`, row-major; rows sum to 1.
    pub layers: Vec<Vec<f64>>,
}

impl Mixed {
    /// That of a decoder on a text.
    ///
    /// # Errors
    /// When the decoder cannot read the text.
    pub fn of(decoder: &Decoder, tokens: &[u32]) -> Result<Mixed> {
        let block = block(tokens.len());
        let mut mixed = Mixed { block, edge: tokens.len().div_ceil(block), layers: Vec::new() };
        decoder.observe(tokens, &mut mixed)?;
        Ok(mixed)
    }

    /// The rollout, `[edge, edge]`, row-major; rows sum to 1.
    pub fn rollout(&self) -> Vec<f64> {
        let edge = self.edge;
        let identity: Vec<f64> = (0..edge * edge).map(|i| f64::from(u8::from(i / edge == i % edge))).collect();
        self.layers.iter().fold(identity, |below, layer| {
            let mut all = vec![0.0; edge * edge];
            for (shares, to) in layer.chunks(edge).zip(all.chunks_mut(edge)) {
                for (share, row) in shares.iter().zip(below.chunks(edge)) {
                    to.iter_mut().zip(row).for_each(|(to, x)| *to += share * x);
                }
            }
            all
        })
    }

    /// The flow from a row of the last layer to each column, `[edge]`, from 0 to 1: a network for each column, so many times slower than
    /// the rollout. There is none from a row beyond the last.
    pub fn flow(&self, row: usize) -> Vec<f64> {
        if row >= self.edge {
            return Vec::new();
        }
        (0..self.edge).map(|column| Network::new(self).most(row, column)).collect()
    }
}

impl Observer for Mixed {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let (plan, shape, edge) = (attending.plan, attending.plan.shape(), self.edge);
        let lse = View::new(attending.lse, [1, shape.q_heads, shape.q_len, 1])?;
        let maps = plan.maps(lse, &plan.whole(), &[Grid { rows: self.block, keys: self.block }])?;
        let mut layer = vec![0.0; edge * edge];
        for (row, to) in layer.chunks_mut(edge).enumerate() {
            for map in maps[0].data().chunks(edge * edge) {
                to.iter_mut().zip(&map[row * edge..]).for_each(|(to, x)| *to += f64::from(*x));
            }
            let all = to.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            to.iter_mut().for_each(|x| *x *= 0.5 / all);
            to[row] += 0.5;
        }
        self.layers.push(layer);
        Ok(())
    }
}

/// Positions of all layers and what the steps between them can still carry. Position `i` after `l` layers is node `l · edge + i`.
///
/// Source: Dinic 1970, "Algorithm for solution of a problem of maximum flow in networks with power estimation".
struct Network {
    edge: usize,
    /// For each layer, what can still go down from row to column.
    down: Vec<Vec<f64>>,
    /// And what can be taken back.
    up: Vec<Vec<f64>>,
}

/// What is less is rounding.
const NOTHING: f64 = 1e-12;

impl Network {
    fn new(mixed: &Mixed) -> Self {
        let up = mixed.layers.iter().map(|layer| vec![0.0; layer.len()]).collect();
        Network { edge: mixed.edge, down: mixed.layers.clone(), up }
    }

    /// The most that goes from a row of the last layer to a token.
    fn most(mut self, row: usize, token: usize) -> f64 {
        let from = self.down.len() * self.edge + row;
        let mut all = 0.0;
        loop {
            let distances = self.distances(from);
            if distances[token] == usize::MAX {
                return all;
            }
            let mut next = vec![0; distances.len()];
            loop {
                let more = self.push((from, token), f64::INFINITY, &distances, &mut next);
                if more <= NOTHING {
                    break;
                }
                all += more;
            }
        }
    }

    /// The neighbours of a node, by number: the positions of the layer below, then those of the one above.
    fn neighbour(&self, node: usize, i: usize) -> Option<(usize, &f64)> {
        let (layer, own, other) = (node / self.edge, node % self.edge, i % self.edge);
        match i < self.edge {
            true => Some(((layer.checked_sub(1)?) * self.edge + other, &self.down[layer - 1][own * self.edge + other])),
            false => Some(((layer + 1) * self.edge + other, &self.up.get(layer)?[other * self.edge + own])),
        }
    }

    /// Steps from a node to each other, where something can still go.
    fn distances(&self, from: usize) -> Vec<usize> {
        let mut distances = vec![usize::MAX; (self.down.len() + 1) * self.edge];
        distances[from] = 0;
        let mut waiting = VecDeque::from([from]);
        while let Some(node) = waiting.pop_front() {
            for (other, room) in (0..2 * self.edge).filter_map(|i| self.neighbour(node, i)) {
                if *room > NOTHING && distances[other] == usize::MAX {
                    distances[other] = distances[node] + 1;
                    waiting.push_back(other);
                }
            }
        }
        distances
    }

    /// Sends at most so much along one of the shortest ways; what arrives. `next` are the neighbours that nodes have still to try.
    fn push(&mut self, (node, to): (usize, usize), most: f64, distances: &[usize], next: &mut [usize]) -> f64 {
        if node == to {
            return most;
        }
        while next[node] < 2 * self.edge {
            let i = next[node];
            if let Some((other, &room)) = self.neighbour(node, i)
                && room > NOTHING
                && distances[other] == distances[node] + 1
            {
                let sent = self.push((other, to), most.min(room), distances, next);
                if sent > NOTHING {
                    let (layer, own, other) = (node / self.edge, node % self.edge, i % self.edge);
                    let (from, to, place) = match i < self.edge {
                        true => (&mut self.down[layer - 1], &mut self.up[layer - 1], own * self.edge + other),
                        false => (&mut self.up[layer], &mut self.down[layer], other * self.edge + own),
                    };
                    from[place] -= sent;
                    to[place] += sent;
                    return sent;
                }
            }
            next[node] += 1;
        }
        0.0
    }
}
