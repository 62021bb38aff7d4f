//! The lens against answers that are known: of models built by hand, and of transformers.

mod ablation;
mod bad_input;
mod built;
mod flow;
mod heads;
mod leaks;
mod long_context;
mod output;
mod patching;
mod pruning;
mod rounding;
mod special;
mod through;
mod transformers;
mod without;
mod zooms;
