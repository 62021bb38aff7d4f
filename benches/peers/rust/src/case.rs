//! The cases that these peers can express: forward passes, dense, causal or not.

use std::error::Error;

use serde_json::Value;

/// Why a case cannot be expressed.
#[derive(Debug)]
pub struct Refusal(pub &'static str);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Refusal {}

pub struct Case {
    /// `[batch, q_heads, kv_heads, q_len, kv_len, head_dim]`
    pub sizes: [usize; 6],
    pub dtype: String,
    pub causal: bool,
}

impl Case {
    pub fn new(case: &Value) -> Result<Case, Box<dyn Error>> {
        if case["kind"] != "forward" {
            return Err(Refusal("forward passes only").into());
        }
        for (field, why) in [
            ("window", "no window"),
            ("documents", "no documents"),
            ("blocks", "no blocks"),
            ("lengths", "sequences of several lengths"),
            ("threads", "threads of its own"),
        ] {
            if !case[field].is_null() {
                return Err(Refusal(why).into());
            }
        }
        let sizes: Vec<usize> = serde_json::from_value(case["sizes"].clone())?;
        let sizes = sizes.try_into().map_err(|_| "a case has six sizes")?;
        let dtype = case["dtype"].as_str().unwrap_or("f32").to_owned();
        Ok(Case { sizes, dtype, causal: case["causal"] == true })
    }

    /// `n` numbers, sums of four uniform ones.
    pub fn numbers(&self, seed: u64, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| 1.7 * (uniform() + uniform() + uniform() + uniform())).collect()
    }
}
