//! Everything that can be wrong with a call: what was given, what is needed, what to do.

/// The result of every fallible call in the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong with a call. Each text names the argument, what it got and what it needs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice is shorter than its shape and strides reach.
    #[error("{what} needs {needed} elements for shape {shape:?} with strides {strides:?}, and its slice has {given}")]
    SliceTooShort {
        /// The argument.
        what: &'static str,
        /// Its shape.
        shape: [usize; 4],
        /// Its strides, in elements.
        strides: [isize; 4],
        /// Elements the slice holds.
        given: usize,
        /// Elements that the shape and strides reach.
        needed: usize,
    },
    /// A stride reaches before the first element of the slice.
    #[error(
        "{what} with shape {shape:?}, strides {strides:?} and offset {offset} reaches before the start of its slice: raise the offset"
    )]
    BeforeSlice {
        /// The argument.
        what: &'static str,
        /// Its shape.
        shape: [usize; 4],
        /// Its strides, in elements.
        strides: [isize; 4],
        /// Offset of element [0, 0, 0, 0].
        offset: usize,
    },
    /// A shape whose number of elements does not fit the machine, or its memory.
    #[error("{what} has shape {shape:?}, which has more elements than the machine can address or has memory for")]
    TooLarge {
        /// The argument.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A mutable view of which two indices name the same element.
    #[error(
        "mutable view with shape {shape:?} and strides {strides:?} names some element twice: every index needs an element of its own"
    )]
    Overlap {
        /// The shape of the view.
        shape: [usize; 4],
        /// Its strides, in elements.
        strides: [isize; 4],
    },
    /// The wrong number of dimensions.
    #[error("{what} has {given} dimensions and needs {needed}: [batch, heads, length, dim]")]
    Rank {
        /// The argument.
        what: &'static str,
        /// Its number of dimensions.
        given: usize,
        /// The number it needs.
        needed: usize,
    },
    /// An array whose memory is not one dense block.
    #[error(
        "{what} is not one dense block of memory: pass the whole array, then use View::slice, or copy it with as_standard_layout()"
    )]
    NotDense {
        /// The argument.
        what: &'static str,
    },
    /// One size of one argument differs from what the others need.
    #[error("{what} has {given} {dim} and needs {needed}, {why}")]
    Size {
        /// The argument.
        what: &'static str,
        /// Which size.
        dim: &'static str,
        /// Its value.
        given: usize,
        /// The value it needs.
        needed: usize,
        /// Where the need comes from.
        why: &'static str,
    },
    /// A whole shape differs from what is needed.
    #[error("{what} has shape {given:?} and needs {needed:?}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// Its shape.
        given: [usize; 4],
        /// The shape it needs.
        needed: [usize; 4],
    },
    /// Query heads cannot be divided among the KV heads.
    #[error(
        "query has {q_heads} heads and keys have {kv_heads}: the number of query heads must be a multiple of the number of KV heads"
    )]
    Heads {
        /// Query heads.
        q_heads: usize,
        /// KV heads.
        kv_heads: usize,
    },
    /// A broadcastable array does not broadcast to the scores.
    #[error("{what} has shape {given:?} and scores have shape {scores:?}: each size must be equal or 1")]
    Broadcast {
        /// The argument.
        what: &'static str,
        /// Its shape.
        given: [usize; 4],
        /// The shape of the scores.
        scores: [usize; 4],
    },
    /// A range that leaves its axis.
    #[error("range {start}..{end} leaves axis {axis}, which has {size} elements")]
    Range {
        /// The axis.
        axis: usize,
        /// First element asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// Elements of the axis.
        size: usize,
    },
    /// A number that is outside its domain.
    #[error("{what} is {given} and must be {needed}")]
    Value {
        /// The argument.
        what: &'static str,
        /// Its value.
        given: f64,
        /// Its domain, in words.
        needed: &'static str,
    },
    /// A bias that hides keys, ahead of a score that would show them again.
    #[error(
        "bias holds −∞ at {at:?} and a softcap follows it: softcap(−∞) is finite, so the hidden key would be seen; use a mask (Bools) to hide keys"
    )]
    HiddenBeforeSoftcap {
        /// Index of the first −∞ in the bias.
        at: [usize; 4],
    },
    /// A position that the keys do not have.
    #[error("{what} is {given}, and there are {length} keys: it must be below {length}")]
    Position {
        /// What is placed there.
        what: &'static str,
        /// The position.
        given: u32,
        /// Keys in the longest sequence.
        length: usize,
    },
    /// Boundaries of documents that are not increasing, or do not cover the length.
    #[error("{what} boundary {index} is {given} and must be {needed}")]
    Boundary {
        /// Which boundaries.
        what: &'static str,
        /// Index of the wrong one.
        index: usize,
        /// Its value.
        given: u32,
        /// What it must be, in words.
        needed: String,
    },
    /// The page pool has too few free pages; nothing was changed.
    #[error(
        "the cache needs {needed} more pages and has {free} free of {pages}: free or truncate sequences, or make the pool larger"
    )]
    CacheFull {
        /// Pages needed.
        needed: usize,
        /// Pages free.
        free: usize,
        /// Pages in the pool.
        pages: usize,
    },
    /// A sequence used with a cache that did not make it.
    #[error("sequence belongs to another cache: use it with the KvCache that made it")]
    ForeignSequence,
    /// A sequence over lent pages, asked to change its table.
    #[error("the sequence owns none of its pages, so it cannot be grown, cut, shared or freed: lend it another block table")]
    LentSequence,
    /// A page that is not in the pool, or not in use.
    #[error("block table entry {index} is page {page}, and the pool has pages 0..{pages} with this one {state}")]
    Page {
        /// Index in the block table.
        index: usize,
        /// The page it names.
        page: u32,
        /// Pages in the pool.
        pages: usize,
        /// Whether the page is in use.
        state: &'static str,
    },
    /// Positions beyond the end of a sequence.
    #[error("positions {start}..{end} leave the sequence, which has {length} tokens: grow it first")]
    Positions {
        /// First position.
        start: usize,
        /// One past the last.
        end: usize,
        /// Length of the sequence.
        length: usize,
    },
    /// A layer the cache does not have.
    #[error("layer {given} was asked for and the cache has {layers}")]
    Layer {
        /// The layer asked for.
        given: usize,
        /// Layers of the cache.
        layers: usize,
    },
    /// A page that several sequences share cannot be written.
    #[error("page {page} is shared by {owners} sequences and cannot be written: grow the sequence first, which copies it")]
    SharedPage {
        /// The page.
        page: u32,
        /// Sequences that hold it.
        owners: u32,
    },
    /// A kernel that does not exist or that this machine cannot run.
    #[error("kernel {given:?} is not available here; available: {available}")]
    Kernel {
        /// The name asked for.
        given: String,
        /// The names that would work.
        available: String,
    },
    /// A call that has no meaning for these arguments.
    #[error("{what} is not supported {context}: {instead}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// With what.
        context: &'static str,
        /// What to do.
        instead: &'static str,
    },
}
