//! Operators that only move or rename.

use tract_onnx::pb::NodeProto;

use super::attributes::{ints, need, output};
use super::{Lowering, Val};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

impl Lowering<'_> {
    /// Applies a change of shape or order to a value, to its integers where those are what is known of it.
    pub(super) fn moved(
        &mut self,
        node: &NodeProto,
        change: impl Fn(&mut Self, &Val) -> Result<Val, CompileError>,
    ) -> Result<bool, CompileError> {
        let (x, y) = (need(node, 0)?, output(node)?);
        if let Some((val, quant)) = self.integers(x)? {
            let moved = change(self, &val)?;
            self.describe(moved.id, &quant);
            let integers = format!("{y}.integers");
            self.set(&integers, moved);
            self.set_dequantized(y, &integers, quant);
            return Ok(true);
        }
        let val = self.value(x)?;
        let moved = change(self, &val)?;
        self.set(y, moved);
        Ok(true)
    }
}

/// The same value by another name.
pub(super) fn identity(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    if node.op_type == "Dropout" {
        let training = match super::attributes::input(node, 2).map(|n| l.constant(n)) {
            None => false,
            Some(Some(value)) => super::elements::<bool>(&value)?.first() == Some(&true),
            Some(None) => true,
        };
        if training || node.output.iter().skip(1).any(|o| !o.is_empty()) {
            return Err(CompileError::unsupported("dropout that is training, or whose mask is asked for")
                .hint("export the model for inference"));
        }
    }
    l.moved(node, |_, val| Ok(val.clone()))
}

/// The same elements in another shape.
pub(super) fn reshape(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let shape = l.fact(output(node)?)?.shape.clone();
    if shape.len() > 6 {
        return l.refuse(Unsupported::Rank { axes: shape.len(), supported: "1 to 6" });
    }
    let name = node_name(node);
    l.moved(node, |l, val| {
        let val = l.logical(&name, val);
        let id = l.graph.view(val.id, &shape);
        Ok(Val { id, shape: shape.clone(), perm: (0..shape.len()).collect(), unsigned: val.unsigned })
    })
}

/// Other names for the axes: nothing moves until somebody needs another order.
pub(super) fn transpose(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let rank = l.fact(need(node, 0)?)?.shape.len();
    let order = ints(node, "perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
    let order: Vec<usize> = order.iter().filter_map(|&a| usize::try_from(a).ok()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(CompileError::invalid("perm does not name every axis once"));
    }
    l.moved(node, |_, val| {
        let shape = order.iter().map(|&a| val.shape[a]).collect();
        // Physical axis i held axis perm[i]; that is now the axis whose source it is.
        let perm = val.perm.iter().map(|p| order.iter().position(|a| a == p).unwrap_or(0)).collect();
        Ok(Val { id: val.id, shape, perm, unsigned: val.unsigned })
    })
}
