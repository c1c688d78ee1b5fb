//! Small ONNX models, made in memory.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Extent};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// An attribute's value.
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
}

/// A model under construction. Names are the test's to choose.
pub(crate) struct Graph {
    /// What is built, for whoever wants to break it.
    pub(crate) proto: GraphProto,
    opset: i64,
}

fn value(name: &str, dtype: DataType, shape: Option<TensorShapeProto>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: dtype as i32, shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

impl Graph {
    pub(crate) fn new(opset: i64) -> Self {
        Self { proto: GraphProto { name: "test".into(), ..Default::default() }, opset }
    }

    /// An input; an extent of -1 is open.
    pub(crate) fn input(mut self, name: &str, dtype: DataType, dims: &[i64]) -> Self {
        let extent = |&d: &i64| {
            let value = if d < 0 { Extent::DimParam("N".into()) } else { Extent::DimValue(d) };
            Dimension { value: Some(value), ..Default::default() }
        };
        let shape = TensorShapeProto { dim: dims.iter().map(extent).collect() };
        self.proto.input.push(value(name, dtype, Some(shape)));
        self
    }

    /// An input that tells no shape at all.
    pub(crate) fn shapeless(mut self, name: &str, dtype: DataType) -> Self {
        self.proto.input.push(value(name, dtype, None));
        self
    }

    pub(crate) fn output(mut self, name: &str, dtype: DataType) -> Self {
        self.proto.output.push(value(name, dtype, None));
        self
    }

    /// A constant of raw little-endian bytes.
    pub(crate) fn constant(mut self, name: &str, dtype: DataType, dims: &[i64], raw: Vec<u8>) -> Self {
        let tensor = TensorProto {
            name: name.into(),
            data_type: dtype as i32,
            dims: dims.to_vec(),
            raw_data: raw,
            ..Default::default()
        };
        self.proto.initializer.push(tensor);
        self
    }

    pub(crate) fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.constant(name, DataType::Float, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub(crate) fn int8(self, name: &str, dims: &[i64], values: &[i8]) -> Self {
        self.constant(name, DataType::Int8, dims, values.iter().map(|v| v.cast_unsigned()).collect())
    }

    pub(crate) fn uint8(self, name: &str, dims: &[i64], values: &[u8]) -> Self {
        self.constant(name, DataType::Uint8, dims, values.to_vec())
    }

    /// A node, named after its output: `"a b -> c"`.
    pub(crate) fn node(self, op: &str, wires: &str) -> Self {
        self.node_with(op, wires, &[])
    }

    pub(crate) fn node_with(mut self, op: &str, wires: &str, attributes: &[(&str, Attribute)]) -> Self {
        let (from, to) = wires.split_once("->").expect("INPUTS -> OUTPUTS");
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let attribute = |(name, value): &(&str, Attribute)| {
            let mut proto = AttributeProto { name: (*name).into(), ..Default::default() };
            match value {
                Attribute::Int(i) => (proto.i, proto.r#type) = (*i, AttributeType::Int as i32),
                Attribute::Ints(v) => (proto.ints, proto.r#type) = (v.clone(), AttributeType::Ints as i32),
            }
            proto
        };
        let output = names(to);
        self.proto.node.push(NodeProto {
            name: format!("make-{}", output[0]),
            op_type: op.into(),
            input: names(from),
            output,
            attribute: attributes.iter().map(attribute).collect(),
            ..Default::default()
        });
        self
    }

    /// The file.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let version = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        ModelProto {
            ir_version: 10,
            opset_import: vec![version("", self.opset), version("com.microsoft", 1)],
            graph: Some(self.proto),
            ..Default::default()
        }
        .encode_to_vec()
    }
}
