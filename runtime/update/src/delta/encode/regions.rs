//! The parts of two packages, side by side.

use std::collections::HashMap;
use std::string::{String, ToString};
use std::vec::Vec;

use dunlin_package::plan::{Place as TensorPlace, Plan};
use dunlin_package::{DType, OpenError, Package, SectionKind};

/// The name of the place where the package keeps its digest.
pub(super) const DIGEST: &str = "digest";
/// That place.
const DIGEST_AT: core::ops::Range<usize> = 32..64;

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Signed bytes: weights.
    Signed,
    /// Words of four bytes.
    Words,
    /// Anything.
    Any,
}

/// A part of the target.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) content: Content,
    /// The part of the base that it takes the place of.
    pub(super) base: Option<usize>,
    /// Bytes of one output channel.
    pub(super) run: usize,
}

impl Place {
    /// The part in pieces of at most `limit` bytes, whole output channels and words where that is possible.
    pub(super) fn parts(self, limit: usize) -> Vec<Self> {
        let run = if self.run <= limit { self.run } else { 4 };
        let most = (limit / run.max(1) * run.max(1)).max(1);
        (0..self.len)
            .step_by(most)
            .map(|from| Self {
                at: self.at + from,
                len: most.min(self.len - from),
                base: self.base.map(|b| b + from),
                ..self.clone()
            })
            .collect()
    }
}

/// A tensor in the weights section.
struct Constant {
    at: usize,
    len: usize,
    content: Content,
    run: usize,
    name: String,
}

struct Parts {
    sections: Vec<(SectionKind, usize, usize)>,
    constants: Vec<Constant>,
}

fn parts(bytes: &[u8]) -> Result<Parts, OpenError> {
    let package = Package::open(bytes)?;
    let mut sections = Vec::new();
    let mut constants: Vec<Constant> = Vec::new();
    for section in package.sections() {
        if let Some(kind) = section.known() {
            sections.push((kind, section.offset as usize, section.len as usize));
        }
    }
    let weights = package.weights();
    let weights_at = sections.iter().find(|(k, _, _)| *k == SectionKind::Weights).map_or(0, |(_, at, _)| *at);
    if let Ok(plan) = Plan::read(package.plan_bytes()) {
        for i in 0..plan.tensor_count() {
            let Some(tensor) = u16::try_from(i).ok().and_then(|i| plan.tensor(i)) else { continue };
            let TensorPlace::Weights(offset) = tensor.place else { continue };
            let (offset, len) = (offset as usize, tensor.bytes());
            if len == 0 || offset.checked_add(len).is_none_or(|end| end > weights.len()) {
                continue;
            }
            let content = match tensor.dtype {
                DType::I8 => Content::Signed,
                DType::I32 | DType::F32 => Content::Words,
                _ => Content::Any,
            };
            let outer = tensor.shape().first().map_or(1, |&d| d as usize).max(1);
            let name = package.names().and_then(|n| n.tensor(i)).unwrap_or_default();
            let name = if name.is_empty() { i.to_string() } else { name.to_owned() };
            let run = if len.is_multiple_of(outer) { len / outer } else { len };
            constants.push(Constant { at: weights_at + offset, len, content, run, name });
        }
    }
    constants.sort_by_key(|c| (c.at, usize::MAX - c.len));
    // Tensors may share bytes: the first and longest stands for all.
    let mut end = 0;
    constants.retain(|c| {
        let free = c.at >= end;
        if free {
            end = c.at + c.len;
        }
        free
    });
    Ok(Parts { sections, constants })
}

/// All bytes of the target, in order.
pub(super) fn places(base: &[u8], target: &[u8]) -> Result<Vec<Place>, (&'static str, OpenError)> {
    let new = parts(target).map_err(|e| ("target", e))?;
    let old = if base.is_empty() {
        Parts { sections: Vec::new(), constants: Vec::new() }
    } else {
        parts(base).map_err(|e| ("base", e))?
    };
    let mut found: Vec<Place> = Vec::new();
    for &(kind, at, len) in &new.sections {
        let counterpart = old.sections.iter().find(|(k, _, _)| *k == kind).map(|(_, at, _)| *at);
        if kind == SectionKind::Weights {
            continue;
        }
        let name = std::format!("{kind:?}").to_lowercase();
        found.push(Place { name, at, len, content: Content::Any, base: counterpart, run: 4 });
    }
    // A tensor's counterpart has its name and length, or else its length and its number among those of that length.
    let mut named: HashMap<(&str, usize, usize), &Constant> = HashMap::new();
    let mut counts: HashMap<(&str, usize), usize> = HashMap::new();
    for c in &old.constants {
        let n = counts.entry((&c.name, c.len)).or_default();
        named.insert((&c.name, c.len, *n), c);
        *n += 1;
    }
    counts.clear();
    for c in &new.constants {
        let n = counts.entry((&c.name, c.len)).or_default();
        let counterpart = named.get(&(c.name.as_str(), c.len, *n)).map(|o| o.at);
        *n += 1;
        found.push(Place {
            name: c.name.clone(),
            at: c.at,
            len: c.len,
            content: c.content,
            base: counterpart,
            run: c.run.max(1),
        });
    }
    found.retain(|p| p.len > 0);
    found.sort_by_key(|p| p.at);
    // Header, table, padding and seal lie between.
    let mut whole: Vec<Place> = Vec::new();
    let mut at = 0;
    let between = |from: usize, to: usize, whole: &mut Vec<Place>| {
        if from < to {
            let base = (from < base.len()).then_some(from).filter(|_| from == 0);
            let name = "frame".to_owned();
            whole.push(Place { name, at: from, len: to - from, content: Content::Any, base, run: 4 });
        }
    };
    for place in found {
        between(at, place.at, &mut whole);
        at = place.at + place.len;
        whole.push(place);
    }
    between(at, target.len(), &mut whole);
    // The frame begins with the header, which has the digest in it.
    if let Some(first) = whole.first().filter(|p| p.at == 0 && p.len >= DIGEST_AT.end) {
        let part = |range: core::ops::Range<usize>, name: &str| Place {
            name: name.to_owned(),
            at: range.start,
            len: range.len(),
            base: first.base.map(|b| b + range.start),
            ..first.clone()
        };
        let parts = [part(0..32, "frame"), part(DIGEST_AT, DIGEST), part(64..first.len, "frame")];
        whole.splice(0..1, parts.into_iter().filter(|p| p.len > 0));
    }
    Ok(whole)
}
