//! This machine as a chip.

use std::fs;

use regard_cpu::{Kernel, Level, Roofline};

use crate::chip::{Cache, Chip};
use crate::{Error, Result};

impl Chip {
    /// This machine, on all threads of the current pool: its rates are measured, in about a second.
    ///
    /// # Errors
    /// When its processor has no kernel.
    pub fn here() -> Result<Chip> {
        let kernel = Kernel::best().map_err(|error| Error::Measure { message: error.to_string() })?;
        let roof = Roofline::measure(kernel);
        let cache = |level: Level| Cache { bytes: level.bytes as u64, rate: level.rate as u64 };
        let threads = if roof.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", roof.threads) };
        Ok(Chip {
            name: "here".into(),
            source: format!("measured: {threads}, kernel {}", kernel.name()),
            f32_flops: roof.f32_products as u64,
            f16_flops: roof.f32_products as u64, // kernels widen it
            bf16_flops: roof.bf16_products as u64,
            exps: Some(roof.exps as u64),
            caches: vec![cache(roof.l2), cache(roof.l3)],
            bandwidth: roof.memory as u64,
            memory: memory(),
        })
    }
}

/// The memory of the machine, or what the control group of this process may have of it, as Linux tells them.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let all = line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|limit| limit.trim().parse().ok());
    Some(limit.map_or(all, |limit: u64| limit.min(all)))
}
