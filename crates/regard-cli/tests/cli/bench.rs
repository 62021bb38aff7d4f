//! `regard bench`: it measures what it is asked to, and says what is wrong with a peer.

use serde_json::Value;

use super::{regard, stderr};

#[test]
fn cases_can_be_listed_and_chosen() {
    let output = regard().args(["bench", "--list", "--case", "memory"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "memory-forward-65536\nmemory-backward-65536\n");
    let none = regard().args(["bench", "--case", "flight"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("no case has [\"flight\"] in its name; the cases are forward-d64, "), "{}", stderr(&none));
}

#[test]
fn a_case_is_measured() {
    let output = regard().args(["bench", "--case", "bf16-512", "--runs", "2", "--json", "--threads", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["threads"], &report["peer"]), (&1.into(), &Value::Null));
    let case = &report["cases"][0];
    assert_eq!((&case["case"], case["seconds"].as_array().unwrap().len()), (&"bf16-512-d64-causal".into(), 2));
    assert!(case["seconds"][0].as_f64().unwrap() > 0.0);
    let share = case["share_of_floor"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.2, "{case}");
    assert_eq!(report["roofline"][0]["threads"], 1);
}

#[test]
fn a_peer_that_does_not_answer_is_an_error() {
    let refuse = |peer: &str| {
        let output = regard().args(["bench", "--case", "bf16-512", "--runs", "1", "--peer", peer]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(refuse("/no/such/peer").contains("cannot start the peer"));
    assert!(refuse("cat").contains("and not its seconds"), "an echo");
    assert!(refuse("true").contains("the peer"), "one that ends at once");
    assert!(refuse("").contains("the peer's command is empty"));
}

/// A peer of a few lines of shell: it answers one line after another, whatever it is asked.
#[cfg(unix)]
fn peer(answers: &[&str]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer.sh");
    let lines: String = answers.iter().map(|answer| format!("read -r line; echo '{answer}'\n")).collect();
    std::fs::write(&path, lines + "while read -r line; do echo '{\"seconds\": 0.5}'; done\n").unwrap();
    let command = format!("sh {}", path.display());
    (dir, command)
}

#[cfg(unix)]
#[test]
fn a_peer_that_refuses_a_case_leaves_a_dash_and_the_run_goes_on() {
    let (_dir, refusing) =
        peer(&[r#"{"name": "Shy 1.0"}"#, r#"{"unsupported": "no causal mask"}"#, r#"{"ready": true, "note": "dense mask"}"#]);
    let bench = |extra: &[&str]| {
        let cases = ["bench", "attention", "--case", "bf16-512", "--threads", "1", "--runs", "1", "--peer", &refusing];
        let output = regard().args(cases).args(extra).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = bench(&[]);
    assert!(table.contains("against Shy 1.0") && table.contains("–   unsupported: no causal mask"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("bf16-512-d128-causal") && line.ends_with("   dense mask")), "{table}");
    let json: Value = serde_json::from_str(&bench(&["--json"])).unwrap();
    let [refused, done] = json["cases"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&refused["unsupported"], refused["ratios"].as_array().unwrap().len()), (&"no causal mask".into(), 0));
    assert_eq!((&done["note"], done["ratios"].as_array().unwrap().len()), (&"dense mask".into(), 1));
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_told_side_by_side() {
    let (_dir, answering) = peer(&[r#"{"name": "Big 2.0"}"#, r#"{"ready": true}"#, r#"{"bytes": 3145728}"#]);
    // The command starts its peer once for times and once for memory.
    let arguments = ["bench", "--memory", "--case", "bf16-length-128", "--threads", "1", "--json", "--peer", &answering];
    let output = regard().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let case = &json["cases"][0];
    assert_eq!(case["other_bytes_grown"], 3_145_728);
    assert!(case["bytes_grown"].as_u64().unwrap() < 16 << 20, "{case}");
}

#[test]
fn slow_cases_run_when_their_whole_name_is_given() {
    let list = |arguments: &[&str]| {
        let output = regard().args(["bench", "attention", "--list"]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!list(&[]).iter().any(|name| name.contains("1048576")));
    assert!(!list(&["--case", "window"]).iter().any(|name| name.contains("1048576")));
    assert!(list(&["--all"]).iter().any(|name| name == "bf16-window-1048576"));
    assert_eq!(list(&["--case", "bf16-window-1048576"]), ["bf16-window-1048576"]);
    assert_eq!(list(&["--case", "memory-window-1048576"]), ["memory-window-1048576"]);
}

#[test]
fn the_roofline_is_measured_for_one_thread_and_for_all() {
    let output = regard().args(["bench", "roofline", "--threads", "2", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let roofs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let threads: Vec<u64> = roofs.as_array().unwrap().iter().map(|roof| roof["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2]);
    for rate in ["/f32_flops", "/bf16_flops", "/exps", "/l2/bytes_per_second", "/l3/bytes_per_second", "/memory"] {
        assert!(roofs[0].pointer(rate).and_then(Value::as_f64).unwrap() > 1e6, "{rate} of {roofs}");
    }
}

#[cfg(unix)]
#[test]
fn ratios_are_drawn() {
    let (dir, answering) = peer(&[r#"{"name": "Slow <1.0> & more"}"#, r#"{"ready": true}"#, r#"{"seconds": 0.5}"#]);
    let path = dir.path().join("ratios.svg");
    let case = ["bench", "--case", "bf16-512-d64", "--threads", "1", "--runs", "2", "--peer", &answering, "--svg"];
    let output = regard().args(case).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("bf16-512-d64-causal") && svg.contains("Slow &lt;1.0&gt; &amp; more"), "{svg}");
    assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    let without = regard().args(["bench", "--svg", "x.svg"]).output().unwrap();
    assert_eq!(without.status.code(), Some(2), "there are no ratios without a peer");
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_enough_is_no_error() {
    let command = format!("{} bench numerics --length 64 | head -n 1", env!("CARGO_BIN_EXE_regard"));
    let output = std::process::Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn numerics_tell_the_error_of_every_kernel() {
    let output = regard().args(["bench", "numerics", "--length", "48", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        // Half a unit in the last place of an output near 1 is 2⁻²⁵, 2⁻⁹ (bf16), 2⁻¹² (f16); a few of them make an error.
        let unit = match row["case"].as_str().unwrap().split(' ').next() {
            Some("f32") => 2f64.powi(-25),
            Some("bf16") => 2f64.powi(-9),
            _ => 2f64.powi(-12),
        };
        for (kernel, error) in row["kernels"].as_object().unwrap() {
            let error = error.as_f64().unwrap();
            assert!(error > unit / 100.0 && error < 8.0 * unit, "{kernel}: {row}");
        }
        assert!(row["kernels"]["scalar"].is_f64() && row["ratio"].is_null(), "{row}");
    }
}

#[test]
fn pages_hold_more_tokens_than_what_is_reserved() {
    let output = regard().args(["bench", "paging", "--requests", "120", "--texts", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schemes = json["schemes"].as_array().unwrap();
    let of = |field: &str| schemes.iter().map(|scheme| scheme.pointer(field).unwrap().as_f64().unwrap()).collect::<Vec<_>>();
    let parts = ["/tokens", "/later", "/never", "/between"].map(of);
    for i in 0..4 {
        let sum: f64 = parts.iter().map(|part| part[i]).sum();
        assert!((sum - 1.0).abs() < 1e-9 && parts.iter().all(|part| part[i] >= 0.0), "{json}");
    }
    assert!(parts[0].is_sorted() && parts[0][3] > 0.85, "longest, powers of two, exact, pages: {:?}", parts[0]);
    assert!(of("/requests_per_second/ShareGPT").is_sorted(), "{json}");
    assert_eq!(parts[2][2], 0.0, "what is known exactly is all used");
    for saving in json["sharing"].as_array().unwrap() {
        let saved: Vec<f64> = saving["saved"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
        // Of w texts at most w − 1 are shared.
        assert!(saved.iter().zip([0.5, 0.75, 5.0 / 6.0]).all(|(share, most)| *share > 0.0 && *share < most), "{saving}");
    }
}

#[test]
fn the_engine_is_measured() {
    let serving = ["bench", "serving", "--batch", "1,3", "--prompt", "20", "--shared", "64", "--runs", "1"];
    let output = regard().args(serving).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    for rate in ["/prefill/1/0", "/prefill/3/0", "/decode/1/0", "/decode/3/0", "/contiguous_to_paged/3/0", "/hit_to_miss/0"] {
        assert!(json.pointer(rate).and_then(Value::as_f64).is_some_and(|rate| rate > 0.0), "{rate} of {json}");
    }
    let output = regard().args(["bench", "serving", "--prompt", "600"]).output().unwrap();
    assert!(stderr(&output).contains("context of 512"), "{}", stderr(&output));
}
