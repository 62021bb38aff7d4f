//! Named ranges of the first text's tokens, on which the mass of every head is measured.

use std::ops::Range;

use crate::{Error, Result, Text};

/// A range of tokens of the first text that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRange {
    /// What the report calls it.
    pub name: String,
    /// Its tokens, counted from 0, marks such as a begin-of-text among them.
    pub tokens: Range<usize>,
}

impl NamedRange {
    /// `NAME=START..END`, tokens of which END is the first after it; or `NAME=PIECE`, the tokens that hold a piece of the text, which is there
    /// once, as its tokens read.
    ///
    /// # Errors
    /// When it is neither, leaves the text, or the piece is not there or more than once.
    pub fn parse(given: &str, text: &Text) -> Result<Self> {
        let wrong = |why: String| Error::Range { given: given.to_owned(), why };
        let form = "is not NAME=START..END, in tokens, or NAME=PIECE, a piece of the text";
        let (name, place) = given
            .split_once('=')
            .filter(|(name, place)| !name.is_empty() && !place.is_empty())
            .ok_or_else(|| wrong(form.to_owned()))?;
        let numbers = place.split_once("..").map(|(start, end)| (start.parse(), end.parse()));
        let tokens = match numbers {
            Some((Ok(start), Ok(end))) => start..end,
            _ => match &found(place, &text.pieces)[..] {
                [one] => one.clone(),
                [] => return Err(wrong(format!("names a piece that is not in the text {:?}", text.name))),
                all => {
                    let places: Vec<String> = all.iter().take(8).map(|at| format!("{}..{}", at.start, at.end)).collect();
                    let why = format!(
                        "names a piece that is {} times in the text {:?}: give one as tokens: {}",
                        all.len(),
                        text.name,
                        places.join(", ")
                    );
                    return Err(wrong(why));
                }
            },
        };
        let range = NamedRange { name: name.to_owned(), tokens };
        range.check(text)?;
        Ok(range)
    }

    fn check(&self, text: &Text) -> Result<()> {
        let (Range { start, end }, n) = (self.tokens.clone(), text.tokens.len());
        if start < end && end <= n {
            return Ok(());
        }
        let why = format!("is not one token or more of the text {:?}, whose tokens are 0..{n}", text.name);
        Err(Error::Range { given: format!("{}={start}..{end}", self.name), why })
    }
}

/// Checks that all ranges are of the first text, and have names of their own.
pub(crate) fn check(ranges: &[NamedRange], first: &Text) -> Result<()> {
    for (i, range) in ranges.iter().enumerate() {
        range.check(first)?;
        if ranges[..i].iter().any(|other| other.name == range.name) {
            let Range { start, end } = range.tokens;
            let why = "has the name of another: give each its own".to_owned();
            return Err(Error::Range { given: format!("{}={start}..{end}", range.name), why });
        }
    }
    Ok(())
}

/// The tokens that hold each occurrence of a piece.
pub(crate) fn found(piece: &str, pieces: &[String]) -> Vec<Range<usize>> {
    let ends: Vec<usize> = pieces
        .iter()
        .scan(0, |end, piece| {
            *end += piece.len();
            Some(*end)
        })
        .collect();
    // The first token that ends after a byte holds it.
    let holds = |byte: usize| ends.partition_point(|end| *end <= byte);
    pieces.concat().match_indices(piece).map(|(at, _)| holds(at)..holds(at + piece.len() - 1) + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Text {
        let pieces: Vec<String> = ["<s>", "The", " kin", "g", " saw", " the", " king", "dom"].map(str::to_owned).into();
        Text { name: "tale".to_owned(), tokens: (0..8).collect(), pieces }
    }

    #[test]
    fn tokens_are_counted_or_found() {
        let tokens = |given: &str| NamedRange::parse(given, &text()).unwrap().tokens;
        assert_eq!(
            [tokens("a=0..8"), tokens("a=3..4"), tokens("a=The"), tokens("a=ing saw"), tokens("a=gdom")],
            [0..8, 3..4, 1..2, 2..5, 6..8]
        );
        assert_eq!(tokens("a= the king"), 5..7);
        assert_eq!(NamedRange::parse("subject=saw", &text()).unwrap().name, "subject");
    }

    #[test]
    fn others_are_refused() {
        let error = |given: &str| NamedRange::parse(given, &text()).unwrap_err().to_string();
        assert_eq!(error("a=5..9"), "the range \"a=5..9\" is not one token or more of the text \"tale\", whose tokens are 0..8");
        assert!(error("a=5..5").contains("not one token or more") && error("a=6..5").contains("not one token or more"));
        assert_eq!(error("a=queen"), "the range \"a=queen\" names a piece that is not in the text \"tale\"");
        assert_eq!(
            error("a=king"),
            "the range \"a=king\" names a piece that is 2 times in the text \"tale\": give one as tokens: 2..4, 6..7"
        );
        for given in ["king", "=king", "a=", ""] {
            assert!(error(given).contains("is not NAME=START..END"), "{given}");
        }
        let named = |name: &str| NamedRange { name: name.to_owned(), tokens: 0..2 };
        assert!(check(&[named("a"), named("b")], &text()).is_ok());
        assert!(check(&[named("a"), named("b"), named("a")], &text()).unwrap_err().to_string().contains("has the name of another"));
    }
}
