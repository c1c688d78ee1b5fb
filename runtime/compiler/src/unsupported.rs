//! Why the engine has no step for a node, and what many such nodes have in common.

use std::fmt;

/// Why a node cannot become a step of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// The engine does not have the operator in any form.
    Operator,
    /// Scales or zero points are computed at run time.
    DynamicQuantization,
    /// An attribute has a value that the engine does not implement.
    Attribute {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// The values that are implemented.
        supported: &'static str,
    },
    /// An input or output has an element type that the operator does not take.
    Type {
        /// The input or output: `input 0`, `the output`.
        place: String,
        /// Its type.
        dtype: String,
        /// The types that are implemented.
        supported: &'static str,
    },
    /// A tensor has too many or too few axes.
    Rank {
        /// How many it has.
        axes: usize,
        /// How many are implemented.
        supported: &'static str,
    },
    /// An input has to be constant.
    NotConstant {
        /// Index of the input.
        input: usize,
        /// What it is.
        what: &'static str,
    },
    /// A tensor without elements.
    Empty,
    /// Another number of inputs or outputs than the engine implements.
    Count {
        /// What there are so many of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are implemented.
        supported: &'static str,
    },
    /// Quantization parameters that no integer kernel takes.
    Quantization {
        /// What they are like.
        what: &'static str,
    },
    /// Shapes or axes in a combination that the engine does not implement.
    Shape {
        /// What they are like.
        what: &'static str,
    },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the engine does not have this operator"),
            Self::DynamicQuantization => {
                f.write_str("dynamic quantization: scales and zero points are computed at run time")
            }
            Self::Attribute { name, value, supported } => {
                write!(f, "attribute {name} = {value} is not implemented (supported: {supported})")
            }
            Self::Type { place, dtype, supported } => {
                write!(f, "{place} has type {dtype}, which is not implemented (supported: {supported})")
            }
            Self::Rank { axes, supported } => write!(f, "{axes} axes are not implemented (supported: {supported})"),
            Self::NotConstant { input, what } => write!(f, "input {input} ({what}) has to be constant"),
            Self::Empty => f.write_str("tensors without elements are not implemented"),
            Self::Count { what, count, supported } => {
                write!(f, "{count} {what} are not implemented (supported: {supported})")
            }
            Self::Quantization { what } => write!(f, "no integer kernel takes {what}"),
            Self::Shape { what } => write!(f, "{what} is not implemented"),
        }
    }
}

impl Unsupported {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::DynamicQuantization => Some(
                "quantize statically: onnxruntime.quantization.quantize_static(float.onnx, int8.onnx, calibration_reader, quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True)",
            ),
            Self::NotConstant { .. } => Some("fold constants: onnxsim or onnxruntime's offline optimization"),
            _ => None,
        }
    }
}

/// A node that the engine has no operator for.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why it cannot become a step.
    pub reason: Unsupported,
}

/// Nodes that the engine lacks for one reason.
#[derive(Clone, Debug)]
pub struct Group<'m> {
    /// Operators with the number of their nodes, most frequent first.
    pub ops: Vec<(&'m str, usize)>,
    /// The reason.
    pub reason: &'m Unsupported,
    /// Names of the nodes, in the order of the graph.
    pub nodes: Vec<&'m str>,
}

/// Groups nodes by reason, and by operator unless the reason is dynamic quantization; largest group first.
#[must_use]
pub fn groups(missing: &[Missing]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for one in missing {
        let dynamic = one.reason == Unsupported::DynamicQuantization;
        let same = |group: &&mut Group<'_>| {
            *group.reason == one.reason && (dynamic || group.ops.iter().any(|(op, _)| *op == one.op))
        };
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.nodes.push(&one.node);
                match group.ops.iter_mut().find(|(op, _)| *op == one.op) {
                    Some((_, count)) => *count += 1,
                    None => group.ops.push((&one.op, 1)),
                }
            }
            None => groups.push(Group { ops: vec![(&one.op, 1)], reason: &one.reason, nodes: vec![&one.node] }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes.len()));
    groups
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ([node], [(op, _)]) = (&self.nodes[..], &self.ops[..]) {
            return write!(f, "node '{node}' ({op}): {}", self.reason);
        }
        for (i, (op, count)) in self.ops.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} x {op}")?;
        }
        write!(f, ": {}", self.reason)?;
        if let Some(first) = self.nodes.first() {
            write!(f, "; first node '{first}'")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(node: &str, op: &str, reason: Unsupported) -> Missing {
        Missing { node: node.into(), op: op.into(), reason }
    }

    #[test]
    fn nodes_with_one_reason_are_one_line() {
        let all = [
            missing("a", "DynamicQuantizeLinear", Unsupported::DynamicQuantization),
            missing("b", "MatMulInteger", Unsupported::DynamicQuantization),
            missing("c", "DynamicQuantizeLinear", Unsupported::DynamicQuantization),
            missing("d", "Sinh", Unsupported::Operator),
            missing("e", "Asinh", Unsupported::Operator),
        ];
        let lines: Vec<String> = groups(&all).iter().map(Group::to_string).collect();
        assert_eq!(
            lines,
            [
                "2 x DynamicQuantizeLinear, 1 x MatMulInteger: dynamic quantization: scales and zero points are computed at run time; first node 'a'",
                "node 'd' (Sinh): the engine does not have this operator",
                "node 'e' (Asinh): the engine does not have this operator",
            ]
        );
    }
}
