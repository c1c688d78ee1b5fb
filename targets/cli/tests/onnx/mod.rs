//! Small ONNX models, written field by field as protobuf.

/// A graph in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<u8>,
    constants: Vec<u8>,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
    count: usize,
}

/// An extent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dim {
    /// A number.
    Fixed(u64),
    /// Open, with a name.
    Named(&'static str),
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn text(field: u64, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

fn value_info(name: &str, dtype: u64, dims: Option<&[Dim]>) -> Vec<u8> {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(extent) => bytes(1, &number(1, *extent)),
        Dim::Named(name) => bytes(1, &text(2, name)),
    };
    let shape = dims.map(|dims| bytes(2, &dims.iter().flat_map(dim).collect::<Vec<u8>>())).unwrap_or_default();
    let tensor = [number(1, dtype), shape].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

impl Graph {
    /// Adds an input; 1 is float, 3 is int8, 7 is int64.
    pub(crate) fn input(mut self, name: &str, dtype: u64, dims: &[Dim]) -> Self {
        self.inputs.extend(bytes(11, &value_info(name, dtype, Some(dims))));
        self
    }

    /// Adds an output.
    pub(crate) fn output(mut self, name: &str, dtype: u64) -> Self {
        self.outputs.extend(bytes(12, &value_info(name, dtype, None)));
        self
    }

    fn constant(mut self, name: &str, dtype: u64, dims: &[u64], raw: &[u8]) -> Self {
        let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
        let tensor = [dims, number(2, dtype), text(8, name), bytes(9, raw)].concat();
        self.constants.extend(bytes(5, &tensor));
        self
    }

    /// Adds an int8 constant.
    pub(crate) fn int8(self, name: &str, dims: &[u64], values: &[i8]) -> Self {
        self.constant(name, 3, dims, &values.iter().map(|v| v.cast_unsigned()).collect::<Vec<u8>>())
    }

    fn add(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[u8]) -> Self {
        let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
        let outputs: Vec<u8> = outputs.iter().flat_map(|name| text(2, name)).collect();
        let name = text(3, &format!("node{}", self.count));
        self.count += 1;
        let node = [inputs, outputs, name, text(4, op), attributes.to_vec()].concat();
        self.nodes.extend(bytes(1, &node));
        self
    }

    /// Adds a node.
    pub(crate) fn node(self, op: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.add(op, inputs, outputs, &[])
    }

    /// Adds a node with whole numbers for an attribute.
    pub(crate) fn with_ints(self, op: &str, inputs: &[&str], outputs: &[&str], name: &str, values: &[u64]) -> Self {
        let values: Vec<u8> = values.iter().flat_map(|&v| number(8, v)).collect();
        let attribute = [text(1, name), values, number(20, 7)].concat();
        self.add(op, inputs, outputs, &bytes(5, &attribute))
    }

    /// Adds a cast.
    pub(crate) fn cast(self, input: &str, output: &str, dtype: u64) -> Self {
        let attribute = [text(1, "to"), number(3, dtype), number(20, 2)].concat();
        self.add("Cast", &[input], &[output], &bytes(5, &attribute))
    }

    /// Returns the model, of opset 17.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let graph = [self.nodes.clone(), text(2, "graph"), self.constants.clone(), self.inputs.clone()].concat();
        let graph = [graph, self.outputs.clone()].concat();
        let opset = [text(1, ""), number(2, 17)].concat();
        [number(1, 8), bytes(7, &graph), bytes(8, &opset)].concat()
    }
}
