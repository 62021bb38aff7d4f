//! What a request gets when it is alone, computed the plain way: no pages, no batches, no chunks.

use regard_nn::{FinishReason, Sampler};

use super::model::{Rule, byte, mix};
use crate::output::{best, log_sum_exp};
use crate::{Choice, Decoding, Finished, Group, Keep, Logprobs, Request};

/// The hash model's entries of one text, in plain arrays.
#[derive(Clone)]
struct Text<'a> {
    rule: Rule,
    groups: &'a [Group],
    source: &'a [u32],
    entries: Vec<Vec<u64>>,
    logits: Vec<f32>,
}

impl<'a> Text<'a> {
    fn read(rule: Rule, groups: &'a [Group], source: &'a [u32], tokens: &[u32], each: &mut dyn FnMut(&[f32])) -> Self {
        let mut text = Text { rule, groups, source, entries: vec![Vec::new(); groups.len()], logits: Vec::new() };
        for token in tokens {
            text.push(*token);
            each(&text.logits);
        }
        text
    }

    fn push(&mut self, token: u32) {
        let mut context = self.rule.salt;
        for (group, entries) in self.groups.iter().zip(&self.entries) {
            context = match group.keep {
                Keep::All => entries.iter().fold(context, |c, e| mix(c, *e)),
                Keep::Window(window) => {
                    entries.iter().skip((entries.len() + 1).saturating_sub(window)).fold(context, |c, e| mix(c, *e))
                }
                Keep::Source => (0..self.source.len()).fold(context, |c, p| mix(c, self.rule.source_entry(self.source, p))),
            };
        }
        let mut after = context;
        for (g, entries) in self.entries.iter_mut().enumerate().filter(|(g, _)| self.groups[*g].keep != Keep::Source) {
            entries.push(self.rule.entry(context, token, g));
            after = mix(after, entries[entries.len() - 1]);
        }
        self.logits = self.rule.logits(after).collect();
    }
}

/// The whole of it.
pub(super) fn finished(rule: Rule, groups: &[Group], request: &Request) -> Finished {
    let mut prompt_logprobs = Vec::new();
    let mut following = request.prompt[1..].iter();
    let text = Text::read(rule, groups, &request.source, &request.prompt, &mut |logits| {
        if let (Some(top), Some(next)) = (request.prompt_logprobs, following.next()) {
            prompt_logprobs.push(Logprobs::of(logits, *next, top));
        }
    });
    let mut choices = match request.decoding {
        Decoding::Sample { best_of, .. } => (0..best_of).map(|i| sampled(text.clone(), request, i)).collect(),
        Decoding::Beam { width, length_penalty, .. } => beams(text, request, width, length_penalty),
    };
    if !request.streams() {
        choices.sort_by(|a: &Choice, b| b.score.total_cmp(&a.score));
    }
    choices.truncate(request.decoding.choices());
    Finished { choices, prompt_logprobs, preemptions: 0 }
}

fn sampled(mut text: Text<'_>, request: &Request, choice: usize) -> Choice {
    let Decoding::Sample { sampling, adjustments, n, best_of } = &request.decoding else { unreachable!() };
    let mut sampler = Sampler::with(*sampling, adjustments.clone(), &request.prompt, choice as u64).unwrap();
    let (mut tokens, mut logprobs, mut total) = (Vec::new(), Vec::new(), 0.0);
    let mut ended = (request.max_tokens == 0).then(|| (String::new(), FinishReason::Length));
    while ended.is_none() {
        let token = sampler.next(&text.logits).unwrap();
        logprobs.extend(request.logprobs.map(|top| Logprobs::of(&text.logits, token, top)));
        total += f64::from(text.logits[token as usize]) - log_sum_exp(&text.logits);
        tokens.push(token);
        ended = ending(&tokens, request);
        text.push(token);
    }
    let (text, finish_reason) = ended.unwrap();
    let score = if n == best_of || tokens.is_empty() { 0.0 } else { total / tokens.len() as f64 };
    Choice { tokens, text, logprobs, finish_reason, score }
}

/// The text and the reason, if it ends with these tokens.
fn ending(tokens: &[u32], request: &Request) -> Option<(String, FinishReason)> {
    let stops = request.stop_tokens.contains(&tokens[tokens.len() - 1]);
    let spoken = &tokens[..tokens.len() - usize::from(stops)];
    let bytes: Vec<u8> = spoken.iter().map(|token| byte(*token)).collect();
    let last = stops || tokens.len() == request.max_tokens;
    let whole = bytes.len() - usize::from(!last && bytes.last() == Some(&0xC3));
    let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
    if let Some(at) = request.stop.iter().filter_map(|stop| text.find(stop)).min() {
        return Some((text[..at].to_owned(), FinishReason::Stop));
    }
    last.then_some((text, if stops { FinishReason::Stop } else { FinishReason::Length }))
}

#[derive(Clone)]
struct Beam<'a> {
    text: Text<'a>,
    tokens: Vec<u32>,
    logprobs: Vec<Logprobs>,
    total: f64,
}

fn beams(text: Text<'_>, request: &Request, width: usize, length_penalty: f32) -> Vec<Choice> {
    let mut beams = vec![Beam { text, tokens: Vec::new(), logprobs: Vec::new(), total: 0.0 }];
    let mut ended: Vec<Choice> = Vec::new();
    let score = |beam: &Beam<'_>| beam.total / (beam.tokens.len() as f64).powf(f64::from(length_penalty));
    let keep = |ended: &mut Vec<Choice>| {
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended.truncate(width);
    };
    let choice = |beam: &Beam<'_>, finish_reason: FinishReason| {
        let stops = usize::from(finish_reason == FinishReason::Stop);
        let bytes: Vec<u8> = beam.tokens[..beam.tokens.len() - stops].iter().map(|token| byte(*token)).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Choice { tokens: beam.tokens.clone(), text, logprobs: beam.logprobs.clone(), finish_reason, score: score(beam) }
    };
    loop {
        let mut all: Vec<Beam<'_>> = Vec::new();
        for beam in &beams {
            let logits = &beam.text.logits;
            for token in best(logits, 2 * width) {
                let mut next = beam.clone();
                next.tokens.push(token);
                next.total += f64::from(logits[token as usize]) - log_sum_exp(logits);
                next.logprobs.extend(request.logprobs.map(|top| Logprobs::of(logits, token, top)));
                all.push(next);
            }
        }
        all.sort_by(|a, b| b.total.total_cmp(&a.total));
        let stops = |beam: &Beam<'_>| request.stop_tokens.contains(&beam.tokens[beam.tokens.len() - 1]);
        beams.clear();
        for (rank, mut beam) in all.into_iter().enumerate() {
            if beams.len() == width {
                break;
            }
            if !stops(&beam) {
                beam.text.push(beam.tokens[beam.tokens.len() - 1]);
                beams.push(beam);
            } else if rank < width {
                ended.push(choice(&beam, FinishReason::Stop));
            }
        }
        keep(&mut ended);
        let Some(first) = beams.first() else { return ended };
        if first.tokens.len() >= request.max_tokens {
            ended.extend(beams.iter().map(|beam| choice(beam, FinishReason::Length)));
            keep(&mut ended);
            return ended;
        }
        if ended.len() == width && ended[width - 1].score >= score(first) {
            return ended;
        }
    }
}
