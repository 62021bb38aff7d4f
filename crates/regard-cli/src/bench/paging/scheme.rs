//! How memory for a request's keys and values is set aside.
//!
//! Source: Kwon et al. 2023, §6.1: Orca with the length that a request may have, within a factor of two of what it will have, or
//! exactly that; and pages.

use super::lengths::Lengths;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// As long as any text may be.
    Maximum,
    /// The next power of two above what will be written.
    PowerOfTwo,
    /// What will be written, as if that were known.
    Exact,
    /// Pages as they are needed: regard's engine.
    Pages,
}

impl Scheme {
    pub(super) const ALL: [Self; 4] = [Self::Maximum, Self::PowerOfTwo, Self::Exact, Self::Pages];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Maximum => "the longest text",
            Self::PowerOfTwo => "powers of two",
            Self::Exact => "the true length",
            Self::Pages => "pages",
        }
    }

    /// The share of memory that held tokens, per cent, in figure 2 of the paper.
    pub(super) fn in_paper(self) -> f64 {
        match self {
            Self::Maximum => 20.4,
            Self::PowerOfTwo => 26.8,
            Self::Exact => 38.2,
            Self::Pages => 96.3,
        }
    }

    /// Slots to set aside in one piece; none where pages are taken one by one.
    pub(super) fn reserved(self, lengths: Lengths, context: usize) -> Option<usize> {
        let Lengths { prompt, output } = lengths;
        match self {
            Self::Maximum => Some(context),
            Self::PowerOfTwo => Some((prompt + output.next_power_of_two()).min(context)),
            Self::Exact => Some(prompt + output),
            Self::Pages => None,
        }
    }
}
