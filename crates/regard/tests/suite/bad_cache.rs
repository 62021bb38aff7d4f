//! Calls on the page pool that cannot be: each refused by name, and nothing changed.

use regard::{Attention, CacheShape, Error, Kv, KvCache, Pair, Sequence, View, sdpa};

const SHAPE: CacheShape = CacheShape { layers: 2, pages: 4, page_size: 3, kv_heads: 2, head_dim: 3, value_dim: 2 };
const ZEROS: [f32; 512] = [0.0; 512];

fn rows(shape: [usize; 4]) -> View<'static, f32> {
    View::new(&ZEROS, shape).unwrap()
}

fn cache(shape: CacheShape) -> KvCache<f32> {
    KvCache::new(shape).unwrap()
}

#[test]
fn a_full_pool_says_so_and_changes_nothing() {
    let mut cache = cache(CacheShape { layers: 1, ..SHAPE });
    let mut seq = cache.sequence();
    cache.append(&mut seq, rows([1, 2, 7, 3]), rows([1, 2, 7, 2])).unwrap();
    let mut other = cache.fork(&seq).unwrap();
    let before = (seq.block_table().to_vec(), seq.len(), cache.free_pages(), cache.used_bytes());
    let full = cache.append(&mut seq, rows([1, 2, 6, 3]), rows([1, 2, 6, 2])).unwrap_err();
    assert_eq!(full, Error::CacheFull { needed: 3, free: 1, pages: 4 });
    assert!(full.to_string().contains("needs 3 more pages and has 1 free of 4"), "{full}");
    assert_eq!(before, (seq.block_table().to_vec(), seq.len(), cache.free_pages(), cache.used_bytes()));
    cache.grow(&mut other, 1).unwrap(); // copies the shared page into the last free one
    assert_eq!(cache.grow(&mut seq, usize::MAX).unwrap_err(), Error::CacheFull { needed: usize::MAX, free: 0, pages: 4 });
    cache.free(other).unwrap();
    assert_eq!(cache.free_pages(), 1);
}

#[test]
fn rows_of_another_shape() {
    let mut cache = cache(CacheShape { layers: 1, ..SHAPE });
    let mut seq = cache.sequence();
    let mut refuse = |k: [usize; 4], v: [usize; 4]| cache.append(&mut seq, rows(k), rows(v)).unwrap_err().to_string();
    assert_eq!(refuse([1, 3, 2, 3], [1, 2, 2, 2]), "keys has 3 heads and needs 2, as the cache has");
    assert_eq!(refuse([1, 2, 2, 4], [1, 2, 2, 2]), "keys has 4 elements in each head and needs 3, as the cache has");
    assert_eq!(refuse([2, 2, 2, 3], [2, 2, 2, 2]), "keys has 2 sequences and needs 1, for one sequence of the cache");
    assert_eq!(refuse([1, 2, 2, 3], [1, 2, 3, 2]), "values has 3 positions and needs 2, as the keys have");
    assert_eq!((seq.len(), cache.free_pages()), (0, 4));
}

#[test]
fn positions_layers_and_pages_that_are_not_there() {
    let mut cache = cache(SHAPE);
    let mut seq = cache.sequence();
    let (k, v) = (rows([1, 2, 2, 3]), rows([1, 2, 2, 2]));
    let text = |e: Error| e.to_string();
    assert!(text(cache.append(&mut seq, k, v).unwrap_err()).contains("use grow and write"), "more than one layer");
    cache.grow(&mut seq, 4).unwrap();
    assert_eq!(
        text(cache.write(0, &seq, 3, k, v).unwrap_err()),
        "positions 3..5 leave the sequence, which has 4 tokens: grow it first"
    );
    assert!(cache.write(0, &seq, usize::MAX, k, v).is_err());
    assert_eq!(text(cache.write(2, &seq, 0, k, v).unwrap_err()), "layer 2 was asked for and the cache has 2");
    let twin = cache.fork(&seq).unwrap();
    assert!(text(cache.write(0, &seq, 0, k, v).unwrap_err()).contains("is shared by 2 sequences"));
    assert!(text(cache.truncate(&mut seq, 5).unwrap_err()).contains("leave the sequence, which has 4 tokens"));
    cache.free(twin).unwrap();
}

#[test]
fn block_tables_with_entries_out_of_range() {
    let mut cache = cache(SHAPE);
    let mut seq = cache.sequence();
    cache.grow(&mut seq, 4).unwrap();
    let table = seq.block_table().to_vec();
    let text = |e: Error| e.to_string();
    assert_eq!(
        text(cache.adopt(&[table[0], 9], 4).unwrap_err()),
        "block table entry 1 is page 9, and the pool has pages 0..4 with this one outside it"
    );
    let free = (0..4).find(|page| !table.contains(page)).unwrap();
    assert!(text(cache.adopt(&[free], 2).unwrap_err()).contains("with this one free"));
    assert!(text(cache.adopt(&table, 7).unwrap_err()).contains("block table has 2 entries and needs 3"));
    assert_eq!(cache.owners(table[0]), 1, "a refusal holds nothing");
    let adopted = cache.adopt(&table, 4).unwrap();
    assert_eq!(cache.owners(table[0]), 2);
    cache.free(adopted).unwrap();
}

/// Every call that a table or a length makes impossible is refused by `plan`: the mask, which kernels ask, is not asked.
#[test]
fn impossible_reads_are_refused_before_a_kernel_runs() {
    let (mut one, mut two) = (cache(SHAPE), cache(SHAPE));
    let (mut seq, mut foreign) = (one.sequence(), two.sequence());
    one.grow(&mut seq, 7).unwrap();
    two.grow(&mut foreign, 7).unwrap();
    let attention = Attention::new().mask(|_: Pair| -> bool { panic!("a kernel runs") });
    let refuse = |q: [usize; 4], layer, seqs: &[&Sequence]| {
        attention.forward(rows(q), Kv::Paged { cache: &one, layer, seqs }).unwrap_err().to_string()
    };
    assert!(refuse([3, 2, 1, 3], 0, &[&seq, &seq, &foreign]).contains("belongs to another cache"), "one of several");
    assert_eq!(refuse([1, 2, 1, 3], 0, &[]), "keys has 0 sequences and needs 1, as the query has");
    assert_eq!(refuse([2, 2, 1, 3], 0, &[&seq]), "keys has 1 sequences and needs 2, as the query has");
    assert_eq!(refuse([1, 2, 1, 4], 0, &[&seq]), "keys has 3 elements in each head and needs 4, as the query has");
    assert!(refuse([1, 3, 1, 3], 0, &[&seq]).starts_with("query has 3 heads and keys have 2"));
    assert!(refuse([1, 2, 1, 3], usize::MAX, &[&seq]).starts_with("layer 18446744073709551615 was asked for"));
}

/// Tokens without elements take no memory, so a sequence can be longer than positions reach.
#[test]
fn sequences_beyond_positions() {
    let mut cache = cache(CacheShape { pages: 1, page_size: 1 << 31, head_dim: 0, value_dim: 0, ..SHAPE });
    let mut seq = cache.sequence();
    cache.grow(&mut seq, 1 << 30).unwrap();
    let text = Attention::new().forward(rows([1, 2, 1, 0]), Kv::Paged { cache: &cache, layer: 0, seqs: &[&seq] }).unwrap_err();
    assert!(text.to_string().starts_with("key length is 1073741824 and must be below 2^30"), "{text}");
}

/// A table that names one page twice shares it with itself: readable, and copied before it is written.
#[test]
fn a_page_twice_in_one_table() {
    let mut cache = cache(CacheShape { layers: 1, ..SHAPE });
    let mut seq = cache.sequence();
    cache.append(&mut seq, rows([1, 2, 3, 3]), rows([1, 2, 3, 2])).unwrap();
    let page = seq.block_table()[0];
    let mut twice = cache.adopt(&[page, page], 5).unwrap();
    assert_eq!(cache.owners(page), 3);
    Attention::new().forward(rows([1, 2, 1, 3]), Kv::Paged { cache: &cache, layer: 0, seqs: &[&twice] }).unwrap();
    assert!(cache.write(0, &twice, 0, rows([1, 2, 1, 3]), rows([1, 2, 1, 2])).is_err());
    cache.append(&mut twice, rows([1, 2, 1, 3]), rows([1, 2, 1, 2])).unwrap();
    assert_eq!((twice.block_table()[0], cache.owners(page)), (page, 2));
    assert_ne!(twice.block_table()[1], page);
    cache.free(twice).unwrap();
    cache.free(seq).unwrap();
    assert_eq!(cache.free_pages(), 4);
    assert!(cache.adopt(&[page], 3).unwrap_err().to_string().contains("with this one free"), "a page of nobody");
    assert!(cache.adopt(&[u32::MAX], 3).unwrap_err().to_string().contains("with this one outside it"));
    assert!(cache.adopt(&[], 1).unwrap_err().to_string().contains("block table has 0 entries and needs 1"));
    assert!(cache.adopt(&[], usize::MAX).is_err());
}

#[test]
fn sequences_of_another_cache() {
    let (mut one, mut two) = (cache(SHAPE), cache(SHAPE));
    let mut seq = one.sequence();
    one.grow(&mut seq, 2).unwrap();
    let foreign = Error::ForeignSequence;
    assert_eq!(two.grow(&mut seq, 1).unwrap_err(), foreign);
    assert_eq!(two.truncate(&mut seq, 0).unwrap_err(), foreign);
    assert_eq!(two.fork(&seq).unwrap_err(), foreign);
    let q = rows([1, 2, 1, 3]);
    let attention = Attention::new();
    let read =
        |cache, layer, seqs: &[_]| attention.forward(q, Kv::Paged { cache, layer, seqs }).map(|_| ()).unwrap_err().to_string();
    assert!(read(&two, 0, &[&seq]).contains("belongs to another cache"));
    assert_eq!(read(&one, 2, &[&seq]), "layer 2 was asked for and the cache has 2");
    assert_eq!(read(&one, 0, &[&seq, &seq]), "keys has 2 sequences and needs 1, as the query has");
    assert_eq!(two.free(seq).unwrap_err(), foreign);
}

#[test]
fn pools_that_cannot_be() {
    let refuse = |shape| KvCache::<f32>::new(shape).unwrap_err().to_string();
    assert_eq!(refuse(CacheShape { layers: 0, ..SHAPE }), "layers of the cache is 0 and must be at least 1");
    assert_eq!(refuse(CacheShape { page_size: 0, ..SHAPE }), "page size of the cache is 0 and must be at least 1");
    assert!(
        refuse(CacheShape { pages: 1 << 31, page_size: 1 << 31, ..SHAPE }).contains("more elements than the machine can address")
    );
    assert!(refuse(CacheShape { pages: 1 << 40, ..SHAPE }).contains("below 2^32"));
    let mut empty = cache(CacheShape { pages: 0, ..SHAPE });
    let mut seq = empty.sequence();
    assert_eq!(empty.grow(&mut seq, 1).unwrap_err(), Error::CacheFull { needed: 1, free: 0, pages: 0 });
    assert_eq!((empty.bytes(), empty.used_bytes()), (0, 0));
}

/// A sequence without tokens is a sequence without keys: zeros.
#[test]
fn an_empty_sequence_gives_zeros() {
    let cache = cache(SHAPE);
    let seq = cache.sequence();
    let q = rows([1, 2, 1, 3]);
    let output = Attention::new().forward(q, Kv::Paged { cache: &cache, layer: 1, seqs: &[&seq] }).unwrap();
    assert!(output.out.data().iter().all(|&x| x == 0.0) && output.lse.data().iter().all(|&x| x == f32::NEG_INFINITY));
    let none = sdpa(rows([1, 2, 1, 3]), rows([1, 2, 0, 3]), rows([1, 2, 0, 2]), ()).unwrap();
    assert_eq!(output.out.data(), none.data());
}

#[test]
fn lent_pages_are_nobodys_and_stay_so() {
    let shape = CacheShape { layers: 2, ..SHAPE };
    let mut cache = cache(shape);
    let mut owner = cache.sequence();
    cache.grow(&mut owner, 1).unwrap();
    let owned = owner.block_table()[0];
    let text = |e: Error| e.to_string();
    let lent: Vec<u32> = (0..4).filter(|page| *page != owned).collect();
    assert!(text(cache.lend(&[owned], 1).unwrap_err()).contains("with this one owned by a sequence"));
    assert!(text(cache.lend(&[9], 1).unwrap_err()).contains("with this one outside it"));
    assert_eq!(text(cache.lend(&lent[..1], 4).unwrap_err()), "block table has 1 entries and needs 2, for its number of tokens");
    let mut seq = cache.lend(&lent[..2], 4).unwrap();
    cache.write(1, &seq, 1, rows([1, 2, 2, 3]), rows([1, 2, 2, 2])).unwrap();
    for refused in [cache.grow(&mut seq, 1), cache.truncate(&mut seq, 0), cache.fork(&seq).map(drop), cache.free(seq)] {
        assert_eq!(refused.unwrap_err(), Error::LentSequence);
    }
    assert_eq!(cache.free_pages(), 3);
    assert!(cache.copy_lent(lent[0], owned).is_err() && cache.copy_lent(owned, lent[0]).is_err());
    assert!(cache.read_page(lent[0], &mut [0.0; 3]).is_err());
}

#[test]
fn a_page_that_is_read_and_written_back_or_copied_holds_the_same() {
    let mut cache = cache(SHAPE);
    let (k, v): (Vec<f32>, Vec<f32>) = ((0..18).map(|i| i as f32).collect(), (0..12).map(|i| -(i as f32)).collect());
    let seq = cache.lend(&[2], 3).unwrap();
    for layer in 0..2 {
        cache.write(layer, &seq, 0, View::new(&k, [1, 2, 3, 3]).unwrap(), View::new(&v, [1, 2, 3, 2]).unwrap()).unwrap();
    }
    let mut page = vec![0.0; cache.page_len()];
    cache.read_page(2, &mut page).unwrap();
    cache.write_page(0, &page).unwrap();
    cache.copy_lent(0, 3).unwrap();
    for copy in [0, 3].map(|page| cache.lend(&[page], 3).unwrap()) {
        for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            assert_eq!(cache.key_rows(layer, &copy, head, 0), cache.key_rows(layer, &seq, head, 0));
            assert_eq!(cache.value_rows(layer, &copy, head, 0), &v[head * 6..][..6]);
        }
    }
}
