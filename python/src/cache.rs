//! `KVCache` and `Sequence`: a pool of pages, and what holds them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use half::{bf16, f16};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use regard::{CacheShape, Element, Kv, KvCache, View};

use crate::array::{Array, Item, list};
use crate::attention::Results;
use crate::error::{OrRaise, value, wrong_type};
use crate::layout::Layout;
use crate::masks::positions;
use crate::options::{Call, Options};
use crate::threads::compute;

/// A cache and its living sequences, by number: one lock for all.
struct Pool<T> {
    cache: KvCache<T>,
    sequences: HashMap<u64, regard::Sequence>,
    next: u64,
}

enum Typed {
    F32(RwLock<Pool<f32>>),
    F16(RwLock<Pool<f16>>),
    Bf16(RwLock<Pool<bf16>>),
}

/// Runs a body for the pool of a cache, named `$pool` in it.
macro_rules! for_pool {
    ($cache:expr, $pool:ident => $body:expr) => {
        match &$cache.pool {
            Typed::F32($pool) => $body,
            Typed::F16($pool) => $body,
            Typed::Bf16($pool) => $body,
        }
    };
}

fn read<T>(pool: &RwLock<Pool<T>>) -> RwLockReadGuard<'_, Pool<T>> {
    pool.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(pool: &RwLock<Pool<T>>) -> RwLockWriteGuard<'_, Pool<T>> {
    pool.write().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Element> Pool<T> {
    fn add(&mut self, sequence: regard::Sequence) -> u64 {
        self.next += 1;
        self.sequences.insert(self.next, sequence);
        self.next
    }

    fn get(&self, id: u64) -> PyResult<&regard::Sequence> {
        self.sequences.get(&id).ok_or_else(freed)
    }

    /// Does something to the cache and one of its sequences.
    fn with<R>(&mut self, id: u64, act: impl FnOnce(&mut KvCache<T>, &mut regard::Sequence) -> regard::Result<R>) -> PyResult<R> {
        act(&mut self.cache, self.sequences.get_mut(&id).ok_or_else(freed)?).or_raise()
    }

    fn free(&mut self, id: u64) -> PyResult<()> {
        self.cache.free(self.sequences.remove(&id).ok_or_else(freed)?).or_raise()
    }
}

fn freed() -> PyErr {
    PyValueError::new_err("sequence was freed: make another with KVCache.sequence")
}

/// A pool of pages for keys and values, shared by many sequences.
///
/// Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention", §4.
#[pyclass(frozen, name = "KVCache", module = "regard")]
pub(crate) struct PyCache {
    pool: Typed,
    shape: CacheShape,
    #[pyo3(get)]
    dtype: &'static str,
}

#[pymethods]
impl PyCache {
    #[new]
    #[pyo3(signature = (*, pages, kv_heads, head_dim, value_dim = None, page_size = 16, layers = 1, dtype = "float32"))]
    fn new(
        pages: usize,
        kv_heads: usize,
        head_dim: usize,
        value_dim: Option<usize>,
        page_size: usize,
        layers: usize,
        dtype: &str,
    ) -> PyResult<Self> {
        let shape = CacheShape { layers, pages, page_size, kv_heads, head_dim, value_dim: value_dim.unwrap_or(head_dim) };
        fn pool<T: Element>(shape: CacheShape) -> PyResult<RwLock<Pool<T>>> {
            Ok(RwLock::new(Pool { cache: KvCache::new(shape).or_raise()?, sequences: HashMap::new(), next: 0 }))
        }
        let (pool, dtype) = match dtype {
            "float32" => (Typed::F32(pool(shape)?), "float32"),
            "float16" => (Typed::F16(pool(shape)?), "float16"),
            "bfloat16" => (Typed::Bf16(pool(shape)?), "bfloat16"),
            _ => return Err(value(format!("dtype is {dtype:?} and must be \"float32\", \"float16\" or \"bfloat16\""))),
        };
        Ok(PyCache { pool, shape, dtype })
    }

    /// Pages in the pool.
    #[getter]
    fn pages(&self) -> usize {
        self.shape.pages
    }

    /// Tokens in a page.
    #[getter]
    fn page_size(&self) -> usize {
        self.shape.page_size
    }

    #[getter]
    fn layers(&self) -> usize {
        self.shape.layers
    }

    #[getter]
    fn kv_heads(&self) -> usize {
        self.shape.kv_heads
    }

    #[getter]
    fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    #[getter]
    fn value_dim(&self) -> usize {
        self.shape.value_dim
    }

    /// Pages that no sequence holds.
    #[getter]
    fn free_pages(&self, py: Python<'_>) -> usize {
        py.detach(|| for_pool!(self, pool => read(pool).cache.free_pages()))
    }

    /// Bytes of the whole pool.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> usize {
        py.detach(|| for_pool!(self, pool => read(pool).cache.bytes()))
    }

    /// A new sequence without tokens.
    fn sequence(slf: &Bound<'_, Self>) -> PySequence {
        let cache = slf.get();
        let id = slf.py().detach(|| {
            for_pool!(cache, pool => {
                let mut pool = write(pool);
                let sequence = pool.cache.sequence();
                pool.add(sequence)
            })
        });
        PySequence { cache: slf.clone().unbind(), id }
    }

    /// A sequence of `length` tokens over pages that other sequences hold: a shared prefix, from a block table.
    fn adopt(slf: &Bound<'_, Self>, block_table: &Bound<'_, PyAny>, length: usize) -> PyResult<PySequence> {
        let block_table = positions("block_table", block_table)?;
        let cache = slf.get();
        let id = slf.py().detach(|| {
            for_pool!(cache, pool => {
                let mut pool = write(pool);
                let sequence = pool.cache.adopt(&block_table, length).or_raise()?;
                PyResult::Ok(pool.add(sequence))
            })
        })?;
        Ok(PySequence { cache: slf.clone().unbind(), id })
    }

    /// Attention of q `[sequences, q_heads, q_len, head_dim]` to the cached keys and values of each sequence, which may differ in
    /// length. The options are those of `attention`.
    #[pyo3(signature = (q, sequences, **options))]
    fn attend<'py>(
        slf: &Bound<'py, Self>,
        q: &Bound<'py, PyAny>,
        sequences: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let one = |one: Bound<'py, PyAny>| one.cast_into::<PySequence>();
        let sequences = list("sequences", sequences, "Sequences")?.into_iter().map(one).collect::<Result<Vec<_>, _>>();
        let sequences = sequences.map_err(|other| wrong_type("an entry of sequences", &other.into_inner(), "a Sequence"))?;
        Self::attend_to(slf, q, &sequences, options)
    }

    fn __repr__(&self) -> String {
        let CacheShape { layers, pages, page_size, kv_heads, head_dim, value_dim } = self.shape;
        let dtype = self.dtype;
        format!(
            "KVCache(pages={pages}, kv_heads={kv_heads}, head_dim={head_dim}, value_dim={value_dim}, page_size={page_size}, \
             layers={layers}, dtype={dtype:?})"
        )
    }
}

impl PyCache {
    fn attend_to<'py>(
        slf: &Bound<'py, Self>,
        q: &Bound<'py, PyAny>,
        sequences: &[Bound<'py, PySequence>],
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let cache = slf.get();
        let mut options = Options::of(Call::Cache, options)?;
        if options.layout == Layout::Packed {
            return Err(value(
                "layout is \"packed\" and must be \"bhld\" or \"blhd\": sequences have queries of one length".into(),
            ));
        }
        if let Some(other) = sequences.iter().find(|sequence| !sequence.get().cache.bind(slf.py()).is(slf)) {
            return Err(value(format!("sequences has {}, which belongs to another cache", other.repr()?)));
        }
        let q = Array::of("q", q)?;
        cache.expect(&q)?;
        let out = options.out.take();
        let ids: Vec<u64> = sequences.iter().map(|sequence| sequence.get().id).collect();
        match &cache.pool {
            Typed::F32(pool) => cache.run(slf.py(), pool, &q, &ids, out, &options),
            Typed::F16(pool) => cache.run(slf.py(), pool, &q, &ids, out, &options),
            Typed::Bf16(pool) => cache.run(slf.py(), pool, &q, &ids, out, &options),
        }
    }

    fn expect(&self, array: &Array<'_>) -> PyResult<()> {
        if array.dtype.name() == self.dtype {
            return Ok(());
        }
        let (name, given, needed) = (array.name(), array.dtype.name(), self.dtype);
        Err(PyTypeError::new_err(format!("{name} is {given} and must be {needed}, as the cache is")))
    }

    fn run<'py, T: Item + Element>(
        &self,
        py: Python<'py>,
        pool: &RwLock<Pool<T>>,
        q: &Array<'py>,
        ids: &[u64],
        out: Option<Array<'py>>,
        options: &Options<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let axes = options.layout.axes(q)?;
        let [batch, heads, length, head_dim] = axes.0;
        if head_dim != self.shape.head_dim {
            let needed = self.shape.head_dim;
            return Err(value(format!("q has {head_dim} elements in each head and needs {needed}, as the cache has")));
        }
        let bools = options.bools()?;
        let attention = options.attention(&bools, heads)?;
        let sizes = [batch, heads, length, self.shape.value_dim];
        let mut results = Results::new(py, q, options.layout, sizes, options.return_lse, out)?;
        for input in std::iter::once(q).chain(options.arrays()) {
            results.apart(input)?;
        }
        let (out, lse) = results.views::<T>()?;
        let (q, layer) = (q.view::<T>(axes)?, options.layer);
        compute(py, || {
            let pool = read(pool);
            let seqs = ids.iter().map(|&id| pool.get(id)).collect::<PyResult<Vec<_>>>()?;
            let plan = attention.plan(q, Kv::Paged { cache: &pool.cache, layer, seqs: &seqs }).or_raise()?;
            plan.forward_into(out, lse).or_raise()
        })??;
        results.into_objects(py)
    }
}

/// One sequence of a cache: its block table and its length. Its pages go back when it is freed or forgotten.
#[pyclass(frozen, name = "Sequence", module = "regard")]
pub(crate) struct PySequence {
    #[pyo3(get)]
    cache: Py<PyCache>,
    id: u64,
}

impl Drop for PySequence {
    fn drop(&mut self) {
        Python::attach(|py| {
            let (cache, id) = (self.cache.bind(py).get(), self.id);
            // One that was freed has nothing to give back.
            py.detach(|| for_pool!(cache, pool => write(pool).free(id).unwrap_or_default()));
        });
    }
}

#[pymethods]
impl PySequence {
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let cache = self.cache.bind(py).get();
        py.detach(|| for_pool!(cache, pool => read(pool).get(self.id).map(regard::Sequence::len)))
    }

    fn __bool__(&self) -> bool {
        true
    }

    /// The pages, in order of position.
    #[getter]
    fn block_table(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let cache = self.cache.bind(py).get();
        py.detach(|| for_pool!(cache, pool => read(pool).get(self.id).map(|sequence| sequence.block_table().to_vec())))
    }

    /// Adds keys and values `[kv_heads, tokens, dim]` to the end: caches of one layer.
    fn append<'py>(&self, k: &Bound<'py, PyAny>, v: &Bound<'py, PyAny>) -> PyResult<()> {
        self.rows(k, v, Write::Append)
    }

    /// Makes room for `tokens` more, to be written layer by layer.
    fn grow(&self, py: Python<'_>, tokens: usize) -> PyResult<()> {
        let cache = self.cache.bind(py).get();
        py.detach(|| for_pool!(cache, pool => write(pool).with(self.id, |cache, sequence| cache.grow(sequence, tokens))))
    }

    /// Writes keys and values `[kv_heads, tokens, dim]` of one layer from position `first` on.
    fn write<'py>(&self, layer: usize, first: usize, k: &Bound<'py, PyAny>, v: &Bound<'py, PyAny>) -> PyResult<()> {
        self.rows(k, v, Write::At { layer, first })
    }

    /// A second sequence with the same tokens: nothing is copied until one of the two grows into a page that both hold.
    fn fork(&self, py: Python<'_>) -> PyResult<PySequence> {
        let cache = self.cache.bind(py).get();
        let id = py.detach(|| {
            for_pool!(cache, pool => {
                let mut pool = write(pool);
                let fork = pool.with(self.id, |cache, sequence| cache.fork(sequence))?;
                PyResult::Ok(pool.add(fork))
            })
        })?;
        Ok(PySequence { cache: self.cache.clone_ref(py), id })
    }

    /// Forgets the tokens from position `length` on.
    fn truncate(&self, py: Python<'_>, length: usize) -> PyResult<()> {
        let cache = self.cache.bind(py).get();
        py.detach(|| for_pool!(cache, pool => write(pool).with(self.id, |cache, sequence| cache.truncate(sequence, length))))
    }

    /// Gives the pages back; those that others share stay.
    fn free(&self, py: Python<'_>) -> PyResult<()> {
        let cache = self.cache.bind(py).get();
        py.detach(|| for_pool!(cache, pool => write(pool).free(self.id)))
    }

    /// Attention of q `[1, q_heads, q_len, head_dim]` to this sequence alone; see `KVCache.attend`.
    #[pyo3(signature = (q, **options))]
    fn attend<'py>(
        slf: &Bound<'py, Self>,
        q: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        PyCache::attend_to(slf.get().cache.bind(slf.py()), q, std::slice::from_ref(slf), options)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.__len__(py).map_or("Sequence(freed)".into(), |len| format!("Sequence({len} tokens)"))
    }
}

enum Write {
    Append,
    At { layer: usize, first: usize },
}

impl PySequence {
    fn rows<'py>(&self, k: &Bound<'py, PyAny>, v: &Bound<'py, PyAny>, how: Write) -> PyResult<()> {
        let py = k.py();
        let cache = self.cache.bind(py).get();
        let (k, v) = (Array::of("k", k)?, Array::of("v", v)?);
        cache.expect(&k)?;
        cache.expect(&v)?;
        let (k_axes, v_axes) = (Layout::Bhld.axes(&k)?, Layout::Bhld.axes(&v)?);
        match &cache.pool {
            Typed::F32(pool) => self.store(py, pool, (k.view(k_axes)?, v.view(v_axes)?), how),
            Typed::F16(pool) => self.store(py, pool, (k.view(k_axes)?, v.view(v_axes)?), how),
            Typed::Bf16(pool) => self.store(py, pool, (k.view(k_axes)?, v.view(v_axes)?), how),
        }
    }

    fn store<T: Element>(
        &self,
        py: Python<'_>,
        pool: &RwLock<Pool<T>>,
        (k, v): (View<'_, T>, View<'_, T>),
        how: Write,
    ) -> PyResult<()> {
        py.detach(|| {
            write(pool).with(self.id, |cache, sequence| match how {
                Write::Append => cache.append(sequence, k, v),
                Write::At { layer, first } => cache.write(layer, sequence, first, k, v),
            })
        })
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCache>()?;
    module.add_class::<PySequence>()
}
