//! Resident memory, as the operating system counts it.

use std::error::Error;
use std::fs;
use std::process::Command;

use half::{bf16, f16};
use regard::{Attention, Element, Inspect, Mask, Output, Tensor};

use super::case::{Case, Dtype, Kind};
use super::inputs::Inputs;
use super::pattern::Masked;

/// [`growth`] of a case in a process of its own: memory that earlier cases gave back to the allocator would hide it.
pub(super) fn growth_alone(case: &Case, threads: usize) -> Result<u64, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "attention", "--alone", "--case", &case.name, "--threads", &threads.to_string()]);
    let output = command.output()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    answer.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned().into())
}

/// Bytes that a pass adds to the resident memory at its peak, beyond its inputs and outputs; of an inspection, beyond its inputs.
pub(super) fn growth(case: &Case) -> Result<u64, Box<dyn Error>> {
    match case.dtype {
        Dtype::F32 => case.masked(Grown(case, Inputs::<f32>::new(case)?)),
        Dtype::Bf16 => case.masked(Grown(case, Inputs::<bf16>::new(case)?)),
        Dtype::F16 => case.masked(Grown(case, Inputs::<f16>::new(case)?)),
    }
}

struct Grown<'a, T>(&'a Case, Inputs<T>);

impl<T: Element> Masked for Grown<'_, T> {
    type Out = u64;

    fn with<M: Mask + Send + 'static>(self, mask: M) -> Result<u64, Box<dyn Error>> {
        let Grown(case, inputs) = self;
        let attention = Attention::new().mask(mask);
        inputs.with_kv(|kv| {
            let plan = attention.plan(inputs.q.view(), kv)?;
            if case.kind == Kind::MemoryInspect {
                return during(|| Ok(plan.inspect(&Inspect::default()).map(drop)?));
            }
            let [batch, heads, len, _] = plan.shape().out();
            let mut output = Output { out: touched(plan.shape().out())?, lse: touched([batch, heads, len, 1])? };
            if !case.kind.backward() {
                return during(|| Ok(plan.forward_into(output.out.view_mut(), output.lse.view_mut())?));
            }
            plan.forward_into(output.out.view_mut(), output.lse.view_mut())?;
            let mut gradients = 0;
            let grown = during(|| {
                let grads = plan.backward(&output, inputs.d_out.view())?;
                gradients = [grads.dq, grads.dk, grads.dv].iter().map(|x| size_of_val(x.data()) as u64).sum();
                Ok(())
            })?;
            Ok(grown.saturating_sub(gradients))
        })
    }
}

/// An array whose pages the machine has already given.
fn touched<T: Element>(shape: [usize; 4]) -> Result<Tensor<T>, regard::Error> {
    let mut tensor = Tensor::zeros(shape)?;
    tensor.data_mut().fill(T::from_f32(1.0));
    Ok(tensor)
}

/// The growth of the peak of resident memory while `f` runs.
fn during(f: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<u64, Box<dyn Error>> {
    // Starts the threads, whose stacks are not working memory of the pass.
    rayon::broadcast(|_| std::hint::black_box([0u8; 1 << 16]));
    fs::write("/proc/self/clear_refs", "5").map_err(|error| format!("memory is measured on Linux only: {error}"))?;
    let before = status("VmRSS")?;
    f()?;
    Ok(status("VmHWM")?.saturating_sub(before))
}

/// A line of `/proc/self/status`, in bytes.
fn status(field: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| format!("no {field} in /proc/self/status"))?;
    Ok(kib * 1024)
}
