//! Joins a computation of any number of inputs to candle's graph, whose operations have at most three.
//!
//! The output hangs on a chain of empty tokens, and each token on two of the inputs:
//!
//! ```text
//!   output ← token ← token ← start         backward of `output` computes all gradients at once and leaves them on the shelf;
//!             ↓ ↓     ↓ ↓                  each token takes those of its two inputs from it
//!             c d     a b
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, DType, Device, Error as TensorError, Layout, Result as TensorResult, Shape, Tensor, TensorId,
};

use crate::array::slice;
use crate::{Error, Result};

type Gradients = Vec<(TensorId, Option<Tensor>)>;
type Run = Box<dyn FnOnce(Tensor) -> Result<Gradients> + Send>;

/// A node of candle's graph with this output, whose backward gives `run(∂output)` to the inputs.
///
/// # Errors
/// When candle refuses.
pub(crate) fn join<F>(output: Tensor, inputs: Vec<Tensor>, run: F) -> Result<Tensor>
where
    F: FnOnce(Tensor) -> Result<Gradients> + Send + 'static,
{
    let shelf = Shelf::default();
    let mut token = empty()?;
    for pair in inputs.chunks(2) {
        let (a, b) = (&pair[0], pair.get(1).cloned().map_or_else(empty, Ok)?);
        token = token.apply_op3(a, &b, Token { shelf: shelf.clone() })?;
    }
    let run: Run = Box::new(run);
    Ok(token.apply_op1(Output { value: Mutex::new(Some(output)), run: Mutex::new(Some(run)), shelf })?)
}

fn empty() -> TensorResult<Tensor> {
    Tensor::zeros((), DType::F32, &Device::Cpu)
}

/// Gradients on their way from the output to the inputs.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Gradients>>);

impl Shelf {
    /// The gradient of `input`; zeros for a tensor that the output did not depend on but that candle expects one for.
    fn take(&self, input: &Tensor) -> TensorResult<Option<Tensor>> {
        if !input.track_op() {
            return Ok(None);
        }
        let found = lock(&self.0).iter_mut().find(|(id, _)| *id == input.id()).and_then(|(_, gradient)| gradient.take());
        match found {
            None if !input.is_variable() => input.zeros_like().map(Some),
            found => Ok(found),
        }
    }
}

struct Token {
    shelf: Shelf,
}

impl CustomOp3 for Token {
    fn name(&self) -> &'static str {
        "token"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> TensorResult<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), ().into()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> TensorResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((Some(empty()?), self.shelf.take(a)?, self.shelf.take(b)?))
    }
}

struct Output {
    value: Mutex<Option<Tensor>>,
    run: Mutex<Option<Run>>,
    shelf: Shelf,
}

impl CustomOp1 for Output {
    fn name(&self) -> &'static str {
        "tape"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> TensorResult<(CpuStorage, Shape)> {
        let value = lock(&self.value).take().ok_or_else(|| TensorError::wrap(Error::Spent))?;
        let values = slice(&value).map_err(TensorError::wrap)?.to_vec();
        Ok((CpuStorage::F32(values), value.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> TensorResult<Option<Tensor>> {
        let run = lock(&self.run).take().ok_or_else(|| TensorError::wrap(Error::Spent))?;
        *lock(&self.shelf.0) = run(gradient.contiguous()?).map_err(TensorError::wrap)?;
        Ok(Some(empty()?))
    }
}

/// A lock whose holder panicked still guards whole values here: each is replaced in one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
