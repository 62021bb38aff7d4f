//! A paged cache with a fork: two continuations of one prompt share its pages until they write.
//!
//! ```sh
//! cargo run --release -p regard --example paged_fork
//! ```

use regard::{Attention, CacheShape, Causal, Kv, KvCache, Sequence, Tensor, View};

const HEADS: usize = 2;
const DIM: usize = 4;

/// Rows of `n` tokens that begin at `first`, `[1, heads, n, dim]`.
fn rows(first: usize, n: usize) -> Result<Tensor<f32>, regard::Error> {
    let data = (0..HEADS * n * DIM).map(|i| ((first * DIM + i) as f32 * 0.7).sin()).collect();
    Tensor::from_vec(data, [1, HEADS, n, DIM])
}

fn append(cache: &mut KvCache<f32>, seq: &mut Sequence, first: usize, n: usize) -> Result<(), regard::Error> {
    let (k, v) = (rows(first, n)?, rows(first + 100, n)?);
    cache.append(seq, k.view(), v.view())
}

fn main() -> Result<(), regard::Error> {
    let shape = CacheShape { layers: 1, pages: 16, page_size: 4, kv_heads: HEADS, head_dim: DIM, value_dim: DIM };
    let mut cache = KvCache::new(shape)?;
    let mut happy = cache.sequence();
    append(&mut cache, &mut happy, 0, 10)?;
    println!("prompt of 10 tokens: pages {:?}, {} of {} free", happy.block_table(), cache.free_pages(), shape.pages);

    // The fork copies nothing; the first write into the shared last page copies that page only.
    let mut sad = cache.fork(&happy)?;
    println!(
        "forked: {} free, page {} has {} owners",
        cache.free_pages(),
        happy.block_table()[0],
        cache.owners(happy.block_table()[0])
    );
    append(&mut cache, &mut happy, 20, 1)?;
    append(&mut cache, &mut sad, 40, 3)?;
    println!("happy: pages {:?}, {} tokens", happy.block_table(), happy.len());
    println!("sad:   pages {:?}, {} tokens", sad.block_table(), sad.len());

    // One call decodes both, though their lengths differ.
    let q: Vec<f32> = (0..2 * HEADS * DIM).map(|i| (i as f32).cos()).collect();
    let q = View::new(&q, [2, HEADS, 1, DIM])?;
    let seqs = [&happy, &sad];
    let output = Attention::new().mask(Causal::LowerRight).forward(q, Kv::Paged { cache: &cache, layer: 0, seqs: &seqs })?;
    println!("happy: {:?}", output.out.view().row(0, 0, 0));
    println!("sad:   {:?}", output.out.view().row(1, 0, 0));

    cache.free(happy)?;
    cache.free(sad)?;
    assert_eq!(cache.free_pages(), shape.pages);
    Ok(())
}
