//! A pool that gives out contiguous pieces by the buddy system, as servers did that reserve memory for each request.
//!
//! Source: Knowlton 1965, "A fast storage allocator".

use std::collections::BTreeSet;

/// A pool of slots; pieces are powers of two, at multiples of their size.
#[derive(Debug)]
pub(super) struct Buddies {
    slots: usize,
    /// Where free pieces of `2^order` slots begin.
    free: Vec<BTreeSet<usize>>,
}

/// A piece that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    start: usize,
    order: usize,
}

impl Buddies {
    pub(super) fn new(slots: usize) -> Self {
        let mut free = vec![BTreeSet::new(); usize::BITS as usize];
        let mut start = 0;
        for order in (0..usize::BITS as usize - 1).rev().filter(|order| slots >> order & 1 == 1) {
            free[order].insert(start);
            start += 1 << order;
        }
        Self { slots, free }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// A piece of at least `slots`, the smallest that can be cut.
    pub(super) fn take(&mut self, slots: usize) -> Option<Piece> {
        let order = slots.next_power_of_two().trailing_zeros() as usize;
        let found = (order..self.free.len()).find(|larger| !self.free[*larger].is_empty())?;
        let start = self.free[found].pop_first()?;
        for half in order..found {
            self.free[half].insert(start + (1 << half));
        }
        Some(Piece { start, order })
    }

    /// Gives a piece back, and joins it with its buddy where that is free.
    pub(super) fn release(&mut self, piece: Piece) {
        let Piece { mut start, mut order } = piece;
        while self.free[order].remove(&(start ^ (1 << order))) {
            start &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(start);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Random;
    use super::*;

    #[test]
    fn pieces_never_overlap_and_all_comes_back() {
        let (mut pool, mut random) = (Buddies::new(15_700), Random::new(3));
        let whole = pool.free.clone();
        let mut held: Vec<Piece> = Vec::new();
        for _ in 0..2000 {
            if random.uniform() < 0.4 && !held.is_empty() {
                pool.release(held.swap_remove(random.below(held.len())));
            } else if let Some(piece) = pool.take(1 + random.below(900)) {
                let end = piece.start + (1 << piece.order);
                assert!(end <= 15_700 && piece.start.is_multiple_of(1 << piece.order));
                assert!(held.iter().all(|other| other.start >= end || other.start + (1 << other.order) <= piece.start));
                held.push(piece);
            }
        }
        assert_eq!(pool.take(8193), None, "no piece is that large");
        held.into_iter().for_each(|piece| pool.release(piece));
        assert_eq!(pool.free, whole);
        assert_eq!((0..9).filter(|_| pool.take(2048).is_some()).count(), 7, "the longest texts that fit at once");
    }
}
