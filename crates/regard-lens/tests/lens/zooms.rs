//! Parts of the weights, against all weights of every row, which the rows themselves name.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regard_lens::report::{Head, Zoomed};
use regard_lens::{Options, Report, Text, Zoom, inspect};
use regard_nn::{Model, Precision};

use crate::built::{Weights, twice};

fn zoom(head: (usize, usize), rows: Range<usize>, keys: Range<usize>) -> Zoom {
    Zoom { head, rows, keys }
}

/// Of texts whose rows name all of their weights.
fn report(model: &Model, texts: &[Text], zooms: Vec<Zoom>) -> Report {
    let top = texts[0].tokens.len();
    inspect(model, "model", texts, &Options { top, zooms, scores: false, leaks: false, ..Options::default() }, &mut |_| {}).unwrap()
}

/// All weights of a head on the first text, `[n, n]`, as the kernel named them when it computed the output.
fn weights(head: &Head, n: usize) -> Vec<f64> {
    let top = head.top.as_ref().unwrap();
    let words = |text: &String| -> Vec<[u8; 4]> { STANDARD.decode(text).unwrap().as_chunks().0.to_vec() };
    let mut all = vec![0.0; n * n];
    for (i, (key, weight)) in words(&top.keys).into_iter().zip(words(&top.weights)).enumerate() {
        let key = u32::from_le_bytes(key) as usize;
        if key < n {
            all[i / n * n + key] = f64::from(f32::from_le_bytes(weight));
        }
    }
    all
}

/// Cells by their definition: the mean over the rows of the mass on the keys.
#[track_caller]
fn compare(zoomed: &Zoomed, all: &[f64], n: usize, block: usize) {
    let parts = |[start, end]: [usize; 2]| (start..end).step_by(block).map(move |at| at..end.min(at + block));
    let cell = |rows: Range<usize>, keys: Range<usize>| -> f64 {
        rows.clone().map(|q| all[q * n..][keys.clone()].iter().sum::<f64>()).sum::<f64>() / rows.len() as f64
    };
    let expected: Vec<f64> = parts(zoomed.rows)
        .flat_map(|rows| parts(zoomed.keys).map(move |keys| (rows.clone(), keys)))
        .map(|(r, k)| cell(r, k))
        .collect();
    let map = &zoomed.map;
    assert_eq!((map.block, map.rows, map.columns), (block, parts(zoomed.rows).count(), parts(zoomed.keys).count()));
    let given = STANDARD.decode(&map.data).unwrap();
    assert_eq!(given.len(), expected.len());
    for (i, (byte, mass)) in given.iter().zip(&expected).enumerate() {
        assert!((f64::from(*byte) - 255.0 * mass.sqrt()).abs() < 0.51, "cell {i} of {map:?} is {byte}, of a mass of {mass}");
    }
    let most = expected.iter().copied().fold(0.0, f64::max);
    assert!(most > 0.005, "there is nothing to see in {:?} and {:?}: {most}", zoomed.rows, zoomed.keys);
}

#[test]
fn a_cell_of_one_token_is_a_weight() {
    let model = Weights::new().model();
    let texts = [twice(&model, 20), Text::new(&model, "other", "w7 w8 w9").unwrap()];
    let zooms =
        vec![zoom((1, 0), 5..40, 3..30), zoom((0, 1), 39..40, 0..40), zoom((1, 0), 0..40, 0..40), zoom((0, 1), 10..20, 10..11)];
    let report = report(&model, &texts, zooms);
    let of = |head: usize| &report.heads[head].zooms;
    assert_eq!([0, 1, 2, 3].map(|head| of(head).len()), [0, 2, 2, 0]);
    assert_eq!((of(2)[0].rows, of(2)[0].keys, of(1)[1].rows), ([5, 40], [3, 30], [10, 20]), "in the order that is given");
    for head in [1, 2] {
        let all = weights(&report.heads[head], 40);
        of(head).iter().for_each(|zoomed| compare(zoomed, &all, 40, 1));
    }
    // The whole is the finest map, and 0.1 reads all alike.
    assert_eq!(of(2)[1].map.data, report.heads[2].maps[0].data);
    let alike = (255.0 * (1.0f64 / 40.0).sqrt()).round() as u8;
    assert_eq!(STANDARD.decode(&of(1)[0].map.data).unwrap(), [alike; 40]);
    assert!(report.json().unwrap().contains(r#""zooms":[{"rows":[5,40],"keys":[3,30],"map":{"block":1,"rows":35,"columns":27,"#));
    assert!(!report.run.labels.iter().any(|label| label.starts_with("Zooms")), "{:?}", report.run.labels);
}

/// Of 300 tokens, whose map has cells of two by two: 256 of them are shown one by one, and more are pooled by as few as need be.
#[test]
fn a_part_of_a_long_text_is_finer_than_its_map() {
    let story = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../regard-story/model");
    let model = Model::open_in(&story, Some(Precision::F32)).unwrap();
    let tale = "Once upon a time there was a king, who had a daughter and no son. ".repeat(20);
    let mut text = Text::new(&model, "a tale", &tale).unwrap();
    let n = 300;
    text.tokens.truncate(n);
    text.pieces.truncate(n);
    let zooms = vec![
        zoom((2, 5), 44..300, 0..256),
        zoom((2, 5), 3..290, 1..300),
        zoom((0, 1), 299..300, 0..300),
        zoom((5, 7), 290..300, 200..300),
    ];
    let report = report(&model, &[text], zooms);
    assert_eq!(report.heads[0].maps[0].block, 2);
    for (i, blocks) in [(21, vec![1, 2]), (1, vec![2]), (47, vec![1])] {
        let (head, all) = (&report.heads[i], weights(&report.heads[i], n));
        assert_eq!(head.zooms.len(), blocks.len());
        head.zooms.iter().zip(blocks).for_each(|(zoomed, block)| compare(zoomed, &all, n, block));
    }
    assert!(report.run.labels.iter().any(|label| label.starts_with("Zooms of more than 256 rows or keys are pooled")));
}

#[test]
fn what_is_not_there_is_refused() {
    let model = Weights::new().model();
    let refused = |zooms: Vec<Zoom>| {
        let options = Options { zooms, ..Options::default() };
        inspect(&model, "built", &[twice(&model, 5)], &options, &mut |_| {}).unwrap_err().to_string()
    };
    let error = |given: &str| refused(vec![Zoom::parse("0.0=0..1,0..1").unwrap(), Zoom::parse(given).unwrap()]);
    assert_eq!(error("2.0=0..1,0..1"), "there is no layer 2: the model has layers 0 to 1");
    assert_eq!(error("1.2=0..1,0..1"), "there is no head 2 in layer 1: each layer has heads 0 to 1");
    assert_eq!(
        error("0.1=4..11,0..1"),
        "the zoom \"0.1=4..11,0..1\" has the rows 4..11, which are not one token or more of the text \"twice\", whose tokens are 0..10"
    );
    assert!(error("0.1=0..10,3..3").contains("has the keys 3..3, which are not one token or more"));
    assert!(error("0.1=5..4,0..1").contains("has the rows 5..4, which are not one token or more"));
    let many = refused(vec![zoom((0, 0), 0..1, 0..1); 65]);
    assert_eq!(many, "there are 65 zooms and a report has at most 64: ask for fewer");
}
