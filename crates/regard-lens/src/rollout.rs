//! Attention through all layers: rollout and flow, two approximations of how much each position of the last layer draws on each token.
//!
//! ```text
//!   A_l = ½ I + ½ Ā_l                  Ā_l the mean of a layer's heads
//!   rollout = A_L · … · A_1            the weights of all paths, each multiplied
//!   flow(i, j)                         the most that can go from i down to j, where no step carries more than its weight in A_l
//! ```
//! Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", §§2–3. Both take the residual stream and attention to matter
//! alike, and know nothing of values, projections and feed-forward layers: **approximate**, by design. [`Mixed::of`] pools texts of more than
//! 256 tokens, which approximates further; [`Mixed::exact`] does not.

use std::collections::VecDeque;

use regard::{Element, Grid};
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
    /// That of a decoder on a text, of at most 256 rows.
    ///
    /// # Errors
    /// When the decoder cannot read the text.
    pub fn of(decoder: &Decoder, tokens: &[u32]) -> Result<Mixed> {
        Self::in_blocks(decoder, tokens, block(tokens.len()))
    }

    /// The same of as many rows as there are tokens: `layers · tokens²` numbers.
    ///
    /// # Errors
    /// When the decoder cannot read the text.
    pub fn exact(decoder: &Decoder, tokens: &[u32]) -> Result<Mixed> {
        Self::in_blocks(decoder, tokens, 1)
    }

    fn in_blocks(decoder: &Decoder, tokens: &[u32], block: usize) -> Result<Mixed> {
        let mut mixed = Mixed { block, edge: tokens.len().div_ceil(block), layers: Vec::new() };
        decoder.observe(tokens, &mut mixed)?;
        Ok(mixed)
    }

    /// The rollout, `[edge, edge]`, row-major; rows sum to 1.
    pub fn rollout(&self) -> Vec<f64> {
        (0..self.edge).flat_map(|row| self.rollout_of(row)).collect()
    }

    /// One row of it, `[edge]`. There is none beyond the last.
    pub fn rollout_of(&self, row: usize) -> Vec<f64> {
        if row >= self.edge {
            return Vec::new();
        }
        let one = (0..self.edge).map(|i| f64::from(u8::from(i == row))).collect();
        self.layers.iter().rev().fold(one, |above: Vec<f64>, layer| {
            let mut all = vec![0.0; self.edge];
            for (share, row) in above.iter().zip(layer.chunks(self.edge)) {
                all.iter_mut().zip(row).for_each(|(to, x)| *to += share * x);
            }
            all
        })
    }

    /// The flow from a row of the last layer to each column, `[edge]`, from 0 to 1: the most that a network carries, for each column, so many
    /// times slower than the rollout. There is none from a row beyond the last.
    pub fn flow(&self, row: usize) -> Vec<f64> {
        self.flow_and(row, &mut || ())
    }

    /// The same; `step` is called after each column.
    pub(crate) fn flow_and(&self, row: usize, step: &mut dyn FnMut()) -> Vec<f64> {
        if row >= self.edge {
            return Vec::new();
        }
        let mut network = Network::new(self);
        let to = |column| {
            let most = network.most(row, column);
            step();
            most
        };
        (0..self.edge).map(to).collect()
    }
}

impl Observer for Mixed {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let edge = self.edge;
        let maps = attending.maps(&attending.plan.whole(), &[Grid { rows: self.block, keys: self.block }])?;
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
struct Network<'a> {
    mixed: &'a Mixed,
    /// For each layer, what can still go down, `[row, column]`.
    down: Vec<Vec<f64>>,
    /// And what can be taken back, `[column, row]`, so that the ways from a node lie together.
    up: Vec<Vec<f64>>,
    /// The nodes that have something to take back.
    fed: Vec<bool>,
    /// Every step that carried something: layer, row, column.
    carried: Vec<[usize; 3]>,
}

/// What is less is rounding.
const NOTHING: f64 = 1e-12;

impl<'a> Network<'a> {
    fn new(mixed: &'a Mixed) -> Self {
        let up = mixed.layers.iter().map(|layer| vec![0.0; layer.len()]).collect();
        let fed = vec![false; (mixed.layers.len() + 1) * mixed.edge];
        Network { mixed, down: mixed.layers.clone(), up, fed, carried: Vec::new() }
    }

    /// The most that goes from a row of the last layer to a token. The network is then as it was.
    fn most(&mut self, row: usize, token: usize) -> f64 {
        let from = self.down.len() * self.mixed.edge + row;
        let mut all = 0.0;
        loop {
            let distances = self.distances(from, token);
            if distances[token] == usize::MAX {
                self.clear();
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

    /// Takes all back.
    fn clear(&mut self) {
        let edge = self.mixed.edge;
        for [layer, row, column] in self.carried.drain(..) {
            let place = row * edge + column;
            self.down[layer][place] = self.mixed.layers[layer][place];
            self.up[layer][column * edge + row] = 0.0;
            self.fed[layer * edge + column] = false;
        }
    }

    /// The neighbours of a node, by number: the positions of the layer below, then those of the one above.
    fn neighbour(&self, node: usize, i: usize) -> Option<(usize, f64)> {
        let edge = self.mixed.edge;
        let (layer, own, other) = (node / edge, node % edge, i % edge);
        let (to, room) = match i < edge {
            true => (layer.checked_sub(1)?, &self.down[layer - 1]),
            false => (layer + 1, self.up.get(layer)?),
        };
        Some((to * edge + other, room[own * edge + other]))
    }

    /// How many there are to which something may go.
    fn neighbours(&self, node: usize) -> usize {
        if self.fed[node] { 2 * self.mixed.edge } else { self.mixed.edge }
    }

    /// Steps from a node to each other, where something can still go, as far as `to`.
    fn distances(&self, from: usize, to: usize) -> Vec<usize> {
        let mut distances = vec![usize::MAX; self.fed.len()];
        distances[from] = 0;
        let mut waiting = VecDeque::from([from]);
        while let Some(node) = waiting.pop_front() {
            for (other, room) in (0..self.neighbours(node)).filter_map(|i| self.neighbour(node, i)) {
                if room > NOTHING && distances[other] == usize::MAX {
                    distances[other] = distances[node] + 1;
                    waiting.push_back(other);
                }
            }
            if distances[to] != usize::MAX {
                break;
            }
        }
        distances
    }

    /// Sends at most so much along one of the shortest ways; what arrives. `next` are the neighbours that nodes have still to try.
    fn push(&mut self, (node, to): (usize, usize), most: f64, distances: &[usize], next: &mut [usize]) -> f64 {
        if node == to {
            return most;
        }
        while next[node] < self.neighbours(node) {
            let i = next[node];
            if let Some((other, room)) = self.neighbour(node, i)
                && room > NOTHING
                && distances[other] == distances[node] + 1
            {
                let sent = self.push((other, to), most.min(room), distances, next);
                if sent > NOTHING {
                    self.carry(node, i, sent);
                    return sent;
                }
            }
            next[node] += 1;
        }
        0.0
    }

    /// Takes note of what goes from a node to a neighbour.
    fn carry(&mut self, node: usize, i: usize, sent: f64) {
        let edge = self.mixed.edge;
        let (layer, own, other) = (node / edge, node % edge, i % edge);
        if i < edge {
            self.down[layer - 1][own * edge + other] -= sent;
            self.up[layer - 1][other * edge + own] += sent;
            self.fed[(layer - 1) * edge + other] = true;
            self.carried.push([layer - 1, own, other]);
        } else {
            self.up[layer][own * edge + other] -= sent;
            self.down[layer][other * edge + own] += sent;
        }
    }
}
