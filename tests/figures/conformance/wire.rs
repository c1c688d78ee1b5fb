//! Just enough of the protobuf wire format to read ONNX test data and to turn inputs of a model into constants.
//!
//! Everything that is not looked at is copied as it is, so that nothing of a model is lost on the way.

/// One field of a message.
#[derive(Clone, Copy)]
pub(crate) struct Field<'b> {
    /// Its number.
    pub(crate) number: u64,
    /// A varint's value, or the little-endian value of a fixed one.
    pub(crate) value: u64,
    /// What a length-delimited field holds.
    pub(crate) bytes: &'b [u8],
    /// The field with its tag, to be copied.
    pub(crate) whole: &'b [u8],
}

impl Field<'_> {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes).into_owned()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn field<'b>(rest: &mut &'b [u8]) -> Option<Field<'b>> {
    let start = *rest;
    let tag = varint(rest)?;
    let (mut value, mut bytes) = (0, &[][..]);
    let take = |rest: &mut &'b [u8], n: usize| {
        let (taken, left) = rest.split_at_checked(n)?;
        *rest = left;
        Some(taken)
    };
    match tag & 7 {
        0 => value = varint(rest)?,
        1 => value = u64::from_le_bytes(take(rest, 8)?.try_into().ok()?),
        2 => {
            let n = varint(rest)?;
            bytes = take(rest, usize::try_from(n).ok()?)?;
        }
        5 => value = u64::from(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)),
        _ => return None,
    }
    Some(Field { number: tag >> 3, value, bytes, whole: &start[..start.len() - rest.len()] })
}

/// A message's fields in order; `None` when the bytes are no message.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        out.push(field(&mut bytes)?);
    }
    Some(out)
}

/// The fields with one number; none when the bytes are no message.
pub(crate) fn all(bytes: &[u8], number: u64) -> Vec<Field<'_>> {
    fields(bytes).unwrap_or_default().into_iter().filter(|f| f.number == number).collect()
}

/// The last field with a number.
pub(crate) fn last(bytes: &[u8], number: u64) -> Option<Field<'_>> {
    all(bytes, number).pop()
}

/// Writes a length-delimited field.
fn put(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    for mut value in [number << 3 | 2, bytes.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(bytes);
}

/// ONNX's numbers of the types with which data can be compared here.
pub(crate) const FLOAT: u64 = 1;
/// See [`FLOAT`].
pub(crate) const UINT8: u64 = 2;
/// See [`FLOAT`].
pub(crate) const INT8: u64 = 3;
/// See [`FLOAT`].
pub(crate) const INT32: u64 = 6;
/// See [`FLOAT`].
pub(crate) const INT64: u64 = 7;
/// See [`FLOAT`].
pub(crate) const BOOL: u64 = 9;

/// A tensor with its elements as little-endian bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    /// ONNX's number of the element type.
    pub(crate) dtype: u64,
    /// Extents.
    pub(crate) dims: Vec<usize>,
    /// Elements; empty for types that are not compared.
    pub(crate) bytes: Vec<u8>,
    /// The message it was read from.
    proto: Vec<u8>,
}

/// The values of a repeated number field, packed or not.
fn numbers(message: &[u8], number: u64, width: usize) -> Vec<u64> {
    let mut out = Vec::new();
    for field in all(message, number) {
        let packed = field.bytes;
        if packed.is_empty() {
            // A packed list without elements looks the same but for its wire type.
            if field.whole.first().is_some_and(|tag| tag & 7 != 2) {
                out.push(field.value);
            }
        } else if width == 0 {
            let mut rest = packed;
            while let Some(value) = varint(&mut rest) {
                out.push(value);
            }
        } else {
            out.extend(packed.chunks_exact(width).map(|c| c.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))));
        }
    }
    out
}

/// Reads a TensorProto; `None` when the bytes are none.
pub(crate) fn tensor(proto: &[u8]) -> Option<Tensor> {
    fields(proto)?;
    let dtype = last(proto, 2)?.value;
    let dims: Vec<usize> = numbers(proto, 1, 0).into_iter().map(|d| d as usize).collect();
    // Where the elements are when they are not raw: field, width there, width of an element.
    let (number, stored, width) = match dtype {
        FLOAT => (4, 4, 4),
        UINT8 | INT8 | BOOL => (5, 0, 1),
        INT32 => (5, 0, 4),
        INT64 => (7, 0, 8),
        _ => return Some(Tensor { dtype, dims, bytes: Vec::new(), proto: proto.to_vec() }),
    };
    let bytes = match last(proto, 9) {
        Some(raw) => raw.bytes.to_vec(),
        None => numbers(proto, number, stored).iter().flat_map(|v| v.to_le_bytes()[..width].to_vec()).collect(),
    };
    (bytes.len() == dims.iter().product::<usize>() * width).then(|| Tensor {
        dtype,
        dims,
        bytes,
        proto: proto.to_vec(),
    })
}

/// The model with some of its inputs turned into constants.
pub(crate) fn with_constants(model: &[u8], constants: &[(&str, &Tensor)]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for field in fields(model)? {
        if field.number != 7 {
            out.extend_from_slice(field.whole);
            continue;
        }
        let mut graph = Vec::new();
        for inner in fields(field.bytes)? {
            let name = last(inner.bytes, 1).map(|n| n.bytes).unwrap_or_default();
            if inner.number != 11 || !constants.iter().any(|(n, _)| n.as_bytes() == name) {
                graph.extend_from_slice(inner.whole);
            }
        }
        for (name, tensor) in constants {
            // The last of a message's names counts.
            let mut proto = tensor.proto.clone();
            put(&mut proto, 8, name.as_bytes());
            put(&mut graph, 5, &proto);
        }
        put(&mut out, 7, &graph);
    }
    Some(out)
}
