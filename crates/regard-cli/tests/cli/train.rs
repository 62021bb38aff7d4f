//! `regard train`: it resumes after SIGKILL, and says what is wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Place, stderr};

/// Lets the command print `lines` lines about steps, then kills it with SIGKILL.
fn kill_after(mut command: Command, lines: usize) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stderr.take().unwrap());
    let seen = output.lines().map_while(Result::ok).filter(|line| line.starts_with("step")).take(lines).count();
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "the run ended by itself after {seen} lines");
}

fn finish(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

#[test]
fn a_run_that_was_killed_again_and_again_ends_as_an_unbroken_one() {
    let place = Place::new();
    let (unbroken, killed) = (place.path("unbroken"), place.path("killed"));
    finish(place.train(&unbroken));
    for lines in [1, 7, 9, 3, 12] {
        kill_after(place.train(&killed), lines);
    }
    assert!(!killed.join("model.safetensors").exists());
    let messages = finish(place.train(&killed));
    assert!(messages.contains("resuming after step"), "{messages}");
    for name in ["history.json", "model.safetensors", "tokenizer.json", "loss.svg"] {
        assert!(read(&unbroken, name) == read(&killed, name), "{name} differs");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let place = Place::new();
    let out = place.path("out");
    let mut child = place.train(&out).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    lines.by_ref().take_while(|line| !line.starts_with("step")).for_each(drop);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success());
    assert!(rest.last().unwrap().contains("the same command goes on from there"), "{rest:?}");
    assert!(finish(place.train(&out)).contains("resuming after step"));
}

#[test]
fn errors_go_to_stderr_and_exit_with_1() {
    let place = Place::new();
    fs::write(place.path("bytes.txt"), b"plain \xC3\x28").unwrap();
    fs::write(place.path("empty.txt"), b"").unwrap();
    let refuse = |arguments: &[&str]| {
        let output = place.train(&place.path("out")).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", stderr(&output));
        let message = stderr(&output).lines().last().unwrap_or_default().to_owned();
        assert!(message.starts_with("error: "), "{message}");
        message
    };
    let data = |name: &str| {
        let mut command = super::regard();
        command.args(["train", "--data"]).arg(place.path(name)).arg("--out").arg(place.path("out"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(data("absent.txt").contains("absent.txt"));
    assert!(data("bytes.txt").contains("offset 6"));
    assert!(data("empty.txt").contains("is empty"));
    assert!(refuse(&["--learning-rate", "0"]).contains("learning_rate is 0"));
    fs::write(place.path("tiny.json"), r#"{"depth": 3}"#).unwrap();
    assert!(refuse(&[]).contains("unknown field `depth`"));
}

#[test]
fn settings_can_be_printed() {
    let place = Place::new();
    let output = place.train(&place.path("out")).args(["--steps", "7", "--print-config"]).output().unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&settings["steps"], &settings["hidden"]), (&7.into(), &16.into()));
    assert!(!place.path("out").exists());
}

/// A real refusal of the file system, in the middle of a file: the limit on file sizes.
#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_previous_one() {
    let place = Place::new();
    let out = place.path("out");
    kill_after(place.train(&out), 4);
    let before = read(&out, "checkpoint.safetensors");
    let inner = place.train(&out);
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("File too large"), "{}", stderr(&output));
    assert!(before == read(&out, "checkpoint.safetensors"));
    finish(place.train(&out));
}
