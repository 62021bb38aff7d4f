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
    let output = regard().args(["bench", "--case", "decode", "--runs", "2", "--json", "--threads", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["threads"], &report["peer"]), (&1.into(), &Value::Null));
    let case = &report["cases"][0];
    assert_eq!((&case["case"], case["seconds"].as_array().unwrap().len()), (&"decode-gqa".into(), 2));
    assert!(case["seconds"][0].as_f64().unwrap() > 0.0);
}

#[test]
fn a_peer_that_does_not_answer_is_an_error() {
    let refuse = |peer: &str| {
        let output = regard().args(["bench", "--case", "decode", "--runs", "1", "--peer", peer]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(refuse("/no/such/peer").contains("cannot start the peer"));
    assert!(refuse("cat").contains("and not its seconds"), "an echo");
    assert!(refuse("true").contains("the peer"), "one that ends at once");
    assert!(refuse("").contains("the peer's command is empty"));
}
