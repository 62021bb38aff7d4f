//! The sparse patterns of the literature: what each shows, and what it costs at length.
//!
//! ```sh
//! cargo run --release -p regard --example sparse_patterns
//! ```

use regard::{
    Around, Attention, Blocks, Blockwise, Causal, Dilated, Documents, Either, Fixed, Gaussian, Global, Lens, Mask, Pair, PrefixLm,
    RandomKeys, Strided, View, Window,
};

/// Positions in a picture, and in the text whose cost is counted.
const SMALL: usize = 24;
const LARGE: usize = 8192;

fn main() -> Result<(), regard::Error> {
    show("sliding window", Window { left: 4, right: 0 }, Window { left: 511, right: 0 })?;
    show("dilated window", Dilated::new(4, 4, 2)?, Dilated::new(256, 256, 2)?)?;
    let strided = |stride| Ok::<_, regard::Error>((Causal::LowerRight, Strided::new(stride)?));
    show("strided (Sparse Transformer)", strided(5)?, strided(512)?)?;
    let fixed = |block, summary| Ok::<_, regard::Error>((Causal::LowerRight, Fixed::new(block, summary)?));
    show("fixed (Sparse Transformer)", fixed(6, 1)?, fixed(512, 64)?)?;
    let longformer = |w, tokens: &[u32]| Either(Window { left: w, right: w }, Global::new(tokens));
    show("Longformer: window and global tokens", longformer(2, &[0, 13]), longformer(256, &[0, 13]))?;
    let big_bird = |size: u32, len: usize| {
        let blocks = len.div_ceil(size as usize);
        let near = Either(Window { left: 1, right: 1 }, Global::first(1));
        Blockwise::new(size, Either(near, RandomKeys::new(2, [1, blocks], 7)?))
    };
    show("BigBird: window, global and random blocks", big_bird(3, SMALL)?, big_bird(64, LARGE)?)?;
    let streaming = |w, sinks| (Causal::LowerRight, Either(Window { left: w, right: 0 }, Global::first(sinks)));
    show("StreamingLLM: sinks and window", streaming(4, 2), streaming(508, 4))?;
    show("prefix-LM", PrefixLm::new(8), PrefixLm::new(2048))?;
    let (few, many) = (Documents::new(&[0, 9, 12, 24], Causal::LowerRight)?, Documents::new(&[0, 3000, 4096, 8192], ())?);
    show("documents packed end to end", few, many)?;
    let checkers = |blocks: usize| (0..blocks * blocks).map(|i| (i / blocks + i % blocks).is_multiple_of(3)).collect();
    let (few, many) = (Blocks::new(4, 4, checkers(6), [1, 1, 6, 6])?, Blocks::new(64, 64, checkers(128), [1, 1, 128, 128])?);
    show("blocks from a boolean map", few, many)?;
    local()
}

/// Local attention in its two forms: a window that moves with the query, and one around centres that a model predicted.
fn local() -> Result<(), regard::Error> {
    let monotonic: Vec<f32> = (0..LARGE).map(|t| t as f32).collect();
    let predicted: Vec<f32> = (0..LARGE).map(|t| t as f32 + 6.0 * (t as f32 / 3.0).sin()).collect();
    let around = |centres, len: usize, radius| {
        let centres = View::strided(centres, 0, [1, 1, len, 1], [0, 0, 1, 1])?;
        Ok::<_, regard::Error>(Around { centres, radius })
    };
    show("local-m (Luong)", around(&monotonic, SMALL, 2.0)?, around(&monotonic, LARGE, 256.0)?)?;
    let radius = 3.0;
    let few = around(&predicted, SMALL, radius)?;
    show("local-p (Luong)", few, around(&predicted, LARGE, 256.0)?)?;

    // In local-p, keys also count less the further they are from the centre.
    let attention = Attention::new().mask(few).score(Gaussian::new(few.centres, radius / 2.0).with_gradient());
    let x: Vec<f32> = (0..SMALL).map(|i| (i as f32 / 5.0).sin()).collect();
    let x = View::new(&x, [1, 1, SMALL, 1])?;
    let plan = attention.plan(x, (x, x))?;
    let output = plan.forward()?;
    let gradient = plan.backward(&output, x)?.dbias.expect("asked for");
    println!("gradient of the first centres of local-p: {:.3?}", &gradient.data()[..4]);
    Ok(())
}

/// Draws a pattern over [`SMALL`] positions, and counts the tiles of one like it over [`LARGE`].
fn show(name: &str, small: impl Mask, large: impl Mask) -> Result<(), regard::Error> {
    println!("{name}");
    let len = Lens { q: SMALL as u32, kv: SMALL as u32 };
    for q in 0..SMALL as u32 {
        let cell = |kv| if small.keep(Pair { q, kv, len, ..Pair::default() }) { "██" } else { "· " };
        println!("    {}", (0..SMALL as u32).map(cell).collect::<String>());
    }
    let data = vec![0.0f32; LARGE];
    let x = View::new(&data, [1, 1, LARGE, 1])?;
    let attention = Attention::new().mask(large);
    let cost = attention.plan(x, (x, x))?.cost();
    let share = cost.pairs as f64 / (LARGE * LARGE) as f64;
    println!("    at {LARGE} positions: {:.1} % of the work of full attention, {:?}\n", 100.0 * share, cost.tiles);
    Ok(())
}
