//! `regard bench numerics`: the error against f64 where some queries are much larger than the rest.
//!
//! Queries, keys and values are N(0, 1); to one in a thousand numbers of the queries N(0, 10²) is added.
//!
//! Source: Shah et al. 2024, "FlashAttention-3", §4.3, table 3, which does it to all three.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use clap::Args;
use half::{bf16, f16};
use rayon::prelude::*;
use regard::{Attention, Causal, Element, Tensor};
use serde_json::{Value, json};

use super::case::{Case, Dtype, Kind};
use super::peer::Peer;
use super::random::Random;
use super::say;

/// Measure the error of every kernel against f64, beside that of a peer on the same numbers.
#[derive(Args)]
pub(super) struct Options {
    /// Command of a peer, such as "python3 benches/peers/pytorch.py"
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
    /// Queries and keys
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    length: u32,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

const HEADS: usize = 4;

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        let mut peer = self.peer.as_deref().map(|command| Peer::start(command, rayon::current_num_threads())).transpose()?;
        if let (Some(peer), false) = (&peer, self.json) {
            say(format_args!("{} queries and keys, {HEADS} heads, against {}", self.length, peer.name()))?;
        }
        let mut rows = Vec::new();
        for (name, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::Bf16), ("f16", Dtype::F16)] {
            for (dim, causal) in [(64, false), (64, true), (128, false), (128, true)] {
                let case = self.case(format!("{name} d{dim}{}", if causal { " causal" } else { "" }), dtype, dim, causal);
                let row = match dtype {
                    Dtype::F32 => errors::<f32>(&case, peer.as_mut())?,
                    Dtype::Bf16 => errors::<bf16>(&case, peer.as_mut())?,
                    Dtype::F16 => errors::<f16>(&case, peer.as_mut())?,
                };
                if !self.json {
                    print(&row, rows.is_empty())?;
                }
                rows.push(row);
            }
        }
        if self.json {
            let rows: Vec<Value> = rows.iter().map(Row::object).collect();
            let peer = peer.as_ref().map(Peer::name);
            say(format_args!("{:#}", json!({ "length": self.length, "heads": HEADS, "peer": peer, "rows": rows })))?;
        }
        Ok(())
    }

    fn case(&self, name: String, dtype: Dtype, dim: usize, causal: bool) -> Case {
        let len = self.length as usize;
        Case {
            name,
            kind: Kind::Forward,
            sizes: [1, HEADS, HEADS, len, len, dim],
            dtype,
            causal,
            window: None,
            documents: None,
            blocks: None,
            page: None,
            lengths: None,
            threads: None,
            slow: false,
            versus: None,
        }
    }
}

/// Root mean square errors of one case, by name.
struct Row {
    case: String,
    kernels: Vec<(String, f64)>,
    peers: Vec<(String, f64)>,
}

impl Row {
    /// The worst kernel's error over that of the best the peer has.
    fn ratio(&self) -> Option<f64> {
        let worst = self.kernels.iter().map(|(_, error)| *error).fold(0.0, f64::max);
        self.peers.iter().map(|(_, error)| *error).min_by(f64::total_cmp).map(|best| worst / best)
    }

    fn object(&self) -> Value {
        let named = |errors: &[(String, f64)]| errors.iter().map(|(name, error)| (name.clone(), json!(error))).collect::<Value>();
        json!({ "case": self.case, "kernels": named(&self.kernels), "peers": named(&self.peers), "ratio": self.ratio() })
    }
}

fn print(row: &Row, first: bool) -> io::Result<()> {
    let all = || row.kernels.iter().chain(&row.peers);
    if first {
        let heads: String = all().map(|(name, _)| format!("{name:>13}")).collect();
        let ratio = if row.peers.is_empty() { "" } else { "   worst kernel / better of the peer" };
        say(format_args!("{:<18}{heads}{ratio}", "RMSE against f64"))?;
    }
    let errors: String = all().map(|(_, error)| format!("{error:>13.3e}")).collect();
    let ratio = row.ratio().map_or(String::new(), |ratio| format!("   {ratio:.2}"));
    say(format_args!("{:<18}{errors}{ratio}", row.case))
}

fn errors<T: Element>(case: &Case, peer: Option<&mut Peer>) -> Result<Row, Box<dyn Error>> {
    let [q, k, v] = inputs::<T>(case)?;
    let exact = reference(&[&q, &k, &v], case.causal);
    let attention = Attention::new().mask(case.causal.then_some(Causal::LowerRight));
    let mut row = Row { case: case.name.clone(), kernels: Vec::new(), peers: Vec::new() };
    for kernel in regard::kernels() {
        let output = attention.clone().kernel(kernel).forward(q.view(), (k.view(), v.view()))?;
        row.kernels.push((kernel.to_owned(), rmse(output.out.data().iter().map(|x| x.to_f32()), &exact)));
    }
    if let Some(peer) = peer {
        let dir = tempfile::tempdir()?;
        let bytes: Vec<u8> = [&q, &k, &v].iter().flat_map(|x| x.data().iter().flat_map(|x| x.to_f32().to_le_bytes())).collect();
        fs::write(dir.path().join("inputs.f32"), bytes)?;
        for name in peer.outputs(case, dir.path())?.unwrap_or_default() {
            row.peers.push((name.clone(), rmse(read(&dir.path().join(&name).with_extension("f32"))?, &exact)));
        }
    }
    Ok(row)
}

fn inputs<T: Element>(case: &Case) -> Result<[Tensor<T>; 3], regard::Error> {
    let [batch, heads, _, len, _, dim] = case.sizes;
    let mut random = Random::new(7);
    let mut tensor = |outliers: f32| {
        let mut number = || {
            let [x, outlier] = [random.normal(), random.normal()];
            T::from_f32(if random.uniform() < outliers { x + 10.0 * outlier } else { x })
        };
        Tensor::from_vec((0..batch * heads * len * dim).map(|_| number()).collect(), [batch, heads, len, dim])
    };
    Ok([tensor(0.001)?, tensor(0.0)?, tensor(0.0)?])
}

/// Attention in f64, one query after another.
///
/// ```text
///   s = q·k / √D      p = exp(s − max s)      o = Σ p·v / Σ p
/// ```
fn reference<T: Element>([q, k, v]: &[&Tensor<T>; 3], causal: bool) -> Vec<f64> {
    let [_, _, len, dim] = q.shape();
    let [q, k, v] = [q, k, v].map(|x| x.data().iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>());
    let row = |i: usize| {
        let head = i / len * len * dim..(i / len + 1) * len * dim;
        let seen = if causal { i % len + 1 } else { len };
        let keys = k[head.clone()].chunks_exact(dim).take(seen);
        let dot = |key: &[f64]| key.iter().zip(&q[i * dim..]).map(|(k, q)| k * q).sum::<f64>();
        let s: Vec<f64> = keys.map(|key| dot(key) / (dim as f64).sqrt()).collect();
        let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = s.iter().map(|s| (s - max).exp()).collect();
        let (sum, values) = (p.iter().sum::<f64>(), &v[head]);
        (0..dim).map(|d| p.iter().zip(values[d..].iter().step_by(dim)).map(|(p, v)| p * v).sum::<f64>() / sum).collect::<Vec<_>>()
    };
    (0..q.len() / dim).into_par_iter().flat_map_iter(row).collect()
}

fn rmse(given: impl IntoIterator<Item = f32>, exact: &[f64]) -> f64 {
    let squares = given.into_iter().zip(exact).map(|(x, exact)| (f64::from(x) - exact).powi(2));
    (squares.sum::<f64>() / exact.len() as f64).sqrt()
}

fn read(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read the peer's output {}: {error}", path.display()))?;
    Ok(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
}
