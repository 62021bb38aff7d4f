//! Training: from a text to a model that continues it, in under a minute.
//!
//! ```sh
//! cargo run --release -p regard-nn --example train [TEXT]
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use regard_nn::train::{Event, Job, TrainConfig, Trainer};
use regard_nn::{Generate, Model};

/// A nursery rhyme, over and over: enough to see the loss fall.
const RHYME: &str = "Humpty Dumpty sat on a wall,\nHumpty Dumpty had a great fall.\nAll the king's horses and all the king's men\n\
Couldn't put Humpty together again.\n\n";

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("regard-example-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let data = match std::env::args_os().nth(1) {
        Some(path) => path.into(),
        None => {
            std::fs::write(dir.join("rhyme.txt"), RHYME.repeat(200))?;
            dir.join("rhyme.txt")
        }
    };
    let config = TrainConfig {
        vocab_size: 300,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        intermediate: 128,
        context: 64,
        steps: 120,
        warmup: 10,
        learning_rate: 1e-2,
        ..TrainConfig::default()
    };
    let out = dir.join("model");
    let outcome = Trainer::open(Job { data, out: out.clone(), config })?.run(&mut |event| {
        if let Event::Step(step) = event
            && step.step % 20 == 0
        {
            println!("step {:>3}: {:.3} nats per token", step.step, step.loss);
        }
        ControlFlow::Continue(())
    })?;
    println!("{outcome:?}\n");
    let model = Model::open(&out)?;
    let story = model.generate(
        "Humpty Dumpty",
        &Generate { max_tokens: 60, ..Generate::default() },
        &AtomicBool::new(false),
        &mut |_| ControlFlow::Continue(()),
    )?;
    println!("Humpty Dumpty{}", story.text);
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
