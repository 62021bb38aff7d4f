//! candle's and burn's attention as peers of `regard bench`: one JSON line in, one out.
//!
//! ```text
//! cargo build --release --manifest-path benches/peers/rust/Cargo.toml
//! regard bench --peer "benches/peers/rust/target/release/regard-peers candle"     or burn
//! ```

mod burn;
mod candle;
mod case;

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use case::{Case, Refusal};
use serde_json::{Value, json};

/// One call of a case.
type Call = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let (name, prepare): (&str, fn(&Case) -> Result<Call, Box<dyn Error>>) = match std::env::args().nth(1).as_deref() {
        Some("candle") => ("candle 0.11.1", candle::prepare),
        Some("burn") => ("burn-flex 0.22.1", burn::prepare),
        _ => return Err("which peer: candle or burn?".into()),
    };
    let mut call = None;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&serde_json::from_str(&line?)?, name, prepare, &mut call);
        let answer = answer.unwrap_or_else(|error| match error.downcast_ref::<Refusal>() {
            Some(refusal) => json!({ "unsupported": refusal.to_string() }),
            None => json!({ "error": error.to_string() }),
        });
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn answer(
    message: &Value,
    name: &str,
    prepare: fn(&Case) -> Result<Call, Box<dyn Error>>,
    call: &mut Option<Call>,
) -> Result<Value, Box<dyn Error>> {
    if let Some(threads) = message["hello"]["threads"].as_u64() {
        rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
        return Ok(json!({ "name": name }));
    }
    if let Some(case) = message.get("case") {
        *call = None;
        *call = Some(prepare(&Case::new(case)?)?);
        return Ok(json!({ "ready": true }));
    }
    let Some(calls) = message["run"].as_u64() else { return Err(Refusal("times only").into()) };
    let call = call.as_mut().ok_or("a run without a case")?;
    let began = Instant::now();
    (0..calls).try_for_each(|_| call())?;
    Ok(json!({ "seconds": began.elapsed().as_secs_f64() }))
}
