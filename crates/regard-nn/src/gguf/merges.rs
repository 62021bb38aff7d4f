//! The merges of byte pair encoding, as a file lists them or as its scores imply them.

use std::collections::HashMap;

use super::wrong;
use crate::Result;
use crate::merges::unknown;

/// The longest piece with merges, in bytes: SentencePiece makes none of more than 16 characters unless told, and the work grows with the
/// square of the length.
const LONGEST: usize = 512;

/// Merges written `left right`; the left part may be a space itself. Each makes a token of two.
pub(super) fn listed<'a>(merges: &[&'a str], ids: &HashMap<&str, u32>) -> Result<Vec<(&'a str, &'a str)>> {
    let pair = |(i, merge): (usize, &&'a str)| {
        let field = || format!("tokenizer.ggml.merges[{i}]");
        let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let Some((at, _)) = space else { return wrong(field(), format!("{merge:?}"), "two tokens with a space between") };
        let (left, right) = (&merge[..at], &merge[at + 1..]);
        match unknown(left, right, "", |part| ids.contains_key(part)) {
            Some(part) => wrong(field(), format!("{merge:?}"), format!("of tokens, and {part:?} is none")),
            None => Ok((left, right)),
        }
    };
    merges.iter().enumerate().map(pair).collect()
}

/// Every way to make a piece of two, the best score first: SentencePiece merges the pair whose piece has the best score.
pub(super) fn scored<'a>(pieces: &[(&'a str, f64)]) -> Result<Vec<(&'a str, &'a str)>> {
    let known: HashMap<&str, usize> = pieces.iter().enumerate().map(|(rank, (piece, _))| (*piece, rank)).collect();
    let mut ranked = Vec::new();
    for (rank, (piece, score)) in pieces.iter().enumerate() {
        if piece.len() > LONGEST {
            let given = format!("a piece of {} bytes", piece.len());
            return wrong("tokenizer.ggml.tokens", given, format!("of pieces of at most {LONGEST} bytes"));
        }
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let made = splits.filter(|(left, right)| known.contains_key(left) && known.contains_key(right));
        ranked.extend(made.map(|pair| (*score, rank, pair)));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(ranked.into_iter().map(|(_, _, pair)| pair).collect())
}
