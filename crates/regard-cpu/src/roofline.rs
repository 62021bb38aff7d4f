//! What this machine allows: the rates that bound every kernel, measured.
//!
//! ```text
//!   time of a pass  ≥  max(operations / products, exponentials / exps, bytes / rate of reading)
//! ```
//!
//! Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::Kernel;
use crate::exp::exp;
use crate::lines::Lines;
use crate::simd::{Pair, Pairs, Product, Task, Vector};

/// The rates of all threads of a pool together.
#[derive(Clone, Copy, Debug)]
pub struct Roofline {
    /// Threads of the pool.
    pub threads: usize,
    /// Products of f32, and of f16, which kernels widen: operations per second, a multiply-add counting two.
    pub f32_products: f64,
    /// Products of bf16, by the fastest means of the kernel: pairs of bf16, else widened.
    pub bf16_products: f64,
    /// Exponentials per second.
    pub exps: f64,
    /// The second-level caches, of all threads.
    pub l2: Level,
    /// The last-level cache.
    pub l3: Level,
    /// Bytes per second from beyond the caches.
    pub memory: f64,
}

/// A level of the caches.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// What it holds.
    pub bytes: usize,
    /// Bytes per second that can be read from it.
    pub rate: f64,
}

impl Roofline {
    /// Measures, in well under a second, on all threads of the current pool. A rate is the best of several samples.
    pub fn measure(kernel: Kernel) -> Roofline {
        let threads = rayon::current_num_threads();
        let [l2, l3] = [(2, 1 << 20), (3, 32 << 20)].map(|(level, guess)| cache_bytes(level).unwrap_or(guess));
        let f32_products = best(|_, _| {
            kernel.run(MultiplyAdds { of: black_box([0.3, -0.999_99, 0.7]), steps: STEPS });
            2 * (CHAINS * kernel.lanes() * STEPS) as u64
        });
        let bf16_products = kernel.pairs().map_or(f32_products, paired_products);
        let negative: Vec<f32> = (0..4096).map(|i| -(i as f32 * 0.618_034).fract() * 20.0).collect();
        let exps = best(|_, _| {
            black_box(kernel.run(Exps(black_box(&negative))));
            negative.len() as u64
        });
        let numbers: Vec<f32> = (0..(2 * l3).clamp(256 << 20, 1 << 30) / 4).map(|i| i as f32).collect();
        let read = |bytes: usize| {
            let all = &numbers[..bytes / 4];
            best(|thread, round| {
                let part = &all[thread * (all.len() / threads)..][..all.len() / threads];
                black_box(kernel.run(Read { from: part, ahead: [0, 256, 1024][round % 3] }));
                size_of_val(part) as u64
            })
        };
        let l2 = Level { bytes: l2 * threads, rate: read(l2 * threads / 2) };
        let l3 = Level { bytes: l3, rate: read((l3 / 2).max(l2.bytes)) };
        Roofline { threads, f32_products, bf16_products, exps, l2, l3, memory: read(size_of_val(&numbers[..])) }
    }

    /// The least time in which `bytes` can be read again and again: what fits the caches comes from there.
    pub fn read_seconds(&self, bytes: u64) -> f64 {
        let in_l2 = bytes.min(self.l2.bytes as u64);
        let in_l3 = (bytes - in_l2).min(self.l3.bytes as u64);
        let beyond = bytes - in_l2 - in_l3;
        in_l2 as f64 / self.l2.rate + in_l3 as f64 / self.l3.rate + beyond as f64 / self.memory
    }
}

/// Memory to be read as fast as the machine can: what the time of other work is held against, in turn with it.
#[derive(Debug)]
pub struct Stream {
    numbers: Lines<f32>,
    kernel: Kernel,
}

impl Stream {
    /// So many bytes.
    pub fn new(bytes: usize, kernel: Kernel) -> Self {
        let mut numbers = Lines::zeros(bytes / size_of::<f32>());
        numbers.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
        Stream { numbers, kernel }
    }

    /// Seconds in which all threads of the current pool read it once, together: the best of a few ways to ask ahead.
    pub fn read(&self) -> f64 {
        let (threads, all) = (rayon::current_num_threads(), &self.numbers[..]);
        let together = Barrier::new(threads);
        let read = |ahead| {
            let times = rayon::broadcast(|thread| {
                together.wait();
                let began = Instant::now();
                let part = &all[thread.index() * (all.len() / threads)..][..all.len() / threads];
                black_box(self.kernel.run(Read { from: part, ahead }));
                began.elapsed().as_secs_f64()
            });
            times.into_iter().fold(0.0, f64::max)
        };
        [0, 256, 1024].into_iter().map(read).fold(f64::INFINITY, f64::min)
    }
}

/// Chains of multiply-adds that do not wait for one another: more than latency times ports of any machine, fewer than registers.
const CHAINS: usize = 12;
/// Steps of each chain in one piece of work.
const STEPS: usize = 4096;
/// How long a sample lasts.
const SAMPLE: Duration = Duration::from_millis(15);
/// Samples of each rate.
const SAMPLES: usize = 6;

/// The best of what all threads together do in a second. `work` takes a thread and the number of the sample to an amount.
fn best(work: impl Fn(usize, usize) -> u64 + Sync) -> f64 {
    let together = Barrier::new(rayon::current_num_threads());
    let sample = |round| {
        let parts = rayon::broadcast(|thread| {
            together.wait(); // one after the other, each would have the memory for itself
            let (began, mut done) = (Instant::now(), 0);
            while began.elapsed() < SAMPLE {
                done += work(thread.index(), round);
            }
            (done, began.elapsed().as_secs_f64())
        });
        parts.iter().map(|part| part.0).sum::<u64>() as f64 / parts.iter().map(|part| part.1).fold(0.0, f64::max)
    };
    (0..SAMPLES).map(sample).fold(0.0, f64::max)
}

/// The products of bf16 pairs, in operations per second, of factors that stay in the first-level cache.
fn paired_products(pairs: Pairs) -> f64 {
    let (m, n, k) = (32, 64, 64);
    let factors = |n: usize| {
        let number = |i: usize| half::bf16::from_f32((i as f32 * 0.618_034).fract() - 0.5);
        let mut all = Lines::zeros(n);
        all.iter_mut().enumerate().for_each(|(i, pair)| *pair = Pair::new(number(2 * i), number(2 * i + 1)));
        all
    };
    let (a, b) = (factors(m * k), factors(k * n));
    best(|_, _| {
        let (session, mut c) = (pairs.open(), Lines::zeros(m * n));
        for _ in 0..16 {
            let (a_row, a_column, b_row, c_row) = (k, 1, n, n);
            let (a, b, c) = (black_box(&a[..]), &b[..], &mut c[..]);
            session.multiply(Product { a, a_row, a_column, b, b_row, c, c_row, m, n, k, add: true, careful: false });
        }
        black_box(&c);
        (16 * 4 * m * n * k) as u64
    })
}

/// The size of a cache of the first processor, as Linux tells it.
fn cache_bytes(level: usize) -> Option<usize> {
    let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{level}/size")).ok()?;
    text.trim().strip_suffix('K')?.parse::<usize>().ok().map(|kib| kib << 10)
}

/// `s ← s·x + y` in registers.
struct MultiplyAdds {
    /// `s`, `x` and `y`.
    of: [f32; 3],
    steps: usize,
}

impl Task for MultiplyAdds {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let [s, x, y] = self.of.map(|number| v.splat(number));
        let mut chains = [s; CHAINS];
        for (i, s) in chains.iter_mut().enumerate() {
            *s = v.mul(*s, v.splat(1.0 + i as f32)); // else one chain would do for all
        }
        for _ in 0..self.steps {
            for s in &mut chains {
                *s = v.mul_add(*s, x, y);
            }
        }
        black_box(chains.into_iter().map(|s| lanes_sum(v, s)).sum::<f32>());
    }
}

/// `Σ exp(x)`.
struct Exps<'a>(&'a [f32]);

impl Task for Exps<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        let mut sum = v.splat(0.0);
        for x in self.0.chunks_exact(V::LANES) {
            sum = v.add(sum, exp(v, v.load(x)));
        }
        lanes_sum(v, sum)
    }
}

/// `Σ x`, asking for memory so many numbers ahead.
struct Read<'a> {
    from: &'a [f32],
    ahead: usize,
}

impl Task for Read<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> f32 {
        let step = 8 * V::LANES;
        let mut sums = [v.splat(0.0); 8];
        for (i, chunk) in self.from.chunks_exact(step).enumerate() {
            if self.ahead > 0 {
                let soon = i * step + self.ahead;
                v.prefetch(self.from.get(soon..soon + step).unwrap_or_default());
            }
            for (sum, x) in sums.iter_mut().zip(chunk.chunks_exact(V::LANES)) {
                *sum = v.add(*sum, v.load(x));
            }
        }
        sums.into_iter().map(|sum| lanes_sum(v, sum)).sum()
    }
}

#[inline(always)]
fn lanes_sum<V: Vector>(v: V, x: V::F) -> f32 {
    let mut lanes = [0.0; 16];
    v.store(x, &mut lanes[..]);
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_a_cache_is_read_at_its_rate() {
        let (l2, l3) = (Level { bytes: 100, rate: 100.0 }, Level { bytes: 1000, rate: 50.0 });
        let roof = Roofline { threads: 1, f32_products: 1.0, bf16_products: 1.0, exps: 1.0, l2, l3, memory: 10.0 };
        for (bytes, seconds) in [(0, 0.0), (50, 0.5), (100, 1.0), (200, 3.0), (1100, 21.0), (1200, 31.0)] {
            assert_eq!(roof.read_seconds(bytes), seconds, "{bytes}");
        }
    }

    #[test]
    fn the_loops_compute_what_they_say() {
        let x: Vec<f32> = (0..256).map(|i| -(i as f32)).collect();
        let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
        for kernel in Kernel::available() {
            assert_eq!(kernel.run(Read { from: &x, ahead: 64 }), -32640.0, "{kernel:?}");
            assert!((f64::from(kernel.run(Exps(&x))) - sum).abs() < 1e-5, "{kernel:?}");
        }
    }
}
