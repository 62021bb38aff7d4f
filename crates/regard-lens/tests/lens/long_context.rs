//! Facts in long texts, asked of the model built by hand: it says what followed the same word before, and nothing else.

use regard_lens::long_context::{LongContext, Options, Phrases, Task, long_context};

use crate::built::{CONTEXT, Weights};

/// Keys w2 to w6, values w10 to w17, filler of other words; a fact is a key and its value.
fn phrases() -> Phrases {
    let words = |range: std::ops::Range<usize>| range.map(|i| format!("w{i}")).collect::<Vec<_>>();
    Phrases {
        filler: vec!["w20 w21 w22".to_owned(), "w23 w24".to_owned()],
        keys: words(2..7),
        values: words(10..18),
        fact: "{key} {value}".to_owned(),
        same: "{key} {value}".to_owned(),
        question: "{key}".to_owned(),
        frequent: "w30".to_owned(),
    }
}

fn asked(lengths: &[usize], draws: usize) -> LongContext {
    let options = Options { lengths: lengths.to_vec(), draws, seed: 5, phrases: phrases() };
    let mut last = None;
    let found = long_context(&Weights::new().model(), "built", &options, &mut |progress| last = Some(progress)).unwrap();
    assert!(last.is_some_and(|last| last.done == last.steps), "{last:?}");
    found
}

#[test]
fn facts_are_found_at_every_depth_and_hops_are_not() {
    let found = asked(&[16, 48, CONTEXT], 2);
    assert_eq!(found.trials.len(), 3 * 2 * (3 * 5 + 1));
    for trial in &found.trials {
        let (what, answer) = (format!("{trial:?}"), trial.answer.concat());
        assert!(trial.tokens <= trial.length && trial.tokens + 3 >= trial.length, "{what}");
        assert!((10..18).any(|i| answer.trim() == format!("w{i}")), "{what}");
        match trial.task {
            Task::Needle | Task::Keys => {
                // The question's last word is the key, and 1.0 reads what followed it: the fact's second token.
                assert_eq!(trial.facts.len(), 1, "{what}");
                assert!(trial.mass[1][0] > 0.9, "{what}");
                // The first token of a text stands for the one before itself too, so a key there counts as its own value.
                assert!(trial.facts[0][0] == 0 || trial.exact && trial.loss < 3.0, "{what}");
            }
            // What followed the second key is the first one.
            Task::Variables => assert!(!trial.exact && trial.facts.len() == 2, "{what}"),
            // Every third word before the question is the common one.
            Task::Words => assert_eq!(trial.facts.len(), (trial.tokens - 2).div_ceil(3), "{what}"),
        }
    }
    let csv = found.csv();
    assert_eq!(csv.lines().count(), found.trials.len() + 1);
    assert!(csv.lines().nth(1).unwrap().starts_with("needle,16,0,"), "{csv}");
}

/// At depth 0 a fact is what the text begins with, at 1 what the question follows.
#[test]
fn facts_lie_at_their_depth() {
    for trial in asked(&[60], 3).trials.iter().filter(|trial| trial.task == Task::Needle) {
        let [[start, end]] = trial.facts[..] else { panic!("{trial:?}") };
        assert_eq!(end - start, 2);
        let filler = trial.tokens - 4; // but for the fact, the question and the answer
        let expected = trial.depth.unwrap() * filler as f64;
        assert!((start as f64 - expected).abs() <= 3.0, "{trial:?}");
    }
}

#[test]
fn the_same_seed_asks_the_same() {
    let json = |found: LongContext| found.json().unwrap();
    assert_eq!(json(asked(&[30], 1)), json(asked(&[30], 1)));
}

#[test]
fn what_cannot_be_asked() {
    let model = Weights::new().model();
    let error = |lengths: &[usize], phrases: Phrases| {
        let options = Options { lengths: lengths.to_vec(), draws: 1, seed: 0, phrases };
        long_context(&model, "built", &options, &mut |_| {}).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[30, CONTEXT + 1], phrases()),
        "text \"long context\" has 97 tokens and the model's context is 96 tokens: shorten the text"
    );
    assert_eq!(
        error(&[3], phrases()),
        "a length of 3 tokens has no room for a question and its answer, which take 4: ask at greater lengths"
    );
    let few = Phrases { keys: vec!["w2".to_owned()], ..phrases() };
    assert_eq!(error(&[30], few), "there are 1 keys to make texts of, and at least 4 are needed");
}
