//! Ports of an included model.

use dunlin_package::DType;

/// An input or output of a model that [`include_model!`](crate::include_model) holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelPort {
    /// Its name in the model.
    pub name: &'static str,
    /// Type of its elements.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: &'static [usize],
    /// Value of one step of a quantized port; 0 where it is not quantized.
    pub scale: f32,
    /// The integer that stands for zero in a quantized port.
    pub zero_point: i32,
    /// What the elements along the last axis mean, such as class names; often empty.
    pub labels: &'static [&'static str],
}
