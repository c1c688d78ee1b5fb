//! Arguments that several commands share.

use std::collections::HashMap;

use dunlin::onnx::{Options, Pins};

/// How an ONNX file is read. Packages ignore all of it.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reading ONNX files")]
pub struct Import {
    /// Shape of an input with open dimensions; repeatable
    #[arg(long, value_name = "NAME=D,D,...", value_parser = shape)]
    pub input_shape: Vec<(String, Vec<usize>)>,
    /// Constant for an integer scalar input; repeatable
    #[arg(long, value_name = "NAME=N", value_parser = value)]
    pub input_value: Vec<(String, i64)>,
    /// Compute quantized transposed convolutions in integers
    #[arg(long)]
    pub integer: bool,
}

impl Import {
    /// The compiler's options.
    #[must_use]
    pub fn options(&self) -> Options {
        let pins = Pins {
            shapes: self.input_shape.iter().cloned().collect::<HashMap<_, _>>(),
            values: self.input_value.iter().cloned().collect::<HashMap<_, _>>(),
            ..Pins::default()
        };
        Options { pins, integer: self.integer, ..Options::default() }
    }

    /// As [`options`](Self::options); extents that the model leaves open are those of `shapes`, by position.
    #[must_use]
    pub fn options_for(&self, shapes: Vec<Vec<usize>>) -> Options {
        let mut options = self.options();
        options.pins.defaults = shapes;
        options
    }
}

/// Splits at the last `=`: names may hold one.
fn pair(text: &str) -> Result<(&str, &str), String> {
    text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, extents) = pair(text)?;
    let extents = extents.split(',').filter(|d| !d.trim().is_empty()).map(|d| d.trim().parse::<usize>());
    let extents: Result<Vec<usize>, _> = extents.collect();
    Ok((name.to_owned(), extents.map_err(|_| "extents are whole numbers with commas between".to_owned())?))
}

fn value(text: &str) -> Result<(String, i64), String> {
    let (name, value) = pair(text)?;
    Ok((name.to_owned(), value.trim().parse().map_err(|_| "the value is a whole number".to_owned())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_values_are_read() {
        assert_eq!(shape("a=b=1, 3"), Ok(("a=b".into(), vec![1, 3])));
        assert_eq!(shape("scalar="), Ok(("scalar".into(), vec![])));
        assert_eq!(value("sr=16000"), Ok(("sr".into(), 16000)));
        assert!(shape("=1").is_err() && shape("x").is_err() && shape("x=1,b").is_err() && value("x=").is_err());
    }
}
