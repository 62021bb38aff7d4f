//! Activation patching: where a model keeps what makes it answer one prompt otherwise than another.
//!
//! Two prompts of equally many tokens differ in what decides the answer. The corrupt one is read again with something taken from the reading of
//! the clean one: what a head gives in every position of the prompt, before the output projection; the same of all heads of a layer; or the
//! residual stream before a block, in one position. Told is the share of the difference that comes back,
//!
//! ```text
//!   (ln p_patched − ln p_corrupt) / (ln p_clean − ln p_corrupt)      p: of the answer after the prompt
//! ```
//! 1 where this alone restores the answer of the clean prompt, 0 where it does nothing, below 0 where it makes the answer less likely yet, above
//! 1 where more likely than the clean prompt does. Sources: Vig et al. 2020, "Investigating Gender Bias in Language Models Using Causal
//! Mediation Analysis", §3 (heads); Meng et al. 2022, "Locating and Editing Factual Associations in GPT", §2 (the stream by layer and position);
//! Wang et al. 2022, "Interpretability in the Wild", §3. Caveats: prompts should differ in one thing, as a name in place of a name; shares do
//! not add up, for what is upstream works through what is downstream; heads that stand in for each other may each show nothing.

use regard::Element;
use regard_nn::{Attending, Model, Observer};
use serde::Serialize;

use crate::ablate::{HeadId, Part};
use crate::inspect::model_facts;
use crate::progress::{Progress, Steps};
use crate::report::{ModelFacts, short};
use crate::text::decoder;
use crate::{Error, Result, Text};

/// Two prompts and the answer by which they are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    clean: Text,
    corrupt: Text,
    answer: Vec<u32>,
}

impl Prompts {
    /// Prompts of equally many tokens that are not the same. The answer follows each of them as it is written, a space before it included
    /// where there is one; without one it is the most likely token after the clean prompt.
    ///
    /// # Errors
    /// When the model is no decoder, a prompt does not fit it, the prompts are equal or differ in length, or the answer has no tokens of its own.
    pub fn new(model: &Model, clean: &str, corrupt: &str, answer: Option<&str>) -> Result<Self> {
        let decoder = decoder(model)?;
        let [clean_text, corrupt_text] = [Text::new(model, "clean", clean)?, Text::new(model, "corrupt", corrupt)?];
        let [n, m] = [&clean_text, &corrupt_text].map(|text| text.tokens.len());
        if n != m {
            return Err(Error::Lengths { clean: n, corrupt: m });
        }
        if clean_text.tokens == corrupt_text.tokens {
            return Err(Error::Alike);
        }
        let answer = match answer {
            None => vec![likeliest(&decoder.step(&clean_text.tokens, &mut decoder.cache(n)?)?)],
            Some(answer) => {
                let [after, other] =
                    [(clean, &clean_text), (corrupt, &corrupt_text)].map(|(prompt, text)| continued(model, prompt, text, answer));
                let (after, other) = (after?, other?);
                if after != other {
                    return Err(Error::Answer { answer: answer.to_owned() });
                }
                after
            }
        };
        if n + answer.len() > model.context() {
            return Err(Error::Long {
                name: "clean prompt and answer".to_owned(),
                tokens: n + answer.len(),
                context: model.context(),
            });
        }
        Ok(Prompts { clean: clean_text, corrupt: corrupt_text, answer })
    }

    /// The first position in which the prompts differ.
    fn first_difference(&self) -> usize {
        self.clean.tokens.iter().zip(&self.corrupt.tokens).take_while(|(a, b)| a == b).count()
    }
}

/// The tokens that an answer adds to a prompt.
pub(crate) fn continued(model: &Model, prompt: &str, text: &Text, answer: &str) -> Result<Vec<u32>> {
    let all = model.tokenizer().encode(&format!("{prompt}{answer}"))?;
    let rest = all.strip_prefix(&text.tokens[..]).filter(|rest| !rest.is_empty());
    rest.map(<[u32]>::to_vec).ok_or_else(|| Error::Answer { answer: answer.to_owned() })
}

/// The token of the largest logit, the first of equals.
pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, x)| if *x > best.1 { (i, *x) } else { best });
    best.0 as u32
}

/// What patching tells, "regard-patch/1".
#[derive(Clone, Debug, Serialize)]
pub struct Patches {
    /// `"regard-patch/1"`.
    pub format: &'static str,
    /// The model.
    pub model: ModelFacts,
    /// The prompt whose answer it is.
    pub clean: Prompt,
    /// The prompt that is patched.
    pub corrupt: Prompt,
    /// The tokens of the answer, as one reads them.
    pub answer: Vec<String>,
    /// The share that comes back with what each head gives, `[layers][heads]`.
    pub heads: Vec<Vec<f64>>,
    /// With what all heads of a layer give, `[layers]`.
    pub layers: Vec<f64>,
    /// With the residual stream before a block in one position, `[layers][tokens]`. Exactly 0 before the first token that differs.
    pub residual: Vec<Vec<f64>>,
}

/// A prompt, and how likely the answer is after it.
#[derive(Clone, Debug, Serialize)]
pub struct Prompt {
    /// Its tokens, as one reads them.
    pub tokens: Vec<String>,
    /// `ln p` of the answer, nats: the sum over its tokens, each given those before.
    pub log_prob: f64,
}

/// Patches every head, every layer, and the residual stream before every block in every position, each alone, of a model called `name`.
///
/// # Errors
/// When both prompts make the answer equally likely, or a computed number is not finite.
pub fn patch(model: &Model, name: &str, prompts: &Prompts, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Patches> {
    let decoder = decoder(model)?;
    let (layers, heads) = (decoder.config().layers.len(), decoder.config().num_attention_heads);
    let (n, first) = (prompts.clean.tokens.len(), prompts.first_difference());
    let mut steps = Steps::new(layers * (heads + 1 + n - first), progress);
    let read = |prompt: &Text, observer: &mut dyn FnMut(&[u32]) -> regard_nn::Result<Vec<f32>>| {
        let tokens: Vec<u32> = prompt.tokens.iter().chain(&prompts.answer).copied().collect();
        let losses = observer(&tokens)?;
        Ok::<_, Error>(-losses[n - 1..].iter().map(|loss| f64::from(*loss)).sum::<f64>())
    };
    let mut seen = Clean::default();
    let clean = read(&prompts.clean, &mut |tokens| decoder.observe(tokens, &mut seen))?;
    let corrupt = read(&prompts.corrupt, &mut |tokens| decoder.observe(tokens, &mut ()))?;
    if clean == corrupt {
        return Err(Error::NoDifference { log_prob: clean });
    }
    let mut recovered = |site: Site<'_>| {
        let patched = read(&prompts.corrupt, &mut |tokens| {
            decoder.observe(tokens, &mut Put { clean: &seen, prompt: n, tokens: tokens.len(), site })
        })?;
        steps.step("patching");
        Ok::<_, Error>(short((patched - corrupt) / (clean - corrupt)))
    };
    let mut of_part = |part: Part| recovered(Site::Heads(&part.heads(decoder)?));
    let mut of_layer = |layer: usize| (0..heads).map(|head| of_part(Part::Head((layer, head)))).collect::<Result<Vec<f64>>>();
    let of_heads = (0..layers).map(&mut of_layer).collect::<Result<_>>()?;
    let of_layers = (0..layers).map(|layer| of_part(Part::Layer(layer))).collect::<Result<_>>()?;
    // Before the first difference both streams have the same bits.
    let mut at =
        |layer: usize, position: usize| if position < first { Ok(0.0) } else { recovered(Site::Residual { layer, position }) };
    let mut stream = |layer: usize| (0..n).map(|position| at(layer, position)).collect::<Result<Vec<f64>>>();
    let residual = (0..layers).map(&mut stream).collect::<Result<_>>()?;
    let prompt = |text: &Text, log_prob: f64| Prompt { tokens: text.pieces.clone(), log_prob: short(log_prob) };
    Ok(Patches {
        format: "regard-patch/1",
        model: model_facts(decoder, name),
        clean: prompt(&prompts.clean, clean),
        corrupt: prompt(&prompts.corrupt, corrupt),
        answer: prompts.answer_pieces(model)?,
        heads: of_heads,
        layers: of_layers,
        residual,
    })
}

impl Prompts {
    fn answer_pieces(&self, model: &Model) -> Result<Vec<String>> {
        let mut stream = model.tokenizer().stream(&self.clean.tokens);
        Ok(self.answer.iter().map(|token| stream.push(*token)).collect::<regard_nn::Result<_>>()?)
    }
}

impl Patches {
    /// All as one JSON object.
    ///
    /// # Errors
    /// When the library refuses, which it has no reason to.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// A line for each number: what was patched (`head`, `layer` or `residual`), where, and the share that came back.
    pub fn csv(&self) -> String {
        let heads = self
            .heads
            .iter()
            .enumerate()
            .flat_map(|(layer, row)| row.iter().enumerate().map(move |(head, x)| format!("head,{layer},{head},,{x}\n")));
        let layers = self.layers.iter().enumerate().map(|(layer, x)| format!("layer,{layer},,,{x}\n"));
        let stream = self
            .residual
            .iter()
            .enumerate()
            .flat_map(|(layer, row)| row.iter().enumerate().map(move |(at, x)| format!("residual,{layer},,{at},{x}\n")));
        std::iter::once("patched,layer,head,position,recovered\n".to_owned()).chain(heads).chain(layers).chain(stream).collect()
    }
}

/// What is patched.
#[derive(Clone, Copy)]
enum Site<'a> {
    /// What these heads give, in every position of the prompt.
    Heads(&'a [HeadId]),
    /// The residual stream before a block, in one position.
    Residual { layer: usize, position: usize },
}

/// The reading of the clean prompt, of each layer.
#[derive(Default)]
struct Clean {
    /// What heads give, `[tokens, heads · head_dim]`.
    heads: Vec<Vec<f32>>,
    /// The residual stream before the block, `[tokens, hidden_size]`.
    residual: Vec<Vec<f32>>,
}

impl Observer for Clean {
    fn residual(&mut self, _layer: usize, rows: &mut [f32]) -> regard_nn::Result<()> {
        self.residual.push(rows.to_vec());
        Ok(())
    }

    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let mut rows = vec![0.0; attending.out.len()];
        T::widen(attending.out, &mut rows);
        self.heads.push(rows);
        Ok(())
    }
}

/// Puts some of the clean reading into another.
struct Put<'a> {
    clean: &'a Clean,
    /// Tokens of the prompt, and with the answer that follows.
    prompt: usize,
    tokens: usize,
    site: Site<'a>,
}

impl Observer for Put<'_> {
    fn residual(&mut self, at: usize, rows: &mut [f32]) -> regard_nn::Result<()> {
        if let Site::Residual { layer, position } = self.site
            && layer == at
        {
            let clean = &self.clean.residual[layer];
            let width = clean.len() / self.tokens;
            rows[position * width..][..width].copy_from_slice(&clean[position * width..][..width]);
        }
        Ok(())
    }

    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        attending.forward()?;
        let Site::Heads(heads) = self.site else { return Ok(()) };
        let (layer, shape) = (attending.layer, attending.plan.shape());
        let (dim, width) = (shape.value_dim, shape.q_heads * shape.value_dim);
        for &(_, head) in heads.iter().filter(|(of, _)| *of == layer) {
            let clean = self.clean.heads[layer].chunks_exact(width).map(|row| &row[head * dim..][..dim]);
            attending.head_rows(head).zip(clean).take(self.prompt).for_each(|(row, clean)| T::narrow(clean, row));
        }
        Ok(())
    }
}
