//! The page pool against a model that stores every token: random appends, forks, truncations and frees.

use std::rc::Rc;

use regard::{CacheShape, Error, KvCache, Sequence, Tensor};
use regard_testing::rng::Rng;

const SHAPE: CacheShape = CacheShape { layers: 2, pages: 14, page_size: 3, kv_heads: 2, head_dim: 3, value_dim: 2 };

/// A sequence as the pool has it, and as the model has it: its tokens, and pages that are shared by being the same `Rc`.
struct Pair {
    real: Sequence,
    tokens: Vec<u32>,
    pages: Vec<Rc<()>>,
}

struct World {
    cache: KvCache<f32>,
    pairs: Vec<Pair>,
    next_token: u32,
    rng: Rng,
}

/// Element `d` of the key (`side` 0) or value (`side` 1) of a token: no two are alike.
fn element(side: usize, layer: usize, head: usize, token: u32, d: usize) -> f32 {
    (((token as usize * 2 + side) * SHAPE.layers + layer) * SHAPE.kv_heads + head) as f32 * 4.0 + d as f32
}

/// The rows of some tokens, `[1, kv_heads, tokens, dim]`.
fn rows(side: usize, layer: usize, tokens: &[u32], dim: usize) -> Tensor<f32> {
    let mut data = Vec::new();
    for head in 0..SHAPE.kv_heads {
        for &token in tokens {
            data.extend((0..dim).map(|d| element(side, layer, head, token, d)));
        }
    }
    Tensor::from_vec(data, [1, SHAPE.kv_heads, tokens.len(), dim]).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        World { cache: KvCache::new(SHAPE).unwrap(), pairs: Vec::new(), next_token: 1, rng: Rng::new(seed) }
    }

    fn step(&mut self) {
        let i = self.rng.below(self.pairs.len().max(1));
        match self.rng.below(10) {
            _ if self.pairs.is_empty() => self.start(),
            0 => self.start(),
            1..=5 => self.append(i),
            6..=7 => self.fork(i),
            8 => self.truncate(i),
            _ => self.free(i),
        }
    }

    fn start(&mut self) {
        self.pairs.push(Pair { real: self.cache.sequence(), tokens: Vec::new(), pages: Vec::new() });
    }

    /// Appends up to three pages of new tokens, or learns that the pool is full.
    fn append(&mut self, i: usize) {
        let n = self.rng.below(3 * SHAPE.page_size + 1);
        let free = self.free_pages();
        let pair = &mut self.pairs[i];
        let len = pair.tokens.len() + n;
        let copied =
            n > 0 && !pair.tokens.len().is_multiple_of(SHAPE.page_size) && Rc::strong_count(pair.pages.last().unwrap()) > 1;
        let needed = len.div_ceil(SHAPE.page_size) - pair.pages.len() + usize::from(copied);
        let grown = self.cache.grow(&mut pair.real, n);
        if needed > free {
            assert_eq!(grown, Err(Error::CacheFull { needed, free, pages: SHAPE.pages }));
            return;
        }
        assert_eq!(grown, Ok(()));
        if copied {
            *pair.pages.last_mut().unwrap() = Rc::new(());
        }
        pair.pages.resize_with(len.div_ceil(SHAPE.page_size), || Rc::new(()));
        let new: Vec<u32> = (self.next_token..).take(n).collect();
        self.next_token += n as u32;
        for layer in 0..SHAPE.layers {
            let (k, v) = (rows(0, layer, &new, SHAPE.head_dim), rows(1, layer, &new, SHAPE.value_dim));
            self.cache.write(layer, &pair.real, pair.tokens.len(), k.view(), v.view()).unwrap();
        }
        pair.tokens.extend(new);
    }

    fn fork(&mut self, i: usize) {
        let pair = &self.pairs[i];
        let real = self.cache.fork(&pair.real).unwrap();
        let twin = Pair { real, tokens: pair.tokens.clone(), pages: pair.pages.clone() };
        self.pairs.push(twin);
    }

    fn truncate(&mut self, i: usize) {
        let pair = &mut self.pairs[i];
        let len = self.rng.below(pair.tokens.len() + 1);
        self.cache.truncate(&mut pair.real, len).unwrap();
        pair.tokens.truncate(len);
        pair.pages.truncate(len.div_ceil(SHAPE.page_size));
    }

    fn free(&mut self, i: usize) {
        let pair = self.pairs.swap_remove(i);
        self.cache.free(pair.real).unwrap();
    }

    /// Pages that the model does not hold.
    fn free_pages(&self) -> usize {
        let mut held: Vec<*const ()> = self.pairs.iter().flat_map(|p| &p.pages).map(Rc::as_ptr).collect();
        held.sort_unstable();
        held.dedup();
        SHAPE.pages - held.len()
    }

    /// Everything the pool says equals what the model says.
    fn check(&self) {
        assert_eq!(self.cache.free_pages(), self.free_pages());
        let page_bytes = self.cache.bytes() / SHAPE.pages;
        assert_eq!(self.cache.used_bytes(), page_bytes * (SHAPE.pages - self.free_pages()));
        for pair in &self.pairs {
            assert_eq!((pair.real.len(), pair.real.is_empty()), (pair.tokens.len(), pair.tokens.is_empty()));
            assert_eq!(pair.real.block_table().len(), pair.pages.len());
            for (&page, model) in pair.real.block_table().iter().zip(&pair.pages) {
                assert_eq!(self.cache.owners(page) as usize, Rc::strong_count(model));
            }
            for (position, &token) in pair.tokens.iter().enumerate() {
                self.check_token(&pair.real, position, token);
            }
        }
    }

    fn check_token(&self, seq: &Sequence, position: usize, token: u32) {
        for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let keys = &self.cache.key_rows(layer, seq, head, position)[..SHAPE.head_dim];
            let values = &self.cache.value_rows(layer, seq, head, position)[..SHAPE.value_dim];
            (0..SHAPE.head_dim).for_each(|d| assert_eq!(keys[d], element(0, layer, head, token, d)));
            (0..SHAPE.value_dim).for_each(|d| assert_eq!(values[d], element(1, layer, head, token, d)));
        }
    }
}

#[test]
fn the_pool_behaves_as_if_every_sequence_had_its_own_tokens() {
    let mut fullest = usize::MAX;
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
            world.check();
            fullest = fullest.min(world.cache.free_pages());
        }
        while !world.pairs.is_empty() {
            world.free(0);
            world.check();
        }
        assert_eq!(world.cache.free_pages(), SHAPE.pages);
    }
    assert_eq!(fullest, 0, "the walks never filled the pool");
}
