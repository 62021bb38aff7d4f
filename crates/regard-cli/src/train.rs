//! `regard train`: a text file becomes a directory with a model.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use regard_nn::train::{Event, Job, Outcome, Progress, Summary, TrainConfig, Trainer, Validation};

use crate::interrupt::Interrupt;

/// Train a model on a text file.
///
/// Learns a byte-level BPE tokenizer and a Llama-type model, measures it on the end of the text, and writes a directory
/// that `regard run --model` and Python's `transformers` load. A run that was stopped or killed goes on when the same
/// command is given again.
#[derive(Args)]
pub(crate) struct Train {
    /// UTF-8 text to learn
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Directory for the checkpoints and the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// JSON file with settings; a setting that it does not name keeps its default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Steps of the whole run
    #[arg(long)]
    steps: Option<usize>,
    /// Windows in one step
    #[arg(long)]
    batch: Option<usize>,
    /// Tokens in one window
    #[arg(long)]
    context: Option<usize>,
    /// Highest learning rate
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of weights, data order and dropout
    #[arg(long)]
    seed: Option<u64>,
    /// Steps between two measurements on the validation text
    #[arg(long)]
    eval_every: Option<usize>,
    /// Steps between two checkpoints
    #[arg(long)]
    checkpoint_every: Option<usize>,
    /// Print the settings as JSON and stop
    #[arg(long)]
    print_config: bool,
}

impl Train {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        let config = self.settings()?;
        if self.print_config {
            println!("{}", serde_json::to_string_pretty(&config)?);
            return Ok(());
        }
        let interrupt = Interrupt::listen()?;
        eprintln!("reading {} and learning its tokenizer", self.data.display());
        let display = Display::new(&config);
        let mut trainer = Trainer::open(Job { data: self.data, out: self.out.clone(), config })?;
        let outcome = trainer.run(&mut |event| {
            display.show(event);
            if interrupt.raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        display.bar.finish_and_clear();
        match outcome? {
            Outcome::Finished(best) => eprintln!("{} holds the model: {}", self.out.display(), described(&best)),
            Outcome::Stopped { step } => eprintln!("stopped after step {step}; the same command goes on from there"),
        }
        Ok(())
    }

    /// The file's settings with those of the command line on top.
    fn settings(&self) -> Result<TrainConfig, Box<dyn Error>> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(TrainConfig::default()), TrainConfig::read)?;
        let set = |field: &mut usize, value: Option<usize>| *field = value.unwrap_or(*field);
        set(&mut config.steps, self.steps);
        set(&mut config.batch, self.batch);
        set(&mut config.context, self.context);
        set(&mut config.eval_every, self.eval_every);
        set(&mut config.checkpoint_every, self.checkpoint_every);
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.seed = self.seed.unwrap_or(config.seed);
        config.validate()?;
        Ok(config)
    }
}

/// A progress bar on a terminal; elsewhere a line now and then.
struct Display {
    bar: ProgressBar,
    lines_every: usize,
}

impl Display {
    fn new(config: &TrainConfig) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(config.steps as u64), ProgressDrawTarget::stderr_with_hz(4));
        Self { bar: bar.with_style(style), lines_every: config.steps.div_ceil(40).min(50) }
    }

    fn show(&self, event: Event) {
        match event {
            Event::Begin(summary) => self.line(&begun(&summary)),
            Event::Step(step) => self.step(&step),
            Event::Validation(measured) => self.line(&format!("step {:>6}  {}", measured.step, described(&measured))),
            _ => (),
        }
    }

    fn step(&self, step: &Progress) {
        let left = HumanDuration(Duration::from_secs(step.remaining.as_secs()));
        let message = format!("loss {:.3}  {:.0} tokens/s  {left:#} left", step.loss, step.tokens_per_second);
        if self.bar.is_hidden() && step.step.is_multiple_of(self.lines_every) {
            eprintln!("step {:>6}  {message}", step.step);
        }
        self.bar.set_message(message);
        self.bar.set_position(step.step as u64);
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

fn begun(summary: &Summary) -> String {
    let Summary { parameters, vocab_size, train_tokens, validation_tokens, step, .. } = summary;
    let millions = *parameters as f64 / 1e6;
    let resumed = if *step > 0 { format!("; resuming after step {step}") } else { String::new() };
    format!(
        "{millions:.2} M parameters, {vocab_size} tokens in the vocabulary, {train_tokens} to learn, {validation_tokens} to measure{resumed}"
    )
}

fn described(measured: &Validation) -> String {
    format!("validation {:.4} nats per token, {:.4} bits per byte", measured.nats_per_token, measured.bits_per_byte)
}
