//! `regard inspect`: the summary, the files, and what is refused.

use std::fs;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::{regard, stderr};

const TEXT: &str = "Once upon a time there was a king, and the king had a daughter.";

fn inspect(arguments: &[&str]) -> Output {
    regard().arg("inspect").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_summary_names_the_model_its_entropies_and_its_heads() {
    let text = stdout(&inspect(&[TEXT]));
    for part in
        ["story: llama", "6 layers of 8 heads", "nats per token", "previous token", "induction", "sinks", "no position saw a later"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let entropies = text.lines().skip_while(|line| !line.starts_with("entropy")).skip(1).take(6);
    for (layer, line) in entropies.enumerate() {
        let numbers: Vec<f64> = line.split_whitespace().map(|x| x.parse().unwrap()).collect();
        assert_eq!((numbers[0], numbers.len()), (layer as f64, 9), "{line}");
        assert!(numbers[1..].iter().all(|entropy| (0.0..3.0).contains(entropy)), "{line}");
    }
}

#[test]
fn all_outputs_of_several_texts_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("one.txt"), "The old witch said, \"Good day.\"").unwrap();
    fs::write(path("two.txt"), "The youngest brother went into the forest.").unwrap();
    let (one, two, out, svg, alike) = (path("one.txt"), path("two.txt"), path("report.html"), path("heads.svg"), path("alike.csv"));
    let output = inspect(&[
        TEXT,
        "--similarities",
        &alike,
        "--file",
        &one,
        "--file",
        &two,
        "--json",
        "-",
        "--out",
        &out,
        "--svg",
        &svg,
        "--csv",
        &path("heads.csv"),
    ]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&report["format"], &report["run"]["texts"]), (&"regard-lens/1".into(), &3.into()));
    assert_eq!(report["texts"][1]["name"], "one.txt");
    assert_eq!(report["heads"].as_array().unwrap().len(), 48);
    assert_eq!(report["heads"][13]["layer"], 1);
    // 6 layers of a tied model of 4096 tokens, 256 wide: by hand from its configuration.
    let block = 256 * (8 + 4 + 4) * 32 + 8 * 32 * 256 + 3 * 256 * 640 + 2 * 256;
    assert_eq!(report["model"]["parameters"], 4096 * 256 + 6 * block + 256);
    assert!(report["heads"][0]["ablation"].is_null());
    assert_eq!(fs::read_to_string(path("heads.csv")).unwrap().lines().count(), 49);
    let alike = fs::read_to_string(alike).unwrap();
    assert!(alike.starts_with("head,0.0,0.1,") && alike.lines().count() == 49, "{alike}");
    assert!(fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let page = fs::read_to_string(out).unwrap();
    assert!(page.contains(r#"type="application/json">{"format":"regard-lens/1""#));
    assert!(fs::read_dir(dir.path()).unwrap().all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn a_picture_of_pixels_goes_anywhere() {
    let output = inspect(&[TEXT, "--png", "-"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // The signature, and the last chunk with its checksum: nothing follows.
    assert!(output.stdout.starts_with(b"\x89PNG\r\n\x1a\n") && output.stdout.ends_with(b"IEND\xaeB`\x82"));
}

#[test]
fn heads_are_ablated_where_they_are_named() {
    let output = inspect(&["Once upon a time there was", "--ablate=2.5", "--ablate=0.0", "--ablate=3", "--json", "-"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let measured: Vec<usize> = (0..48).filter(|i| report["heads"][i]["ablation"]["zero"].is_number()).collect();
    assert_eq!(measured, [0, 21]);
    assert!(measured.iter().all(|i| report["heads"][i]["ablation"]["resample"].is_number()));
    assert_eq!((report["layers"].as_array().unwrap().len(), &report["layers"][0]["layer"]), (1, &3.into()));
    assert!(report["layers"][0]["ablation"]["resample"].is_number());
    let text = stdout(&inspect(&["Once upon a time there was", "--ablate=2.5", "--ablate=3"]));
    assert!(text.contains("loss resampled  2.5") && text.matches("  of a layer    3 ").count() == 3, "{text}");
}

#[test]
fn the_heads_that_matter_least_are_pruned() {
    let arguments = ["Once upon a time", "--json", "-"];
    let pruned = |flag: &str| -> Value { serde_json::from_str(&stdout(&inspect(&[&arguments[..], &[flag]].concat()))).unwrap() };
    let heads = |report: &Value| -> Vec<u64> {
        report["pruning"].as_array().unwrap().iter().map(|at| at["heads"].as_u64().unwrap()).collect()
    };
    let report = pruned("--prune");
    assert_eq!(heads(&report), [0, 6, 12, 18, 24, 30, 36, 42, 48]);
    assert!(report["pruning"][8]["loss"].as_f64() > report["pruning"][0]["loss"].as_f64());
    assert!((0..48).all(|i| report["heads"][i]["ablation"]["zero"].is_number()) && report["layers"].as_array().unwrap().len() == 6);
    assert_eq!(heads(&pruned("--prune=3")), [0, 16, 32, 48]);
    let text = stdout(&inspect(&["Once upon a time", "--prune=2"]));
    let losses = [0, 24].map(|heads| {
        let at = report["pruning"].as_array().unwrap().iter().find(|at| at["heads"] == heads);
        at.unwrap()["loss"].as_f64().unwrap()
    });
    let line =
        format!("Pruning: without the 24 heads that matter least the loss is {:.3} nats a token, not {:.3}.", losses[1], losses[0]);
    assert!(text.lines().any(|given| given == line), "{line}: {text}");
    for points in ["--prune=0", "--prune=1001", "--prune=few"] {
        let output = inspect(&[TEXT, points]);
        assert_eq!(output.status.code(), Some(2), "{points}");
        assert!(stderr(&output).contains("--prune[=<POINTS>]"), "{points}: {}", stderr(&output));
    }
}

#[test]
fn ranges_have_names_and_masses() {
    let arguments = [TEXT, "--range", "start=0..3", "--range", "heir=a daughter", "--csv", "-"];
    let csv = stdout(&inspect(&arguments));
    assert!(csv.lines().next().unwrap().ends_with(r#","range start","range start last","range heir","range heir last""#), "{csv}");
    let text = stdout(&inspect(&arguments[..5]));
    assert!(text.contains("on \"heir\", tokens ") && text.contains("  from the end"), "{text}");
    let report: Value = serde_json::from_str(&stdout(&inspect(&[&arguments[..5], &["--json", "-"]].concat()))).unwrap();
    let range = &report["run"]["ranges"][1];
    let at = |end: &str| range[end].as_u64().unwrap() as usize;
    let tokens = report["texts"][0]["tokens"].as_array().unwrap();
    let held: String = tokens[at("start")..at("end")].iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!((range["name"].as_str(), held.trim()), (Some("heir"), "a daughter"));
    assert!(report["heads"].as_array().unwrap().iter().all(|head| head["ranges"][0]["mass"].as_f64().unwrap() > 0.0));
}

#[test]
fn the_last_row_is_followed_through_all_layers() {
    let report: Value = serde_json::from_str(&stdout(&inspect(&[TEXT, "--through", "--json", "-"]))).unwrap();
    let through = &report["through"];
    let shares = |by: &str| -> Vec<f64> { through[by].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    let (rollout, flow, tokens) = (shares("rollout"), shares("flow"), report["texts"][0]["tokens"].as_array().unwrap());
    assert_eq!((rollout.len(), flow.len(), through["row"].as_u64()), (tokens.len(), tokens.len(), Some(tokens.len() as u64 - 1)));
    assert!((rollout.iter().sum::<f64>() - 1.0).abs() < 1e-4 && rollout.iter().zip(&flow).all(|(path, most)| *path <= most + 1e-9));
    // The summary names the tokens of the largest shares, the largest first.
    let text = stdout(&inspect(&[TEXT, "--through"]));
    for (name, shares) in [("through rollout ", rollout), ("through flow    ", flow)] {
        let most = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]).then(b.cmp(a))).unwrap();
        let line = format!("{name}{most} {:?} {:.3}   ", tokens[most].as_str().unwrap(), shares[most]);
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("Rollout and flow, from the first text's last token through all layers, are approximations"), "{text}");
}

/// The story model with a context of 4,096 tokens.
#[test]
fn a_row_of_a_long_text_is_not_followed() {
    let (dir, story) = (tempfile::tempdir().unwrap(), concat!(env!("CARGO_MANIFEST_DIR"), "/../regard-story/model"));
    for file in fs::read_dir(story).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let place = dir.path().join("config.json");
    let config = fs::read_to_string(&place).unwrap();
    fs::write(&place, config.replace(r#""max_position_embeddings": 512"#, r#""max_position_embeddings": 4096"#)).unwrap();
    let output = inspect(&["--model", dir.path().to_str().unwrap(), "--through", &"king ".repeat(700)]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(stderr(&output).contains("tokens, and rollout and flow through 6 layers are of at most 563"), "{}", stderr(&output));
}

#[test]
fn parts_of_the_weights_are_told() {
    let arguments = [TEXT, "--zoom", "2.5=4..9,0..6", "--zoom", "0.0=1..2,0..2"];
    let report: Value = serde_json::from_str(&stdout(&inspect(&[&arguments[..], &["--json", "-"]].concat()))).unwrap();
    let zooms = |head: usize| report["heads"][head]["zooms"].as_array().unwrap();
    assert_eq!((zooms(21).len(), zooms(0).len(), zooms(1).len()), (1, 1, 0));
    let zoom = &zooms(21)[0];
    assert_eq!([&zoom["rows"], &zoom["keys"]], [&Value::from(vec![4, 9]), &Value::from(vec![0, 6])]);
    let map = &zoom["map"];
    assert_eq!([&map["block"], &map["rows"], &map["columns"]], [1, 5, 6]);
    assert_eq!(map["data"].as_str().unwrap().len(), 30usize.div_ceil(3) * 4);
    let text = stdout(&inspect(&arguments));
    assert!(text.contains("zoom            2.5 rows 4..9, keys 0..6: 5 by 6 cells, in --json and --out"), "{text}");
}

#[test]
fn facts_in_long_texts_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("long.csv").to_str().unwrap().to_owned();
    let asked = |arguments: &[&str]| inspect(&[&["--long-context", "60,120", "--draws", "1"], arguments].concat());
    let all: Value = serde_json::from_str(&stdout(&asked(&["--json", "-", "--csv", &csv]))).unwrap();
    let trials = all["trials"].as_array().unwrap();
    assert_eq!((&all["format"], trials.len()), (&"regard-long-context/1".into(), 2 * (3 * 5 + 1)));
    for trial in trials {
        assert!(trial["tokens"].as_u64() <= trial["length"].as_u64(), "{trial}");
        let mass = trial["mass"][5][7].as_f64().unwrap();
        assert!((0.0..=1.0001).contains(&mass), "{trial}");
    }
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), trials.len() + 1);
    let text = stdout(&asked(&[]));
    assert!(["needle", "keys", "variables", "words", "not answered"].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn prompts_are_patched() {
    let (clean, corrupt) = ("The king said to the queen", "The king said to the witch");
    let patched = |arguments: &[&str]| inspect(&[&["--patch", clean, corrupt], arguments].concat());
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("patches.csv").to_str().unwrap().to_owned();
    let all: Value = serde_json::from_str(&stdout(&patched(&["--json", "-", "--csv", &csv]))).unwrap();
    let n = all["clean"]["tokens"].as_array().unwrap().len();
    assert_eq!((&all["format"], all["answer"].as_array().unwrap().len()), (&"regard-patch/1".into(), 1));
    assert_eq!([all["heads"].as_array().unwrap().len(), all["layers"].as_array().unwrap().len()], [6, 6]);
    assert_eq!(fs::read_to_string(csv).unwrap().lines().count(), 1 + 48 + 6 + 6 * n);
    // The prompts differ in the last token, so its stream before the first block is all of the difference, and the others' none.
    let before = all["residual"][0].as_array().unwrap();
    assert!(before[n - 1] == 1.0 && before[..n - 1].iter().all(|share| *share == 0.0), "{before:?}");
    let text = stdout(&patched(&["--answer", " and"]));
    assert!(text.contains("answer      \" and\"") && text.contains("before 0 at"), "{text}");
}

#[test]
fn what_cannot_be_done_is_said_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let nowhere = dir.path().join("none/report.html");
    let latin = dir.path().join("latin.txt");
    fs::write(&latin, b"na\xefve").unwrap();
    let long = "king ".repeat(600);
    let zooms = ["--zoom=0.0=0..1,0..1"; 65];
    let cases: [(&[&str], &str); 24] = [
        (&["--ablate=9.0", TEXT], "there is no layer 9: the model has layers 0 to 5"),
        (&["--ablate=1.8", TEXT], "there is no head 8 in layer 1: each layer has heads 0 to 7"),
        (&["--ablate=6", TEXT], "there is no layer 6: the model has layers 0 to 5"),
        (&["--ablate=two", TEXT], "--ablate is \"two\" and must be LAYER.HEAD"),
        (&[TEXT, "--range", "a=2..99"], "the range \"a=2..99\" is not one token or more of the text \"command line\""),
        (&[TEXT, "--range", "a=princess"], "names a piece that is not in the text"),
        (&[TEXT, "--range", "a=1..2", "--range", "a=2..3"], "has the name of another"),
        (&[TEXT, "--zoom", "2.5"], "the zoom \"2.5\" is not LAYER.HEAD=ROWS,KEYS, such as 2.5=1000..1256,0..256"),
        (&[TEXT, "--zoom", "6.0=0..1,0..1"], "there is no layer 6: the model has layers 0 to 5"),
        (&[TEXT, "--zoom", "0.8=0..1,0..1"], "there is no head 8 in layer 0: each layer has heads 0 to 7"),
        (&[TEXT, "--zoom", "0.1=0..99,0..1"], "has the rows 0..99, which are not one token or more of the text \"command line\""),
        (&[TEXT, "--zoom", "0.1=0..1,2..1"], "has the keys 2..1, which are not one token or more"),
        (&zooms, "there are 65 zooms and a report has at most 64"),
        (&["--patch", "The king", "The king"], "the clean and the corrupt prompt are the same tokens"),
        (&["--patch", "The king", "The old king said"], "the clean prompt has"),
        (&["--patch", "The king", "The witch", "--answer", ""], "the answer \"\" adds no tokens"),
        (&["--long-context", "200,9999"], "the model's context is 512 tokens: shorten the text"),
        (&["--long-context", "5"], "a length of 5 tokens has no room for a question and its answer"),
        (&[&long], "the model's context is 512 tokens: shorten the text"),
        (&["a"], "and needs at least 2"),
        (&[TEXT, "--out", nowhere.to_str().unwrap()], "cannot write"),
        (&[TEXT, "--json", folder], "cannot write"),
        (&["--file", nowhere.to_str().unwrap()], "cannot read"),
        (&["--file", latin.to_str().unwrap()], "is not UTF-8: the byte at offset 2"),
    ];
    for (arguments, part) in cases {
        let output = inspect(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(part) && output.stdout.is_empty(), "{arguments:?}: {}", stderr(&output));
    }
}
