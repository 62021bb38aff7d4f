//! Counts: integers whose arithmetic never wraps.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::{Serialize, Serializer};

/// Some operations, bytes, parameters or nanoseconds.
///
/// What is above 2¹²⁸ − 2 becomes [`Count::TOO_LARGE`] and stays it, so that formulas can be written as they are in papers, and one look
/// at the sums tells whether all of it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(u128);

impl Count {
    /// Nothing.
    pub const ZERO: Count = Count(0);
    /// More than can be counted.
    pub const TOO_LARGE: Count = Count(u128::MAX);

    /// So many; 2¹²⁸ − 1 is [`Count::TOO_LARGE`].
    pub const fn new(n: u128) -> Count {
        Count(n)
    }

    /// The integer.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// `⌈self / by⌉`, and [`Count::TOO_LARGE`] by zero.
    pub(crate) fn over(self, by: u64) -> Count {
        match self {
            Count::TOO_LARGE => self,
            Count(n) => n.checked_add(u128::from(by).saturating_sub(1)).map_or(Count::TOO_LARGE, |n| match by {
                0 => Count::TOO_LARGE,
                by => Count(n / u128::from(by)),
            }),
        }
    }

    /// `self − other`, or zero.
    pub(crate) fn less(self, other: Count) -> Count {
        if self == Count::TOO_LARGE { self } else { Count(self.0.saturating_sub(other.0)) }
    }

    /// `⌊self / by⌋`, and none by zero.
    pub(crate) fn times_it_holds(self, by: Count) -> Option<Count> {
        self.0.checked_div(by.0).map(Count)
    }
}

impl From<u64> for Count {
    fn from(n: u64) -> Self {
        Count(n.into())
    }
}

impl Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count(self.0.saturating_add(other.0))
    }
}

impl Mul for Count {
    type Output = Count;

    fn mul(self, other: Count) -> Count {
        Count(self.0.saturating_mul(other.0))
    }
}

impl Mul<u64> for Count {
    type Output = Count;

    fn mul(self, other: u64) -> Count {
        self * Count::from(other)
    }
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Count>>(all: I) -> Count {
        all.fold(Count::ZERO, Add::add)
    }
}

impl PartialEq<u128> for Count {
    fn eq(&self, other: &u128) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // 64 bits, where they are enough, are read by everything.
        match u64::try_from(self.0) {
            Ok(n) => to.serialize_u64(n),
            Err(_) => to.serialize_u128(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_stays_so() {
        let big = Count(1 << 100);
        for count in [
            big * big,
            big * big + big,
            big * 7 * (1 << 60),
            Count::TOO_LARGE + Count(1),
            Count::TOO_LARGE.over(7),
            Count(5).over(0),
        ] {
            assert_eq!(count, Count::TOO_LARGE);
        }
        assert_eq!([0, 1, 7, 8].map(|n| Count(n).over(7).get()), [0, 1, 1, 2]);
        assert_eq!(Count(10).times_it_holds(Count(3)), Some(Count(3)));
        assert_eq!((Count(2).less(Count(3)), Count(3).times_it_holds(Count(0))), (Count(0), None));
    }
}
