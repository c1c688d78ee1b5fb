//! The compiler's own graph: tensors with physical shapes, steps in order.

use dunlin_package::DType;
use dunlin_package::op::{Op, Words};

/// Index of a tensor of a [`Graph`].
pub type Id = usize;

/// A tensor as the engine will see it.
#[derive(Clone, Debug)]
pub struct GraphTensor {
    /// Element type.
    pub dtype: DType,
    /// Physical extents.
    pub dims: Vec<usize>,
    /// Little-endian bytes of a constant.
    pub data: Option<Vec<u8>>,
    /// The tensor whose bytes this one shows in another shape.
    pub of: Option<Id>,
    /// Value of one step, 0 for none.
    pub scale: f32,
    /// The integer that means zero.
    pub zero_point: i32,
    /// The ONNX value it came from.
    pub name: String,
}

impl GraphTensor {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size_bytes()
    }
}

/// One step to run.
#[derive(Clone, Debug)]
pub struct GraphStep {
    /// The operator.
    pub op: Op,
    /// Inputs, `None` for an absent one.
    pub inputs: Vec<Option<Id>>,
    /// Outputs.
    pub outputs: Vec<Id>,
    /// Parameter words.
    pub params: Vec<u32>,
    /// Whether the first output may lie over the first input.
    pub in_place: bool,
    /// Multiplications.
    pub macs: u64,
    /// The ONNX nodes it came from.
    pub node: String,
    /// What to tell about it.
    pub note: String,
}

/// Tensors and steps.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Tensors by [`Id`].
    pub tensors: Vec<GraphTensor>,
    /// Steps in the order they run.
    pub steps: Vec<GraphStep>,
    /// Inputs with their ONNX names.
    pub inputs: Vec<(String, Id)>,
    /// Outputs with their ONNX names.
    pub outputs: Vec<(String, Id)>,
}

impl Graph {
    /// Adds a computed tensor.
    pub fn tensor(&mut self, name: &str, dtype: DType, dims: &[usize]) -> Id {
        self.push(name, dtype, dims, None)
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, dtype: DType, dims: &[usize], data: Vec<u8>) -> Id {
        self.push(name, dtype, dims, Some(data))
    }

    fn push(&mut self, name: &str, dtype: DType, dims: &[usize], data: Option<Vec<u8>>) -> Id {
        self.tensors.push(GraphTensor {
            dtype,
            dims: dims.to_vec(),
            data,
            of: None,
            scale: 0.0,
            zero_point: 0,
            name: name.to_owned(),
        });
        self.tensors.len() - 1
    }

    /// The same bytes in another shape.
    pub fn view(&mut self, id: Id, dims: &[usize]) -> Id {
        if self.tensors[id].dims == dims {
            return id;
        }
        let mut tensor = self.tensors[id].clone();
        tensor.dims = dims.to_vec();
        if tensor.data.is_none() {
            tensor.of = Some(self.root(id));
        }
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// The tensor whose bytes `id` shows.
    #[must_use]
    pub fn root(&self, id: Id) -> Id {
        self.tensors[id].of.unwrap_or(id)
    }

    /// Adds a step.
    pub fn step(&mut self, node: &str, op: Op, inputs: &[Id], output: Id, params: &impl Words) -> &mut GraphStep {
        let mut words = Vec::new();
        params.put(&mut |word| words.push(word));
        self.steps.push(GraphStep {
            op,
            inputs: inputs.iter().map(|&i| Some(i)).collect(),
            outputs: vec![output],
            params: words,
            in_place: matches!(op, Op::Add | Op::Mul | Op::Map | Op::Unary | Op::Binary | Op::Copy),
            macs: 0,
            node: node.to_owned(),
            note: String::new(),
        });
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Drops steps whose results nobody reads.
    pub fn sweep(&mut self) {
        let mut live: Vec<bool> = vec![false; self.tensors.len()];
        for (_, id) in &self.outputs {
            live[self.root(*id)] = true;
        }
        let mut kept = Vec::with_capacity(self.steps.len());
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            if step.outputs.iter().any(|&o| live[self.root(o)]) {
                for &input in step.inputs.iter().flatten() {
                    live[self.root(input)] = true;
                }
                kept.push(step);
            }
        }
        kept.reverse();
        self.steps = kept;
    }
}
