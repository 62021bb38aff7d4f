//! A whole inspection: texts, scores, clusters, ablation.

use std::time::Instant;

use regard::Inspect;
use regard_nn::{Decoder, Model};

use crate::ablate::{self, HeadId, Replace};
use crate::levels::alike;
use crate::means::{Sums, binned};
use crate::report::{Ablation, Bins, FORMAT, Head, HeadScores, ModelFacts, Report, Run, TextFacts, short};
use crate::text::decoder;
use crate::watch::{Detail, Watch};
use crate::{Error, Result, Text, leaks, scores};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What "sink" means: so many first tokens.
    pub first_tokens: usize,
    /// What "recent" means: so many tokens up to the query's own.
    pub recent_tokens: usize,
    /// How many of the largest weights each row names.
    pub top: usize,
    /// Whether heads are scored on sequences made for it; see [`scores`].
    pub scores: bool,
    /// Whether leaks are looked for; see [`leaks`].
    pub leaks: bool,
    /// Which heads are taken away in turn; see [`ablate`].
    pub ablate: Ablate,
    /// Heads that give zeros as the texts are read: all that is told is of the model without them. Scores, leaks and ablation are of the
    /// whole model, and cannot be asked for beside.
    pub without: Vec<HeadId>,
    /// Decides the random sequences.
    pub seed: u64,
}

/// Which heads are ablated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ablate {
    /// None.
    #[default]
    Nothing,
    /// These.
    Heads(Vec<HeadId>),
    /// Every one.
    All,
}

impl Default for Options {
    fn default() -> Self {
        let Inspect { first, recent, .. } = Inspect::default();
        Options {
            first_tokens: first,
            recent_tokens: recent,
            top: 8,
            scores: true,
            leaks: true,
            ablate: Ablate::Nothing,
            without: Vec::new(),
            seed: 0,
        }
    }
}

/// How far an inspection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub doing: &'static str,
    /// Steps done.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Counts steps.
struct Steps<'a> {
    progress: Progress,
    tell: &'a mut (dyn FnMut(Progress) + Send),
}

impl Steps<'_> {
    fn step(&mut self, doing: &'static str) {
        self.progress.doing = doing;
        self.progress.done += 1;
        (self.tell)(self.progress);
    }
}

/// Positions of a profile, at most.
const BINS: usize = 256;

/// Inspects every head of a model, called `name`, on some texts.
///
/// # Errors
/// When the model is no decoder, there is no text, one does not fit the model, a head to ablate or to leave out does not exist, heads are
/// left out of what is measured on the whole model, or a computed number is not finite.
pub fn inspect(
    model: &Model,
    name: &str,
    texts: &[Text],
    options: &Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report> {
    let (began, decoder) = (Instant::now(), decoder(model)?);
    let (layers, heads) = (decoder.config().layers.len(), decoder.config().num_attention_heads);
    let first = texts.first().ok_or(Error::NoText)?;
    let ablated = ablated(decoder, &options.ablate)?;
    check_without(decoder, options)?;
    let sequences = if options.scores { scores::SEQUENCES } else { 0 };
    let steps = layers * texts.len() + sequences + usize::from(options.leaks) + 2 * ablated.len();
    let mut steps = Steps { progress: Progress { doing: "reading", done: 0, steps }, tell: progress };

    let seen = Seen::of(decoder, texts, options, &mut steps)?;
    let synthetic = match options.scores {
        true => scores::synthetic(model, options.seed, &mut || steps.step("scoring heads"))?,
        false => vec![HeadScores::default(); layers * heads],
    };
    let mut labels = labels(first.tokens.len(), options);
    if options.leaks {
        let (leak, cuts) = leaks::leaks(decoder, &first.tokens, options.seed)?;
        labels.push(match leak {
            None => format!("Leak check: no position saw a later token, at {cuts} places of the first text, bit for bit."),
            Some(leak) => {
                format!("LEAK: position {} saw a token from {} on, in layer {}.", leak.position, leak.changed, leak.layer)
            }
        });
        steps.step("looking for leaks");
    }
    let ablations = seen.ablations(decoder, texts, &ablated, &mut steps)?;
    let kinds = seen.clusters();
    let width = seen.width;
    let of_head = |(i, (sums, detail)): (usize, (&Sums, Detail))| Head {
        layer: i / heads,
        head: i % heads,
        means: sums.means(),
        one_hot: sums.numerics().0,
        peak_logit: sums.numerics().1,
        scores: sums.scores(synthetic[i].clone()),
        cluster: Some(kinds[i]),
        ablation: ablations.iter().find(|(id, _)| *id == (i / heads, i % heads)).map(|(_, ablation)| ablation.clone()),
        distances: sums.distances(),
        by_position: detail.profiles,
        received: detail.received.iter().map(|mass| short(f64::from(*mass))).collect(),
        maps: detail.levels.iter().map(|level| level.map()).collect(),
        top: detail.top,
    };
    let run = Run {
        kernel: decoder.kernel(&decoder.cache(1)?)?.0,
        seconds: 0.0,
        texts: texts.len(),
        tokens: texts.iter().map(|text| text.tokens.len()).sum(),
        first_tokens: options.first_tokens,
        recent_tokens: options.recent_tokens,
        top: options.top,
        labels,
    };
    let position_loss = position_loss(&seen.losses[0], width);
    let facts = |(text, losses): (&Text, &Vec<f32>)| TextFacts {
        name: text.name.clone(),
        tokens: text.pieces.clone(),
        ids: text.tokens.clone(),
        loss: std::iter::once(None).chain(losses.iter().map(|loss| Some(short(f64::from(*loss))))).collect(),
    };
    let mut report = Report {
        format: FORMAT,
        model: model_facts(decoder, name),
        run,
        texts: texts.iter().zip(&seen.losses).map(facts).collect(),
        heads: seen.sums.iter().zip(seen.details).enumerate().map(of_head).collect(),
        bins: Bins { count: first.tokens.len().div_ceil(width), width },
        position_loss,
    };
    report.run.seconds = short(began.elapsed().as_secs_f64());
    Ok(report)
}

/// The heads to ablate, each checked.
fn ablated(decoder: &Decoder, which: &Ablate) -> Result<Vec<HeadId>> {
    let (layers, heads) = (decoder.config().layers.len(), decoder.config().num_attention_heads);
    match which {
        Ablate::Nothing => Ok(Vec::new()),
        Ablate::All => Ok((0..layers * heads).map(|i| (i / heads, i % heads)).collect()),
        Ablate::Heads(ids) => ids.iter().map(|id| ablate::check(decoder, *id).map(|()| *id)).collect(),
    }
}

/// The heads that are left out, each checked.
fn check_without(decoder: &Decoder, options: &Options) -> Result<()> {
    options.without.iter().try_for_each(|id| ablate::check(decoder, *id))?;
    let whole = [("scores", options.scores), ("leaks", options.leaks), ("ablations", options.ablate != Ablate::Nothing)];
    match whole.into_iter().find(|(_, wanted)| *wanted && !options.without.is_empty()) {
        Some((what, _)) => Err(Error::Without { what }),
        None => Ok(()),
    }
}

/// What was seen of all texts.
struct Seen {
    losses: Vec<Vec<f32>>,
    sums: Vec<Sums>,
    details: Vec<Detail>,
    /// What every head gives in the mean.
    outputs: Vec<Vec<f32>>,
    /// Positions of a bin.
    width: usize,
}

impl Seen {
    fn of(decoder: &Decoder, texts: &[Text], options: &Options, steps: &mut Steps<'_>) -> Result<Self> {
        let config = decoder.config();
        let all = config.layers.len() * config.num_attention_heads;
        // The first range of the facts is the first token.
        let first_token = std::iter::once(0..1).collect();
        let what = &Inspect { first: options.first_tokens, recent: options.recent_tokens, top: options.top, ranges: first_token };
        let (mut sums, mut details, mut losses) = (vec![Sums::default(); all], Vec::new(), Vec::new());
        let mut outputs = vec![vec![0.0; config.head_dim]; all];
        let width = texts[0].tokens.len().div_ceil(BINS);
        for (i, text) in texts.iter().enumerate() {
            losses.push(decoder.observe(
                &text.tokens,
                &mut Watch {
                    what,
                    without: &options.without,
                    sums: &mut sums,
                    outputs: (options.ablate != Ablate::Nothing).then_some(&mut outputs),
                    details: (i == 0).then_some((&mut details, width)),
                    step: &mut || steps.step("reading"),
                },
            )?);
        }
        let rows = texts.iter().map(|text| text.tokens.len()).sum::<usize>() as f64;
        let outputs = outputs.iter().map(|sums| sums.iter().map(|sum| (sum / rows) as f32).collect()).collect();
        Ok(Seen { losses, sums, details, outputs, width })
    }

    fn ablations(
        &self,
        decoder: &Decoder,
        texts: &[Text],
        heads: &[HeadId],
        steps: &mut Steps<'_>,
    ) -> Result<Vec<(HeadId, Ablation)>> {
        let whole = ablate::mean(self.losses.iter().flatten().copied());
        let mut change = |head: HeadId, replace| {
            let loss = ablate::loss(decoder, texts, &[head], replace)?;
            steps.step("ablating heads");
            Ok::<_, Error>(short(loss - whole))
        };
        let mut all = Vec::new();
        for head in heads {
            let (zero, mean) = (change(*head, Replace::Zero)?, change(*head, Replace::Mean(&self.outputs))?);
            all.push((*head, Ablation { zero, mean }));
        }
        Ok(all)
    }

    fn clusters(&self) -> Vec<usize> {
        alike(&self.details.iter().map(|detail| &detail.levels[..]).collect::<Vec<_>>())
    }
}

fn model_facts(decoder: &Decoder, name: &str) -> ModelFacts {
    let config = decoder.config();
    ModelFacts {
        name: name.to_owned(),
        kind: config.model_type.clone(),
        layers: config.layers.len(),
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        context: config.max_position_embeddings,
        parameters: decoder.parameters(),
    }
}

/// The losses in bins of positions; the first position has none.
fn position_loss(losses: &[f32], width: usize) -> Vec<Option<f64>> {
    if width == 1 {
        return std::iter::once(None).chain(binned(losses, 1, 1).into_iter().map(Some)).collect();
    }
    let (first, rest) = losses.split_at(losses.len().min(width - 1));
    binned(first, 1, width).into_iter().chain(binned(rest, 1, width)).map(Some).collect()
}

/// A sentence for what is sampled or pooled.
fn labels(tokens: usize, options: &Options) -> Vec<String> {
    let mut labels = crate::levels::labels(tokens);
    if options.scores {
        labels.push("Duplicate, induction and retrieval scores are means over random sequences, not over the texts.".to_owned());
    }
    if !options.without.is_empty() {
        let names: Vec<String> = options.without.iter().map(|(layer, head)| format!("{layer}.{head}")).collect();
        labels.push(format!("All of it is of the model without these heads, which give zeros: {}.", names.join(", ")));
    }
    labels
}
