//! The `regard` command as its user meets it: output, exit codes, interruption, resumption.

mod bench;
mod cost;
mod embed;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod run;
mod serve;
mod train;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
fn regard() -> Command {
    Command::new(env!("CARGO_BIN_EXE_regard"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory of its own for one test, with a text of about 24 kB and a tiny configuration in it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tale = |i: usize| {
            format!(
                "Chapter {}.\n\nOnce upon a time there was a king who had {} daughters, and the youngest was so fair \
                 that the sun himself wondered at her.\n\"Good day,\" said the princess to the old woman.\n\n",
                i * 7 % 31,
                i * i % 97
            )
        };
        std::fs::write(dir.path().join("tales.txt"), (0..120).map(tale).collect::<String>()).unwrap();
        std::fs::write(dir.path().join("tiny.json"), TINY).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `regard train` on the text with the tiny configuration.
    fn train(&self, out: &Path) -> Command {
        let mut command = regard();
        command.arg("train").arg("--data").arg(self.path("tales.txt"));
        command.arg("--config").arg(self.path("tiny.json")).arg("--out").arg(out);
        command
    }
}

const TINY: &str = r#"{
    "vocab_size": 320, "hidden": 16, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 24, "context": 64,
    "batch": 4, "steps": 160, "warmup": 4, "learning_rate": 0.01, "dropout": 0.1, "attention_dropout": 0.1,
    "eval_every": 40, "checkpoint_every": 2
}"#;

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&["fly"][..], &["train"], &["train", "--data"], &["run", "--max-tokens", "many"]] {
        let output = regard().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}
