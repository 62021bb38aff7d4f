//! Bad input: each refusal names the argument, what it got and what it needs.

use regard::{Feature, LinearAttention, LinearInputs, Tensor, UpdateRule, View};

const DATA: [f32; 4096] = [0.25; 4096];

fn view(shape: [usize; 4]) -> View<'static, f32> {
    View::new(&DATA, shape).unwrap()
}

fn inputs() -> LinearInputs<'static, f32> {
    LinearInputs::new(view([2, 4, 3, 8]), view([2, 2, 3, 8]), view([2, 2, 3, 5]))
}

fn refuse(rule: UpdateRule, inputs: LinearInputs<'_, f32>) -> String {
    LinearAttention::new(rule).forward(inputs).unwrap_err().to_string()
}

#[test]
fn shapes_that_do_not_fit_together() {
    let linear = |q, k, v| refuse(UpdateRule::Linear, LinearInputs::new(view(q), view(k), view(v)));
    let (q, k, v) = ([2, 4, 3, 8], [2, 2, 3, 8], [2, 2, 3, 5]);
    assert_eq!(linear(q, [1, 2, 3, 8], v), "keys has 1 sequences and needs 2, as the query has");
    assert_eq!(linear(q, [2, 2, 4, 8], v), "keys has 4 positions and needs 3, as the query has");
    assert_eq!(linear(q, [2, 2, 3, 7], v), "keys has 7 elements in each head and needs 8, as the query has");
    assert_eq!(linear(q, k, [2, 1, 3, 5]), "values has 1 heads and needs 2, as the keys have");
    assert_eq!(linear(q, k, [2, 2, 2, 5]), "values has 2 positions and needs 3, as the keys have");
    assert_eq!(linear(q, k, [1, 2, 3, 5]), "values has 1 sequences and needs 2, as the keys have");
    assert!(linear(q, [2, 3, 3, 8], [2, 3, 3, 5]).starts_with("query has 4 heads and keys have 3"));
    assert!(linear(q, [2, 0, 3, 8], [2, 0, 3, 5]).starts_with("query has 4 heads and keys have 0"));
    let past = inputs().past(view([2, 2, 5, 8]));
    assert_eq!(refuse(UpdateRule::Linear, past), "past state has shape [2, 2, 5, 8] and needs [2, 2, 8, 5]");
    let normalised = LinearAttention::new(UpdateRule::Linear).normalised().forward(inputs().past(view([2, 2, 8, 5])));
    assert_eq!(normalised.unwrap_err().to_string(), "past state has shape [2, 2, 8, 5] and needs [2, 2, 8, 6]");
}

#[test]
fn gates_that_are_missing_or_too_many() {
    let gate = view([2, 2, 3, 1]);
    assert!(refuse(UpdateRule::Gated, inputs()).starts_with("a gated rule is not supported without a decay: give it"));
    assert!(refuse(UpdateRule::Delta, inputs()).starts_with("a delta rule is not supported without a beta: give it"));
    assert!(refuse(UpdateRule::GatedDelta, inputs().beta(gate)).starts_with("a gated rule is not supported without a decay"));
    let ignored = refuse(UpdateRule::Linear, inputs().decay(gate));
    assert_eq!(ignored, "decay is not supported with this update rule, which would ignore it: use Gated or GatedDelta");
    assert!(refuse(UpdateRule::Linear, inputs().beta(gate)).ends_with("use Delta or GatedDelta"));
    assert!(refuse(UpdateRule::Delta, inputs().beta(gate).decay(gate)).ends_with("use Gated or GatedDelta"));
}

#[test]
fn gates_of_another_shape() {
    let decay = |shape| refuse(UpdateRule::Gated, inputs().decay(view(shape)));
    assert_eq!(decay([2, 2, 3, 5]), "decay has shape [2, 2, 3, 5] and needs [2, 2, 3, 8]");
    assert_eq!(decay([2, 1, 3, 1]), "decay has shape [2, 1, 3, 1] and needs [2, 2, 3, 1]");
    assert_eq!(decay([2, 2, 4, 8]), "decay has shape [2, 2, 4, 8] and needs [2, 2, 3, 8]");
    let beta = |shape| refuse(UpdateRule::Delta, inputs().beta(view(shape)));
    assert_eq!(beta([2, 2, 3, 8]), "beta has shape [2, 2, 3, 8] and needs [2, 2, 3, 1]");
    assert_eq!(beta([2, 1, 2, 1]), "beta has shape [2, 1, 2, 1] and needs [2, 1, 3, 1]");
    assert_eq!(beta([2, 4, 3, 1]), "beta has shape [2, 4, 3, 1] and needs [2, 2, 3, 1]");
}

#[test]
fn gates_outside_their_domain() {
    let with = |x: f32| {
        let mut data = vec![0.0f32; 12];
        data[7] = x;
        data
    };
    for (x, name) in [(f32::NAN, "NaN"), (0.5, "0.5"), (f32::INFINITY, "inf")] {
        let data = with(x);
        let text = refuse(UpdateRule::Gated, inputs().decay(View::new(&data, [2, 2, 3, 1]).unwrap()));
        assert_eq!(text, format!("a decay is {name} and must be a natural logarithm of at most 0"));
    }
    for (x, name) in [(f32::NAN, "NaN"), (-0.5, "-0.5"), (2.5, "2.5")] {
        let data = with(x);
        let text = refuse(UpdateRule::Delta, inputs().beta(View::new(&data, [2, 2, 3, 1]).unwrap()));
        assert_eq!(text, format!("a beta is {name} and must be between 0 and 2"));
    }
    let data = with(f32::NEG_INFINITY);
    assert!(LinearAttention::new(UpdateRule::Gated).forward(inputs().decay(View::new(&data, [2, 2, 3, 1]).unwrap())).is_ok());
}

#[test]
fn options_outside_their_domain() {
    let refuse = |attention: LinearAttention| attention.forward(inputs()).unwrap_err().to_string();
    let linear = || LinearAttention::new(UpdateRule::Linear);
    assert_eq!(refuse(linear().scale(f32::NAN)), "scale is NaN and must be finite");
    assert_eq!(refuse(linear().chunk(0)), "chunk is 0 and must be 1 to 256 tokens");
    assert_eq!(refuse(linear().chunk(257)), "chunk is 257 and must be 1 to 256 tokens");
    assert!(refuse(linear().kernel("abacus")).starts_with("kernel \"abacus\" is not available here"));
    let delta = LinearAttention::new(UpdateRule::Delta).feature(Feature::EluPlusOne).normalised();
    let text = delta.forward(inputs().beta(view([2, 2, 3, 1]))).unwrap_err().to_string();
    assert!(text.starts_with("a normalised output is not supported with a delta rule"), "{text}");
}

#[test]
fn outputs_and_gradients_of_another_shape() {
    let plan = LinearAttention::new(UpdateRule::Linear).plan(inputs()).unwrap();
    let (mut out, mut state) = (Tensor::<f32>::zeros([2, 4, 3, 8]).unwrap(), Tensor::zeros([2, 2, 8, 5]).unwrap());
    let wrong = plan.forward_into(out.view_mut(), state.view_mut()).unwrap_err().to_string();
    assert_eq!(wrong, "output has shape [2, 4, 3, 8] and needs [2, 4, 3, 5]");
    let mut out = Tensor::<f32>::zeros([2, 4, 3, 5]).unwrap();
    let wrong = plan.forward_into(out.view_mut(), Tensor::zeros([2, 2, 8, 6]).unwrap().view_mut()).unwrap_err().to_string();
    assert_eq!(wrong, "state has shape [2, 2, 8, 6] and needs [2, 2, 8, 5]");
    let wrong = plan.backward(view([2, 4, 3, 4]), None).unwrap_err().to_string();
    assert_eq!(wrong, "gradient of the output has shape [2, 4, 3, 4] and needs [2, 4, 3, 5]");
    let wrong = plan.backward(view([2, 4, 3, 5]), Some(view([2, 4, 8, 5]))).unwrap_err().to_string();
    assert_eq!(wrong, "gradient of the state has shape [2, 4, 8, 5] and needs [2, 2, 8, 5]");
}
