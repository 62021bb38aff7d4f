//! Cross-attention, worked: a small encoder and decoder learn to write dates as ISO 8601 does.
//!
//! ```sh
//! cargo run --release -p regard-nn --example cross_attention [FOLDER]
//! ```
//!
//! `Tuesday, 3rd of March, 1998` → `1998-03-03`. The decoder writes one character after the other, and before each it asks the encoder's
//! memory of the text one question: that is cross-attention. The same network is trained twice, once with the additive attention
//! of Bahdanau et al. 2015 and once with multi-head attention. Both alignments, which character was read for which, are printed and
//! drawn as SVG files in FOLDER (or a temporary one). What is to be seen there: docs/cross-attention.md.

mod adam;
mod dates;
mod draw;
mod model;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use dates::{Batch, Rng};
use model::{Kind, Translator};

const STEPS: usize = 1500;
const BATCH: usize = 64;
/// Dates that no training text holds.
const HELD_OUT: usize = 1000;
const EXAMPLE: (&str, &str) = ("Tuesday, 3rd of March, 1998", "1998-03-03");

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("regard-cross-attention"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    let start = Instant::now();
    for (kind, name, file) in
        [(Kind::Additive, "Additive attention", "additive.svg"), (Kind::MultiHead, "Multi-head attention", "multi-head.svg")]
    {
        println!("{name}");
        let translator = train(kind)?;
        let right = accuracy(&translator)?;
        println!("  held-out dates written exactly: {right} of {HELD_OUT} ({:.1} %)\n", 100.0 * right as f64 / HELD_OUT as f64);
        let panels = alignment(&translator)?;
        draw::text(EXAMPLE, &panels);
        let path = folder.join(file);
        std::fs::write(&path, draw::svg(name, EXAMPLE, &panels))?;
        println!("  {}\n", path.display());
    }
    println!("{:.0} seconds", start.elapsed().as_secs_f64());
    Ok(())
}

fn train(kind: Kind) -> Result<Translator, Box<dyn Error>> {
    let mut rng = Rng::new(1);
    let translator = Translator::new(kind, &mut rng)?;
    let mut adam = adam::Adam::new(translator.parameters())?;
    for step in 0..STEPS {
        let batch = Batch::of(&(0..BATCH).map(|_| dates::draw(&mut rng, false)).collect::<Vec<_>>())?;
        let loss = translator.loss(&batch)?;
        // A linear start and a linear end: 3·10⁻³ at most.
        let (up, down) = ((step + 1) as f64 / 100.0, (STEPS - step) as f64 / STEPS as f64);
        adam.step(&loss.backward()?, 3e-3 * up.min(1.0) * down)?;
        if (step + 1) % 250 == 0 {
            println!("  step {:>4}: {:.4} nats per character", step + 1, loss.to_scalar::<f32>()?);
        }
    }
    Ok(translator)
}

/// How many held-out dates come out exactly, written greedily.
fn accuracy(translator: &Translator) -> Result<usize, Box<dyn Error>> {
    let mut rng = Rng::new(2);
    let held_out: Vec<_> = (0..HELD_OUT).map(|_| dates::draw(&mut rng, true)).collect();
    let mut right = 0;
    for part in held_out.chunks(250) {
        let written = translator.write(&Batch::of(part)?)?;
        right += written.iter().zip(part).filter(|(written, (_, iso))| *written == iso).count();
    }
    Ok(right)
}

/// The weights of every head for the example: rows of characters written, columns of characters read.
fn alignment(translator: &Translator) -> Result<Vec<Vec<Vec<f32>>>, Box<dyn Error>> {
    let batch = Batch::of(&[(EXAMPLE.0.to_owned(), EXAMPLE.1.to_owned())])?;
    let written = translator.write(&batch)?;
    println!("  {} → {}", EXAMPLE.0, written[0]);
    Ok(translator.alignment(&batch)?.squeeze(0)?.to_vec3()?)
}
