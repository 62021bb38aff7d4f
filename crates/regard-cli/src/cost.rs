//! `regard cost`: what a model will cost, before it is run.

mod plot;
mod table;
mod units;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use regard_cost::{Chip, Cost as Figures, Dtype, Question, Shape, parse_bytes};

/// Tell what a model will cost: parameters, operations, bytes, memory and time, for texts of some length.
///
/// Weights are not needed: a directory with a config.json is enough. Every figure with its formula and source: docs/cost.md.
#[derive(Args)]
pub(crate) struct Cost {
    /// Hugging Face directory with a config.json, or such a file [default: the built-in story model]
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// A well-known model; --list shows them
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Tokens of each text
    #[arg(long, value_name = "N", required_unless_present = "list")]
    length: Option<u64>,
    /// Texts
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: u64,
    /// Type of weights, activations, keys and values: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = |name: &str| name.parse::<Dtype>())]
    dtype: Dtype,
    /// Tell what a training step costs, too
    #[arg(long)]
    train: bool,
    /// The chip that times are for: here, which measures this machine for a second; none; or a name of --list
    #[arg(long, value_name = "NAME", default_value = "here")]
    chip: String,
    /// The memory that batches are to fit in, for example 80GB or 24GiB [default: that of the chip]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Print JSON, in which every figure is an integer: bytes, operations, nanoseconds
    #[arg(long)]
    json: bool,
    /// Draw memory and time against length
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// List presets and chips with their sources
    #[arg(long, exclusive = true)]
    list: bool,
}

impl Cost {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        if self.list {
            return Ok(write!(io::stdout(), "{}", table::list()?)?);
        }
        let shape = self.shape()?;
        let (batch, dtype, train, memory) = (self.batch, self.dtype, self.train, self.memory);
        let ask = Question { length: self.length.unwrap_or_default(), batch, dtype, train, memory };
        Figures::of(&shape, &ask, None)?; // before anything is measured
        let chip = self.chip()?;
        let cost = Figures::of(&shape, &ask, chip.as_ref())?;
        if let Some(path) = &self.plot {
            let unwritable = |error| format!("cannot write {}: {error}", path.display());
            fs::write(path, plot::draw(&shape, &ask, chip.as_ref())?).map_err(unwritable)?;
        }
        match self.json {
            true => writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&cost)?)?,
            false => write!(io::stdout(), "{}", table::table(&cost))?,
        }
        Ok(())
    }

    fn shape(&self) -> Result<Shape, Box<dyn Error>> {
        match (&self.model, &self.preset) {
            (Some(path), _) if !path.exists() => {
                let needed = "a directory with a config.json, or --preset NAME";
                Err(format!("there is no file or directory {}: --model needs {needed}", path.display()).into())
            }
            (Some(path), _) if path.extension().is_some_and(|end| end == "gguf") => {
                Err(format!("{} is a GGUF file, and --model needs a config.json", path.display()).into())
            }
            (Some(path), _) => Ok(Shape::open(path)?),
            (None, preset) => Ok(Shape::preset(preset.as_deref().unwrap_or("story"))?),
        }
    }

    fn chip(&self) -> Result<Option<Chip>, Box<dyn Error>> {
        match &self.chip[..] {
            "none" => Ok(None),
            "here" => Ok(Some(Chip::here()?)),
            name => Ok(Some(Chip::named(name).map_err(|error| format!("{error}; and here, and none"))?)),
        }
    }
}
