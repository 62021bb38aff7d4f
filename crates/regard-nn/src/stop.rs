//! Stop strings: text ends before the first of them, and text that may begin one is held back.

use crate::{Error, Result};

/// Looks for stop strings in text that comes in pieces.
#[derive(Clone, Debug)]
pub struct Stop {
    strings: Vec<String>,
    /// Text not yet told, because it may begin a stop string.
    held: String,
}

impl Stop {
    /// Looks for the first of `strings`.
    ///
    /// # Errors
    /// When a stop string is empty.
    pub fn new(strings: &[String]) -> Result<Self> {
        if strings.iter().any(String::is_empty) {
            return Err(Error::EmptyStop);
        }
        Ok(Self { strings: strings.to_vec(), held: String::new() })
    }

    /// The text that is certain to belong to the output after one more piece, and whether a stop string ended it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.strings.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let certain = self.held.len() - self.strings.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text held back, when no stop string came of it.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The longest end of `text` that is a beginning of `stop`, in bytes.
fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len() - 1);
    (0..=most).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stop = Stop::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        let mut told = Vec::new();
        for piece in pieces {
            let (text, done) = stop.push(piece);
            told.push(text);
            if done {
                return (told, true);
            }
        }
        told.push(stop.take());
        (told, false)
    }

    #[test]
    fn text_ends_before_the_first_stop_string() {
        assert_eq!(run(&["END"], &["ab EN", "D cd"]), (vec!["ab ".into(), String::new()], true));
        assert_eq!(run(&["cd", "b c"], &["ab cd"]), (vec!["a".into()], true));
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back_and_told_when_it_does_not() {
        assert_eq!(run(&["END"], &["ab E", "N", "x"]), (vec!["ab ".into(), String::new(), "ENx".into(), String::new()], false));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), (vec![String::new(), "a".into(), String::new()], true));
        assert_eq!(run(&["END"], &["the E"]), (vec!["the ".into(), "E".into()], false));
    }

    #[test]
    fn characters_are_never_cut() {
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), (vec!["caf".into(), String::new(), "é?".into(), String::new()], false));
        assert_eq!(run(&["ê"], &["é"]).0.concat(), "é");
    }
}
