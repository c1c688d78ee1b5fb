//! A session that owns all it needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_engine::ops;
use dunlin_engine::{Arena, LoadError, Model, Proof, Session, TensorMut, TensorRef};
use dunlin_kernels::{Backend, Best, best};
use dunlin_package::plan::{Place, Tensor};
use dunlin_package::{DType, OpenError as PackageError, Package};

use crate::Block;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct PortInfo {
    /// Its name in the model.
    pub name: String,
    /// Type of its elements in memory.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Value of one step of a quantized port; 0 where it is not quantized.
    pub scale: f32,
    /// The integer that stands for zero in a quantized port.
    pub zero_point: i32,
    /// What the elements along the last axis mean, such as class names; often empty.
    pub labels: Vec<String>,
}

impl PortInfo {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a model cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be read.
    File(PathBuf, std::io::Error),
    /// The bytes are not a package, or a damaged one.
    Package(PackageError),
    /// The package's plan is not sound, or needs an operator that this version lacks.
    Load(LoadError),
    /// The ONNX file cannot be compiled.
    #[cfg(feature = "onnx")]
    Compile(Box<dunlin_compiler::CompileError>),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Package(PackageError::NotAPackage) if cfg!(not(feature = "onnx")) => {
                write!(f, "not a package; hint: enable the feature `onnx` of `dunlin` to open ONNX files")
            }
            Self::Package(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            #[cfg(feature = "onnx")]
            Self::Compile(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a model was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// [`OwnedSession::run`] takes models with one input.
    Inputs {
        /// Inputs of the model.
        count: usize,
    },
    /// The model has no such input or output.
    Index {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The number of elements differs.
    Length {
        /// Name of the input.
        input: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Elements given.
        got: usize,
    },
    /// The port's elements do not stand for real numbers.
    Type {
        /// Name of the input or output.
        port: String,
        /// Type of its elements.
        dtype: DType,
    },
    /// Another executor failed to run its step; says why.
    Delegate(String),
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inputs { count } => {
                write!(f, "the model has {count} inputs; hint: fill each with `set_input`, then call `invoke`")
            }
            Self::Index { index, count } => write!(f, "index {index} of {count}"),
            Self::Length { input, shape, got } => {
                let expected: usize = shape.iter().product();
                write!(f, "input '{input}' takes {expected} elements (shape {shape:?}), got {got}")
            }
            Self::Type { port, dtype } => {
                write!(
                    f,
                    "'{port}' has elements of type {} that are not quantized numbers; hint: use `input` or `output`",
                    dtype.name()
                )
            }
            Self::Delegate(why) => write!(f, "cannot run a step of another executor: {why}"),
        }
    }
}

impl std::error::Error for RunError {}

/// A port and where its elements are.
#[derive(Debug)]
struct Port {
    info: PortInfo,
    tensor: Tensor,
}

/// What sessions of one model share.
#[derive(Debug)]
struct Shared {
    bytes: Block,
    digest: [u8; 32],
    /// Where the plan and the weights begin in `bytes`, and how long they are.
    plan: (usize, usize),
    weights: (usize, usize),
    packed: Block,
    proof: Proof,
    backend: Best,
    inputs: Vec<Port>,
    input_infos: Vec<PortInfo>,
    outputs: Vec<Port>,
    output_infos: Vec<PortInfo>,
}

/// A model ready to run: it owns its package, the weights in the order that the fastest kernels of this CPU like, and its memory.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let samples = [0.0; 784];
/// # let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.dunlin"))?;
/// let mut session = dunlin::OwnedSession::open(&bytes)?;
/// let scores = session.run(&samples)?;
/// assert_eq!(scores.len(), 10);
/// let digit = session.output(0).argmax();
/// # Ok(())
/// # }
/// ```
///
/// # Threads
///
/// A session is `Send`, and one runs on one thread at a time. [`Clone`] gives a second session over the same package and
/// weights with memory of its own, for another thread:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/digits.dunlin"))?;
/// let session = dunlin::OwnedSession::open(&bytes)?;
/// std::thread::scope(|scope| {
///     for number in 0..4u8 {
///         let mut session = session.clone();
///         scope.spawn(move || session.run(&[f32::from(number); 784]).map(<[f32]>::to_vec));
///     }
/// });
/// # Ok(())
/// # }
/// ```
///
/// # Numbers
///
/// [`run`](Self::run), [`set_input`](Self::set_input) and [`values`](Self::values) speak `f32` whatever the model's ports are: a
/// quantized port is quantized, `round_half_even(x / scale) + zero_point` clamped to its type, and dequantized,
/// `(q - zero_point) * scale`. [`input`](Self::input) and [`output`](Self::output) give the elements as they are.
///
/// # Memory
///
/// The package once, the repacked weights once (about twice the weights with AVX2, as much with AVX-512 VNNI and NEON), and an
/// arena for each session ([`arena_len`](Self::arena_len)). [`Session`] needs only an arena, and no allocator.
#[derive(Debug)]
pub struct OwnedSession {
    shared: Arc<Shared>,
    arena: Block,
    /// A quantized output as numbers.
    numbers: Vec<f32>,
    #[cfg(feature = "onnx")]
    executor: dunlin_compiler::Executor,
}

impl Clone for OwnedSession {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            arena: Block::zeroed(self.shared.proof.arena_len()),
            numbers: Vec::new(),
            #[cfg(feature = "onnx")]
            executor: self.executor.clone(),
        }
    }
}

impl OwnedSession {
    /// Opens a package, of which it makes a copy, for the fastest kernels of this CPU.
    ///
    /// With the feature `onnx` the bytes may also be an ONNX file: it is compiled, and what the engine lacks an operator for
    /// runs in tract.
    ///
    /// # Errors
    /// When the bytes are damaged or are neither, or the model needs an operator that this version lacks.
    pub fn open(bytes: &[u8]) -> Result<Self, OpenError> {
        Self::open_for(bytes, best())
    }

    /// Reads and opens a file; see [`open`](Self::open).
    ///
    /// # Errors
    /// When the file cannot be read, and those of [`open`](Self::open).
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        Self::open(&std::fs::read(path).map_err(|error| OpenError::File(path.to_owned(), error))?)
    }

    /// As [`open`](Self::open), for one of [`kernels::available`](dunlin_kernels::available).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for(bytes: &[u8], backend: Best) -> Result<Self, OpenError> {
        #[cfg(feature = "onnx")]
        let compiled;
        #[cfg(feature = "onnx")]
        let bytes = if bytes.starts_with(&dunlin_package::MAGIC[..6]) {
            bytes
        } else {
            let options = dunlin_compiler::Options { name: "model".into(), ..Default::default() };
            compiled =
                dunlin_compiler::compile(bytes, &options).map_err(|error| OpenError::Compile(Box::new(error)))?;
            &compiled.package
        };
        let bytes = Block::from(bytes);
        let package = Package::open(&bytes).map_err(OpenError::Package)?;
        #[cfg(feature = "onnx")]
        let model = Model::load_hybrid(&package, ops::all()).map_err(OpenError::Load)?;
        #[cfg(not(feature = "onnx"))]
        let model = Model::load(&package, ops::all()).map_err(OpenError::Load)?;
        #[cfg(feature = "onnx")]
        let executor = dunlin_compiler::Executor::new(package.foreign().into_iter().flat_map(|f| f.blobs()))
            .map_err(|error| OpenError::Compile(Box::new(error)))?;
        let mut packed = Block::zeroed(model.packed_len(backend));
        model.pack(backend, &mut packed);
        let proof = model.proof(backend);
        let [inputs, outputs] = ports(&package, &model);
        let infos = |ports: &[Port]| ports.iter().map(|port| port.info.clone()).collect();
        let (input_infos, output_infos) = (infos(&inputs), infos(&outputs));
        let place = |part: &[u8]| (part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr()), part.len());
        let (plan, weights, digest) = (place(package.plan_bytes()), place(package.weights()), package.digest());
        let weights = if weights.1 == 0 { (0, 0) } else { weights };
        let arena = Block::zeroed(proof.arena_len());
        let shared =
            Shared { bytes, digest, plan, weights, packed, proof, backend, inputs, input_infos, outputs, output_infos };
        Ok(Self {
            shared: Arc::new(shared),
            arena,
            numbers: Vec::new(),
            #[cfg(feature = "onnx")]
            executor,
        })
    }

    /// Runs a model of one input on `samples` and returns its first output. Quantized ports are converted, see
    /// [`OwnedSession`](Self#numbers).
    ///
    /// # Errors
    /// When the model has several inputs, `samples` has another number of elements than its input, or a port does not stand
    /// for real numbers.
    pub fn run(&mut self, samples: &[f32]) -> Result<&[f32], RunError> {
        let count = self.shared.inputs.len();
        if count != 1 {
            return Err(RunError::Inputs { count });
        }
        self.set_input(0, samples)?;
        self.invoke()?;
        self.values(0)
    }

    /// Fills input `index`, quantizing where it is quantized. Inputs share memory with what is computed from them, so each has to
    /// be filled before each run.
    ///
    /// # Errors
    /// When there is no such input, it has another number of elements, or its elements do not stand for real numbers.
    pub fn set_input(&mut self, index: usize, samples: &[f32]) -> Result<(), RunError> {
        let Shared { inputs, backend, .. } = &*self.shared;
        let port = inputs.get(index).ok_or(RunError::Index { index, count: inputs.len() })?;
        let PortInfo { name, shape, scale, zero_point, dtype, .. } = &port.info;
        if samples.len() != port.info.len() {
            return Err(RunError::Length { input: name.clone(), shape: shape.clone(), got: samples.len() });
        }
        let no_numbers = || RunError::Type { port: name.clone(), dtype: *dtype };
        let to = arena_bytes(&mut self.arena, &port.tensor);
        match dtype {
            DType::F32 => to.copy_from_slice(bytemuck::cast_slice(samples)),
            DType::I8 if *scale != 0.0 => backend.quantize(samples, *scale, *zero_point, bytemuck::cast_slice_mut(to)),
            DType::U8 if *scale != 0.0 => {
                for (to, x) in to.iter_mut().zip(samples) {
                    *to = ((x / scale).round_ties_even() + *zero_point as f32).clamp(0.0, 255.0) as u8;
                }
            }
            _ => return Err(no_numbers()),
        }
        Ok(())
    }

    /// Runs the model on what its inputs were filled with. Outputs stay until the next run.
    ///
    /// # Errors
    /// Only where a step runs in another executor, which may fail.
    pub fn invoke(&mut self) -> Result<(), RunError> {
        let Shared { bytes, plan, weights, packed, proof, backend, .. } = &*self.shared;
        let part = |&(start, len): &(usize, usize)| bytes.get(start..start + len).unwrap_or_default();
        // These are the bytes that were proved, in the same place: neither can fail.
        let unsound = || RunError::Delegate("the model's proof is for other bytes".into());
        let model = Model::with_proof(part(plan), part(weights), ops::all(), proof).ok_or_else(unsound)?;
        let session = Session::with_proof(&model, Arena::new(&mut self.arena), packed, *backend, proof);
        let mut session = session.map_err(|_| unsound())?;
        #[cfg(feature = "onnx")]
        {
            let executor = &mut self.executor;
            session
                .run_with(executor)
                .map_err(|_| RunError::Delegate(executor.last_error().unwrap_or("no reason given").to_owned()))?;
        }
        #[cfg(not(feature = "onnx"))]
        session.run();
        Ok(())
    }

    /// Output `index` of the last run as numbers, dequantized where it is quantized.
    ///
    /// # Errors
    /// When there is no such output, or its elements do not stand for real numbers.
    pub fn values(&mut self, index: usize) -> Result<&[f32], RunError> {
        let Self { shared, arena, numbers, .. } = self;
        let outputs = &shared.outputs;
        let port = outputs.get(index).ok_or(RunError::Index { index, count: outputs.len() })?;
        let bytes = output_bytes(shared, arena, &port.tensor);
        let &PortInfo { dtype, scale, zero_point, .. } = &port.info;
        if dtype == DType::F32 {
            return Ok(bytemuck::cast_slice(bytes));
        }
        numbers.resize(port.info.len(), 0.0);
        match dtype {
            DType::I8 if scale != 0.0 => {
                shared.backend.dequantize(bytemuck::cast_slice(bytes), scale, zero_point, numbers);
            }
            DType::U8 if scale != 0.0 => {
                for (to, &q) in numbers.iter_mut().zip(bytes) {
                    *to = (i32::from(q) - zero_point) as f32 * scale;
                }
            }
            _ => return Err(RunError::Type { port: port.info.name.clone(), dtype }),
        }
        Ok(numbers)
    }

    /// Input `index` as it is in memory, to be filled; empty when the model has fewer.
    pub fn input(&mut self, index: usize) -> TensorMut<'_> {
        match self.shared.inputs.get(index) {
            Some(port) => TensorMut::new(Some(port.tensor), arena_bytes(&mut self.arena, &port.tensor)),
            None => TensorMut::new(None, &mut []),
        }
    }

    /// Output `index` of the last run as it is in memory; empty when the model has fewer.
    #[must_use]
    pub fn output(&self, index: usize) -> TensorRef<'_> {
        match self.shared.outputs.get(index) {
            Some(port) => TensorRef::new(Some(port.tensor), output_bytes(&self.shared, &self.arena, &port.tensor)),
            None => TensorRef::new(None, &[]),
        }
    }

    /// The model's inputs, in order.
    #[must_use]
    pub fn inputs(&self) -> &[PortInfo] {
        &self.shared.input_infos
    }

    /// The model's outputs, in order.
    #[must_use]
    pub fn outputs(&self) -> &[PortInfo] {
        &self.shared.output_infos
    }

    /// The package's bytes, at a multiple of 64.
    #[must_use]
    pub fn package(&self) -> &[u8] {
        &self.shared.bytes
    }

    /// The package's digest, which identifies the model.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.shared.digest
    }

    /// The kernels that it runs with.
    #[must_use]
    pub fn backend(&self) -> Best {
        self.shared.backend
    }

    /// Bytes of memory that each clone has for itself.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        self.arena.len()
    }
}

/// The inputs and outputs of a model.
fn ports(package: &Package<'_>, model: &Model<'_, Best>) -> [Vec<Port>; 2] {
    let plan = model.plan();
    let port = |info: Option<dunlin_package::Port<'_>>, id: Option<u16>| {
        let (info, tensor) = (info?, plan.tensor(id?)?);
        let shape = info.shape().iter().map(|&d| d as usize).collect();
        let labels = info.labels().map(str::to_owned).collect();
        let info = PortInfo {
            name: info.name.to_owned(),
            dtype: tensor.dtype,
            shape,
            scale: info.scale,
            zero_point: info.zero_point,
            labels,
        };
        // A manifest that says otherwise than the plan is not believed.
        let info = if info.len() == tensor.len() {
            info
        } else {
            PortInfo { shape: tensor.shape().iter().map(|&d| d as usize).collect(), ..info }
        };
        Some(Port { info, tensor })
    };
    let manifest = package.manifest();
    [
        (0..plan.input_count()).filter_map(|i| port(manifest.input(i), plan.input(i))).collect(),
        (0..plan.output_count()).filter_map(|i| port(manifest.output(i), plan.output(i))).collect(),
    ]
}

/// The bytes of an input.
fn arena_bytes<'m>(arena: &'m mut Block, tensor: &Tensor) -> &'m mut [u8] {
    let Place::Arena(at) = tensor.place else { return &mut [] };
    arena.get_mut(at as usize..).and_then(|rest| rest.get_mut(..tensor.bytes())).unwrap_or_default()
}

/// The bytes of an output, which may be a constant.
fn output_bytes<'m>(shared: &'m Shared, arena: &'m Block, tensor: &Tensor) -> &'m [u8] {
    let (bytes, at) = match tensor.place {
        Place::Arena(at) => (&arena[..], at as usize),
        Place::Weights(at) => (&shared.bytes[..], shared.weights.0 + at as usize),
    };
    bytes.get(at..).and_then(|rest| rest.get(..tensor.bytes())).unwrap_or_default()
}
