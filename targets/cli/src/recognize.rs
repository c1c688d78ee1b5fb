//! Files of other formats, recognized by their content, with what to do about them.

use dunlin_update::trust::Role;

/// A file that is not what a command takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognized {
    /// What it is, to follow "this is".
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Recognized {
    fn new(what: &str, hint: &str) -> Option<Self> {
        Some(Self { what: what.to_owned(), hint: hint.to_owned() })
    }

    /// An error's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("this is {}\n  hint: {}", self.what, self.hint)
    }
}

const TFLITE: &str = "convert it: python -m tf2onnx.convert --tflite model.tflite --output model.onnx --opset 17";
const KERAS: &str = "convert it: tf2onnx.convert.from_keras(keras.models.load_model(path), output_path='model.onnx')";
const SAVED: &str = "convert its folder: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx --opset 17";
const TORCH: &str = "export it from PyTorch: torch.onnx.export(model.eval(), example_input, 'model.onnx')";
const WEIGHTS: &str = "it holds weights without a graph: load it in the framework that trained it and export to ONNX";

/// Names of the entries of a zip archive.
fn entries(bytes: &[u8]) -> Vec<String> {
    let archive = zip::ZipArchive::new(std::io::Cursor::new(bytes));
    archive.map(|archive| archive.file_names().map(str::to_owned).collect()).unwrap_or_default()
}

fn zip_file(bytes: &[u8]) -> Option<Recognized> {
    let names = entries(bytes);
    let any = |test: &dyn Fn(&str) -> bool| names.iter().any(|name| test(name));
    if any(&|n| n == "config.json") && any(&|n| n.ends_with(".weights.h5")) {
        return Recognized::new("a Keras model (.keras)", KERAS);
    }
    if any(&|n| n.ends_with("/data.pkl") || n.ends_with("/constants.pkl") || n == "data.pkl") {
        return Recognized::new("a PyTorch file (.pt, .pth)", TORCH);
    }
    if any(&|n| n.ends_with(".npy")) {
        return Recognized::new(
            "an npz file of numpy arrays",
            "give it as --inputs, --golden, --npz or --data; the model is a .onnx or .dunlin file",
        );
    }
    if any(&|n| n.contains(".mlpackage") || n.ends_with(".mlmodel")) {
        return Recognized::new("a Core ML package", "export the model that it was made from to ONNX");
    }
    if any(&|n| n.ends_with("saved_model.pb")) {
        return Recognized::new("a zipped TensorFlow SavedModel", SAVED);
    }
    if any(&|n| n.ends_with(".onnx") || n.ends_with(".dunlin")) {
        return Recognized::new("a zip archive with a model in it", "unpack it first");
    }
    Recognized::new("a zip archive", "unpack it first")
}

/// Documents of our own: releases, rollouts, roots.
fn own(bytes: &[u8]) -> Option<Recognized> {
    let role = Role::ALL.into_iter().find(|role| bytes.get(5) == Some(&(*role as u8)))?;
    dunlin_update::trust::Document::read(bytes, role).ok()?;
    let what = match role {
        Role::Root => "a root document (keys that devices trust)",
        Role::Targets => "a signed release",
        _ => "a signed rollout",
    };
    Recognized::new(what, "show it with `dunlin inspect --trust FILE`")
}

fn has(bytes: &[u8], from: usize, magic: &[u8]) -> bool {
    bytes.get(from..).is_some_and(|rest| rest.starts_with(magic))
}

/// The length of a safetensors header, when there is one.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some(length) = bytes.first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    bytes.get(8) == Some(&b'{') && length > 1 && length < bytes.len() as u64
}

/// Whether protobuf bytes begin as a TensorFlow SavedModel or GraphDef does. Both begin with a field that an ONNX model does
/// not: ONNX's first is its IR version, a number.
fn tensorflow(bytes: &[u8]) -> Option<Recognized> {
    if has(bytes, 0, &[0x08, 0x01, 0x12]) && bytes.windows(5).take(4096).any(|w| w == b"serve") {
        return Recognized::new("a TensorFlow SavedModel (saved_model.pb)", SAVED);
    }
    let ops: [&[u8]; 3] = [b"Placeholder", b"Const", b"NoOp"];
    let window = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    if bytes.first() == Some(&0x0A) && ops.iter().any(|op| window.windows(op.len()).any(|w| w == *op)) {
        return Recognized::new("a TensorFlow graph (.pb)", SAVED);
    }
    None
}

fn text_file(bytes: &[u8]) -> Option<Recognized> {
    let start: String = bytes.iter().take(256).map(|&b| char::from(b)).collect::<String>().trim_start().to_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return Recognized::new("a web page", "the download failed or needs a login: fetch the raw file");
    }
    if start.starts_with("version https://git-lfs") {
        return Recognized::new("a Git LFS pointer", "fetch the file itself: git lfs pull");
    }
    if start.starts_with('{') {
        return Recognized::new("a JSON file", "the model is a .onnx or .dunlin file");
    }
    None
}

/// Recognizes a file that is neither a package nor an ONNX model. `None` for everything else, also for damaged models.
#[must_use]
pub fn recognize(bytes: &[u8]) -> Option<Recognized> {
    if bytes.is_empty() {
        return Recognized::new("an empty file", "check the download or the export that wrote it");
    }
    if has(bytes, 4, b"TFL3") {
        return Recognized::new("a TensorFlow Lite model (.tflite)", TFLITE);
    }
    if has(bytes, 0, b"\x89HDF\r\n\x1a\n") {
        return Recognized::new("an HDF5 file, as Keras writes it (.h5)", KERAS);
    }
    if has(bytes, 0, b"PK\x03\x04") || has(bytes, 0, b"PK\x05\x06") {
        return zip_file(bytes);
    }
    if has(bytes, 0, b"GGUF") {
        return Recognized::new("a GGUF file of a language model", WEIGHTS);
    }
    if is_safetensors(bytes) {
        return Recognized::new("a safetensors file", WEIGHTS);
    }
    if has(bytes, 0, b"\x1f\x8b") {
        return Recognized::new("a gzip archive", "unpack it first: gunzip or tar xf");
    }
    if has(bytes, 0, b"\x93NUMPY") {
        return Recognized::new("a numpy array (.npy)", "put arrays into one npz file: numpy.savez(path, in0_0=array)");
    }
    if has(bytes, 4, b"ORTM") {
        return Recognized::new(
            "a model in ONNX Runtime's own format (.ort)",
            "use the .onnx file that it was made from",
        );
    }
    if has(bytes, 0, b"\x80") && bytes.get(1).is_some_and(|version| (2..=5).contains(version)) {
        return Recognized::new("a Python pickle, as old PyTorch versions write it (.pt, .pth)", TORCH);
    }
    if has(bytes, 0, b"\x7fELF") {
        return Recognized::new("a program (ELF)", "the model is a .onnx or .dunlin file");
    }
    own(bytes).or_else(|| tensorflow(bytes)).or_else(|| text_file(bytes))
}

/// Recognizes a Core ML model: protobuf, whose first field is its version too, but a file's name tells.
#[must_use]
pub fn by_name(path: &str) -> Option<Recognized> {
    let path = std::path::Path::new(path);
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("mlmodel" | "mlpackage") => {
            Recognized::new("a Core ML model", "export the model that it was made from to ONNX")
        }
        _ if path.is_dir() && path.join("saved_model.pb").exists() => {
            Recognized::new("the folder of a TensorFlow SavedModel", SAVED)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for name in names {
            archive.start_file(*name, stored).expect("an entry");
            archive.write_all(b"x").expect("written");
        }
        archive.finish().expect("an archive").into_inner()
    }

    #[test]
    fn other_formats_are_named_with_a_way_out() {
        let mut tensors = 20u64.to_le_bytes().to_vec();
        tensors.extend(b"{\"__metadata__\":{}}..........");
        let files: [(&str, Vec<u8>, &str); 16] = [
            ("TensorFlow Lite", b"\x1c\0\0\0TFL3\0\0".to_vec(), "tf2onnx"),
            ("HDF5", b"\x89HDF\r\n\x1a\n\0".to_vec(), "from_keras"),
            ("Keras", archive(&["metadata.json", "config.json", "model.weights.h5"]), "from_keras"),
            ("PyTorch", archive(&["model/data.pkl", "model/data/0"]), "torch.onnx.export"),
            ("pickle", b"\x80\x02\x8a\x0a".to_vec(), "torch.onnx.export"),
            ("npz", archive(&["x.npy", "y.npy"]), "--inputs"),
            ("zip", archive(&["readme.txt"]), "unpack"),
            ("GGUF", b"GGUF\x03\0\0\0".to_vec(), "export to ONNX"),
            ("safetensors", tensors, "export to ONNX"),
            ("gzip", b"\x1f\x8b\x08\0".to_vec(), "gunzip"),
            ("numpy array", b"\x93NUMPY\x01\0".to_vec(), "savez"),
            ("empty", Vec::new(), "download"),
            ("web page", b"\n<!DOCTYPE html><html>".to_vec(), "download"),
            ("Git LFS", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
            ("JSON", b"{\"a\": 1}".to_vec(), ".onnx"),
            ("SavedModel", b"\x08\x01\x12\xe5\x02\x0a\x10\x0a\x05serve".to_vec(), "--saved-model"),
        ];
        for (name, bytes, hint) in files {
            let found = recognize(&bytes).unwrap_or_else(|| panic!("{name} is not recognized"));
            assert!(found.what.contains(name), "{name}: {}", found.what);
            assert!(found.hint.contains(hint), "{name}: {}", found.hint);
        }
        assert!(by_name("model.MLMODEL").is_some_and(|f| f.what.contains("Core ML")));
    }

    #[test]
    fn models_are_not_taken_for_something_else() {
        for artifact in dunlin_models::ALL {
            assert_eq!(recognize(artifact.onnx), None, "{}", artifact.name);
        }
    }
}
