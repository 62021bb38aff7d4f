//! `regard bench roofline`: what this machine allows, and how near to it a case comes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use clap::Args;
use rayon::ThreadPoolBuilder;
use regard_cpu::{Kernel, Level, Roofline};
use serde_json::{Value, json};

use super::case::{Case, Dtype, Kind};
use super::work::Load;
use super::{Threads, say};

/// Measure this machine's rates of multiply-adds, exponentials and reading, on one thread and on all.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    threads: Threads,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl Options {
    pub(super) fn execute(self) -> Result<(), Box<dyn Error>> {
        let roofs = Roofs::measure([1, self.threads.count()?])?;
        if self.json {
            return Ok(say(format_args!("{:#}", roofs.json()))?);
        }
        let all: Vec<&Roofline> = roofs.0.values().collect();
        let line = |name: &str, unit: &str, value: &dyn Fn(&Roofline) -> f64| {
            let values: String = all.iter().map(|roof| format!("{:>12.1}", value(roof) / 1e9)).collect();
            say(format_args!("{name:<24}{values} {unit}"))
        };
        let heads: String = all
            .iter()
            .map(|roof| format!("{:>12}", format!("{} thread{}", roof.threads, if roof.threads == 1 { "" } else { "s" })))
            .collect();
        say(format_args!("{:<24}{heads}   kernel {}", "", Kernel::best()?.name()))?;
        line("f32 multiply-adds", "GFLOP/s", &|roof| roof.f32_products)?;
        line("bf16 products", "GFLOP/s", &|roof| roof.bf16_products)?;
        line("exp", "elements/ns", &|roof| roof.exps)?;
        line("read, second level", "GB/s", &|roof| roof.l2.rate)?;
        line("read, last level", "GB/s", &|roof| roof.l3.rate)?;
        line("read, memory", "GB/s", &|roof| roof.memory)?;
        Ok(())
    }
}

/// Rooflines by the number of threads.
pub(super) struct Roofs(BTreeMap<usize, Roofline>);

impl Roofs {
    pub(super) fn measure(threads: impl IntoIterator<Item = usize>) -> Result<Roofs, Box<dyn Error>> {
        let kernel = Kernel::best()?;
        let measured = BTreeSet::from_iter(threads).into_iter().map(|n| {
            let pool = ThreadPoolBuilder::new().num_threads(n).build()?;
            Ok((n, pool.install(|| Roofline::measure(kernel))))
        });
        Ok(Roofs(measured.collect::<Result<_, rayon::ThreadPoolBuildError>>()?))
    }

    /// Those that the floors of some cases need.
    pub(super) fn of(cases: &[Case], threads: usize) -> Result<Roofs, Box<dyn Error>> {
        let timed = cases.iter().filter(|case| matches!(case.kind, Kind::Forward | Kind::Backward));
        Roofs::measure(timed.map(|case| case.threads.unwrap_or(threads)))
    }

    /// The least time of one call of a case.
    ///
    /// ```text
    ///   max(operations / products, exponentials / exps, bytes / reading)
    /// ```
    /// Not their sum: products and exponentials of a vector machine share only some of its ports, and where products have a unit
    /// of their own, none. So nothing can be below it, and a kernel that does one after the other stays well above.
    pub(super) fn floor(&self, case: &Case, load: &Load, threads: usize) -> Option<Floor> {
        let roof = self.0.get(&case.threads.unwrap_or(threads))?;
        let products = if case.dtype == Dtype::Bf16 { roof.bf16_products } else { roof.f32_products };
        let bounds = [
            Floor { bound: "products", seconds: load.flops as f64 / products },
            Floor { bound: "exps", seconds: load.exps as f64 / roof.exps },
            Floor { bound: "memory", seconds: roof.read_seconds(load.bytes) },
        ];
        bounds.into_iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }

    pub(super) fn json(&self) -> Value {
        let level = |level: Level| json!({ "bytes": level.bytes, "bytes_per_second": level.rate });
        let object = |roof: &Roofline| {
            json!({
                "threads": roof.threads, "f32_flops": roof.f32_products, "bf16_flops": roof.bf16_products, "exps": roof.exps,
                "l2": level(roof.l2), "l3": level(roof.l3), "memory": roof.memory,
            })
        };
        self.0.values().map(object).collect()
    }
}

/// The least time of a case, and what bounds it.
#[derive(Clone, Copy)]
pub(super) struct Floor {
    pub(super) bound: &'static str,
    pub(super) seconds: f64,
}
