//! What a model still finds in a long text, and where its heads look as it answers.
//!
//! A text is filler with facts put into it, and ends with the beginning of a sentence that one of the facts completes. Told is whether the model
//! writes that answer, how surprised it is by it (nats per token, which tells more of models that never answer), and the mass that each head's
//! last row, from which the answer's first token is predicted, has on the fact. Tasks, after Kamradt 2023, "Needle in a Haystack", and Hsieh et al.
//! 2024, "RULER", §3, in sentences that a base model may complete:
//!
//! | task | facts | answer |
//! |---|---|---|
//! | needle | one value of one key, at a depth | its value |
//! | keys | the same, among three other keys with other values | its value |
//! | variables | a key's value at a depth; another key that has what the first has, half way from there to the end | the first key's value |
//! | words | no filler, but words, every third of which is the same one | that word |
//!
//! RULER asks for all variables of a value and for ten words; one answer each is asked for here, so that loss can be told. Caveats: a model that
//! does not answer at the shortest length does not understand the question, which says nothing of its memory; mass on a fact does not prove that
//! it is used.

use regard::{Element, Inspect};
use regard_nn::{Attending, Decoder, Model, Observer};
use serde::Serialize;

use crate::inspect::model_facts;
use crate::patch::{continued, likeliest};
use crate::progress::{Progress, Steps};
use crate::random::{Random, shuffle};
use crate::ranges::found;
use crate::report::{ModelFacts, short};
use crate::text::decoder;
use crate::{Error, Result, Text};

/// What is asked of a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens of each text with its answer.
    pub lengths: Vec<usize>,
    /// Texts of every task, length and depth.
    pub draws: usize,
    /// Decides keys, values and other words.
    pub seed: u64,
    /// The language.
    pub phrases: Phrases,
}

/// What texts are made of. `{key}` and `{value}` stand for words.
#[derive(Clone, Debug)]
pub struct Phrases {
    /// Sentences that say nothing to the purpose, one after another.
    pub filler: Vec<String>,
    /// Words for keys, at least four.
    pub keys: Vec<String>,
    /// Words for values, at least six.
    pub values: Vec<String>,
    /// A key's value.
    pub fact: String,
    /// That a key has the value of another one, which stands for `{value}`.
    pub same: String,
    /// What a key's value completes.
    pub question: String,
    /// What the most frequent word completes.
    pub frequent: String,
}

impl Phrases {
    /// Plain English, for models of stories too.
    pub fn english() -> Self {
        let all = |text: &str, by: char| text.split(by).map(|part| part.trim().to_owned()).collect::<Vec<_>>();
        Phrases {
            filler: all(
                "The wind went over the hill.|The mill stood by the water.|A bird sang in the old tree.|The day was long and the road was dry.\
                 |Smoke rose from the houses.|The sheep came down to the river.",
                '|',
            ),
            keys: all("Peter Anna Hans Clara Martin Lily Thomas Rosa Jacob Marie Simon Martha", ' '),
            values: all("apple sword bread horse crown ring lamp cloak bell candle basket spoon hammer mirror violin stone", ' '),
            fact: "The treasure of {key} is the {value}.".to_owned(),
            same: "The treasure of {key} is the treasure of {value}.".to_owned(),
            question: "The treasure of {key} is the".to_owned(),
            frequent: "The word that was said most often is".to_owned(),
        }
    }

    fn check(&self) -> Result<()> {
        let need = |what, given: usize, needed| if given < needed { Err(Error::Phrases { what, given, needed }) } else { Ok(()) };
        need("filler sentences", self.filler.len(), 1)?;
        need("keys", self.keys.len(), 1 + OTHERS)?;
        need("values", self.values.len(), COMMON_OF + OTHERS)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One key.
    Needle,
    /// A key among others.
    Keys,
    /// A key that has what another has.
    Variables,
    /// The most frequent word.
    Words,
}

/// Every task.
pub const TASKS: [Task; 4] = [Task::Needle, Task::Keys, Task::Variables, Task::Words];

/// Where facts lie: shares of the filler before them, in quarters.
const DEPTHS: [usize; 5] = [0, 1, 2, 3, 4];
/// Other keys beside the one that is asked for.
const OTHERS: usize = 3;
/// Every so many words the common one.
const COMMON_OF: usize = 3;

impl Task {
    fn depths(self) -> &'static [usize] {
        if self == Task::Words { &[4] } else { &DEPTHS }
    }
}

/// What came of one text.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// What was asked.
    pub task: Task,
    /// Tokens that the text might have, its answer with it.
    pub length: usize,
    /// The share of the filler before the fact, 0 to 1; null where there is no such place.
    pub depth: Option<f64>,
    /// Tokens that it has.
    pub tokens: usize,
    /// The tokens of the answer, as one reads them.
    pub answer: Vec<String>,
    /// Whether the model would write it.
    pub exact: bool,
    /// Its surprise, nats per token of the answer.
    pub loss: f64,
    /// The tokens of the text that hold the facts that the answer follows from: first ones, and ones after the last.
    pub facts: Vec<[usize; 2]>,
    /// The mass of the last row of every head on these, `[layers][heads]`.
    pub mass: Vec<Vec<f64>>,
}

/// What came of all texts, "regard-long-context/1".
#[derive(Clone, Debug, Serialize)]
pub struct LongContext {
    /// `"regard-long-context/1"`.
    pub format: &'static str,
    /// The model.
    pub model: ModelFacts,
    /// Task by task, length by length, depth by depth.
    pub trials: Vec<Trial>,
}

/// Runs every task at every length and depth with a model called `name`. Lengths beyond the context that the model's configuration declares, its
/// rotary scaling included, are refused.
///
/// # Errors
/// When the model is no decoder, there are too few phrases, a length is beyond the context or has no room for a question, or the model cannot read.
pub fn long_context(
    model: &Model,
    name: &str,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<LongContext> {
    let decoder = decoder(model)?;
    options.phrases.check()?;
    let beyond = options.lengths.iter().find(|length| **length > model.context());
    if let Some(&tokens) = beyond {
        return Err(Error::Long { name: "long context".to_owned(), tokens, context: model.context() });
    }
    let each = |task: &Task| task.depths().len();
    let all = options.lengths.len() * options.draws * TASKS.iter().map(each).sum::<usize>();
    let (mut steps, mut random) = (Steps::new(all, progress), Random(options.seed));
    let mut trials = Vec::with_capacity(all);
    for task in TASKS {
        for &length in &options.lengths {
            for &depth in task.depths() {
                for _ in 0..options.draws {
                    let text = Drawn::new(&options.phrases, task, &mut random).fit(model, (length, depth), &mut random)?;
                    trials.push(text.ask(model, decoder, task, (length, depth))?);
                    steps.step("asking");
                }
            }
        }
    }
    Ok(LongContext { format: "regard-long-context/1", model: model_facts(decoder, name), trials })
}

/// Facts and a question, before the filler.
struct Drawn<'a> {
    phrases: &'a Phrases,
    /// Those that the answer follows from, in their order.
    facts: Vec<String>,
    others: Vec<String>,
    /// Words instead of filler: the common one first.
    words: Vec<String>,
    question: String,
    answer: String,
}

/// A text that fits.
struct Asked {
    text: Text,
    answer: Vec<u32>,
    facts: Vec<[usize; 2]>,
}

impl<'a> Drawn<'a> {
    fn new(phrases: &'a Phrases, task: Task, random: &mut Random) -> Self {
        let draw = |all: &[String], n: usize, random: &mut Random| {
            let mut all = all.to_vec();
            shuffle(&mut all, n, random);
            all.truncate(n);
            all
        };
        let keys = draw(&phrases.keys, 1 + OTHERS, random);
        let values = draw(&phrases.values, COMMON_OF + OTHERS, random);
        let filled = |phrase: &str, key: &str, value: &str| phrase.replace("{key}", key).replace("{value}", value);
        let fact = |i: usize| filled(&phrases.fact, &keys[i], &values[i]);
        let (mut facts, mut others, mut words) = (vec![fact(0)], Vec::new(), Vec::new());
        let mut question = filled(&phrases.question, &keys[0], "");
        match task {
            Task::Needle => (),
            Task::Keys => others = (1..=OTHERS).map(fact).collect(),
            Task::Variables => {
                facts.push(filled(&phrases.same, &keys[1], &keys[0]));
                question = filled(&phrases.question, &keys[1], "");
            }
            Task::Words => {
                (facts, question) = (Vec::new(), phrases.frequent.clone());
                words.clone_from(&values);
            }
        }
        Drawn { phrases, facts, others, words, question, answer: format!(" {}", values[0]) }
    }

    /// The text with so many pieces of filler, its facts at a depth in quarters.
    fn text(&self, pieces: usize, depth: usize, random: &mut Random) -> String {
        if !self.words.is_empty() {
            let word = |i: usize, random: &mut Random| match i % COMMON_OF {
                0 => &self.words[0],
                _ => &self.words[1 + random.below(self.words.len() - 1)],
            };
            let words: Vec<&str> = (0..pieces).map(|i| word(i, random).as_str()).collect();
            return format!("{} {}", words.join(" "), self.question);
        }
        let filler = &self.phrases.filler;
        let mut sentences: Vec<&str> = (0..pieces).map(|i| filler[i % filler.len()].as_str()).collect();
        let first = pieces * depth / 4;
        // From the last place to the first, so that places stay what they are.
        if let [_, same] = &self.facts[..] {
            sentences.insert(first + (pieces - first) / 2, same);
        }
        sentences.insert(first, &self.facts[0]);
        for other in &self.others {
            sentences.insert(random.below(sentences.len() + 1), other);
        }
        sentences.push(&self.question);
        sentences.join(" ")
    }

    /// With as much filler as a length has room for.
    fn fit(&self, model: &Model, (length, depth): (usize, usize), random: &mut Random) -> Result<Asked> {
        let seed = random.below(usize::MAX) as u64;
        let text = |pieces: usize| self.text(pieces, depth, &mut Random(seed));
        let tokens = |pieces: usize| Ok::<_, Error>(model.tokenizer().encode(&format!("{}{}", text(pieces), self.answer))?.len());
        let (mut fits, mut beyond) = (0, 1);
        while tokens(beyond)? <= length {
            (fits, beyond) = (beyond, 2 * beyond);
        }
        while beyond - fits > 1 {
            let middle = fits + (beyond - fits) / 2;
            *(if tokens(middle)? <= length { &mut fits } else { &mut beyond }) = middle;
        }
        let needed = tokens(usize::from(!self.words.is_empty()) * COMMON_OF)?;
        if needed > length {
            return Err(Error::Room { length, needed });
        }
        let prompt = text(fits);
        let text = Text::new(model, "long context", &prompt)?;
        let answer = continued(model, &prompt, &text, &self.answer)?;
        let of_fact = |fact: &String| found(fact, &text.pieces).first().map(|tokens| [tokens.start, tokens.end]);
        let facts = match &self.words[..] {
            [] => self.facts.iter().filter_map(of_fact).collect(),
            [common, ..] => found(common, &text.pieces).iter().map(|tokens| [tokens.start, tokens.end]).collect(),
        };
        Ok(Asked { text, answer, facts })
    }
}

impl Asked {
    fn ask(&self, model: &Model, decoder: &Decoder, task: Task, (length, depth): (usize, usize)) -> Result<Trial> {
        let (prompt, n) = (&self.text.tokens, self.text.tokens.len());
        let all: Vec<u32> = prompt.iter().chain(&self.answer).copied().collect();
        let mut look = Look { row: n - 1, facts: &self.facts, mass: Vec::new() };
        let losses = decoder.observe(&all, &mut look)?;
        let loss = losses[n - 1..].iter().map(|loss| f64::from(*loss)).sum::<f64>() / self.answer.len() as f64;
        let mut cache = decoder.cache(all.len())?;
        let mut logits = decoder.step(prompt, &mut cache)?;
        let mut exact = true;
        for token in &self.answer {
            exact = exact && likeliest(&logits) == *token;
            if !exact {
                break;
            }
            logits = decoder.step(&[*token], &mut cache)?;
        }
        let mut stream = model.tokenizer().stream(prompt);
        let answer = self.answer.iter().map(|token| stream.push(*token)).collect::<regard_nn::Result<_>>()?;
        let depth = (task != Task::Words).then_some(depth as f64 / 4.0);
        let (facts, mass) = (self.facts.clone(), look.mass);
        Ok(Trial { task, length, depth, tokens: all.len(), answer, exact, loss: short(loss), facts, mass })
    }
}

/// The mass of one row of every head on some tokens.
struct Look<'a> {
    row: usize,
    facts: &'a [[usize; 2]],
    mass: Vec<Vec<f64>>,
}

impl Observer for Look<'_> {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        let ranges = self.facts.iter().map(|[start, end]| *start..*end).collect::<Vec<_>>();
        let facts = attending.inspect(&Inspect { ranges: ranges.clone(), ..Inspect::default() })?;
        let n = attending.plan.shape().q_len;
        let of_row = |head: usize| &facts.ranges.data()[(head * n + self.row) * ranges.len()..][..ranges.len()];
        let mass = |head: usize| short(of_row(head).iter().map(|mass| f64::from(*mass)).sum());
        self.mass.push((0..attending.plan.shape().q_heads).map(mass).collect());
        Ok(())
    }
}

impl LongContext {
    /// All as one JSON object.
    ///
    /// # Errors
    /// When the library refuses, which it has no reason to.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// A line for each text: what was asked, what came of it, and the head with the most mass on the facts.
    pub fn csv(&self) -> String {
        let line = |trial: &Trial| {
            let (task, Trial { length, tokens, exact, loss, .. }) = (trial.task.name(), trial);
            let depth = trial.depth.map_or_else(String::new, |depth| depth.to_string());
            let (layer, head, mass) = trial.most();
            format!("{task},{length},{depth},{tokens},{exact},{loss},{layer}.{head},{mass}\n")
        };
        std::iter::once("task,length,depth,tokens,exact,loss,head,mass\n".to_owned()).chain(self.trials.iter().map(line)).collect()
    }
}

impl Task {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Task::Needle => "needle",
            Task::Keys => "keys",
            Task::Variables => "variables",
            Task::Words => "words",
        }
    }
}

impl Trial {
    /// The head with the most mass on the facts: its layer, its number there, and that mass.
    pub fn most(&self) -> (usize, usize, f64) {
        let all = self
            .mass
            .iter()
            .enumerate()
            .flat_map(|(layer, row)| row.iter().enumerate().map(move |(head, mass)| (layer, head, *mass)));
        all.reduce(|a, b| if b.2 > a.2 { b } else { a }).unwrap_or_default()
    }
}
