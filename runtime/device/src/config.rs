//! How a device behaves.

use dunlin_rollout::Value;
use dunlin_update::StartCause;

const SECOND: u64 = 1_000_000;

/// How a device behaves. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Its identity, for its place in rollouts and flags. The same as in [`dunlin_update::Device`].
    pub identity: &'a [u8],
    /// The model that it runs. The same as in [`dunlin_update::Device`].
    pub name: &'a str,
    /// What conditions of flags may ask for, besides the built-in `dunlin.model`, which is [`Self::name`].
    pub attributes: &'a [(&'a str, Value<'a>)],
    /// The number of this start, which no other start of the device has: counted, or else random.
    pub boot: u32,
    /// Why it started.
    pub cause: StartCause,
    /// Starts after a fault, this one among them, since a report last arrived: whoever can keep such a count keeps it until
    /// the first [`Event::Reported`](crate::Event::Reported) of a start. Windows that a fault ended are lost, and this is what
    /// is told of them. Without a count, 0: `cause` says whether this start was one.
    pub faults: u32,
    /// Bytes that it asks for at once; an answer has at most [`CHUNK_OVERHEAD`](crate::message::CHUNK_OVERHEAD) more.
    pub chunk: u16,
    /// After which an answer is not waited for any longer.
    pub reply: u64,
    /// How often a question is repeated.
    pub repeats: u8,
    /// Within which after its start it checks in first, so that a whole fleet that got power again does not come at once.
    pub spread: u64,
    /// Between check-ins, unless the other side says otherwise; doubled with each one that nobody answers.
    pub interval: u64,
    /// The least time between check-ins, whatever the other side says.
    pub least: u64,
    /// The longest.
    pub most: u64,
    /// After which a window of telemetry is closed; 0: nothing is reported.
    pub window: u64,
    /// Inferences of a trial with different inputs, one after the other, that may give bit for bit the same outputs; each
    /// beyond counts as failed. 0: any number.
    pub constant: u32,
}

impl<'a> Config<'a> {
    /// A device that checks in and reports once an hour.
    #[must_use]
    pub const fn new(identity: &'a [u8], name: &'a str) -> Self {
        Self {
            identity,
            name,
            attributes: &[],
            boot: 0,
            cause: StartCause::Power,
            faults: 0,
            chunk: 256,
            reply: 2 * SECOND,
            repeats: 3,
            spread: 0,
            interval: 3600 * SECOND,
            least: SECOND,
            most: 24 * 3600 * SECOND,
            window: 3600 * SECOND,
            constant: 0,
        }
    }
}

/// Memory that a device is lent for as long as it lives.
#[derive(Debug)]
pub struct Memory<'a> {
    /// For tensors and operators, at a multiple of 16 (or less the bytes before it).
    pub arena: &'a mut [u8],
    /// Room for one root document, or a rollout and a release document together: a kilobyte is enough for a few keys.
    pub documents: &'a mut [u8],
    /// Room for the flag document that it obeys; without any, flags are refused as too long.
    pub flags: &'a mut [u8],
}
