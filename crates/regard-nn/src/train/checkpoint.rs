//! A checkpoint: everything a run needs to go on as if it had never stopped, in one safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::history::{History, Validation};
use super::row::Row;
use super::{TrainConfig, TrainError, atomic};

/// What makes two commands the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) config: TrainConfig,
    /// Fingerprint of the text file.
    pub(crate) text: String,
    /// Fingerprint of `tokenizer.json`.
    pub(crate) tokenizer: String,
}

/// The state of a run after `step` steps.
#[derive(Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) step: usize,
    pub(crate) identity: Identity,
    pub(crate) history: History,
    /// Flat values under `section/parameter`: weights, moments, average, best.
    pub(crate) values: BTreeMap<String, Vec<f32>>,
}

impl Checkpoint {
    /// Replaces the file at `path`, atomically.
    ///
    /// # Errors
    /// [`TrainError::Write`]; the previous checkpoint is then intact.
    pub(crate) fn save(&self, path: &Path) -> Result<(), TrainError> {
        let validations: Vec<f64> =
            self.history.validations.iter().flat_map(|v| [v.step as f64, v.nats_per_token, v.bits_per_byte]).collect();
        let losses = [(LOSSES.to_owned(), Row::f32(&self.history.losses))];
        let measured = [(VALIDATIONS.to_owned(), Row::f64(&validations))];
        let values = self.values.iter().map(|(name, values)| (name.clone(), Row::f32(values)));
        let metadata = HashMap::from([(STEP.into(), self.step.to_string()), (IDENTITY.into(), json(&self.identity))]);
        let bytes = safetensors::serialize(losses.into_iter().chain(measured).chain(values), Some(metadata))
            .map_err(|error| unusable(path, error))?;
        atomic::replace_with(path, &bytes)
    }

    /// Reads the file at `path`, or `None` when there is none.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when it is not a whole checkpoint.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, TrainError> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| TrainError::Read { path: path.into(), source })?,
        };
        Self::parse(&bytes).map(Some).map_err(|reason| unusable(path, reason))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let metadata = metadata.metadata().as_ref().ok_or("it has no metadata")?;
        let entry = |key: &str| metadata.get(key).ok_or(format!("it does not say its {key}"));
        let identity = serde_json::from_str(entry(IDENTITY)?).map_err(|error| error.to_string())?;
        let step = entry(STEP)?.parse().map_err(|error| format!("its step: {error}"))?;
        let (mut history, mut values) = (History::default(), BTreeMap::new());
        for (name, tensor) in file.iter() {
            match (name, tensor.dtype()) {
                (LOSSES, Dtype::F32) => history.losses = f32s(tensor.data()),
                (VALIDATIONS, Dtype::F64) => history.validations = validations(tensor.data()),
                (_, Dtype::F32) => drop(values.insert(name.to_owned(), f32s(tensor.data()))),
                (_, other) => return Err(format!("{name} has type {other:?}")),
            }
        }
        if history.losses.len() != step {
            return Err(format!("it has {} losses after {step} steps", history.losses.len()));
        }
        Ok(Self { step, identity, history, values })
    }

    /// Refuses a checkpoint of another run, and says what differs.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`].
    pub(crate) fn check(&self, here: &Identity, path: &Path) -> Result<(), TrainError> {
        let (there, here) = (flat(&self.identity), flat(here));
        match here.into_iter().find(|(key, value)| there.get(key) != Some(value)) {
            None => Ok(()),
            Some((what, here)) => {
                let there = there.get(&what).map_or("nothing".into(), ToString::to_string);
                Err(TrainError::OtherRun { path: path.into(), what, there, here: here.to_string() })
            }
        }
    }
}

const LOSSES: &str = "history/losses";
const VALIDATIONS: &str = "history/validations";
const STEP: &str = "step";
const IDENTITY: &str = "run";

fn unusable(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Checkpoint { path: path.into(), reason: reason.to_string() }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() // plain structs with string keys always serialise
}

/// The fields of the configuration and the two fingerprints, side by side.
fn flat(identity: &Identity) -> BTreeMap<String, serde_json::Value> {
    let mut fields: BTreeMap<String, serde_json::Value> =
        serde_json::to_value(&identity.config).ok().and_then(|config| serde_json::from_value(config).ok()).unwrap_or_default();
    fields.insert("text".into(), identity.text.clone().into());
    fields.insert("tokenizer".into(), identity.tokenizer.clone().into());
    fields
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
}

fn validations(bytes: &[u8]) -> Vec<Validation> {
    let numbers: Vec<f64> = bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight)).collect();
    let read =
        |&[step, nats_per_token, bits_per_byte]: &[f64; 3]| Validation { step: step as usize, nats_per_token, bits_per_byte };
    numbers.as_chunks().0.iter().map(read).collect()
}
