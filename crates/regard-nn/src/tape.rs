//! A reverse-mode tape: what a layer did, so that its gradients can be computed. One tape becomes one node of candle's graph.

use std::cell::RefCell;

use candle_core::{DType, Tensor, TensorId};

use crate::ops::add;
use crate::{Error, Result, join};

/// The gradients of an operation's inputs from that of its output; `None` where an input needs none.
pub(crate) type Pull = Box<dyn FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send>;

struct Node {
    /// Nodes of the inputs; `None` for constants.
    inputs: Vec<Option<usize>>,
    /// Shape of the output.
    shape: Vec<usize>,
    /// `None` for a leaf.
    pull: Option<Pull>,
}

/// A tensor whose history is on a [`Tape`].
#[derive(Clone, Debug)]
pub struct Value {
    tensor: Tensor,
    node: Option<usize>,
}

impl Value {
    /// A value that no gradient flows to.
    pub fn constant(tensor: Tensor) -> Self {
        Value { tensor, node: None }
    }

    /// The numbers, contiguous, without candle history.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether gradients flow back from this value.
    pub(crate) fn is_tracked(&self) -> bool {
        self.node.is_some()
    }

    /// The same numbers in another shape.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Ok(Value { tensor: self.tensor.reshape(shape)?, node: self.node })
    }
}

/// The record of a forward pass: what a layer did, so that its gradients can be computed.
///
/// Candle's own backward pass starts every gradient from a tensor of zeros, adds to it on one thread, and keeps a node for every
/// reshape and transpose. A layer of a transformer has some thirty of those. Here the first gradient of a value is moved in, later
/// ones are added on all threads, operations are few and fused, and what backward needs is freed as soon as it is used.
///
/// ```text
///   forward    y = f(x, w)       push(y, [x, w], ∂y ↦ [∂x, ∂w])
///   backward   in reverse order of pushing: ∂inputs += pull(∂output)
/// ```
#[derive(Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
    /// Candle tensors that values came from, with their nodes.
    leaves: RefCell<Vec<(Tensor, usize)>>,
    off: bool,
}

impl Tape {
    /// A tape that records.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tape that records nothing: for inference.
    pub fn off() -> Self {
        Self { off: true, ..Self::default() }
    }

    /// A candle tensor as a value; gradients flow back to it when it is a variable or depends on one.
    ///
    /// # Errors
    /// When the tensor is not f32.
    pub fn watch(&self, tensor: &Tensor) -> Result<Value> {
        let plain = tensor.detach();
        if plain.dtype() != DType::F32 {
            let needed = format!("numbers of type f32, and it has {:?}", plain.dtype());
            return Err(Error::Shape { what: "a tensor", given: plain.dims().to_vec(), needed });
        }
        let plain = plain.contiguous()?;
        if self.off || !tensor.track_op() {
            return Ok(Value::constant(plain));
        }
        let mut leaves = self.leaves.borrow_mut();
        let known = leaves.iter().find(|(leaf, _)| leaf.id() == tensor.id()).map(|(_, node)| *node);
        let node = known.unwrap_or_else(|| {
            let node = self.add_node(Node { inputs: Vec::new(), shape: plain.dims().to_vec(), pull: None });
            leaves.push((tensor.clone(), node));
            node
        });
        Ok(Value { tensor: plain, node: Some(node) })
    }

    /// Records one operation. `pull` is dropped at once when no input is tracked.
    pub(crate) fn push<F>(&self, output: Tensor, inputs: &[&Value], pull: F) -> Value
    where
        F: FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + 'static,
    {
        if self.off || !inputs.iter().any(|input| input.is_tracked()) {
            return Value::constant(output);
        }
        let inputs = inputs.iter().map(|input| input.node).collect();
        let node = self.add_node(Node { inputs, shape: output.dims().to_vec(), pull: Some(Box::new(pull)) });
        Value { tensor: output, node: Some(node) }
    }

    fn add_node(&self, node: Node) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        nodes.len() - 1
    }

    /// Whether operations on `inputs` are recorded, so that work for the backward pass is worth doing.
    pub(crate) fn records(&self, inputs: &[&Value]) -> bool {
        !self.off && inputs.iter().any(|input| input.is_tracked())
    }

    /// Ends the record: `output` as a candle tensor, from which `backward` reaches every tensor that was watched.
    ///
    /// # Errors
    /// When candle refuses.
    pub fn finish(self, output: Value) -> Result<Tensor> {
        let Some(node) = output.node else { return Ok(output.tensor) };
        let leaves = self.leaves.borrow().iter().map(|(tensor, _)| tensor.clone()).collect();
        join::join(output.tensor, leaves, move |gradient| self.backward(node, gradient))
    }

    /// The gradient of each leaf, in order of watching, from that of node `output`.
    fn backward(self, output: usize, gradient: Tensor) -> Result<Vec<(TensorId, Option<Tensor>)>> {
        let mut nodes = self.nodes.into_inner();
        let mut gradients: Vec<Option<Tensor>> = vec![None; nodes.len()];
        gradients[output] = Some(gradient);
        while let Some(node) = nodes.pop() {
            let Some(pull) = node.pull else { continue };
            let Some(gradient) = gradients[nodes.len()].take() else { continue };
            let pulled = pull(&gradient.reshape(node.shape)?)?;
            for (input, new) in node.inputs.into_iter().zip(pulled) {
                let (Some(input), Some(new)) = (input, new) else { continue };
                gradients[input] = Some(match gradients[input].take() {
                    None => new,
                    Some(old) => add(&old, &new)?,
                });
            }
        }
        let leaf = |(tensor, node): (Tensor, usize)| {
            let gradient = gradients[node].take().map(|g| g.reshape(tensor.shape())).transpose()?;
            Ok((tensor.id(), gradient))
        };
        self.leaves.into_inner().into_iter().map(leaf).collect()
    }
}

/// Runs `f` on a fresh tape over candle tensors, as one differentiable candle operation.
pub(crate) fn lift(inputs: &[&Tensor], f: impl FnOnce(&Tape, &[Value]) -> Result<Value>) -> Result<Tensor> {
    let tape = Tape::new();
    let values: Vec<Value> = inputs.iter().map(|input| tape.watch(input)).collect::<Result<_>>()?;
    let output = f(&tape, &values)?;
    tape.finish(output)
}
