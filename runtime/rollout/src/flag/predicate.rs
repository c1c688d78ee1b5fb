//! Conditions on a device's attributes, in Kleene's three values.

use serde::{Deserialize, Serialize};

use super::document::{MAX_DEPTH, MAX_ITEMS, MAX_NODES, prove_name, prove_value};
use super::{Context, FlagError, Value, Version};

/// One step of a condition; what it is of follows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Node<'a> {
    All(u8),
    Any(u8),
    Not,
    Has(&'a str),
    Equal(&'a str, #[serde(borrow)] Value<'a>),
    In(&'a str, u8),
    Range(&'a str, i64, i64),
    Version(&'a str, &'a str, &'a str),
}

fn take<'a, T: Deserialize<'a>>(input: &mut &'a [u8]) -> Result<T, FlagError> {
    let (item, rest) = postcard::take_from_bytes(input).map_err(|_| FlagError::Malformed)?;
    *input = rest;
    Ok(item)
}

/// Proves the condition of a rule; nothing is the one that always holds.
pub(super) fn prove(when: &[u8]) -> Result<(), FlagError> {
    if when.is_empty() {
        return Ok(());
    }
    let mut rest = when;
    let mut nodes = 0;
    prove_node(&mut rest, 1, &mut nodes)?;
    if rest.is_empty() { Ok(()) } else { Err(FlagError::Malformed) }
}

fn prove_node(input: &mut &[u8], depth: u8, nodes: &mut u32) -> Result<(), FlagError> {
    if depth > MAX_DEPTH {
        return Err(FlagError::TooDeep);
    }
    let mut spend = |n: u32| {
        *nodes += n;
        if *nodes > MAX_NODES { Err(FlagError::TooMany) } else { Ok(()) }
    };
    spend(1)?;
    match take(input)? {
        Node::All(0) | Node::Any(0) | Node::In(_, 0) => Err(FlagError::Malformed),
        Node::All(count) | Node::Any(count) => {
            (0..count).try_for_each(|_| prove_node(input, depth.saturating_add(1), nodes))
        }
        Node::Not => prove_node(input, depth.saturating_add(1), nodes),
        Node::Has(name) => prove_name(name),
        Node::Equal(name, value) => prove_name(name).and_then(|()| prove_value(&value)),
        Node::In(_, count) if usize::from(count) > MAX_ITEMS => Err(FlagError::TooMany),
        Node::In(name, count) => {
            prove_name(name)?;
            spend(count.into())?;
            (0..count).try_for_each(|_| prove_value(&take(input)?))
        }
        Node::Range(_, min, max) if min > max => Err(FlagError::Bounds),
        Node::Range(name, ..) => prove_name(name),
        Node::Version(name, from, below) => {
            prove_name(name)?;
            let bound = |text: &str| text.is_empty() || Version::parse(text).is_some();
            if bound(from) && bound(below) { Ok(()) } else { Err(FlagError::Bounds) }
        }
    }
}

/// Whether a proved condition is true, not merely unknown.
pub(super) fn holds(when: &[u8], context: &Context<'_>) -> bool {
    let mut rest = when;
    when.is_empty() || truth(&mut rest, context, 1) == Some(true)
}

/// True, false, or unknown. Each step is read to its end, whatever is known before.
fn truth(input: &mut &[u8], context: &Context<'_>, depth: u8) -> Option<bool> {
    if depth > MAX_DEPTH {
        return None;
    }
    let inner = |input: &mut &[u8]| truth(input, context, depth.saturating_add(1));
    match take(input).ok()? {
        Node::All(count) => {
            let mut all = Some(true);
            (0..count).for_each(|_| all = negated(either(negated(all), negated(inner(input)))));
            all
        }
        Node::Any(count) => {
            let mut any = Some(false);
            (0..count).for_each(|_| any = either(any, inner(input)));
            any
        }
        Node::Not => negated(inner(input)),
        Node::Has(name) => Some(context.attribute(name).is_some()),
        Node::Equal(name, value) => equal(context.attribute(name)?, value),
        Node::In(name, count) => {
            let attribute = context.attribute(name);
            let mut found = Some(false);
            for _ in 0..count {
                let value = take(input).ok()?;
                found = either(found, attribute.and_then(|a| equal(a, value)));
            }
            found
        }
        Node::Range(name, min, max) => match context.attribute(name)? {
            Value::Int(n) => Some((min..=max).contains(&n)),
            _ => None,
        },
        Node::Version(name, from, below) => {
            let Value::Text(text) = context.attribute(name)? else { return None };
            let version = Version::parse(text)?;
            let least = from.is_empty() || Version::parse(from)? <= version;
            let most = below.is_empty() || version < Version::parse(below)?;
            Some(least && most)
        }
    }
}

fn either(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn negated(truth: Option<bool>) -> Option<bool> {
    truth.map(|t| !t)
}

/// Values of different types are not comparable.
fn equal(a: Value<'_>, b: Value<'_>) -> Option<bool> {
    (core::mem::discriminant(&a) == core::mem::discriminant(&b)).then_some(a == b)
}
