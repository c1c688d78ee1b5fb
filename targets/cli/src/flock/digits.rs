//! The digits of `models/`: packages with a reference, and the images that devices see.

use dunlin::kernels::best;
use dunlin::onnx::Options;
use dunlin::package::with_drift;
use dunlin::{Block, Package};
use dunlin_models::{Artifact, find};
use dunlin_telemetry::calibrate::{self, Calibrator, Spec};
use dunlin_telemetry::reference::{Confidence, Port, Statistic};
use dunlin_telemetry::{Observation, Values};

use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File};
use crate::npz;
use crate::samples::Samples;

/// Microseconds that an inference should take at most on a device.
pub const DEADLINE: u32 = 50_000;
/// Rows and columns of an image.
const SIDE: usize = 28;

/// Images with the digits that they show.
pub struct Images {
    /// One after the other, as the model takes them.
    pixels: Vec<f32>,
    labels: Vec<i64>,
}

fn artifact(version: &str) -> Outcome<&'static Artifact> {
    find("digits", Some(version))
        .ok_or_else(|| Failure::new(Code::Internal, format!("this build has no digits {version}")))
}

impl Images {
    /// The test set: real handwriting, which no model was trained on.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn test() -> Outcome<Self> {
        let artifact = artifact("1")?;
        let path = "digits.test.npz";
        let damaged = |what: &str| Failure::damaged(path, what);
        let mut test = npz::read(artifact.test).map_err(|e| Failure::damaged(path, e))?;
        let x = test.remove("x").ok_or_else(|| damaged("no array 'x'"))?;
        let y = test.remove("y").ok_or_else(|| damaged("no array 'y'"))?;
        if x.dtype != "|u1" || y.dtype != "<i8" || x.bytes.len() != y.bytes.len() / 8 * SIDE * SIDE {
            return Err(damaged("arrays of another type or length"));
        }
        let pixels = x.bytes.iter().map(|&b| f32::from(b) * artifact.input_scale + artifact.input_offset).collect();
        let labels = y.bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect();
        Ok(Self { pixels, labels })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// An image and its digit.
    #[must_use]
    pub fn get(&self, n: usize) -> (&[f32], i64) {
        let from = n * SIDE * SIDE;
        (self.pixels.get(from..from + SIDE * SIDE).unwrap_or_default(), self.labels.get(n).copied().unwrap_or(-1))
    }

    /// With rows and columns exchanged: what a loader gives that reads pixels in the wrong order.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for image in self.pixels.chunks_exact(SIDE * SIDE) {
            pixels.extend((0..SIDE * SIDE).map(|i| image[i % SIDE * SIDE + i / SIDE]));
        }
        Self { pixels, labels: self.labels.clone() }
    }
}

/// A version as a package with golden vectors and the reference of what it was calibrated with.
///
/// # Errors
/// When it does not compile.
pub fn package(version: &str, calibration: &Images) -> Outcome<Block> {
    let artifact = artifact(version)?;
    let path = format!("digits {version}");
    let golden = Samples::from_bytes(&path, artifact.golden)?;
    let options = Options {
        name: artifact.name.into(),
        version: version.into(),
        labels: artifact.labels.iter().map(|&l| l.into()).collect(),
        golden: golden.golden(),
        ..Options::default()
    };
    let file = File::from_bytes(&path, artifact.onnx, &options)?;
    let spec = Spec {
        class_output: Some(0),
        confidence_by: Confidence::Softmax,
        deadline_us: DEADLINE,
        features: vec![(Port::Input(0), Statistic::Mean), (Port::Input(0), Statistic::Range)],
        embedding: Some((Port::Output(0), 1)),
    };
    let mut calibrator = Calibrator::new(calibrate::Options { classes: artifact.labels.len(), ..Default::default() });
    model::with(&path, &file.bytes, best(), |_, running| {
        for n in 0..calibration.len() {
            let (image, digit) = calibration.get(n);
            running.session.input(0).copy_from_slice(image).map_err(|e| Failure::damaged(&path, e))?;
            running.run()?;
            let output = running.session.output(0);
            let outputs = [Values::F32(output.as_slice::<f32>().unwrap_or_default())];
            let inputs = [Values::F32(image)];
            let seen = Observation { inputs: &inputs, outputs: &outputs, ..Observation::default() };
            let label = usize::try_from(digit).ok();
            calibrator.observe(&spec, &seen, label).map_err(|e| Failure::damaged(&path, e))?;
        }
        Ok(())
    })?;
    let calibrated = calibrator.finish().map_err(|e| Failure::damaged(&path, e))?;
    let fault = |e: &dyn std::fmt::Display| Failure::new(Code::Internal, format!("{path}: {e}"));
    let section = calibrated.draft(&spec).write().map_err(|e| fault(&e))?;
    let bytes = Block::from(&with_drift(&file.bytes, &section).map_err(|e| fault(&e))?[..]);
    Package::open(&bytes).map_err(|e| fault(&e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_transposed_and_back() {
        let images = Images::test().expect("a test set");
        let twice = images.transposed().transposed();
        assert!(images.len() == 400 && !images.is_empty());
        assert_eq!(images.get(7), twice.get(7));
        assert_ne!(images.get(7).0, images.transposed().get(7).0);
    }
}
