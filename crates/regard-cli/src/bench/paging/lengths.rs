//! Lengths of prompts and of their continuations, and when they come.

use super::super::random::Random;

/// A set of conversations by the means of its lengths, in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dataset {
    pub(super) name: &'static str,
    pub(super) prompt: f64,
    pub(super) output: f64,
}

/// Mean lengths after Kwon et al. 2023, figure 11.
pub(super) const DATASETS: [Dataset; 2] =
    [Dataset { name: "ShareGPT", prompt: 161.31, output: 337.99 }, Dataset { name: "Alpaca", prompt: 19.31, output: 58.45 }];

/// The standard deviation of the logarithm: that of figure 11 is not told, and its tails are about so long.
const SPREAD: f64 = 1.0;

/// Tokens of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) prompt: usize,
    pub(super) output: usize,
}

impl Dataset {
    /// `n` requests whose lengths are log-normal, cut to half of a context each, with the set's means.
    pub(super) fn draw(&self, n: usize, context: usize, random: &mut Random) -> Vec<Lengths> {
        let mut normal = || (0..n).map(|_| f64::from(random.normal())).collect::<Vec<_>>();
        let (prompts, outputs) = (normal(), normal());
        let [prompts, outputs] = [(prompts, self.prompt), (outputs, self.output)].map(|(z, mean)| fit(&z, mean, context / 2));
        prompts.into_iter().zip(outputs).map(|(prompt, output)| Lengths { prompt, output }).collect()
    }
}

/// `round(exp(μ + σ z))` between 1 and `most`, with μ such that the mean is as near to `mean` as it goes.
fn fit(z: &[f64], mean: f64, most: usize) -> Vec<usize> {
    let at = |mu: f64| z.iter().map(move |z| ((mu + SPREAD * z).exp().round() as usize).clamp(1, most));
    let (mut low, mut high) = (0.0, (most as f64).ln());
    for _ in 0..60 {
        let mu = 0.5 * (low + high);
        let found = at(mu).sum::<usize>() as f64 / z.len() as f64;
        if found < mean { low = mu } else { high = mu }
    }
    at(low).collect()
}

/// Times of arrival, seconds: `rate` a second on average, each independent of the others (a Poisson process).
pub(super) fn arrivals(n: usize, rate: f64, random: &mut Random) -> Vec<f64> {
    let mut now = 0.0;
    let next = |_| {
        now -= f64::from(1.0 - random.uniform()).ln() / rate;
        now
    };
    (0..n).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_the_papers() {
        for set in DATASETS {
            let drawn = set.draw(1000, 2048, &mut Random::new(1));
            let mean = |of: fn(&Lengths) -> usize| drawn.iter().map(of).sum::<usize>() as f64 / 1000.0;
            assert!((mean(|l| l.prompt) - set.prompt).abs() < 0.01 * set.prompt, "{}: {}", set.name, mean(|l| l.prompt));
            assert!((mean(|l| l.output) - set.output).abs() < 0.01 * set.output, "{}: {}", set.name, mean(|l| l.output));
            assert!(drawn.iter().all(|l| l.prompt + l.output <= 2048));
        }
        let times = arrivals(10_000, 4.0, &mut Random::new(2));
        assert!((times[9_999] / 2_500.0 - 1.0).abs() < 0.05 && times.is_sorted(), "{}", times[9_999]);
    }
}
