//! `regard run`: continues a text with the built-in story model, or with a model of one's own.

use std::error::Error;
use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use regard_nn::{FinishReason, Generate, Generation, Message, Model, Prompt, Sampling};
use serde_json::{Value, json};

use crate::interrupt::Interrupt;
use crate::place;
use crate::precision::Precision;
use crate::utf8::utf8;

/// Continue a text with the built-in story model or with a model of your own.
///
/// The prompt comes from the command line, or from standard input when that is a pipe or a file. The prompt and its
/// continuation stream to standard output; Ctrl-C ends them where they are. With --chat the prompt is a question, put as the
/// model's chat template puts it, and the answer alone is printed; so is the reply of a T5.
#[derive(Args)]
pub(crate) struct Run {
    /// Text to continue [default: standard input when piped, else "Once upon a time"]
    prompt: Option<String>,
    /// Hugging Face directory, GGUF file or org/name on the hub: Llama, Mistral, Qwen, Gemma, Phi, GPT, T5, … [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    #[command(flatten)]
    precision: Precision,
    /// Ask the prompt as a question, by the chat template of the model
    #[arg(long)]
    chat: bool,
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to generate; the model's context ends it earlier
    #[arg(long, value_name = "N", default_value_t = 400)]
    max_tokens: usize,
    /// Randomness of the choice; 0 always takes the most likely token [default: the model's]
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Choose among the N most likely tokens; 0 for all [default: the model's]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that together reach this probability [default: the model's]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Drop tokens less likely than this fraction of the most likely one [default: the model's]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens that the text already holds less likely; 1 for no change [default: the model's]
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// The same seed tells the same story [default: another each time; --stats shows it]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print speed, memory and the attention kernel to standard error
    #[arg(long)]
    stats: bool,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
    /// Read the whole text again for every token, instead of keeping its keys and values
    #[arg(long)]
    no_cache: bool,
}

impl Run {
    pub(crate) fn execute(self) -> Result<(), Box<dyn Error>> {
        let interrupt = Interrupt::listen()?;
        let prompt = self.prompt()?;
        let model = place::model(self.model.as_deref(), &self.precision)?;
        let options = self.options(&model);
        let chat = if self.chat { Some(self.conversation(&model, &prompt)?) } else { None };
        let asked = chat.as_ref().map_or(Prompt::Text(&prompt), |text| Prompt::Rendered(text));
        // An answer and a reply do not go on with the prompt.
        let shown = if self.chat || model.t5().is_some() { "" } else { &*prompt };
        let mut page = Page::new(!self.json);
        let generation = model.generate(asked, &options, interrupt.flag(), &mut |piece| {
            page.begin(shown)?;
            page.write(piece)
        })?;
        page.finish(shown)?;
        if self.json {
            writeln!(io::stdout(), "{}", object(&generation))?;
        }
        if self.stats {
            eprint!("{}", stats(&generation, &options.sampling));
        }
        Ok(())
    }

    /// The argument; else what is piped in, without its last line break; else the beginning of every story.
    fn prompt(&self) -> Result<String, Box<dyn Error>> {
        if let Some(prompt) = &self.prompt {
            return Ok(prompt.clone());
        }
        if io::stdin().is_terminal() {
            return Ok("Once upon a time".to_owned());
        }
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes)?;
        let text = utf8(bytes, "standard input")?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }

    /// The question as the model's chat template puts it, up to where the answer begins.
    fn conversation(&self, model: &Model, question: &str) -> Result<String, Box<dyn Error>> {
        let template = model.chat_template()?.ok_or(regard_nn::Error::NoChatTemplate)?;
        let system = self.system.as_ref().map(|text| Message::new("system", text));
        let messages: Vec<_> = system.into_iter().chain([Message::new("user", question)]).collect();
        Ok(template.render(&messages, true)?)
    }

    /// What the model's authors recommend, with the settings of the command line on top.
    fn options(&self, model: &Model) -> Generate {
        let own = model.sampling();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            seed: self.seed.unwrap_or_else(clock_seed),
        };
        Generate { max_tokens: self.max_tokens, sampling, stop: self.stop.clone(), cached: !self.no_cache }
    }
}

/// A seed that is short enough to type again.
fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_micros()))
}

/// Standard output, as the text arrives. The prompt opens it, once the model has accepted it.
struct Page {
    shown: bool,
    begun: bool,
    line_ended: bool,
    failure: Option<io::Error>,
}

impl Page {
    fn new(shown: bool) -> Self {
        Self { shown, begun: false, line_ended: false, failure: None }
    }

    /// Shows the prompt, the first time.
    fn begin(&mut self, prompt: &str) -> ControlFlow<()> {
        if self.begun {
            return ControlFlow::Continue(());
        }
        self.begun = true;
        self.write(prompt)
    }

    /// Shows one piece at once; breaks when the reader has gone.
    fn write(&mut self, piece: &str) -> ControlFlow<()> {
        if !self.shown || piece.is_empty() {
            return ControlFlow::Continue(());
        }
        self.line_ended = piece.ends_with('\n');
        let mut out = io::stdout().lock();
        match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the last line, below the prompt at least.
    fn finish(mut self, prompt: &str) -> io::Result<()> {
        let _ = self.begin(prompt); // a failure is kept and returned below
        if !self.line_ended && self.failure.is_none() {
            let _ = self.write("\n");
        }
        self.failure.map_or(Ok(()), Err)
    }
}

/// What `--json` prints.
fn object(generation: &Generation) -> Value {
    json!({
        "text": generation.text,
        "tokens": generation.tokens.len(),
        "finish_reason": generation.finish_reason,
        "prompt_tokens": generation.prompt_tokens,
        "prompt_tokens_per_second": generation.prompt_tokens_per_second,
        "generation_tokens_per_second": generation.generation_tokens_per_second,
        "kv_bytes": generation.kv_bytes,
        "kernel": generation.kernel,
    })
}

/// What `--stats` prints.
fn stats(generation: &Generation, sampling: &Sampling) -> String {
    let Generation { prompt_tokens, prompt_tokens_per_second, generation_tokens_per_second, kv_bytes, kernel, why, .. } =
        generation;
    let (tokens, seed) = (generation.tokens.len(), sampling.seed);
    let ended = match generation.finish_reason {
        FinishReason::Stop => "the text ended",
        FinishReason::Length => "the limit was reached",
        FinishReason::Interrupted => "it was interrupted",
    };
    format!(
        "prompt      {prompt_tokens} tokens, {prompt_tokens_per_second:.0} tokens/s\n\
         generation  {tokens} tokens, {generation_tokens_per_second:.0} tokens/s; {ended}\n\
         seed        {seed}\n\
         KV cache    {kv_bytes} bytes\n\
         kernel      {kernel}: {why}\n"
    )
}
