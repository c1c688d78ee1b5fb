//! Data sets: many samples of a model's inputs from npz files, with their labels.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin::package::Manifest;
use dunlin::{DType, package::Port};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::npz::{self, Array};

/// Where samples come from.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Reading data")]
pub struct Data {
    /// npz file, or a folder of them
    ///
    /// Arrays are named after the model's inputs, or x for a model with one; the first axis counts samples. Or in{k}_{i} for
    /// sample k and input i.
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub data: String,
    /// Labels: array of the npz files, or text file [default: y]
    #[arg(long, value_name = "ARRAY|FILE.txt")]
    pub labels: Option<String>,
    /// Factor for stored values where the model takes floats
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_name = "X")]
    pub scale: f32,
    /// Offset added after --scale
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    pub offset: f32,
}

/// Samples as a model takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// For each sample the bytes of each input.
    pub inputs: Vec<Vec<Vec<u8>>>,
    /// For each sample its label; empty where there are none.
    pub labels: Vec<u32>,
}

/// The elements of an array as numbers.
///
/// # Errors
/// Names the array and its type.
pub fn numbers(key: &str, array: &Array) -> Outcome<Vec<f64>> {
    let b = &array.bytes;
    Ok(match array.dtype.as_str() {
        "|b1" | "|u1" => b.iter().map(|&v| f64::from(v)).collect(),
        "|i1" => b.iter().map(|&v| f64::from(v.cast_signed())).collect(),
        "<u2" => b.as_chunks().0.iter().map(|c| f64::from(u16::from_le_bytes(*c))).collect(),
        "<i2" => b.as_chunks().0.iter().map(|c| f64::from(i16::from_le_bytes(*c))).collect(),
        "<u4" => b.as_chunks().0.iter().map(|c| f64::from(u32::from_le_bytes(*c))).collect(),
        "<i4" => b.as_chunks().0.iter().map(|c| f64::from(i32::from_le_bytes(*c))).collect(),
        "<i8" => b.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
        "<f4" => b.as_chunks().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
        "<f8" => b.as_chunks().0.iter().map(|c| f64::from_le_bytes(*c)).collect(),
        other => return Err(Failure::damaged(key, format!("is {}, which is not supported", model::plain_type(other)))),
    })
}

fn label(key: &str, value: f64) -> Outcome<u32> {
    if value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value) {
        return Ok(value as u32);
    }
    Err(Failure::damaged(key, format!("has the label {value}: labels are whole numbers from 0 on")))
}

impl Data {
    /// Reads all samples for a model.
    ///
    /// # Errors
    /// Names the file and the array, what is there and what is wanted.
    pub fn read(&self, manifest: &Manifest<'_>) -> Outcome<Dataset> {
        let mut paths = vec![self.data.clone()];
        if Path::new(&self.data).is_dir() {
            let wrong = |e: std::io::Error| Failure::new(Code::File, format!("{}: {e}", self.data));
            let entries: Result<Vec<_>, _> = std::fs::read_dir(&self.data).map_err(wrong)?.collect();
            paths = entries.map_err(wrong)?.iter().map(|e| e.path().to_string_lossy().into_owned()).collect();
            paths.retain(|p| p.ends_with(".npz"));
            paths.sort();
            if paths.is_empty() {
                return Err(Failure::damaged(&self.data, "the folder has no .npz files"));
            }
        }
        let file = self.labels.as_deref().filter(|l| Path::new(l).is_file());
        let mut all = Dataset::default();
        let mut labelled = 0;
        for path in &paths {
            let mut arrays = npz::read(&model::read(path)?).map_err(|e| Failure::damaged(path, e))?;
            let labels = match (&self.labels, file) {
                (_, Some(_)) => None,
                (Some(name), None) => Some(arrays.remove(name).ok_or_else(|| {
                    Failure::damaged(path, format!("has no array '{name}', and there is no such file of labels"))
                })?),
                (None, None) => arrays.remove("y"),
            };
            let inputs = self.samples(path, arrays, manifest)?;
            if let Some(array) = labels {
                let key = format!("{path}: labels");
                let values = numbers(&key, &array)?;
                if values.len() != inputs.len() {
                    return Err(Failure::damaged(&key, format!("{} for {} samples", values.len(), inputs.len())));
                }
                labelled += inputs.len();
                for value in values {
                    all.labels.push(label(&key, value)?);
                }
            }
            all.inputs.extend(inputs);
        }
        if let Some(path) = file {
            let text =
                String::from_utf8(model::read(path)?).map_err(|_| Failure::damaged(path, "is not UTF-8 text"))?;
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                let value = line.parse().map_err(|_| Failure::damaged(path, format!("'{line}' is no number")))?;
                all.labels.push(label(path, value)?);
            }
            labelled = all.labels.len();
        }
        if labelled != 0 && labelled != all.inputs.len() {
            let count = all.inputs.len();
            return Err(Failure::damaged(&self.data, format!("{labelled} labels for {count} samples")));
        }
        if all.inputs.is_empty() {
            return Err(Failure::damaged(&self.data, "holds no samples"));
        }
        Ok(all)
    }

    fn samples(
        &self,
        path: &str,
        mut arrays: BTreeMap<String, Array>,
        manifest: &Manifest<'_>,
    ) -> Outcome<Vec<Vec<Vec<u8>>>> {
        let ports: Vec<Port<'_>> = manifest.inputs().collect();
        let mut samples = Vec::new();
        if arrays.contains_key("in0_0") {
            for k in 0.. {
                if !arrays.contains_key(&format!("in{k}_0")) {
                    break;
                }
                let mut row = Vec::new();
                for (i, port) in ports.iter().enumerate() {
                    let key = format!("in{k}_{i}");
                    let missing = || Failure::damaged(path, format!("'{key}' is missing"));
                    let items = self.items(path, &key, arrays.get(&key).ok_or_else(missing)?, port)?;
                    let [item] = &items[..] else {
                        return Err(Failure::damaged(path, format!("'{key}' holds {} samples, not one", items.len())));
                    };
                    row.push(item.clone());
                }
                samples.push(row);
            }
            return Ok(samples);
        }
        for port in &ports {
            let key = if arrays.contains_key(port.name) { port.name } else { "x" };
            let array = arrays.remove(key).filter(|_| key == port.name || ports.len() == 1).ok_or_else(|| {
                Failure::damaged(
                    path,
                    format!(
                        "has no array '{}'\n  hint: name arrays as the inputs are named, or in0_0, in1_0, ...",
                        port.name
                    ),
                )
            })?;
            let items = self.items(path, key, &array, port)?;
            if samples.is_empty() {
                samples.resize(items.len(), Vec::new());
            }
            if samples.len() != items.len() {
                let (a, b) = (items.len(), samples.len());
                return Err(Failure::damaged(path, format!("'{key}' holds {a} samples, other inputs {b}")));
            }
            for (sample, item) in samples.iter_mut().zip(items) {
                sample.push(item);
            }
        }
        Ok(samples)
    }

    /// The samples of one array, each as the port takes it.
    fn items(&self, path: &str, key: &str, array: &Array, port: &Port<'_>) -> Outcome<Vec<Vec<u8>>> {
        let key = format!("{path}: '{key}'");
        let elements = port.elements();
        let count: usize = array.shape.iter().product();
        if elements == 0 || !count.is_multiple_of(elements) {
            return Err(Failure::damaged(
                &key,
                format!(
                    "has shape {:?}, the model's input '{}' takes {:?}\n  hint: the first axis counts samples",
                    array.shape,
                    port.name,
                    port.shape()
                ),
            ));
        }
        if port.dtype == DType::F32 {
            let values = numbers(&key, array)?;
            let as_it_is = self.scale == 1.0 && self.offset == 0.0;
            let value = |v: f64| if as_it_is { v as f32 } else { v as f32 * self.scale + self.offset };
            let bytes = |item: &[f64]| item.iter().flat_map(|&v| value(v).to_le_bytes()).collect();
            return Ok(values.chunks_exact(elements).map(bytes).collect());
        }
        if array.dtype != model::numpy(port.dtype) {
            return Err(Failure::damaged(&key, {
                let wanted = model::plain_type(model::numpy(port.dtype));
                let has = model::plain_type(&array.dtype);
                format!("is {has}, the model's input '{}' is {wanted}\n  hint: array.astype('{wanted}')", port.name)
            }));
        }
        Ok(array.bytes.chunks_exact(port.byte_len().max(1)).map(<[u8]>::to_vec).collect())
    }
}
