//! The training loop: batch → loss → gradients → update, with measurements and checkpoints in between.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use tokenizers::Tokenizer;

use super::adamw::{self, AdamW};
use super::checkpoint::{Checkpoint, Identity};
use super::data::{Batch, Corpus, Text};
use super::digest::digest;
use super::export::{self, Weight};
use super::history::{History, Validation};
use super::report::{Clock, Event, Summary};
use super::{TrainConfig, TrainError, atomic, schedule, tokenizer};
use crate::rng::Rng;
use crate::{Llama, LlamaConfig, Noise, Params};

/// What one `regard train` is asked to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The UTF-8 text to learn.
    pub data: PathBuf,
    /// The directory that receives checkpoints and, at the end, the model.
    pub out: PathBuf,
    /// Everything else.
    pub config: TrainConfig,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done and the model is exported; the measurement is that of the exported weights.
    Finished(Validation),
    /// The watcher asked to stop; the same job resumes after this many steps.
    Stopped {
        /// Steps done.
        step: usize,
    },
}

/// A run in progress. Its state is the step, the weights, the optimiser, the history and the best weights so far;
/// data order and dropout are functions of the seed and the step.
pub struct Trainer {
    job: Job,
    identity: Identity,
    tokenizer: Tokenizer,
    corpus: Corpus,
    params: Params,
    model: Llama,
    optimizer: AdamW,
    history: History,
    /// The evaluated weights of the best measurement, by parameter.
    best: BTreeMap<String, Vec<f32>>,
    step: usize,
    /// Held while this run may write to the directory.
    _lock: File,
}

impl Trainer {
    /// Reads the text, learns the tokenizer and begins, or goes on from the checkpoint in `job.out`.
    ///
    /// # Errors
    /// Bad configuration, bad text, a directory that another run uses or used, an unusable checkpoint.
    pub fn open(job: Job) -> Result<Self, TrainError> {
        job.config.validate()?;
        let text = Text::read(&job.data, job.config.validation)?;
        let lock = claim(&job.out)?;
        let checkpoint = Checkpoint::load(&job.out.join(CHECKPOINT))?;
        if checkpoint.is_none() && job.out.join(export::WEIGHTS).exists() {
            return Err(TrainError::Occupied { path: job.out });
        }
        let (tokenizer, fingerprint) = find_tokenizer(&job, &text, checkpoint.is_some())?;
        let identity = Identity { config: job.config.clone(), text: text.digest(), tokenizer: fingerprint };
        if let Some(checkpoint) = &checkpoint {
            checkpoint.check(&identity, &job.out.join(CHECKPOINT))?;
        }
        let corpus = Corpus::new(&text, &tokenizer, &job.config)?;
        let shape = LlamaConfig::from_json(&export::model_config(&job.config, &tokenizer).to_string())?;
        let params = Params::init(&shape, job.config.seed)?;
        let model = Llama::new(&shape, &params)?;
        let optimizer = AdamW::new(&params, &job.config)?;
        let (history, best, step) = Default::default();
        let mut run = Self { job, identity, tokenizer, corpus, params, model, optimizer, history, best, step, _lock: lock };
        if let Some(checkpoint) = checkpoint {
            run.restore(checkpoint)?;
        }
        Ok(run)
    }

    /// Trains to the last step, telling `watch` what happens; `Break` makes it write a checkpoint and stop.
    ///
    /// # Errors
    /// [`TrainError::Diverged`], [`TrainError::Write`], or a failure of the model. The last checkpoint stays usable.
    pub fn run(&mut self, watch: &mut dyn FnMut(Event) -> ControlFlow<()>) -> Result<Outcome, TrainError> {
        let mut flow = watch(Event::Begin(self.summary()));
        let mut clock = Clock::start(&self.job.config);
        while self.step < self.job.config.steps {
            if flow.is_break() {
                self.save()?;
                return Ok(Outcome::Stopped { step: self.step });
            }
            let began = Instant::now();
            let (loss, rate) = self.train_step()?;
            flow = watch(Event::Step(clock.tick(self.step, loss, rate, began.elapsed())));
            if self.due(self.job.config.eval_every) {
                let began = Instant::now();
                let validation = self.measure()?;
                clock.measured(began.elapsed());
                flow = both(flow, watch(Event::Validation(validation)));
            }
            if self.due(self.job.config.checkpoint_every) {
                self.save()?;
                flow = both(flow, watch(Event::Checkpoint { step: self.step }));
            }
        }
        self.export()
    }

    /// One update: the loss before it, and its learning rate.
    fn train_step(&mut self) -> Result<(f32, f64), TrainError> {
        let config = &self.job.config;
        let rate = schedule::learning_rate(config, self.step);
        let noise = noise(config, self.step);
        let [tokens, targets] = tensors(&self.corpus.batch(self.step))?;
        let loss = self.model.loss(&tokens, &targets, noise)?;
        let nats = loss.to_scalar::<f32>()?;
        if !nats.is_finite() {
            return Err(TrainError::Diverged { step: self.step, loss: nats });
        }
        let gradients = loss.backward()?;
        self.optimizer.step(&self.params, &gradients, rate)?;
        self.history.losses.push(nats);
        self.step += 1;
        Ok((nats, rate))
    }

    /// Measures the averaged weights on the validation text, and keeps them when they are the best so far.
    fn measure(&mut self) -> Result<Validation, TrainError> {
        self.optimizer.exchange(&self.params)?;
        let measured = self.validate();
        let keep =
            measured.as_ref().is_ok_and(|now| self.history.best().is_none_or(|best| now.nats_per_token < best.nats_per_token));
        if keep {
            self.best = weights(&self.params)?;
        }
        self.optimizer.exchange(&self.params)?;
        let measured = measured?;
        self.history.validations.push(measured);
        Ok(measured)
    }

    /// The loss of the present weights on every validation token, each predicted once.
    fn validate(&self) -> Result<Validation, TrainError> {
        let mut nats = 0.0;
        for batch in self.corpus.validation(self.job.config.batch) {
            let [tokens, targets] = tensors(&batch)?;
            nats += f64::from(self.model.evaluate(&tokens, &targets)?) * batch.targets.len() as f64;
        }
        Ok(Validation::new(self.step, nats, self.corpus.validation_tokens(), self.corpus.validation_bytes()))
    }

    fn due(&self, every: usize) -> bool {
        self.step.is_multiple_of(every) || self.step == self.job.config.steps
    }

    fn summary(&self) -> Summary {
        Summary {
            parameters: self.params.iter().map(|(_, var)| var.elem_count()).sum(),
            vocab_size: self.tokenizer.get_vocab_size(true),
            train_tokens: self.corpus.train_tokens(),
            validation_tokens: self.corpus.validation_tokens(),
            step: self.step,
            steps: self.job.config.steps,
        }
    }

    fn save(&self) -> Result<(), TrainError> {
        let optimizer = self.optimizer.state().map(|(section, name, values)| (key(section, name), values.to_vec()));
        let best = self.best.iter().map(|(name, values)| (key("best", name), values.clone()));
        let weights = weights(&self.params)?.into_iter().map(|(name, values)| (key("weights", &name), values));
        let checkpoint = Checkpoint {
            step: self.step,
            identity: self.identity.clone(),
            history: self.history.clone(),
            values: weights.chain(optimizer).chain(best).collect(),
        };
        checkpoint.save(&self.job.out.join(CHECKPOINT))
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), TrainError> {
        let path = self.job.out.join(CHECKPOINT);
        let Checkpoint { step, history, mut values, .. } = checkpoint;
        let mut take = |section: &str, name: &str, len: usize| {
            let found = values.remove(&key(section, name)).filter(|found| found.len() == len);
            let reason = || format!("{section} of {name} is missing or has another length than {len}");
            found.ok_or_else(|| TrainError::Checkpoint { path: path.clone(), reason: reason() })
        };
        for (name, var) in self.params.iter() {
            let values = take("weights", name, var.elem_count())?;
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?;
            if history.best().is_some() {
                self.best.insert(name.to_owned(), take("best", name, var.elem_count())?);
            }
        }
        self.optimizer.restore(step, |section, name, slot| {
            *slot = take(section, name, slot.len())?;
            Ok(())
        })?;
        (self.step, self.history) = (step, history);
        Ok(())
    }

    /// Writes the best weights and everything that belongs to them.
    fn export(&self) -> Result<Outcome, TrainError> {
        let weight = |(name, var): (&str, &Var)| {
            self.best.get(name).map(|values| Weight { name: name.into(), shape: var.dims().to_vec(), values })
        };
        let weights: Vec<Weight> = self.params.iter().filter_map(weight).collect();
        export::write(&self.job.out, &self.job.config, &self.tokenizer, &self.history, &weights)?;
        let best = self.history.best().ok_or_else(|| self.unmeasured())?;
        Ok(Outcome::Finished(best))
    }

    fn unmeasured(&self) -> TrainError {
        TrainError::Checkpoint { path: self.job.out.join(CHECKPOINT), reason: "it has no validation loss".into() }
    }
}

/// The file that a run resumes from.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const LOCK: &str = ".lock";

fn key(section: &str, name: &str) -> String {
    format!("{section}/{name}")
}

fn both(first: ControlFlow<()>, second: ControlFlow<()>) -> ControlFlow<()> {
    if first.is_break() { first } else { second }
}

/// Creates the directory and locks it against other runs; the lock ends with the process, however it dies.
fn claim(dir: &Path) -> Result<File, TrainError> {
    let path = dir.join(LOCK);
    let open = fs::create_dir_all(dir).and_then(|()| File::create(&path));
    let file = open.map_err(|source| TrainError::Write { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Busy { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(TrainError::Write { path, source }),
    }
}

/// The tokenizer of the run and its fingerprint: the one on disk when the run resumes, else learned and written.
fn find_tokenizer(job: &Job, text: &Text, resumes: bool) -> Result<(Tokenizer, String), TrainError> {
    let path = job.out.join(TOKENIZER);
    if !resumes {
        let learned = tokenizer::learn(text.train(), job.config.vocab_size)?;
        let file = learned.to_string(true).map_err(TrainError::tokenizer)?;
        atomic::replace_with(&path, file.as_bytes())?;
    }
    let file = fs::read_to_string(&path).map_err(|source| TrainError::Read { path, source })?;
    let tokenizer = file.parse().map_err(TrainError::tokenizer)?;
    Ok((tokenizer, digest(file.as_bytes())))
}

/// The dropout of one step, drawn from the seed and the step alone.
fn noise(config: &TrainConfig, step: usize) -> Option<Noise> {
    let seed = Rng::new(config.seed ^ 0xD80F, step as u64).bits();
    let (dropout, attention_dropout) = (config.dropout, config.attention_dropout);
    (dropout > 0.0 || attention_dropout > 0.0).then_some(Noise { dropout, attention_dropout, seed })
}

/// The tokens and the targets of a batch, `[rows, length]` each.
fn tensors(batch: &Batch) -> Result<[Tensor; 2], TrainError> {
    let shape = (batch.rows, batch.tokens.len() / batch.rows);
    Ok([Tensor::from_slice(&batch.tokens, shape, &Device::Cpu)?, Tensor::from_slice(&batch.targets, shape, &Device::Cpu)?])
}

fn weights(params: &Params) -> Result<BTreeMap<String, Vec<f32>>, TrainError> {
    params.iter().map(|(name, var)| Ok((name.to_owned(), adamw::values(var)?))).collect()
}
