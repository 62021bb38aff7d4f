//! Bugs and faults that a test can switch on, to see that the simulation finds the ones and survives the others.

/// A way to be wrong. None is ever present outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A sequence that ends keeps one reference to a page.
    KeepsReference,
    /// A shared page is written where it is.
    CopiesNoPage,
    /// Equal hashes are taken for equal tokens.
    TrustsHash,
    /// Requests with different salts share pages.
    ForgetsSalt,
    /// Pages are freed while the window still sees them.
    SlidesTooFar,
    /// A page that comes back from swap goes to the wrong place.
    SwapsPages,
    /// A page is looked up before it is whole.
    CachesEarly,
    /// A request that has ended is told of again.
    EndsTwice,
}

#[cfg(test)]
impl Bug {
    pub(crate) const ALL: [Self; 8] = [
        Self::KeepsReference,
        Self::CopiesNoPage,
        Self::TrustsHash,
        Self::ForgetsSalt,
        Self::SlidesTooFar,
        Self::SwapsPages,
        Self::CachesEarly,
        Self::EndsTwice,
    ];
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn present(_: Bug) -> bool {
    false
}

/// Bits of a prefix's hash that count.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn hash_mask() -> u128 {
    u128::MAX
}

/// Whether there is no page for this call, though some are free.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn allocation_fails() -> bool {
    false
}

#[cfg(test)]
pub(crate) use switches::{allocation_fails, hash_mask, present};

#[cfg(test)]
pub(crate) mod switches {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        pub(crate) static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
        pub(crate) static HASH_MASK: Cell<u128> = const { Cell::new(u128::MAX) };
        /// Allocations until one fails, and how many fail then.
        pub(crate) static ALLOCATION: Cell<(u64, u64)> = const { Cell::new((u64::MAX, 0)) };
    }

    pub(crate) fn present(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }

    pub(crate) fn hash_mask() -> u128 {
        HASH_MASK.get()
    }

    pub(crate) fn allocation_fails() -> bool {
        let (left, fails) = ALLOCATION.get();
        match (left, fails) {
            (u64::MAX, _) | (0, 0) => false,
            (0, n) => {
                ALLOCATION.set((0, n - 1));
                true
            }
            (n, fails) => {
                ALLOCATION.set((n - 1, fails));
                false
            }
        }
    }
}
