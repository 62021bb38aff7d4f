//! Which instruction set: detected once, forced by `REGARD_KERNEL`, entered in one place. Unsafe room 2.

use std::sync::OnceLock;

use regard_core::{Error, Result};

use crate::simd::{Pairs, Task, Vector, scalar::Scalar};
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2::Avx2, avx512::Avx512};

/// An instruction set that this machine has. Made by [`Kernel::available`], [`Kernel::best`] and [`Kernel::named`] only.
#[derive(Clone, Copy)]
pub struct Kernel(Set);

#[derive(Clone, Copy)]
enum Set {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// With products of bf16 pairs where those pay.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512, Option<Pairs>),
}

impl Kernel {
    /// Those that this machine can run, best first; never empty.
    pub fn available() -> Vec<Kernel> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(v) = Avx512::detect() {
                sets.extend(Pairs::detect().map(|pairs| Set::Avx512(v, Some(pairs))));
                sets.push(Set::Avx512(v, None));
            }
            sets.extend(Avx2::detect().map(Set::Avx2));
        }
        sets.push(Set::Scalar(Scalar));
        sets.into_iter().map(Kernel).collect()
    }

    /// The best available, or the one that the environment variable `REGARD_KERNEL` names. Decided once.
    ///
    /// # Errors
    /// When the variable names a kernel that is not available.
    pub fn best() -> Result<Kernel> {
        static BEST: OnceLock<Result<Kernel>> = OnceLock::new();
        let choose = || match std::env::var("REGARD_KERNEL") {
            Ok(name) => Kernel::named(&name),
            Err(_) => Ok(Kernel::available()[0]),
        };
        BEST.get_or_init(choose).clone()
    }

    /// The kernel of that name: `"amx"`, `"avx512bf16"`, `"avx512"`, `"avx2"` or `"scalar"`.
    ///
    /// # Errors
    /// When there is none of that name, or this machine cannot run it.
    pub fn named(name: &str) -> Result<Kernel> {
        let all = Kernel::available();
        let found = all.iter().find(|k| k.name() == name).copied();
        let names = || all.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Error::Kernel { given: name.to_owned(), available: names() })
    }

    /// The name users see.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_, None) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_, Some(pairs)) => pairs.name(),
        }
    }

    /// The right to multiply pairs of bf16, for kernels that do.
    pub(crate) fn pairs(self) -> Option<Pairs> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_, pairs) => pairs,
            _ => None,
        }
    }

    /// Numbers in a vector, and vectors side by side in a block of a product: [`Vector::LANES`] and [`Vector::PANEL`].
    fn sizes(self) -> (usize, usize) {
        struct Sizes;
        impl Task for Sizes {
            type Out = (usize, usize);

            #[inline(always)]
            fn run<V: Vector>(self, _: V) -> (usize, usize) {
                (V::LANES, V::PANEL)
            }
        }
        self.run(Sizes)
    }

    /// Numbers in a vector.
    pub(crate) fn lanes(self) -> usize {
        self.sizes().0
    }

    /// Columns of a block of [`Product`](crate::simd::Product) whose accumulators fill the registers.
    pub(crate) fn panel(self) -> usize {
        let (lanes, vectors) = self.sizes();
        lanes * vectors
    }

    /// Runs a task compiled for this instruction set: the one table.
    #[inline]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Out {
        match self.0 {
            Set::Scalar(v) => v.call(task),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(v) => v.call(task),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(v, _) => v.call(task),
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
