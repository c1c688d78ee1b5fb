//! The order in which a value's axes lie in memory. Windowed operators want channels last; a Transpose only renames.

use dunlin_package::op::{Op, Transpose};

use super::{Lowering, Val};
use crate::error::CompileError;
use crate::graph::Id;

/// Channels last, for a value with `rank` axes in ONNX's order.
pub(super) fn channels_last(rank: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank > 2 {
        perm.remove(1);
        perm.push(1);
    }
    perm
}

impl Val {
    /// Whether the axes lie in this order, where axes of one element lie anywhere.
    pub(super) fn lies_in(&self, perm: &[usize]) -> bool {
        let long = |p: &[usize]| p.iter().copied().filter(|&a| self.shape[a] != 1).collect::<Vec<_>>();
        long(&self.perm) == long(perm)
    }
}

impl Lowering<'_> {
    /// The value with its axes in an order; moves memory only when it has to.
    pub(crate) fn arranged(&mut self, node: &str, val: &Val, perm: &[usize]) -> Val {
        let dims: Vec<usize> = perm.iter().map(|&a| val.shape[a]).collect();
        let id = if val.lies_in(perm) {
            self.graph.view(val.id, &dims)
        } else {
            let mut order = [0u32; 6];
            for (slot, axis) in order.iter_mut().zip(perm) {
                *slot = val.perm.iter().position(|p| p == axis).unwrap_or(0) as u32;
            }
            for (i, slot) in order.iter_mut().enumerate().skip(perm.len()) {
                *slot = i as u32;
            }
            let source = self.graph.tensors[val.id].clone();
            let physical: Vec<usize> = val.perm.iter().map(|&a| val.shape[a]).collect();
            let from = self.graph.view(val.id, &physical);
            let id = self.graph.tensor(&source.name, source.dtype, &dims);
            self.graph.tensors[id].scale = source.scale;
            self.graph.tensors[id].zero_point = source.zero_point;
            self.graph.step(node, Op::Transpose, &[from], id, &Transpose { order });
            id
        };
        Val { id, shape: val.shape.clone(), perm: perm.to_vec(), unsigned: val.unsigned }
    }

    /// The value in ONNX's own order.
    pub(crate) fn logical(&mut self, node: &str, val: &Val) -> Val {
        let perm: Vec<usize> = (0..val.shape.len()).collect();
        self.arranged(node, val, &perm)
    }

    /// The value as batch, height, width, channel. A value with three axes has height 1.
    pub(crate) fn feature_map(&mut self, node: &str, val: &Val) -> Result<(Id, [usize; 4]), CompileError> {
        let rank = val.shape.len();
        if !(3..=4).contains(&rank) {
            return Err(CompileError::unsupported(format!("a window over {} axes", rank.saturating_sub(2)))
                .hint("the engine slides windows over one or two axes"));
        }
        let val = self.arranged(node, val, &channels_last(rank));
        let dims = map_dims(&val.shape);
        Ok((self.graph.view(val.id, &dims), dims))
    }
}

impl Lowering<'_> {
    /// Says that a value lies in a feature map.
    pub(super) fn set_map(&mut self, name: &str, id: Id, shape: &[usize], unsigned: bool) {
        let perm = channels_last(shape.len());
        let dims: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
        let id = self.graph.view(id, &dims);
        self.set(name, Val { id, shape: shape.to_vec(), perm, unsigned });
    }
}

/// Batch, height, width and channels of a value in ONNX's order.
pub(super) fn map_dims(shape: &[usize]) -> [usize; 4] {
    match *shape {
        [n, c, w] => [n, 1, w, c],
        [n, c, h, w] => [n, h, w, c],
        _ => [1; 4],
    }
}
