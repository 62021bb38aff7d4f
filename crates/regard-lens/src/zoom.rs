//! A part of one head's weights on the first text, as fine as it can be shown.
//!
//! A map of a long text is pooled. Of a part of it, weights are computed again from queries, keys and the log-sum-exp, and nothing else is
//! ([`regard::Plan::maps`]), so that 256 rows and 256 keys are exact to the token wherever they are.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use regard::{Element, Grid, Region};
use regard_nn::{Attending, Decoder};

use crate::ablate::{HeadId, check as check_head};
use crate::levels::{MOST, encoded};
use crate::report::{Map, Zoomed};
use crate::{Error, Result, Text};

/// Parts that a report has, at most: each is a map of up to 64 KiB.
const MOST_ZOOMS: usize = 64;

/// A part of a head's weights on the first text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zoom {
    /// The head.
    pub head: HeadId,
    /// Its rows: the tokens that read, counted from 0.
    pub rows: Range<usize>,
    /// Its keys: the tokens that are read.
    pub keys: Range<usize>,
}

impl Zoom {
    /// `LAYER.HEAD=ROWS,KEYS`, such as `2.5=1000..1256,0..256`: ranges of tokens, whose end is the first after them.
    ///
    /// # Errors
    /// When it is not of this form.
    pub fn parse(given: &str) -> Result<Self> {
        let range = |given: &str| {
            let (start, end) = given.split_once("..")?;
            Some(start.parse().ok()?..end.parse().ok()?)
        };
        let parts = || {
            let (head, part) = given.split_once('=')?;
            let ((layer, head), (rows, keys)) = (head.split_once('.')?, part.split_once(',')?);
            Some(Zoom { head: (layer.parse().ok()?, head.parse().ok()?), rows: range(rows)?, keys: range(keys)? })
        };
        let why = "is not LAYER.HEAD=ROWS,KEYS, such as 2.5=1000..1256,0..256".to_owned();
        parts().ok_or_else(|| Error::Zoom { given: given.to_owned(), why })
    }

    fn check(&self, decoder: &Decoder, first: &Text) -> Result<()> {
        check_head(decoder, self.head)?;
        let n = first.tokens.len();
        for (what, Range { start, end }) in [("rows", &self.rows), ("keys", &self.keys)] {
            if start >= end || *end > n {
                let why = format!(
                    "has the {what} {start}..{end}, which are not one token or more of the text {:?}, whose tokens are 0..{n}",
                    first.name
                );
                return Err(Error::Zoom { given: self.to_string(), why });
            }
        }
        Ok(())
    }

    /// Tokens on the edge of a cell: the fewest that give at most 256 cells on each edge.
    fn block(&self) -> usize {
        self.rows.len().max(self.keys.len()).div_ceil(MOST)
    }

    /// The weights of the part, of the layer that has the head.
    pub(crate) fn of<T: Element>(&self, attending: &Attending<'_, T>) -> regard_nn::Result<Zoomed> {
        let (heads, block) = (self.head.1..self.head.1 + 1, self.block());
        let region = Region { heads, rows: self.rows.clone(), keys: self.keys.clone(), ..attending.plan.whole() };
        let maps = attending.maps(&region, &[Grid { rows: block, keys: block }])?;
        let [.., rows, columns] = maps[0].shape();
        let map = Map { block, rows, columns, data: encoded(maps[0].data()) };
        Ok(Zoomed { rows: [self.rows.start, self.rows.end], keys: [self.keys.start, self.keys.end], map })
    }
}

impl Display for Zoom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Zoom { head: (layer, head), rows, keys } = self;
        write!(f, "{layer}.{head}={}..{},{}..{}", rows.start, rows.end, keys.start, keys.end)
    }
}

/// Checks that all zooms are of a head and of the first text, and that a report has room for them.
pub(crate) fn check(zooms: &[Zoom], decoder: &Decoder, first: &Text) -> Result<()> {
    if zooms.len() > MOST_ZOOMS {
        return Err(Error::Zooms { given: zooms.len(), most: MOST_ZOOMS });
    }
    zooms.iter().try_for_each(|zoom| zoom.check(decoder, first))
}

/// A sentence where some are pooled.
pub(crate) fn label(zooms: &[Zoom]) -> Option<String> {
    let pooled = zooms.iter().any(|zoom| zoom.block() > 1);
    pooled.then(|| format!("Zooms of more than {MOST} rows or keys are pooled: each tells how many tokens are in a cell."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zoom_is_a_head_rows_and_keys() {
        let zoom = Zoom::parse("2.5=1000..1256,0..256").unwrap();
        assert_eq!(zoom, Zoom { head: (2, 5), rows: 1000..1256, keys: 0..256 });
        assert_eq!(zoom.to_string(), "2.5=1000..1256,0..256");
    }

    #[test]
    fn others_are_refused() {
        for given in
            ["", "2=0..1,0..1", "2.5=0..1", "2.5=0-1,0..1", "2.5=0..1,0..", "a.5=0..1,0..1", "2.5:0..1,0..1", "2.5=-1..1,0..1"]
        {
            let error = Zoom::parse(given).unwrap_err().to_string();
            assert_eq!(error, format!("the zoom {given:?} is not LAYER.HEAD=ROWS,KEYS, such as 2.5=1000..1256,0..256"));
        }
    }

    #[test]
    fn the_fewest_tokens_are_in_a_cell() {
        let block = |rows: usize, keys: usize| Zoom { head: (0, 0), rows: 10..10 + rows, keys: 0..keys }.block();
        assert_eq!([block(1, 1), block(256, 2), block(1, 257), block(600, 9), block(769, 768)], [1, 1, 2, 3, 4]);
    }
}
