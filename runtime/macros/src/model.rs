//! The text of a module that holds a model.

use std::fmt::Write;

use dunlin_engine::{ARENA_ALIGN, Model, ops};
use dunlin_kernels::Kernels;
use dunlin_package::op::Op;
use dunlin_package::{DType, Package, Port};

use crate::source::Source;

/// The kernels of `dunlin_kernels::native`, in the order of `dunlin_kernels::of_native`.
const NATIVE: [Kernels; 3] = [Kernels::Scalar, Kernels::Dsp, Kernels::Mve];

/// A vector of bytes at a multiple of 64 in memory.
struct Aligned {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut room = vec![0; bytes.len() + 64];
        let start = room.as_ptr().align_offset(64).min(64);
        room[start..start + bytes.len()].copy_from_slice(bytes);
        Self { room, start, len: bytes.len() }
    }

    fn get(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

/// The module's items; `__dunlin` stands for the crate.
pub(crate) fn module(source: &Source) -> Result<String, String> {
    let bytes = Aligned::new(&source.package);
    let package = Package::open(bytes.get()).map_err(|error| error.to_string())?;
    let model = Model::<Kernels>::load(&package, ops::all()).map_err(|error| error.to_string())?;
    let path = source.path.to_str().ok_or("the path is not Unicode")?;
    let manifest = package.manifest();
    let embedded = if source.compiled {
        format!("{}", proc_macro::Literal::byte_string(bytes.get()))
    } else {
        format!("::core::include_bytes!({path:?})")
    };
    let [scalar, dsp, mve] = NATIVE.map(|kernels| model.arena_len(kernels) + ARENA_ALIGN - 1);
    let mut text = format!(
        "/// The package, aligned for the engine.\n\
         pub static PACKAGE: &__dunlin::package::Aligned<[u8]> = &__dunlin::package::Aligned(*{embedded});\n\
         /// Name of the model.\n\
         pub const NAME: &str = {:?};\n\
         /// Version of the model.\n\
         pub const VERSION: &str = {:?};\n\
         /// Bytes of memory that a session needs with `kernels::native()`, wherever they begin.\n\
         pub const ARENA_LEN: usize = __dunlin::kernels::of_native({scalar}, {dsp}, {mve});\n",
        manifest.name, manifest.version
    );
    if source.compiled {
        // So that the program is built again when the file changes.
        let _ = writeln!(text, "const _: &[u8] = ::core::include_bytes!({path:?});");
    }
    let inputs: Vec<Port<'_>> = manifest.inputs().collect();
    let outputs: Vec<Port<'_>> = manifest.outputs().collect();
    for (what, ports) in [("Input", &inputs), ("Output", &outputs)] {
        let constant = what.to_uppercase();
        let _ = writeln!(text, "/// The model's {}s, in order.", what.to_lowercase());
        let _ = writeln!(
            text,
            "pub const {constant}S: &[__dunlin::ModelPort] = &[{}];",
            ports.iter().map(port).collect::<String>()
        );
        if let Some(first) = ports.first() {
            let _ = writeln!(text, "/// Elements of the first {}.", what.to_lowercase());
            let _ = writeln!(text, "pub const {constant}_LEN: usize = {};", first.elements());
            if let Some(element) = rust_type(first.dtype) {
                let _ = writeln!(text, "/// Type of the elements of the first {}.", what.to_lowercase());
                let _ = writeln!(text, "pub type {what} = {element};");
            }
        }
    }
    let mut used: Vec<Op> = model.plan().steps().map(|step| step.op).collect();
    used.sort_by_key(|op| *op as u8);
    used.dedup();
    let list: String = used.iter().map(|op| format!("__dunlin::ops::{}::operator(),", file(*op))).collect();
    let _ = write!(
        text,
        "/// The operators that the model needs, so that the linker leaves out the rest.\n\
         #[must_use]\n\
         pub fn ops<B: __dunlin::kernels::Backend>() -> &'static [__dunlin::ops::Operator<B>] {{\n\
             struct List<B>(::core::marker::PhantomData<B>);\n\
             impl<B: __dunlin::kernels::Backend> List<B> {{\n\
                 const ALL: &'static [__dunlin::ops::Operator<B>] = &[{list}];\n\
             }}\n\
             List::<B>::ALL\n\
         }}\n"
    );
    Ok(text)
}

fn port(port: &Port<'_>) -> String {
    let labels: Vec<&str> = port.labels().collect();
    format!(
        "__dunlin::ModelPort {{ name: {:?}, dtype: __dunlin::DType::{:?}, shape: &{:?}, scale: {:?}f32, zero_point: {}, labels: &{labels:?} }},",
        port.name,
        port.dtype,
        port.shape(),
        port.scale,
        port.zero_point,
    )
}

/// The type of Rust, if elements can be seen as such.
fn rust_type(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::I8 => Some("i8"),
        DType::U8 => Some("u8"),
        DType::I32 => Some("i32"),
        DType::F32 => Some("f32"),
        DType::I64 => Some("i64"),
        DType::Bool => None,
    }
}

/// The module of an operator in the engine: its name in snake case.
fn file(op: Op) -> String {
    let mut file = String::new();
    for letter in format!("{op:?}").chars() {
        if letter.is_uppercase() && !file.is_empty() {
            file.push('_');
        }
        file.extend(letter.to_lowercase());
    }
    file
}
