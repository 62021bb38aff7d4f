//! Training: resumption, bad input, full disks, and the directory a run leaves behind.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use regard_nn::train::{CHECKPOINT, Event, History, Job, Outcome, TrainConfig, TrainError, Trainer};

const TALE: &str = "Once upon a time there was a king who had three daughters, and the youngest was so fair that the sun \
himself wondered at her.\n\nShe went into the forest, and there she met an old woman.\n\"Good day,\" said the princess.\n\n";

/// A text of about 24 kB with some variety.
fn text() -> String {
    let line =
        |i: usize| format!("Chapter {i}.\n\n{TALE}The {}th day they came to a river of {} boats.\n\n", i * 7 % 31, i * i % 97);
    (0..80).map(line).collect()
}

fn tiny() -> TrainConfig {
    TrainConfig {
        vocab_size: 300,
        hidden: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        intermediate: 24,
        context: 32,
        batch: 4,
        steps: 20,
        warmup: 4,
        learning_rate: 1e-2,
        dropout: 0.1,
        attention_dropout: 0.1,
        eval_every: 6,
        checkpoint_every: 5,
        ..TrainConfig::default()
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("text"), text).unwrap();
        Self { dir }
    }

    fn job(&self, out: &str, config: TrainConfig) -> Job {
        Job { data: self.path("text"), out: self.path(out), config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs until the end, or until `stop` steps are done; returns the losses seen and the outcome.
fn run(job: Job, stop: usize) -> Result<(Vec<f32>, Outcome), TrainError> {
    let mut losses = Vec::new();
    let outcome = Trainer::open(job)?.run(&mut |event| match event {
        Event::Step(step) => {
            losses.push(step.loss);
            if step.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        _ => ControlFlow::Continue(()),
    })?;
    Ok((losses, outcome))
}

fn refusal(job: Job) -> String {
    Trainer::open(job).map(|_| ()).unwrap_err().to_string()
}

fn bytes(path: &Path, name: &str) -> Vec<u8> {
    fs::read(path.join(name)).unwrap()
}

#[test]
fn a_resumed_run_has_the_losses_of_an_unbroken_one() {
    let place = Place::new(text());
    let (unbroken, end) = run(place.job("one", tiny()), usize::MAX).unwrap();
    let (mut halves, stopped) = run(place.job("two", tiny()), 9).unwrap();
    assert_eq!(stopped, Outcome::Stopped { step: 9 });
    let (rest, end_of_two) = run(place.job("two", tiny()), usize::MAX).unwrap();
    halves.extend(rest);
    assert_eq!(unbroken, halves);
    assert_eq!(end, end_of_two);
    for file in ["model.safetensors", "tokenizer.json", "history.json", "loss.svg", "config.json"] {
        assert!(bytes(&place.path("one"), file) == bytes(&place.path("two"), file), "{file} differs");
    }
}

#[test]
fn the_loss_falls() {
    let place = Place::new(text());
    let (losses, outcome) = run(place.job("out", TrainConfig { steps: 60, ..tiny() }), usize::MAX).unwrap();
    assert!(losses[59] < losses[0] - 1.0, "from {} to {}", losses[0], losses[59]);
    let Outcome::Finished(best) = outcome else { panic!("{outcome:?}") };
    assert!(best.nats_per_token < f64::from(losses[0]) && best.bits_per_byte > 0.0);
}

#[test]
fn a_finished_run_is_exported_again_and_not_trained_again() {
    let place = Place::new(text());
    let (_, first) = run(place.job("out", tiny()), usize::MAX).unwrap();
    fs::remove_file(place.path("out/model.safetensors")).unwrap();
    let (losses, second) = run(place.job("out", tiny()), usize::MAX).unwrap();
    assert_eq!((losses.len(), first), (0, second));
    assert!(place.path("out/model.safetensors").exists());
}

#[test]
fn bad_text_is_refused_with_its_reason() {
    let refuse = |text: &[u8]| {
        let place = Place::new(text);
        refusal(place.job("out", tiny()))
    };
    assert!(refuse(b"").contains("is empty"));
    assert!(refuse(b"abc\xFFdef").contains("byte at offset 3"));
    let short = refuse(b"a short text");
    assert!(short.contains("context of 32 needs at least 64 training tokens"), "{short}");
    let place = Place::new("x");
    let missing = refusal(Job { data: place.path("nowhere"), ..place.job("out", tiny()) });
    assert!(missing.contains("cannot read") && missing.contains("nowhere"), "{missing}");
}

#[test]
fn impossible_configurations_are_refused_with_field_and_need() {
    let cases = [
        (TrainConfig { hidden: 30, ..tiny() }, "hidden is 30 and must be a multiple of heads = 4"),
        (TrainConfig { hidden: 12, ..tiny() }, "hidden / heads is 3 and must be even"),
        (TrainConfig { kv_heads: 3, ..tiny() }, "heads is 4 and must be a multiple of kv_heads = 3"),
        (TrainConfig { layers: 0, ..tiny() }, "layers is 0 and must be between 1"),
        (TrainConfig { heads: 0, ..tiny() }, "heads is 0"),
        (TrainConfig { vocab_size: 100, ..tiny() }, "vocab_size is 100 and must be between 258"),
        (TrainConfig { dropout: 1.0, ..tiny() }, "dropout is 1 and must be at least 0 and less than 1"),
        (TrainConfig { learning_rate: f64::NAN, ..tiny() }, "learning_rate is NaN and must be positive"),
        (TrainConfig { validation: 0.0, ..tiny() }, "validation is 0 and must be above 0"),
    ];
    for (config, expected) in cases {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_configuration_file_is_read_strictly() {
    let place = Place::new("");
    let read = |json: &str| {
        fs::write(place.path("config.json"), json).unwrap();
        TrainConfig::read(&place.path("config.json")).map_err(|error| error.to_string())
    };
    assert_eq!(read(r#"{"layers": 3, "dtype": "f32"}"#).unwrap().layers, 3);
    assert!(read(r#"{"layer": 3}"#).unwrap_err().contains("unknown field `layer`"));
    assert!(read(r#"{"layers": -3}"#).unwrap_err().contains("-3"));
    assert!(read("layers: 3").unwrap_err().contains("not a training configuration"));
    assert!(read(r#"{"layers": 0}"#).unwrap_err().contains("layers is 0"));
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let place = Place::new(text());
    run(place.job("out", tiny()), 3).unwrap();
    let other_rate = refusal(place.job("out", TrainConfig { learning_rate: 0.5, ..tiny() }));
    assert!(other_rate.contains("another learning_rate (0.01 there, 0.5 here)"), "{other_rate}");
    fs::write(place.path("text"), text() + "more").unwrap();
    let other_text = refusal(place.job("out", tiny()));
    assert!(other_text.contains("another text"), "{other_text}");
}

#[test]
fn a_damaged_checkpoint_is_refused_and_never_panics() {
    let place = Place::new(text());
    run(place.job("out", tiny()), 3).unwrap();
    let path = place.path("out").join(CHECKPOINT);
    let whole = fs::read(&path).unwrap();
    for keep in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).unwrap();
        let message = refusal(place.job("out", tiny()));
        assert!(message.contains("is not a usable checkpoint"), "{keep}: {message}");
    }
}

#[test]
fn a_directory_with_a_foreign_model_is_left_alone() {
    let place = Place::new(text());
    fs::create_dir(place.path("out")).unwrap();
    fs::write(place.path("out/model.safetensors"), "precious").unwrap();
    assert!(refusal(place.job("out", tiny())).contains("already holds a model"));
    assert_eq!(bytes(&place.path("out"), "model.safetensors"), b"precious");
}

#[test]
fn two_runs_cannot_share_a_directory() {
    let place = Place::new(text());
    let _first = Trainer::open(place.job("out", tiny())).unwrap();
    assert!(refusal(place.job("out", tiny())).contains("another run is writing"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_previous_checkpoint() {
    let place = Place::new(text());
    run(place.job("out", tiny()), 5).unwrap();
    let partial = place.path("out").join(format!(".{CHECKPOINT}.partial"));
    let before = bytes(&place.path("out"), CHECKPOINT);
    std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
    let message = run(place.job("out", tiny()), usize::MAX).unwrap_err().to_string();
    assert!(message.contains("No space left on device") && message.contains("intact"), "{message}");
    assert!(before == bytes(&place.path("out"), CHECKPOINT));
    let (rest, outcome) = run(place.job("out", tiny()), usize::MAX).unwrap();
    assert_eq!(rest.len(), 15);
    assert!(matches!(outcome, Outcome::Finished(_)));
}

#[test]
fn the_history_is_that_of_the_run() {
    let place = Place::new(text());
    let (losses, outcome) = run(place.job("out", tiny()), usize::MAX).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&bytes(&place.path("out"), "history.json")).unwrap();
    let written = file["history"]["losses"].as_array().unwrap();
    assert_eq!(written.len(), losses.len());
    assert_eq!(file["history"]["validations"].as_array().unwrap().len(), 4, "after 6, 12, 18 and 20 steps");
    let Outcome::Finished(best) = outcome else { panic!("{outcome:?}") };
    assert_eq!(file["best"]["step"], best.step);
    assert_eq!(History::default().best(), None);
}
