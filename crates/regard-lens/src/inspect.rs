//! A whole inspection: texts, scores, clusters, ablation.

use std::time::Instant;

use regard::Inspect;
use regard_nn::{Decoder, Model};

use crate::ablate::{self, HeadId, Part, Replace};
use crate::clusters::{ALIKE, clusters};
use crate::levels::alike;
use crate::means::{Sums, binned};
use crate::progress::{Progress, Steps};
use crate::ranges::{self, NamedRange};
use crate::report::{
    Ablation, Bins, FORMAT, Head, HeadScores, Layer, ModelFacts, Numerics, RangeFacts, Report, Run, TextFacts, short,
};
use crate::resample::Samples;
use crate::text::decoder;
use crate::watch::{Detail, Outputs, Watch};
use crate::zoom::{self, Zoom};
use crate::{Error, Result, Text, leaks, prune, rounding, scores, through};

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What "sink" means: so many first tokens.
    pub first_tokens: usize,
    /// What "recent" means: so many tokens up to the query's own.
    pub recent_tokens: usize,
    /// How many of the largest weights each row names.
    pub top: usize,
    /// Ranges of the first text on which the mass of every head is measured.
    pub ranges: Vec<NamedRange>,
    /// Parts of the first text whose weights are told beside the maps, 64 at most.
    pub zooms: Vec<Zoom>,
    /// Whether heads are scored on sequences made for it; see [`scores`].
    pub scores: bool,
    /// Whether leaks are looked for; see [`leaks`].
    pub leaks: bool,
    /// Which heads and layers are taken away in turn; see [`ablate`].
    pub ablate: Ablate,
    /// At how many numbers of heads, evenly spread and beside none, the loss without those that matter least is measured, at least at 1; every
    /// head and every layer is ablated then. Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", §4.
    pub prune: Option<usize>,
    /// Whether the last row of the first text is followed through all layers, by rollout and by flow; see [`rollout`](crate::rollout). Two
    /// approximations, whose time grows with `layers · tokens³`: at most a minute or so, and longer texts are refused.
    pub through: bool,
    /// Heads that give zeros as the texts are read: all that is told is of the model without them. Scores, leaks, ablation, pruning, rollout
    /// and flow are of the whole model, and cannot be asked for beside.
    pub without: Vec<HeadId>,
    /// Decides the random sequences, and what is resampled.
    pub seed: u64,
}

/// What is ablated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ablate {
    /// None.
    #[default]
    Nothing,
    /// These.
    Parts(Vec<Part>),
    /// Every head and every layer.
    All,
}

impl Default for Options {
    fn default() -> Self {
        let Inspect { first, recent, .. } = Inspect::default();
        Options {
            first_tokens: first,
            recent_tokens: recent,
            top: 8,
            ranges: Vec::new(),
            zooms: Vec::new(),
            scores: true,
            leaks: true,
            ablate: Ablate::Nothing,
            prune: None,
            through: false,
            without: Vec::new(),
            seed: 0,
        }
    }
}

impl Options {
    /// What is ablated, for its own sake or for that of the curve of pruning.
    fn ablate(&self) -> &Ablate {
        if self.prune.is_some() { &Ablate::All } else { &self.ablate }
    }

    /// The numbers of heads, among so many, without which the loss is measured.
    fn pruned(&self, heads: usize) -> Vec<usize> {
        self.prune.map_or_else(Vec::new, |points| ablate::numbers(heads, points.saturating_add(1)).collect())
    }
}

/// Positions of a profile, at most.
const BINS: usize = 256;

/// Inspects every head of a model, called `name`, on some texts.
///
/// # Errors
/// When the model is no decoder, there is no text, one does not fit the model, a head or layer to ablate, to leave out or to zoom into or a
/// range does not exist, there are more than 64 zooms, the first text is too long to be followed through all layers, heads are left out of
/// what is measured on the whole model, or a computed number is not finite.
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
    check(decoder, first, options)?;
    let ablated = match options.ablate() {
        Ablate::Nothing => Vec::new(),
        Ablate::Parts(parts) => parts.clone(),
        Ablate::All => Part::all(decoder),
    };
    let pruned = options.pruned(layers * heads);
    let sequences = if options.scores { scores::SEQUENCES } else { 0 };
    let followed = if options.through { 1 + first.tokens.len() } else { 0 };
    let steps = layers * texts.len() + sequences + usize::from(options.leaks) + 3 * ablated.len() + pruned.len() + followed;
    let mut steps = Steps::new(steps, progress);

    let seen = Seen::of(model, texts, options, &mut steps)?;
    let synthetic = match options.scores {
        true => scores::synthetic(model, options.seed, &mut || steps.step("scoring heads"))?,
        false => vec![HeadScores::default(); layers * heads],
    };
    let mut labels = labels(first.tokens.len(), options);
    if options.leaks {
        let (tokens, rest) = first.tokens.split_at(first.tokens.len().min(leaks::TOKENS));
        let (leak, cuts) = leaks::leaks(decoder, tokens, options.seed)?;
        let place = if rest.is_empty() { String::new() } else { format!("{} tokens of the ", tokens.len()) };
        labels.push(match leak {
            None => format!("Leak check: no position saw a later token, at {cuts} places of the first {place}text, bit for bit."),
            Some(leak) => {
                format!("LEAK: position {} saw a token from {} on, in layer {}.", leak.position, leak.changed, leak.layer)
            }
        });
        steps.step("looking for leaks");
    }
    let ablations = seen.ablations(decoder, texts, &ablated, &mut steps)?;
    let pruning = prune::curve(decoder, texts, &prune::order(&ablations), &pruned, &mut || steps.step("pruning"))?;
    let through = match options.through {
        true => Some(through::through(decoder, first, &mut || steps.step("following the last row"))?),
        false => None,
    };
    let of_part = |part: Part| ablations.iter().find(|(of, _)| *of == part).map(|(_, ablation)| ablation.clone());
    let similarities = seen.similarities();
    let kinds = clusters(&similarities, ALIKE);
    let width = seen.width;
    let of_head = |(i, (sums, detail)): (usize, (&Sums, Detail))| Head {
        layer: i / heads,
        head: i % heads,
        means: sums.means(),
        numerics: Numerics { error: Some(detail.error), ..sums.numerics() },
        scores: sums.scores(synthetic[i].clone()),
        cluster: Some(kinds[i]),
        ablation: of_part(Part::Head((i / heads, i % heads))),
        distances: sums.distances(),
        ranges: detail.ranges,
        by_position: detail.profiles,
        received: detail.received.iter().map(|mass| short(f64::from(*mass))).collect(),
        maps: detail.levels.iter().map(|level| level.map()).collect(),
        zooms: detail.zooms,
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
        ranges: options.ranges.iter().map(range_facts).collect(),
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
        layers: (0..layers).filter_map(|layer| Some(Layer { layer, ablation: of_part(Part::Layer(layer))? })).collect(),
        pruning,
        through,
        similarities,
        bins: Bins { count: first.tokens.len().div_ceil(width), width },
        position_loss,
    };
    report.run.seconds = short(began.elapsed().as_secs_f64());
    Ok(report)
}

/// Whether all that is asked for is there, before the work begins.
fn check(decoder: &Decoder, first: &Text, options: &Options) -> Result<()> {
    ranges::check(&options.ranges, first)?;
    zoom::check(&options.zooms, decoder, first)?;
    if options.through {
        through::check(decoder, first)?;
    }
    if let Ablate::Parts(parts) = &options.ablate {
        parts.iter().try_for_each(|part| part.heads(decoder).map(|_| ()))?;
    }
    check_without(decoder, options)
}

/// The heads that are left out, each checked.
fn check_without(decoder: &Decoder, options: &Options) -> Result<()> {
    options.without.iter().try_for_each(|id| ablate::check(decoder, *id))?;
    let whole = [
        ("scores", options.scores),
        ("leaks", options.leaks),
        ("ablations", *options.ablate() != Ablate::Nothing),
        ("rollout and flow", options.through),
    ];
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
    /// What heads give, where something is ablated.
    outputs: Option<Outputs>,
    /// Positions of a bin.
    width: usize,
}

impl Seen {
    fn of(model: &Model, texts: &[Text], options: &Options, steps: &mut Steps<'_>) -> Result<Self> {
        let (decoder, tokenizer) = (decoder(model)?, model.tokenizer());
        let config = decoder.config();
        let all = config.layers.len() * config.num_attention_heads;
        // The first range of the facts is the first token; the first text has named ones beside.
        let first_token = Inspect {
            first: options.first_tokens,
            recent: options.recent_tokens,
            top: options.top,
            ranges: std::iter::once(0..1).collect(),
        };
        let mut with_named = first_token.clone();
        with_named.ranges.extend(options.ranges.iter().map(|range| range.tokens.clone()));
        let (mut sums, mut details, mut losses) = (vec![Sums::default(); all], Vec::new(), Vec::new());
        let wanted = *options.ablate() != Ablate::Nothing;
        let mut outputs = wanted.then(|| Outputs::new(decoder, Samples::new(decoder, texts, options.seed)));
        let width = texts[0].tokens.len().div_ceil(BINS);
        for (i, text) in texts.iter().enumerate() {
            let special: Vec<_> = (0..text.tokens.len()).filter(|at| tokenizer.is_special(text.tokens[*at])).collect();
            losses.push(decoder.observe(
                &text.tokens,
                &mut Watch {
                    what: if i == 0 { &with_named } else { &first_token },
                    special: &special,
                    zooms: &options.zooms,
                    without: &options.without,
                    sums: &mut sums,
                    outputs: outputs.as_mut(),
                    details: (i == 0).then_some((&mut details, width)),
                    step: &mut || steps.step("reading"),
                },
            )?);
            outputs.iter_mut().for_each(|outputs| outputs.begin += text.tokens.len());
        }
        Ok(Seen { losses, sums, details, outputs, width })
    }

    fn ablations(&self, decoder: &Decoder, texts: &[Text], parts: &[Part], steps: &mut Steps<'_>) -> Result<Vec<(Part, Ablation)>> {
        let Some(outputs) = &self.outputs else { return Ok(Vec::new()) };
        let (whole, means) = (ablate::mean(self.losses.iter().flatten().copied()), outputs.means());
        let mut change = |part: Part, replace| {
            let loss = ablate::loss(decoder, texts, &part.heads(decoder)?, replace)?;
            steps.step("ablating");
            Ok::<_, Error>(short(loss - whole))
        };
        let mut of = |part: Part| {
            let (zero, mean) = (change(part, Replace::Zero)?, change(part, Replace::Mean(&means))?);
            let resample = change(part, Replace::Resample(&outputs.samples))?;
            Ok((part, Ablation { zero, mean, resample }))
        };
        parts.iter().map(|part| of(*part)).collect()
    }

    fn similarities(&self) -> Vec<Vec<f64>> {
        alike(&self.details.iter().map(|detail| &detail.levels[..]).collect::<Vec<_>>())
    }
}

fn range_facts(NamedRange { name, tokens }: &NamedRange) -> RangeFacts {
    RangeFacts { name: name.clone(), start: tokens.start, end: tokens.end }
}

pub(crate) fn model_facts(decoder: &Decoder, name: &str) -> ModelFacts {
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
    labels.extend(rounding::label(tokens));
    labels.extend(zoom::label(&options.zooms));
    if *options.ablate() != Ablate::Nothing {
        labels.push("Resampled ablation is one draw of positions, by the seed: another draw gives another number.".to_owned());
    }
    if options.through {
        labels.push(through::LABEL.to_owned());
    }
    if options.scores {
        labels.push("Duplicate, induction and retrieval scores are means over random sequences, not over the texts.".to_owned());
    }
    if !options.without.is_empty() {
        let names: Vec<String> = options.without.iter().map(|(layer, head)| format!("{layer}.{head}")).collect();
        labels.push(format!("All of it is of the model without these heads, which give zeros: {}.", names.join(", ")));
    }
    labels
}
