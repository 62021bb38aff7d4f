//! Chat templates: the text of Hugging Face, and nothing worse than an error from a template that means harm.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use regard_nn::{ChatTemplate, Error, Message, Result};
use serde_json::Value;

fn messages(turns: &Value) -> Vec<Message> {
    let text = |turn: &Value, key| turn[key].as_str().unwrap().to_owned();
    turns.as_array().unwrap().iter().map(|turn| Message::new(text(turn, "role"), text(turn, "content"))).collect()
}

fn template(source: &str) -> Result<ChatTemplate> {
    ChatTemplate::new(source, BTreeMap::new())
}

/// What a template makes of one question.
fn ask(source: &str) -> Result<String> {
    template(source)?.render(&[Message::new("user", "Who?")], true)
}

fn refusal(source: &str) -> String {
    ask(source).unwrap_err().to_string()
}

/// The expected texts come of `transformers`, by `chat/make.py`.
#[test]
fn conversations_read_as_hugging_face_writes_them() {
    let mut cases = 0;
    for name in ["bars", "channels", "chatml", "headers", "inst", "turns"] {
        let path = format!("{}/tests/chat/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let fixture: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let special = serde_json::from_value(fixture["special"].clone()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(fixture["now"].as_u64().unwrap());
        let template = ChatTemplate::new(fixture["template"].as_str().unwrap(), special).unwrap().at(now);
        for case in fixture["cases"].as_array().unwrap() {
            let text = template.render(&messages(&case["messages"]), case["add_generation_prompt"].as_bool().unwrap());
            match (&case["refused"], text) {
                (Value::Null, text) => assert_eq!(text.unwrap(), case["expected"].as_str().unwrap(), "{name}"),
                (needed, Err(Error::TemplateRefused { reason })) => assert_eq!(&reason, needed.as_str().unwrap(), "{name}"),
                (needed, other) => panic!("{name}: {other:?}, and needs {needed}"),
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 36);
}

/// As Python's `strftime` tells it, over leap days, ends of centuries, midnight and noon.
#[test]
fn the_time_is_told_as_python_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chat/clock.json");
    let fixture: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let template = template(&format!("{{{{ strftime_now({}) }}}}", fixture["format"])).unwrap();
    for time in fixture["times"].as_array().unwrap() {
        let now = UNIX_EPOCH + Duration::from_secs(time["seconds"].as_u64().unwrap());
        assert_eq!(template.clone().at(now).render(&[], false).unwrap(), time["expected"].as_str().unwrap());
    }
}

#[test]
fn a_directory_names_its_template_and_special_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let said = || ChatTemplate::from_dir(dir.path())?.map(|template| template.render(&[], false)).transpose();
    assert_eq!(said().unwrap(), None);
    write("tokenizer_config.json", r#"{"bos_token": "<a>"}"#);
    assert_eq!(said().unwrap(), None);
    write("tokenizer_config.json", r#"{"bos_token": "<a>", "chat_template": "one {{ bos_token }}{{ eos_token }}"}"#);
    assert_eq!(said().unwrap().unwrap(), "one <a>");
    let named = r#"{"bos_token": null, "eos_token": {"content": "<z>", "special": true},
        "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d {{ eos_token }}"}]}"#;
    write("tokenizer_config.json", named);
    assert_eq!(said().unwrap().unwrap(), "d <z>");
    write("chat_template.jinja", "own {{ eos_token }}\n");
    assert_eq!(said().unwrap().unwrap(), "own <z>");
}

#[test]
fn a_wrong_directory_says_which_file_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |name: &str, text: &[u8]| {
        fs::write(dir.path().join(name), text).unwrap();
        let template = ChatTemplate::from_dir(dir.path());
        let refused = template.and_then(|template| template.unwrap().render(&[], false)).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
        refused
    };
    let config = "tokenizer_config.json";
    assert!(refuse(config, b"{").contains("is not valid: EOF"));
    assert!(refuse(config, br#"{"chat_template": 3}"#).contains("is not valid"));
    let unnamed = refuse(config, br#"{"chat_template": [{"name": "rag", "template": ""}]}"#);
    assert!(unnamed.contains(r#"has the templates ["rag"] and needs one named "default""#), "{unnamed}");
    assert!(refuse(config, br#"{"chat_template": "a\n{% if %}"}"#).contains("fails in line 2: syntax error"));
    let own = "chat_template.jinja";
    assert!(refuse(own, b"a\nb \xFF").contains("line 2: the byte at offset 4 begins no UTF-8 character"));
    assert!(refuse(own, b"\n\n{{ 1 + none }}").contains("fails in line 3: "));
    assert!(refuse(own, b"{{ raise_exception('no') }}").contains("refuses these messages: no"));
}

#[test]
fn what_is_not_in_the_dialect_is_refused_by_name() {
    for (source, needed) in [
        ("\n{% include 'x' %}", "line 2: syntax error: unknown statement include"),
        ("{% import 'x' as y %}", "unknown statement import"),
        ("{% extends 'x' %}", "unknown statement extends"),
        ("{% autoescape true %}{% endautoescape %}", "autoescape"),
        ("{{ ''.__class__.__mro__ }}", "__class__ is an internal of Python"),
        ("{{ messages.__init__() }}", "__init__ is an internal of Python"),
        ("{{ ''['__class__'].mro }}", "line 1: undefined value"),
        ("{{ (''|attr('__class__')).mro }}", "line 1: undefined value"),
        ("{{ open('/etc/passwd') }}", "open"),
        ("{{ 'a'.encode() }}", "encode"),
        ("{{ strftime_now('%Q') }}", "strftime_now got \"%Q\""),
        ("{{ strftime_now('%') }}", "strftime_now got \"%\""),
        ("{{ [1]|tojson(indent=100000) }}", "tojson got indent=100000"),
        ("{{ [1]|tojson(separators=[',']) }}", "tojson got 1 separators and needs 2"),
        ("{{ range|tojson }}", "which JSON cannot hold"),
    ] {
        let refused = refusal(source);
        assert!(refused.contains(needed), "{source}: {refused}");
    }
}

#[test]
fn a_scope_of_generation_ends_with_it() {
    let source = "{% set x = 1 %}\n  {%- generation -%}  {% set x = 2 %}{{ x }}{%+ endgeneration +%}\n{{ x }}";
    assert_eq!(ask(source).unwrap(), "2\n1");
    assert_eq!(ask("{{ '{% generations %}' }}").unwrap(), "{% generations %}");
    assert!(refusal("{% generation %}").contains("syntax error"));
}

/// Lists that hold one another: 60 steps make 2⁶⁰ elements, 50000 steps a depth that no stack holds.
fn doubled(end: &str) -> String {
    format!(
        "{{% set n = namespace(a=[1], b=[1]) %}}{{% for i in range(60) %}}{{% set n.a = [n.a, n.a] %}}{{% set n.b = [n.b, n.b] %}}{{% endfor %}}{end}"
    )
}

#[test]
fn harm_is_an_error_in_bounded_time() {
    let nested =
        |end| format!("{{% set n = namespace(a=[]) %}}{{% for i in range(50000) %}}{{% set n.a = [n.a] %}}{{% endfor %}}{end}");
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}";
    let sources = [
        format!("{loops}{{% endfor %}}{{% endfor %}}{{% endfor %}}"),
        format!("{loops}{}{{% endfor %}}{{% endfor %}}{{% endfor %}}", "many words ".repeat(9)),
        "{{ 'a' * 1000000000 }}".to_owned(),
        "{{ ('a' * 99999999 ~ 'a' * 99999999)[:3] }}".to_owned(),
        "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = n.s + n.s %}{% endfor %}".to_owned(),
        "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = n.s.replace('a', 'aaaa') %}{% endfor %}".to_owned(),
        "{{ ','.join([1] * 100000000) | length }}".to_owned(),
        "{% set a, b = [1] * 100000000 %}".to_owned(),
        "{% for a, b in [[1] * 100000000] %}{% endfor %}".to_owned(),
        "{{ ([[1] * 100000000] * 100000000) | string | length }}".to_owned(),
        "{{ ([1] * 100000000) ~ '' }}".to_owned(),
        "{{ '%1000000000d' | format(1) }}".to_owned(),
        "{{ '{:>1000000000}'.format(1) }}".to_owned(),
        "{{ 'x' | indent(1000000000) }}".to_owned(),
        "{{ strftime_now('%A' * 40000000) }}".to_owned(),
        "{{ raise_exception('x' * 50000000) }}".to_owned(),
        "{{ (range(99999) | list * 9) | tojson(indent=64) | length }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro a(n) %}{{ b(n) }}{{ b(n) }}{% endmacro %}{% macro b(n) %}{{ a(n) }}{% endmacro %}{{ a(1) }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set n = namespace() %}{% set n.a = n %}{{ n }}".to_owned(),
        doubled("{{ n.a }}"),
        doubled("{{ n.a ~ '' }}"),
        doubled("{{ n.a == n.b }}"),
        doubled("{{ n.a in [n.b] }}"),
        doubled("{{ (n.a | tojson)[:3] }}"),
        doubled("{{ [n.a, n.b] | sort | first }}"),
        doubled("{{ {n.a: 1}[n.b] }}"),
        doubled("{{ n.a is eq(n.b) }}"),
        doubled("{{ ','.join(n.a) }}"),
        doubled("{% set x %}{{ n.a }}{% endset %}"),
        nested("{{ n.a }}"),
        nested("{{ n.a == n.a }}"),
        nested(""),
        format!("{{{{ {}1 }}}}", "-".repeat(60000)),
        format!("{{{{ 1{} }}}}", "+x".repeat(60000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(30000), ")".repeat(30000)),
        format!("{{{{ x{} }}}}", ".a".repeat(60000)),
        format!("{}{}", "{% if x %}".repeat(5000), "{% endif %}".repeat(5000)),
        format!("{{% if x %}}{}{{% endif %}}{{{{ 1 + none }}}}", "{% elif x %}".repeat(10000)),
        "x".repeat(200_000),
    ];
    for source in sources {
        let (began, refused) = (Instant::now(), ask(&source));
        let shown: String = source.chars().take(150).collect();
        assert!(refused.is_err_and(|error| error.to_string().len() < 2000), "{shown}");
        assert!(began.elapsed() < Duration::from_secs(20), "{shown}: {:?}", began.elapsed());
    }
}

#[test]
fn lists_are_bounded_in_depth() {
    let nested = |depth: usize| format!("{{% set a = 1 %}}{}\n{{{{ a }}}}", "{% set a = [a] %}".repeat(depth));
    assert_eq!(ask(&nested(60)).unwrap().len(), 2 * 60 + 1);
    assert!(refusal(&nested(80)).contains("makes lists too deep in line 1: 64 at most"));
}

#[test]
fn the_text_is_bounded_as_it_is_written() {
    let words = "{% for a in range(90000) %}fifty bytes of text, to be counted as it is written{% endfor %}";
    assert!(refusal(words).contains("writes more bytes than allowed in line 1: 4194304 at most"));
    assert!(refusal("{% for a in range(90000) %}\n{{ 'x' * 60 }}{% endfor %}").contains("in line 2: 4194304 at most"));
    let long = Message::new("user", "x".repeat(3 << 20));
    assert_eq!(template("{{ messages[0].content }}").unwrap().render(&[long], true).unwrap().len(), 3 << 20);
}

#[test]
fn a_long_conversation_is_no_harm() {
    let turns: Vec<_> = (0..400).map(|i| Message::new(["user", "assistant"][i % 2], "some words ".repeat(20))).collect();
    let source = "{% set n = namespace(all=[]) %}{% for m in messages %}{% if loop.index == messages | length %}last: {% endif %}
{{- m.role ~ m.content.strip() }}{% set n.all = n.all + [m] %}{% endfor %}{{ n.all | length }}";
    let text = template(source).unwrap().render(&turns, true).unwrap();
    assert!(text.ends_with("words400") && text.contains("last: assistant"));
}

/// Bytes and pieces of templates in any order: a text or an error.
#[test]
fn no_bytes_make_a_template_panic() {
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-",
        "if ",
        "else",
        "endif",
        "for ",
        "in ",
        "endfor",
        "set ",
        "x",
        "=",
        "messages",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "'",
        "\"",
        "|",
        "tojson",
        ".",
        "split",
        ",",
        "1",
        "9e9",
        "-1",
        "~",
        "*",
        "**",
        "//",
        "%",
        "+",
        "\n",
        " ",
        "generation",
        "endgeneration",
        "macro ",
        "endmacro",
        "raw",
        "endraw",
        "is ",
        "not ",
        "é",
        "🦊",
        "\\",
        "\0",
        ":",
        "namespace()",
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    for round in 0..4000 {
        let length = 1 + next(30);
        let source = if round % 2 == 0 {
            let bytes: Vec<u8> = (0..length).map(|_| next(256) as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        } else {
            (0..length).map(|_| pieces[next(pieces.len())]).collect()
        };
        if let Err(error) = ask(&source) {
            assert!(!error.to_string().contains("gave up"), "{source:?}: {error}");
        }
    }
}
