//! Leaks: none where there is none, and the one that was planted.

use regard::{Attention, Causal, Documents, Element, Pair, View};
use regard_lens::leaks::{Leak, leaks, leaks_of, mask_leaks};
use regard_nn::{Attending, Decoder, Observer};

use crate::built::family;

fn tokens() -> Vec<u32> {
    (0..90).map(|i| i * 11 % 59 + 3).collect()
}

#[test]
fn no_family_leaks() {
    for name in ["llama", "mistral", "gemma2", "gpt2", "gpt_neox"] {
        let decoder = Decoder::open(&family(name), None).unwrap();
        let (leak, cuts) = leaks(&decoder, &tokens(), 7).unwrap();
        assert_eq!((leak, cuts), (None, 8), "{name}");
    }
}

/// Forgets the mask in one layer.
struct Unmasked(usize);

impl Observer for Unmasked {
    fn attend<T: Element>(&mut self, mut attending: Attending<'_, T>) -> regard_nn::Result<()> {
        if attending.layer != self.0 {
            return attending.forward();
        }
        let output = Attention::new().forward(attending.plan.queries(), attending.plan.kv())?.out;
        let [_, heads, n, dim] = output.shape();
        for head in 0..heads {
            let rows = attending.head_rows(head).zip(output.data()[head * n * dim..].chunks(dim));
            rows.for_each(|(to, from)| to.copy_from_slice(from));
        }
        Ok(())
    }
}

#[test]
fn a_planted_leak_is_found_in_its_layer() {
    let decoder = Decoder::open(&family("llama"), None).unwrap();
    for layer in 0..2 {
        let (leak, _) = leaks_of(&decoder, &tokens(), 7, || Unmasked(layer)).unwrap();
        let Some(Leak { layer: found, position: 0, .. }) = leak else { panic!("layer {layer}: {leak:?}") };
        assert_eq!(found, layer);
    }
}

#[test]
fn a_mask_that_shows_one_pair_too_many_is_found() {
    let data: Vec<f32> = (0..2 * 12 * 4).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = View::new(&data, [1, 2, 12, 4]).unwrap();
    let own = |p: Pair| p.kv <= p.q && (p.q < 5) == (p.kv < 5);
    let documents = Documents::new(&[0, 5, 12], Causal::UpperLeft).unwrap();
    assert_eq!(mask_leaks(&Attention::new().mask(documents), x, (x, x), own).unwrap(), None);
    let leaky = move |p: Pair| own(p) || (p.head, p.q, p.kv) == (1, 7, 2);
    let leak = mask_leaks(&Attention::new().mask(leaky), x, (x, x), own).unwrap().unwrap();
    assert_eq!((leak.head, leak.q, leak.kv), (1, 7, 2));
}
