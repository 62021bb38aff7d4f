//! Attention flow against the smallest cut of the same network, which equals it (Ford & Fulkerson 1956), found by trying all.

use regard_lens::rollout::Mixed;

/// Layers of `edge` positions, each row of which sums to 1 and sees no later one.
fn mixed(edge: usize, layers: usize, seed: u32) -> Mixed {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let mut layer = |_| {
        let mut all = vec![0.0; edge * edge];
        for (row, to) in all.chunks_mut(edge).enumerate() {
            to[..=row].iter_mut().for_each(|x| *x = random().powi(3));
            let sum: f64 = to.iter().sum();
            to.iter_mut().for_each(|x| *x /= sum);
        }
        all
    };
    Mixed { block: 1, edge, layers: (0..layers).map(&mut layer).collect() }
}

/// The least that goes from a set of positions with `(layers, row)` to the rest with `(0, token)`.
fn smallest_cut(mixed: &Mixed, row: usize, token: usize) -> f64 {
    let (edge, nodes) = (mixed.edge, (mixed.layers.len() + 1) * mixed.edge);
    let (from, to) = (mixed.layers.len() * edge + row, token);
    let cuts = (0..1u32 << nodes).filter(|set| set >> from & 1 == 1 && set >> to & 1 == 0);
    let across = |set: u32| {
        let steps = mixed.layers.iter().enumerate().flat_map(|(l, layer)| layer.iter().enumerate().map(move |(i, x)| (l, i, x)));
        let crosses = |&(l, i, _): &(usize, usize, &f64)| {
            set >> ((l + 1) * edge + i / edge) & 1 == 1 && set >> (l * edge + i % edge) & 1 == 0
        };
        steps.filter(crosses).map(|(.., x)| x).sum::<f64>()
    };
    cuts.map(across).fold(f64::INFINITY, f64::min)
}

#[test]
fn flow_is_the_smallest_cut() {
    for (edge, layers, seed) in [(3, 1, 1), (3, 3, 2), (4, 2, 3), (3, 4, 4), (2, 6, 5)] {
        let mixed = mixed(edge, layers, seed);
        for row in 0..edge {
            for (token, flow) in mixed.flow(row).into_iter().enumerate() {
                let cut = smallest_cut(&mixed, row, token);
                assert!(
                    (flow - cut).abs() < 1e-9,
                    "{edge} positions, {layers} layers: from {row} to {token} {flow}, the cut is {cut}"
                );
            }
        }
    }
}

#[test]
fn one_layer_carries_its_weights_and_there_is_no_row_beyond_the_last() {
    let mixed = mixed(5, 1, 9);
    assert_eq!(mixed.flow(3), mixed.layers[0][15..20]);
    assert!(mixed.flow(5).is_empty());
}

#[test]
fn a_row_of_the_rollout_is_that_of_the_whole() {
    let mixed = mixed(6, 4, 3);
    let whole = mixed.rollout();
    for row in 0..6 {
        let near = mixed.rollout_of(row).iter().zip(&whole[row * 6..]).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near, "row {row}: {:?}", mixed.rollout_of(row));
    }
    assert!(mixed.rollout_of(6).is_empty());
}

/// What went down first has to be taken back: position 0 of the second layer must not use up the only way of position 1.
#[test]
fn a_way_is_given_up_for_a_better_one() {
    let half = || vec![0.5; 4];
    let mixed = Mixed { block: 1, edge: 2, layers: vec![half(), vec![0.5, 0.5, 1.0, 0.0], half()] };
    assert_eq!((mixed.flow(0)[0], smallest_cut(&mixed, 0, 0)), (1.0, 1.0));
}
