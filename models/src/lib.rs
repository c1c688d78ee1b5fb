//! Small real int8 models, each with golden vectors and a slice of its test set, for Dunlin's demo and tests.
//!
//! The bytes are those of `models/artifacts`; the figures are those of `models/manifest.json`. Both are written by the
//! scripts in `models/build`, as is the table below (`table.rs`). `models/README.md` tells where the data came from.

#[rustfmt::skip]
mod table;

pub use table::ALL;

/// One version of one model, with what is needed to check it.
#[derive(Debug, Clone, Copy)]
pub struct Artifact {
    /// Name of the model, shared by its versions: `digits`, `kws`, `vibration`.
    pub name: &'static str,
    /// Version, counted from `1`.
    pub version: &'static str,
    /// What the model does, in a few words.
    pub title: &'static str,
    /// The quantized ONNX graph (QDQ, int8); one float32 input, one float32 output, batch 1.
    pub onnx: &'static [u8],
    /// Golden vectors, npz with stored members: inputs `in{k}_0` and the outputs `out{k}_0` that ONNX Runtime's int8
    /// kernels give for them, float32, for k = 0, 1, 2.
    pub golden: &'static [u8],
    /// A slice of the test set, npz with stored members: `x`, items first, and `y`, int64 labels. See
    /// [`Artifact::input_scale`]. Versions of one model share it.
    pub test: &'static [u8],
    /// A stored test value `x` stands for the input `x * input_scale + input_offset`, one multiplication and one
    /// addition in f32.
    pub input_scale: f32,
    /// See [`Artifact::input_scale`].
    pub input_offset: f32,
    /// Name of each label of `y`; of each output as well if the metric is [`Metric::Accuracy`].
    pub labels: &'static [&'static str],
    /// How [`Artifact::reference`] is measured.
    pub metric: Metric,
    /// The metric of ONNX Runtime's int8 kernels on the test slice, to six places.
    pub reference: f32,
    /// The metric of the float model, before quantization, on the test slice, to six places.
    pub float_reference: f32,
    /// Where data and weights came from.
    pub source: &'static str,
    /// Licence of the data and of the weights.
    pub licence: &'static str,
}

/// How well a model does on its test slice, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Share of the items whose largest output is that of their label.
    Accuracy,
    /// Area under the ROC curve of the mean squared difference of output and input: the chance that an item of label
    /// 1 has a larger one than an item of label 0, ties counting half.
    Auc,
}

/// The model of that name; of that version, or the newest one.
pub fn find(name: &str, version: Option<&str>) -> Option<&'static Artifact> {
    // `ALL` has the versions of a model in rising order.
    ALL.iter().rfind(|a| a.name == name && version.is_none_or(|v| v == a.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = include_str!("../manifest.json");

    /// The part of the manifest about one artifact; the manifest has one per line.
    fn line(artifact: &Artifact) -> &'static str {
        let start = format!("{{\"name\": \"{}\", \"version\": \"{}\",", artifact.name, artifact.version);
        let mut found = MANIFEST.lines().filter(|line| line.contains(&start));
        let line = found.next().unwrap_or_else(|| panic!("manifest.json has no line with {start}"));
        assert!(found.next().is_none(), "two lines with {start}");
        line
    }

    fn assert_has(artifact: &Artifact, part: String) {
        assert!(
            line(artifact).contains(&part),
            "{} {}: manifest.json does not say {part}; run models/build/build.sh",
            artifact.name,
            artifact.version
        );
    }

    #[test]
    fn figures_are_those_of_the_manifest() {
        for a in ALL {
            let metric = match a.metric {
                Metric::Accuracy => "accuracy",
                Metric::Auc => "auc",
            };
            assert_has(a, format!("\"title\": \"{}\"", a.title));
            assert_has(a, format!("\"metric\": \"{metric}\""));
            assert_has(a, format!("\"reference\": {:?},", a.reference));
            assert_has(a, format!("\"float_reference\": {:?},", a.float_reference));
            assert_has(a, format!("\"input_scale\": {:?},", a.input_scale));
            assert_has(a, format!("\"input_offset\": {:?},", a.input_offset));
            assert_has(a, format!("\"source\": \"{}\"", a.source));
            assert_has(a, format!("\"licence\": \"{}\"", a.licence));
            let labels: Vec<String> = a.labels.iter().map(|label| format!("\"{label}\"")).collect();
            assert_has(a, format!("\"labels\": [{}]", labels.join(", ")));
        }
        assert_eq!(MANIFEST.matches("{\"name\": ").count(), ALL.len());
    }

    #[test]
    fn lengths_are_those_of_the_manifest() {
        for a in ALL {
            let version = format!("{}-{}", a.name, a.version);
            assert_has(a, format!("\"file\": \"{version}.onnx\", \"bytes\": {},", a.onnx.len()));
            assert_has(a, format!("\"file\": \"{version}.golden.npz\", \"bytes\": {},", a.golden.len()));
            assert_has(a, format!("\"file\": \"{}.test.npz\", \"bytes\": {},", a.name, a.test.len()));
        }
    }

    #[test]
    fn everything_is_under_two_megabytes() {
        let mut tests: Vec<&str> = Vec::new();
        let mut total = 0;
        for a in ALL {
            total += a.onnx.len() + a.golden.len();
            if !tests.contains(&a.name) {
                tests.push(a.name);
                total += a.test.len();
            }
        }
        assert!(total < 2_000_000, "{total} bytes");
    }

    #[test]
    fn archives_have_stored_members() {
        for bytes in ALL.iter().flat_map(|a| [a.golden, a.test]) {
            // The first local header: signature at 0, method at 8, name at 30. The array follows the name, there being
            // no extra field.
            assert_eq!(&bytes[..4], b"PK\x03\x04");
            assert_eq!(&bytes[8..10], [0, 0], "compressed");
            assert_eq!(&bytes[28..30], [0, 0], "extra field");
            let name = usize::from(u16::from_le_bytes([bytes[26], bytes[27]]));
            assert_eq!(&bytes[30 + name..36 + name], b"\x93NUMPY");
        }
    }

    #[test]
    fn find_gives_the_version_or_the_newest() {
        assert_eq!(find("digits", Some("1")).map(|a| a.version), Some("1"));
        assert_eq!(find("digits", None).map(|a| a.version), Some("3"));
        assert_eq!(find("kws", None).map(|a| a.name), Some("kws"));
        assert!(find("digits", Some("9")).is_none());
        assert!(find("nothing", None).is_none());
    }
}
