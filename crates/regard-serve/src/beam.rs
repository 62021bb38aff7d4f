//! Beam search: of all continuations of all beams, the best go on.

use regard_nn::FinishReason;

use crate::job::Job;
use crate::pages::Pages;
use crate::sequence::Sequence;
use crate::{Decoding, Detokenizer, Logprobs, RunnerError};

/// One step, once the continuations of every beam are known.
///
/// ```text
///   score(text) = Σ log p / tokens^penalty
///   rank all continuations by Σ log p; those that end, among the first `width`, are texts; of the others `width` go on
/// ```
pub(crate) fn advance<T: Clone>(
    job: &mut Job<T>,
    pages: &mut Pages,
    detokenizer: &impl Detokenizer<Text = T>,
) -> Result<(), RunnerError> {
    let Decoding::Beam { width, length_penalty, .. } = job.request.decoding else { return Ok(()) };
    let Some(continuations) = ranked(&job.sequences) else { return Ok(()) };
    let beams = std::mem::take(&mut job.sequences);
    let mut failed = None;
    for (rank, (beam, logprobs, total)) in continuations.into_iter().enumerate() {
        let token = logprobs.chosen.0;
        let stops = job.request.stop_tokens.contains(&token);
        if job.sequences.len() == width {
            break;
        }
        if stops && rank >= width {
            continue;
        }
        let mut next = beams[beam].fork(Vec::new());
        next.total = total;
        let logprobs = job.request.logprobs.map(|_| logprobs);
        if let Err(error) = next.push(token, logprobs, &job.request, detokenizer) {
            failed = Some(error);
            break;
        }
        if stops {
            end(job, next, FinishReason::Stop, rank, length_penalty);
        } else {
            next.tables = pages.fork(&beams[beam].tables);
            job.sequences.push(next);
        }
    }
    beams.into_iter().for_each(|beam| pages.close(beam.tables));
    keep_best(job, width);
    stop(job, pages, width, length_penalty);
    failed.map_or(Ok(()), Err)
}

/// The continuations of all beams, best first; none while a beam's are not known.
fn ranked<T>(beams: &[Sequence<T>]) -> Option<Vec<(usize, Logprobs, f64)>> {
    let mut all = Vec::new();
    for (i, beam) in beams.iter().enumerate() {
        let known = beam.continuations.as_ref()?.iter();
        all.extend(known.map(|(logprobs, logprob)| (i, logprobs.clone(), beam.total + logprob)));
    }
    all.sort_by(|a, b| b.2.total_cmp(&a.2)); // stable: equal ones in order of beams
    Some(all)
}

fn score(total: f64, tokens: usize, length_penalty: f32) -> f64 {
    total / (tokens as f64).powf(f64::from(length_penalty))
}

fn end<T: Clone>(job: &mut Job<T>, text: Sequence<T>, reason: FinishReason, rank: usize, length_penalty: f32) {
    let score = score(text.total, text.generated(), length_penalty);
    let order = text.generated() * 2 * job.request.decoding.sequences().pow(2) + rank;
    job.ended.push((order, text.into_choice(reason, score)));
}

fn keep_best<T>(job: &mut Job<T>, width: usize) {
    job.ended.sort_by(|(a, x), (b, y)| y.score.total_cmp(&x.score).then(a.cmp(b)));
    job.ended.truncate(width);
}

/// Ends the beams when they are as long as they may be, or none scores above the worst of `width` texts.
fn stop<T: Clone>(job: &mut Job<T>, pages: &mut Pages, width: usize, length_penalty: f32) {
    let Some(best) = job.sequences.first() else { return };
    let full = best.generated() >= job.request.max_tokens;
    let attainable = score(best.total, best.generated(), length_penalty);
    let beaten = job.ended.len() == width && job.ended.last().is_some_and(|(_, worst)| worst.score >= attainable);
    if !full && !beaten {
        return;
    }
    for (rank, mut beam) in std::mem::take(&mut job.sequences).into_iter().enumerate() {
        pages.close(std::mem::take(&mut beam.tables));
        if full {
            end(job, beam, FinishReason::Length, 2 * width + rank, length_penalty);
        }
    }
    keep_best(job, width);
}
