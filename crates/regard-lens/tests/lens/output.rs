//! What is written: the contract of the JSON, the table, the picture, the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regard_lens::report::{Head, MOST_BYTES, Map, Zoomed};
use regard_lens::{Options, Progress, Report, Text, inspect};

use crate::built::{Weights, twice};

fn report() -> Report {
    let model = Weights::new().model();
    let texts = [twice(&model, 18), Text::new(&model, "<b>", "w7 w8 w9").unwrap()];
    let mut last = None;
    let report = inspect(&model, "built", &texts, &Options { top: 3, ..Options::default() }, &mut |progress| last = Some(progress));
    let Some(Progress { done, steps, .. }) = last else { panic!("no progress") };
    assert_eq!(done, steps);
    report.unwrap()
}

#[test]
fn json_has_the_fields_that_the_page_reads() {
    let json = report().json().unwrap();
    for field in [
        r#"{"format":"regard-lens/1","model":{"name":"built","type":"gpt2","layers":2,"heads":2,"kv_heads":2,"head_dim":128,"context":96,"#,
        r#""first_tokens":4,"recent_tokens":32,"top":3,"labels":["#,
        r#""name":"<b>","tokens":["w7","#,
        r#""loss":[null,"#,
        r#""heads":[{"layer":0,"head":0,"means":{"entropy":"#,
        r#""self":"#,
        r#""scores":{"previous":"#,
        r#""ablation":null"#,
        r#""by_position":{"entropy":["#,
        r#""received":["#,
        r#""maps":[{"block":1,"rows":36,"columns":36,"data":""#,
        r#""top":{"keys":""#,
        r#""bins":{"count":36,"width":1}"#,
        r#""position_loss":[null,"#,
    ] {
        assert!(json.contains(field), "{field} is not in {}", &json[..600]);
    }
}

#[test]
fn maps_and_largest_weights_are_those_of_the_head() {
    let report = report();
    let (n, head) = (36, &report.heads[0]);
    let map = STANDARD.decode(&head.maps[0].data).unwrap();
    let top = head.top.as_ref().unwrap();
    let words = |text: &String| -> Vec<u32> {
        STANDARD.decode(text).unwrap().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    };
    let (keys, weights) = (words(&top.keys), words(&top.weights));
    assert_eq!((map.len(), keys.len(), weights.len()), (n * n, 3 * n, 3 * n));
    for q in 1..n {
        assert_eq!((map[q * n + q - 1], keys[3 * q]), (255, q as u32 - 1), "row {q}"); // the token before
        assert!(f32::from_bits(weights[3 * q]) > 0.999, "row {q}");
    }
    assert_eq!(keys[1..3], [u32::MAX; 2], "the first row sees one key");
    assert!((head.distances.iter().sum::<f64>() - 1.0).abs() < 1e-4);
}

#[test]
fn the_table_has_a_line_for_each_head() {
    let csv = report().csv();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    let column = lines[0].iter().position(|name| *name == "previous").unwrap();
    assert!(lines[1][column].parse::<f64>().unwrap() > 0.99, "{csv}");
    // The head that reads one token is one-hot in every row, the one that reads all alike is uniform in every row, and has logits of 0.
    let column = |name| lines[0].iter().position(|given| *given == name).unwrap();
    let numbers = |line: usize| ["one_hot", "uniform", "peak_logit"].map(|name| lines[line][column(name)].parse::<f64>().unwrap());
    assert!(numbers(1)[..2] == [1.0, 0.0] && numbers(1)[2] > 20.0 && numbers(2) == [0.0, 1.0, 0.0], "{csv}");
}

#[test]
fn the_page_holds_the_data_and_no_text_can_end_its_script() {
    let report = report();
    let (html, json) = (report.html().unwrap(), report.json().unwrap());
    let (_, data) = html.split_once(r#"<script id="regard-data" type="application/json">"#).unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    assert!(data.contains("\\u003cb>") && !data.contains('<'));
    assert_eq!(data.replace("\\u003c", "<"), json);
}

#[test]
fn the_picture_has_a_cell_for_each_head() {
    let svg = report().svg().unwrap();
    // The ground, four heads, and any two of them.
    assert!(svg.starts_with("<svg") && svg.matches("<rect").count() == 1 + 4 + 16, "{svg}");
    assert!(svg.contains("layer 1") && svg.contains("1.1"));
}

/// Light where a head reads few tokens, dark where it reads many; in black or white what it is in numbers.
#[test]
fn the_picture_in_pixels_is_that_of_the_heads() {
    let bytes = report().png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    // Two pixels to a unit; a cell of 40 units, the first at 64 and 48.
    let width = info.width as usize;
    let pixel = |x: usize, y: usize| -> [u8; 3] { pixels[3 * (2 * y * width + 2 * x)..][..3].try_into().unwrap() };
    let cell = |layer: usize, head: usize| pixel(64 + 40 * head + 2, 48 + 40 * layer + 2);
    assert_eq!([pixel(1, 1), cell(0, 0), cell(0, 1)], [[255; 3], [247, 251, 255], [8, 48, 107]]);
    assert!(cell(1, 0) != cell(0, 0) && cell(1, 0) != cell(0, 1), "{:?}", cell(1, 0));
    // "0.00" of 0.0, in the light: the left stroke of its first zero, and the ground right of it.
    let (left, top) = (64 + 6, 48 + 13 + 1);
    assert_eq!(
        [pixel(left, top + 1), pixel(left + 2, top + 1), pixel(left + 5, top + 1)],
        [[0; 3], [247, 251, 255], [247, 251, 255]]
    );
}

/// Heads of 0.0, which reads the token before, and 0.1, which reads all alike: by the definition, from maps whose every cell is known.
#[test]
fn similarities_are_those_of_the_rows_of_two_heads() {
    let report = report();
    // 36 rows are pooled by two, to 18 rows of 18 cells. Row q of 0.0 has all on q − 1, and row 0 on itself; of 0.1 as much on all up to q.
    let before = |q: usize, k: usize| f64::from(u8::from(k == q.saturating_sub(1)));
    let alike = |q: usize, k: usize| if k <= q { 1.0 / (q + 1) as f64 } else { 0.0 };
    let cell = |weight: &dyn Fn(usize, usize) -> f64, r: usize, c: usize| {
        (0..4).map(|i| weight(2 * r + i / 2, 2 * c + i % 2)).sum::<f64>() / 2.0
    };
    // ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ p + ½ q
    let divergence = |r: usize| -> f64 {
        let toward = |p: f64, m: f64| if p > 0.0 { 0.5 * p * (p / m).ln() } else { 0.0 };
        let pairs = (0..18).map(|c| (cell(&before, r, c), cell(&alike, r, c)));
        pairs.map(|(p, q)| toward(p, (p + q) / 2.0) + toward(q, (p + q) / 2.0)).sum()
    };
    let expected = 1.0 - (0..18).map(divergence).sum::<f64>() / (18.0 * std::f64::consts::LN_2);
    let given = report.similarities[0][1];
    assert!((given - expected).abs() < 1e-4, "{given}, not {expected}");
    for i in 0..4 {
        assert!((report.similarities[i][i] - 1.0).abs() < 1e-9);
        (0..4).for_each(|j| assert_eq!(report.similarities[i][j], report.similarities[j][i]));
    }
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let bytes = STANDARD.decode(json["similarities"].as_str().unwrap()).unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[1], bytes[4]), (16, 255, (255.0 * given).round() as u8, bytes[1]));
    let csv = report.similarities_csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "head,0.0,0.1,1.0,1.1"));
    assert!(lines[1].starts_with(&format!("0.0,1.0000,{given:.4},")), "{csv}");
}

/// Of more heads than have rows of their own, layers are shown.
#[test]
fn a_large_model_has_a_picture_of_layers() {
    let mut report = report();
    let head = report.heads[0].clone();
    (report.model.layers, report.model.heads) = (3, 50);
    report.heads = (0..150).map(|i| Head { layer: i / 50, head: i % 50, ..head.clone() }).collect();
    report.similarities = vec![vec![0.5; 150]; 150];
    let svg = report.svg().unwrap();
    assert_eq!(svg.matches("<rect").count(), 1 + 150 + 9);
}

/// As of 1,500 heads: first the largest weights go, then coarse maps, then the finest.
#[test]
fn a_large_report_stays_below_its_bound() {
    let mut report = report();
    let head = report.heads[0].clone();
    let map = |block: usize, bytes: usize| Map { block, rows: 1, columns: 1, data: "A".repeat(bytes) };
    let heads = |maps: Vec<Map>| vec![Head { maps, ..head.clone() }; 1500];
    report.heads = heads(vec![map(1, 8_000), map(2, 4_000), map(4, 500)]);
    let json = report.json().unwrap();
    assert!(json.len() <= MOST_BYTES && json.contains(r#""block":1,"#) && !json.contains(r#""block":2,"#), "{}", json.len());
    report.heads = heads(vec![map(1, 40_000), map(2, 14_000), map(4, 2_500)]);
    let json = report.json().unwrap();
    assert!(json.len() <= MOST_BYTES && !json.contains(r#""block":1,"#) && json.contains(r#""block":4,"#), "{}", json.len());
    assert!(json.contains(r#""top":null"#));
}

/// Zooms are small, and the finest there is of what one asked for.
#[test]
fn a_large_report_keeps_its_zooms() {
    let mut report = report();
    let map = |block: usize, bytes: usize| Map { block, rows: 1, columns: 1, data: "A".repeat(bytes) };
    report.heads[1].maps = vec![map(1, 40_000), map(2, 20_000)];
    report.heads[1].zooms = vec![Zoomed { rows: [3, 4], keys: [0, 1], map: map(1, 7) }];
    for most in [90_000, 50_000, 30_000, 0] {
        let json = report.json_within(most).unwrap();
        assert!(
            json.contains(r#""zooms":[{"rows":[3,4],"keys":[0,1],"map":{"block":1,"rows":1,"columns":1,"data":"AAAAAAA"}}]"#),
            "{most}"
        );
    }
    assert!(report.json_within(30_000).unwrap().len() < 40_000);
}
