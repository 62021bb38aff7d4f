//! What regard's kernels are tested against.
//!
//! - [`oracle`]: attention and its gradients in f64, written to be obviously right;
//! - [`oracle::Bounds`] and [`tolerance`]: how far an f32 computation may be from it, derived, element by element;
//! - [`case`](mod@case) and [`layout`]: sizes, values and memory layouts, from a seed;
//! - [`zoo`]: every mask and every score, for given sizes;
//! - [`by_ref`]: a mask or a score by reference, where a call takes it by value;
//! - [`part`]: a mask or a score of one problem, asked in a part of it;
//! - `guard` (on Linux): memory that ends at a forbidden page. The one place with `unsafe` code.
//!
//! A test draws a case, runs a kernel, asks the oracle and compares:
//!
//! ```
//! use regard_core::Causal;
//! use regard_testing::{case::Case, oracle::Problem, tolerance::worst};
//!
//! let case = Case::new(7, [1, 4, 2, 5, 9, 8, 3]);
//! let inputs = case.inputs::<f32>();
//! let mut problem = Problem::new(inputs.q.view(), inputs.k.view(), inputs.v.view());
//! problem.mask = &Causal::LowerRight;
//! let truth = problem.forward();
//! let bounds = problem.bounds::<f32>(&truth);
//! let kernel_output = truth.out.clone();
//! assert!(worst(&kernel_output, &truth.out, &bounds.out).unwrap().ratio <= 1.0, "{case}");
//! ```

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod amx;
pub mod array;
pub mod by_ref;
pub mod case;
#[cfg(target_os = "linux")]
pub mod guard;
pub mod layout;
pub mod oracle;
pub mod part;
pub mod rng;
pub mod tiny;
pub mod tolerance;
pub mod zoo;
