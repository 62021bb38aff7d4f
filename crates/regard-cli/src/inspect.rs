//! `regard inspect`: what every attention head of a model does on some texts.

mod long;
mod output;
mod patch;
mod summary;

use std::error::Error;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use regard_lens::ablate::Part;
use regard_lens::{Ablate, NamedRange, Options, Progress, Report, Text, Zoom};
use regard_nn::Model;

use self::output::Output;
use crate::place;
use crate::precision::Precision;
use crate::utf8::utf8;

/// See what every attention head of a model does on a text, or on several.
///
/// Prints which heads read the token before, repeat what followed, rest on the first tokens, and how spread each one's attention is; or writes
/// all facts as a page, as JSON, as a table or as a picture. The facts are exact, at any length; docs/lens.md explains each.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Text to read [default: the files; standard input when piped; else the beginning of a tale]
    text: Option<String>,
    /// Read a text from this file; may be given several times
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Hugging Face directory, GGUF file or org/name on the hub [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    precision: Precision,
    /// Write a page that needs no network
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write all facts as one JSON object; - for standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a line of numbers for each head; - for standard output
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write how alike any two heads attend, as a table; - for standard output
    #[arg(long, value_name = "FILE")]
    similarities: Option<PathBuf>,
    /// Draw the entropy of every head, and how alike any two are; - for standard output
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The same picture as a PNG; - for standard output
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Take heads and layers away in turn and tell how the loss changes: all, or --ablate=LAYER.HEAD or --ablate=LAYER; may be given several
    /// times
    #[arg(long, value_name = "LAYER[.HEAD]", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    ablate: Vec<String>,
    /// Tell the loss without the heads that matter least, at 8 numbers of heads beside none, or at so many; takes heads and layers away in turn
    /// as --ablate
    #[arg(long, value_name = "POINTS", num_args = 0..=1, require_equals = true, default_missing_value = "8",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    prune: Option<u32>,
    /// Tell how much of the first text's last row comes from each token through all layers, by attention rollout and by attention flow, which
    /// are approximations
    #[arg(long)]
    through: bool,
    /// Tell the mass of every head on these tokens of the first text, or on those that hold this piece of it; may be given several times
    #[arg(long, value_name = "NAME=START..END|NAME=PIECE")]
    range: Vec<String>,
    /// Tell the weights of this head on this part of the first text in --json and --out, exact to the token up to 256 rows and keys: such as
    /// --zoom 2.5=1000..1256,0..256; may be given several times
    #[arg(long, value_name = "LAYER.HEAD=ROWS,KEYS")]
    zoom: Vec<String>,
    /// Patch the second prompt with what heads give, and the residual stream holds, in the first, and tell how much of the answer comes back
    #[arg(long, num_args = 2, value_names = ["CLEAN", "CORRUPT"],
        conflicts_with_all = OF_TEXTS, conflicts_with = "seed")]
    patch: Option<Vec<String>>,
    /// The answer that prompts are compared by, as it follows them [default: the likeliest token after CLEAN]
    #[arg(long, value_name = "TEXT", requires = "patch")]
    answer: Option<String>,
    /// Ask for facts in long texts of these lengths, in tokens, and tell which are found, and how much of each head's mass is on those that are
    /// not
    #[arg(long, value_name = "LENGTH,…", value_delimiter = ',',
        conflicts_with_all = OF_TEXTS, conflicts_with = "patch")]
    long_context: Vec<usize>,
    /// Texts for each length and depth
    #[arg(long, value_name = "N", default_value_t = 2, requires = "long_context", value_parser = clap::value_parser!(u32).range(1..=1000))]
    draws: u32,
    /// Tokens at the beginning that count as sinks
    #[arg(long, value_name = "N", default_value_t = 4)]
    first: usize,
    /// Tokens, up to its own, that count as recent to a token
    #[arg(long, value_name = "N", default_value_t = 32)]
    recent: usize,
    /// Decides the random sequences that heads are scored on, what is resampled, and the facts in long texts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// The options that are of texts and their report.
const OF_TEXTS: [&str; 13] =
    ["text", "file", "out", "similarities", "svg", "png", "ablate", "prune", "through", "range", "zoom", "first", "recent"];

/// What is read where nothing is given.
const TALE: &str = "Once upon a time there was a king who had three daughters, and the youngest was so fair that the sun himself wondered at \
her. One day the king said to the youngest daughter, \"Go into the forest, and bring me the golden apple.\" So the youngest daughter went into \
the forest, and there she met an old woman. \"Good day,\" said the old woman. \"Good day,\" said the king's daughter.";

/// What is written of a report.
type Content = fn(&Report) -> Result<Vec<u8>, regard_lens::Error>;

impl Inspect {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        if let Some([clean, corrupt]) = self.patch.as_deref() {
            return patch::execute(&self, [clean, corrupt]);
        }
        if !self.long_context.is_empty() {
            return long::execute(&self);
        }
        let mut options = self.options()?;
        // Places are taken before the work begins.
        let outputs = self.outputs()?;
        let (name, model) = self.model()?;
        let texts = self.texts(&model)?;
        options.ranges = self.range.iter().map(|given| NamedRange::parse(given, &texts[0])).collect::<Result<_, _>>()?;
        let bar = Bar::new();
        let report = regard_lens::inspect(&model, &name, &texts, &options, &mut |progress| bar.show(progress))?;
        bar.0.finish_and_clear();
        if outputs.is_empty() {
            writeln!(io::stdout(), "{}", summary::of(&report))?;
        }
        outputs.into_iter().try_for_each(|(output, content)| output.write(&content(&report)?))
    }

    /// The places that are asked for, and what goes to each.
    fn outputs(&self) -> Result<Vec<(Output, Content)>, Box<dyn Error>> {
        let all: [(&Option<PathBuf>, Content); 6] = [
            (&self.out, |report| report.html().map(String::into_bytes)),
            (&self.json, |report| report.json().map(String::into_bytes)),
            (&self.csv, |report| Ok(report.csv().into_bytes())),
            (&self.similarities, |report| Ok(report.similarities_csv().into_bytes())),
            (&self.svg, |report| report.svg().map(String::into_bytes)),
            (&self.png, Report::png),
        ];
        let open =
            |(path, content): (&Option<PathBuf>, Content)| Some(Output::open(path.as_deref()?).map(|output| (output, content)));
        all.into_iter().filter_map(open).collect()
    }

    /// The places for JSON and a table, of what is told in these alone.
    fn tables(&self) -> Result<Tables, Box<dyn Error>> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        Ok(Tables { json: open(&self.json)?, csv: open(&self.csv)? })
    }

    fn options(&self) -> Result<Options, Box<dyn Error>> {
        let part = |given: &String| {
            let part = match given.split_once('.') {
                Some((layer, head)) => layer.parse().and_then(|layer| Ok(Part::Head((layer, head.parse()?)))),
                None => given.parse().map(Part::Layer),
            };
            let needed = "LAYER.HEAD, such as 2.5, LAYER, such as 2, or nothing for every head and layer";
            part.map_err(|_| format!("--ablate is {given:?} and must be {needed}"))
        };
        let ablate = match &self.ablate[..] {
            [] => Ablate::Nothing,
            given if given.iter().any(|given| given == "all") => Ablate::All,
            given => Ablate::Parts(given.iter().map(part).collect::<Result<_, _>>()?),
        };
        Ok(Options {
            first_tokens: self.first,
            recent_tokens: self.recent,
            seed: self.seed,
            ablate,
            zooms: self.zoom.iter().map(|given| Zoom::parse(given)).collect::<Result<_, _>>()?,
            through: self.through,
            prune: self.prune.map(|points| points as usize),
            ..Options::default()
        })
    }

    /// The model, and what it is called.
    fn model(&self) -> Result<(String, Model), Box<dyn Error>> {
        let name = self.model.as_deref().map_or_else(|| "story".to_owned(), file_name);
        Ok((name, place::model(self.model.as_deref(), &self.precision)?))
    }

    /// The text of the command line, then those of the files.
    fn texts(&self, model: &Model) -> Result<Vec<Text>, Box<dyn Error>> {
        let mut texts = Vec::new();
        if let Some(text) = &self.text {
            texts.push(Text::new(model, "command line", text)?);
        }
        for path in &self.file {
            let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            texts.push(Text::new(model, &file_name(path), &utf8(bytes, &path.display().to_string())?)?);
        }
        if texts.is_empty() && !io::stdin().is_terminal() {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            let text = utf8(bytes, "standard input")?;
            if !text.is_empty() {
                texts.push(Text::new(model, "standard input", &text)?);
            }
        }
        if texts.is_empty() {
            texts.push(Text::new(model, "a tale", TALE)?);
        }
        Ok(texts)
    }
}

/// Where JSON and a table go.
struct Tables {
    json: Option<Output>,
    csv: Option<Output>,
}

impl Tables {
    /// Writes what is asked for; the summary where nothing is.
    fn write(
        self,
        json: impl FnOnce() -> Result<String, regard_lens::Error>,
        csv: impl FnOnce() -> String,
        summary: impl FnOnce() -> String,
    ) -> Result<(), Box<dyn Error>> {
        if self.json.is_none() && self.csv.is_none() {
            writeln!(io::stdout(), "{}", summary())?;
        }
        if let Some(place) = self.json {
            place.write(json()?.as_bytes())?;
        }
        if let Some(place) = self.csv {
            place.write(csv().as_bytes())?;
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A progress bar, on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Bar(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(4)).with_style(style))
    }

    fn show(&self, progress: Progress) {
        self.0.set_length(progress.steps as u64);
        self.0.set_message(progress.doing);
        self.0.set_position(progress.done as u64);
    }
}
