//! Times by roofline, against the same in floating point.

use regard_cost::{Chip, Cost, Dtype, Pass, PassTime, Shape};

use super::train;

fn seconds(pass: &Pass, flops: f64, bandwidth: f64) -> f64 {
    let parts = [pass.projections, pass.attention, pass.feed_forward, pass.output];
    parts.iter().map(|work| (work.flops.get() as f64 / flops).max(work.bytes.get() as f64 / bandwidth)).sum()
}

fn close(time: &PassTime, seconds: f64) {
    let ours = time.total_ns.get() as f64 / 1e9;
    assert!((ours / seconds - 1.0).abs() < 1e-4, "{ours} and {seconds}");
    let parts = [time.projections_ns, time.attention_ns, time.feed_forward_ns, time.output_ns];
    assert_eq!(time.total_ns, parts.iter().map(|part| part.get()).sum::<u128>());
}

#[test]
fn a_pass_takes_what_bounds_its_parts() {
    let shape = Shape::preset("llama-3-8b").unwrap();
    for (name, dtype, flops, bandwidth) in [
        ("h100", Dtype::Bf16, 989.5e12, 3.35e12),
        ("a100", Dtype::F16, 312e12, 2.039e12),
        ("epyc-9654", Dtype::F32, 7.3728e12, 460.8e9),
    ] {
        let cost = Cost::of(&shape, &train(4096, 2, dtype), Some(&Chip::named(name).unwrap())).unwrap();
        let (time, training) = (cost.time.unwrap(), cost.training.unwrap());
        close(&time.prefill, seconds(&cost.prefill, flops, bandwidth));
        close(&time.decode.unwrap(), seconds(&cost.decode.unwrap(), flops, bandwidth));
        let step = time.training.unwrap();
        close(&step.forward, seconds(&training.forward, flops, bandwidth));
        close(&step.backward, seconds(&training.backward, flops, bandwidth));
        let update = training.update.bytes.get() as f64 / bandwidth * 1e9;
        assert!((step.update_ns.get() as f64 / update - 1.0).abs() < 1e-6);
        assert_eq!(step.total_ns, step.forward.total_ns.get() + step.backward.total_ns.get() + step.update_ns.get());
    }
}

/// Writing is bound by the memory: 15 GB of weights, without the table that a token's row is looked up in, at 3.35 TB/s.
#[test]
fn a_token_takes_as_long_as_its_weights() {
    let shape = Shape::preset("llama-3-8b").unwrap();
    let ask = super::ask(1, 1, Dtype::Bf16);
    let cost = Cost::of(&shape, &ask, Some(&Chip::named("h100").unwrap())).unwrap();
    let (ns, weights) = (cost.time.unwrap().decode.unwrap().total_ns.get() as f64, 2.0 * (8_030_261_248.0 - 128_256.0 * 4096.0));
    assert!((ns / (weights / 3350.0) - 1.0).abs() < 0.001, "{ns}");
    assert_eq!(cost.fits.unwrap().memory, 80_000_000_000);
}

#[test]
fn exponentials_bound_attention_where_they_are_slow() {
    let chip = Chip { exps: Some(1_000_000), ..Chip::named("h100").unwrap() };
    let cost = Cost::of(&Shape::preset("gpt2").unwrap(), &super::ask(1024, 1, Dtype::Bf16), Some(&chip)).unwrap();
    assert_eq!(cost.time.unwrap().prefill.attention_ns, cost.prefill.attention.exps.get() * 1000);
}

#[test]
fn chips_have_names_rates_and_sources() {
    let names = Chip::names();
    for expected in ["h100", "a100", "l4", "m2-ultra", "epyc-9654", "xeon-8480+"] {
        assert!(names.iter().any(|name| name == expected), "{expected}");
    }
    for name in &names {
        let chip = Chip::named(name).unwrap();
        assert!(chip.source.len() > 40 && chip.bandwidth > 100_000_000_000, "{name}");
        assert!(
            chip.f32_flops > 1_000_000_000_000 && chip.f16_flops >= chip.f32_flops && chip.bf16_flops >= chip.f32_flops,
            "{name}"
        );
    }
}

#[cfg(feature = "here")]
#[test]
fn this_machine_is_a_chip() {
    let chip = Chip::here().unwrap();
    assert!(chip.f32_flops > 1_000_000 && chip.bandwidth > 1_000_000 && chip.exps.unwrap() > 1_000_000, "{chip:?}");
    assert_eq!(chip.caches.len(), 2);
    assert!(cfg!(not(target_os = "linux")) || chip.memory.unwrap() > 1 << 28);
}
