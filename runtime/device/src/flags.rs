//! The flag document that a device obeys: checked, kept, and asked offline.
//!
//! A flag document is signed by the role of rollouts; its payload is the string [`NAME`] and the flags as bytes, both as
//! postcard has them. One flag is the device's own, `dunlin.serve`: where it is off, or killed with an off variant that is, no
//! model runs. It is on by default. A condition on the built-in attribute `dunlin.model` stops one model.

use dunlin_rollout::flag::{Context, Flag, FlagValue, Flags, Resolution};
use dunlin_update::trust::{Document, Role, RootKeys, TrustError, Verifier};

use crate::message::{Refusal, Untrusted};

/// The name under which flags are signed. No model has it, so that flags are no rollout.
pub const NAME: &str = "\0flags";
/// Whether the model may run.
pub const SERVE: Flag<bool> = Flag::new("dunlin.serve", true);

/// The document and what of it is asked for each inference.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    bytes: &'a mut [u8],
    len: usize,
    sequence: u64,
    /// Version of the root under which it was checked.
    root: u32,
    serves: bool,
}

impl<'a> Kept<'a> {
    pub(crate) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0, sequence: 0, root: 0, serves: true }
    }

    pub(crate) fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }

    /// Whether the model may run.
    pub(crate) const fn serves(&self) -> bool {
        self.serves
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn document(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Takes a document that is newer than the one that is kept; tells whether it was.
    pub(crate) fn take<V: Verifier>(
        &mut self,
        document: &[u8],
        root: &RootKeys,
        verifier: &V,
        context: &Context<'_>,
    ) -> Result<bool, Refusal> {
        let flags = read(document, root, verifier)?;
        self.follow(root, verifier);
        if flags.sequence() < self.sequence {
            return Err(Refusal::Untrusted(Untrusted::Replayed));
        }
        if flags.sequence() == self.sequence {
            return Ok(false);
        }
        let (sequence, serves) = (flags.sequence(), SERVE.evaluate(Some(&flags), context).value);
        let to = self.bytes.get_mut(..document.len()).ok_or(Refusal::TooLong)?;
        to.copy_from_slice(document);
        (self.len, self.sequence, self.serves, self.root) = (document.len(), sequence, serves, root.version);
        Ok(true)
    }

    /// Under a new root, a document that its keys did not sign is obeyed until the next one, but whoever signed it cannot
    /// keep that away by a great sequence.
    pub(crate) fn follow<V: Verifier>(&mut self, root: &RootKeys, verifier: &V) {
        if self.sequence > 0 && self.root != root.version {
            self.root = root.version;
            if read(self.document(), root, verifier).is_err() {
                self.sequence = 0;
            }
        }
    }

    /// The value of a flag.
    pub(crate) fn evaluate<'s, T: FlagValue<'s> + Copy>(
        &'s self,
        flag: &Flag<T>,
        context: &Context<'_>,
    ) -> Resolution<'s, T> {
        let flags = Document::read(self.document(), Role::Rollout).ok().and_then(|d| payload(&d).ok());
        flag.evaluate(flags.as_ref(), context)
    }
}

/// Reads a document that enough keys signed.
fn read<'d, V: Verifier>(document: &'d [u8], root: &RootKeys, verifier: &V) -> Result<Flags<'d>, Refusal> {
    let untrusted = |error: TrustError| Refusal::Untrusted(error.into());
    let document = Document::read(document, Role::Rollout).map_err(untrusted)?;
    document.check(root, Role::Rollout, verifier).map_err(untrusted)?;
    payload(&document)
}

fn payload<'d>(document: &Document<'d>) -> Result<Flags<'d>, Refusal> {
    match postcard::take_from_bytes::<(&str, &[u8])>(document.payload()) {
        Ok(((NAME, flags), [])) => Flags::open(flags).map_err(|_| Refusal::Flags),
        // A rollout of a model, which the same keys sign.
        _ => Err(Refusal::Untrusted(Untrusted::Mixed)),
    }
}
