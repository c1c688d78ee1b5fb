//! Inputs and expected outputs from npz files.

use std::collections::BTreeMap;

use dunlin::Package;
use dunlin::onnx::Golden;

use crate::failure::{Failure, Outcome};
use crate::model::{self, numpy};
use crate::npz::{self, Array};

/// Samples in order, each with its inputs and outputs in order.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Inputs by sample.
    pub inputs: Vec<Vec<Array>>,
    /// Outputs by sample; empty where the file has none.
    pub outputs: Vec<Vec<Array>>,
    /// All arrays by key.
    pub arrays: BTreeMap<String, Array>,
}

impl Samples {
    /// Reads keys `in{k}_{i}` and `out{k}_{i}` of an npz file.
    ///
    /// # Errors
    /// When the file cannot be read or is no npz file.
    pub fn read(path: &str) -> Outcome<Self> {
        Self::from_bytes(path, &model::read(path)?)
    }

    /// As [`read`](Self::read), from bytes.
    ///
    /// # Errors
    /// When they are no npz file.
    pub fn from_bytes(path: &str, bytes: &[u8]) -> Outcome<Self> {
        let arrays = npz::read(bytes).map_err(|e| {
            let zip = bytes.starts_with(b"PK");
            match crate::recognize::recognize(bytes).filter(|_| !zip) {
                Some(found) => Failure::damaged(path, format!("not an npz file: this is {}", found.what)),
                None => Failure::damaged(path, e),
            }
        })?;
        let row = |prefix: &str, k: usize| -> Vec<Array> {
            (0..).map_while(|i| arrays.get(&format!("{prefix}{k}_{i}")).cloned()).collect()
        };
        let mut samples = Self::default();
        for k in 0.. {
            let (inputs, outputs) = (row("in", k), row("out", k));
            if inputs.is_empty() && outputs.is_empty() {
                break;
            }
            samples.inputs.push(inputs);
            samples.outputs.push(outputs);
        }
        samples.arrays = arrays;
        Ok(samples)
    }

    /// The golden vectors that a package carries.
    #[must_use]
    pub fn of_package(package: &Package<'_>) -> Self {
        let mut samples = Self::default();
        let shape = |port: Option<dunlin::package::Port<'_>>| -> Vec<usize> {
            port.map(|p| p.shape().iter().map(|&d| d as usize).collect()).unwrap_or_default()
        };
        for case in package.golden().iter().flat_map(|g| g.cases()) {
            let array =
                |dtype, data: &[u8], shape| Array { dtype: numpy(dtype).to_owned(), shape, bytes: data.to_vec() };
            let manifest = package.manifest();
            let inputs = case.inputs().map(|t| array(t.dtype, t.data, shape(manifest.input(usize::from(t.port)))));
            samples.inputs.push(inputs.collect());
            let outputs = case.outputs().map(|t| array(t.dtype, t.data, shape(manifest.output(usize::from(t.port)))));
            samples.outputs.push(outputs.collect());
        }
        samples
    }

    /// Shapes of the first sample's inputs.
    #[must_use]
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.inputs.first().map(|row| row.iter().map(|a| a.shape.clone()).collect()).unwrap_or_default()
    }

    /// Compares types and shapes with those of a package.
    ///
    /// # Errors
    /// Names the first array that does not fit.
    pub fn check(&self, package: &[u8]) -> Outcome<()> {
        let package = Package::open(package).map_err(|e| Failure::damaged("the package", e))?;
        let manifest = package.manifest();
        for (k, (inputs, outputs)) in self.inputs.iter().zip(&self.outputs).enumerate() {
            for ((i, array), port) in inputs.iter().enumerate().zip(manifest.inputs()) {
                model::check_array(&format!("in{k}_{i}"), array, "input", port.name, port.dtype, port.shape())?;
            }
            for ((i, array), port) in outputs.iter().enumerate().zip(manifest.outputs()) {
                model::check_array(&format!("out{k}_{i}"), array, "output", port.name, port.dtype, port.shape())?;
            }
        }
        Ok(())
    }

    /// As the compiler takes them.
    #[must_use]
    pub fn golden(&self) -> Vec<Golden> {
        let bytes = |row: &[Array]| row.iter().map(|a| a.bytes.clone()).collect();
        self.inputs.iter().zip(&self.outputs).map(|(i, o)| Golden { inputs: bytes(i), outputs: bytes(o) }).collect()
    }
}
