//! Artifacts in this process, for whoever has the list. They are lost at its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::Artifacts;

/// All that outputs of this process keep in memory, by name of the output.
#[derive(Debug, Clone, Default)]
pub struct MemoryOutputs {
    sets: Arc<RwLock<BTreeMap<String, Arc<Artifacts>>>>,
}

impl MemoryOutputs {
    /// The set of this output that is in force.
    pub fn get(&self, output: &str) -> Option<Arc<Artifacts>> {
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.get(output).cloned()
    }

    fn set(&self, output: &str, artifacts: Option<Arc<Artifacts>>) {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        match artifacts {
            Some(artifacts) => _ = sets.insert(output.to_owned(), artifacts),
            None => _ = sets.remove(output),
        }
    }
}

/// One output's place in memory; what is in it goes with it.
#[derive(Debug)]
pub struct Memory {
    output: String,
    outputs: MemoryOutputs,
}

impl Memory {
    /// The place of `output` among `outputs`.
    pub fn new(output: impl Into<String>, outputs: MemoryOutputs) -> Self {
        Self {
            output: output.into(),
            outputs,
        }
    }

    pub(super) fn write(&self, artifacts: Arc<Artifacts>) {
        self.outputs.set(&self.output, Some(artifacts));
    }

    pub(super) fn remove(&self) {
        self.outputs.set(&self.output, None);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests;
