//! Every mask and every score, made for given sizes: what the generic tests walk through.
//!
//! A new mask or score is covered by every kernel, dtype and layout once it has a line here.

mod masks;
mod scores;

pub use masks::{VisitMask, masks};
pub use scores::{VisitScore, scores};
