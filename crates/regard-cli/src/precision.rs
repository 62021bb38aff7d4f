//! `--precision`: the type that a model's weights are used in.

use clap::{Args, ValueEnum};

/// The type of weights in memory.
#[derive(Args)]
pub(crate) struct Precision {
    /// Use the weights in this type [default: that of the files; f16 becomes f32, quantised weights become bf16]
    #[arg(long, value_enum, requires = "model")]
    precision: Option<Type>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Type {
    /// 32 bits
    F32,
    /// 16 bits: half the memory, and faster
    Bf16,
}

impl Precision {
    pub(crate) fn get(&self) -> Option<regard_nn::Precision> {
        self.precision.map(|precision| match precision {
            Type::F32 => regard_nn::Precision::F32,
            Type::Bf16 => regard_nn::Precision::Bf16,
        })
    }
}
