//! A window's bytes. `WIRE.md` is normative.
//!
//! Every report begins with two bytes that say how the rest is laid out: they are made from a text that describes the
//! layout, so another layout has others. Values have their place and no names. What is small takes few bits.

use serde::{Deserialize, Serialize};

use crate::bits::{Reader, Writer, read_counts, total, write_counts};
use crate::latency::BUCKETS;
use crate::window::{AXIS_ONE, Arm, Counter, Counters, Head, MOST, Window};
use crate::{AXES, BINS, DISTANCES};

/// How much a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What runs and how much of it went wrong.
    Heartbeat,
    /// The counters, rounded, and the histograms, rounded.
    Mini,
    /// Everything, exactly.
    Full,
}

/// Bytes that a full report takes at most, whatever is counted. The usual one is a hundred.
#[must_use]
pub const fn full_most(classes: usize, features: usize) -> usize {
    // Schema, model, flags; varints of 32 and 16 bits; two bytes.
    let head = 5 + 3 * 5 + 3 + 2;
    // A Golomb code has at most 65 bits. Histograms have a sum and then less than 32 bits a count.
    let codes = 65 + Counter::ALL.len() * 66 + (4 + features) * 67;
    let counts = 14 + 32 * (BUCKETS + BINS + classes + DISTANCES + features * BINS);
    head + (codes + counts + 7 + 64 * AXES).div_ceil(8)
}

const HEARTBEAT: &str = "heartbeat 1: model flags seq span seconds/6 inferences errors deadline_misses bad_inputs";
const MINI: &str = "mini 1: model flags seq span seconds classes inferences sums/8 latency/3 confidence/4 classes/4 \
                    distances/3 axes/6";
const FULL: &str = "full 1: model flags boot seq seconds classes features latency_first span counters latency \
                    confidence classes distances features axes";

/// FNV-1a, folded to 16 bits.
const fn hash(text: &str) -> [u8; 2] {
    let mut hash = 0x811C_9DC5u32;
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        hash = (hash ^ *byte as u32).wrapping_mul(0x0100_0193);
        rest = tail;
    }
    ((hash >> 16 ^ hash) as u16).to_be_bytes()
}

impl Profile {
    /// All, from the shortest.
    pub const ALL: [Self; 3] = [Self::Heartbeat, Self::Mini, Self::Full];

    /// The text that describes the layout.
    #[must_use]
    pub const fn layout(self) -> &'static str {
        match self {
            Self::Heartbeat => HEARTBEAT,
            Self::Mini => MINI,
            Self::Full => FULL,
        }
    }

    /// The first two bytes of its reports.
    #[must_use]
    pub const fn schema(self) -> [u8; 2] {
        hash(self.layout())
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Mini => "mini",
            Self::Full => "full",
        }
    }
}

/// Why a window is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is too short.
    Space,
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the buffer is too short for the report")
    }
}

impl core::error::Error for EncodeError {}

/// Why bytes are no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early, or what is in them cannot be.
    Malformed,
    /// More classes or watched values than there is room for.
    Room,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the bytes are not those of a report",
            Self::Room => "the report has more classes or watched values than this reader has room for",
        })
    }
}

impl core::error::Error for DecodeError {}

/// What bytes turn out to be.
#[expect(clippy::large_enum_variant, reason = "nothing is boxed on a device")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Report<'b, const C: usize, const F: usize> {
    /// A window.
    Known(Profile, Window<C, F>),
    /// A layout that this version does not know: to be kept as it is.
    Unknown {
        /// Its first two bytes.
        schema: [u8; 2],
        /// All of it.
        bytes: &'b [u8],
    },
}

/// Watched values that the windows of [`AnyReport`] have room for.
pub const MAX_FEATURES: usize = 16;
/// Classes that the windows of [`AnyReport`] have room for.
pub const MAX_CLASSES: usize = 1024;
/// A report of whatever model: for servers.
pub type AnyReport<'b> = Report<'b, MAX_CLASSES, MAX_FEATURES>;
/// A window of whatever model: for servers.
pub type AnyWindow = Window<MAX_CLASSES, MAX_FEATURES>;

/// The beginning of a full report.
#[derive(Serialize, Deserialize)]
struct FullHead {
    schema: [u8; 2],
    model: [u8; 2],
    flags: u8,
    boot: u32,
    seq: u32,
    seconds: u32,
    classes: u16,
    features: u8,
    latency_first: u8,
}

/// The beginning of a mini report.
#[derive(Serialize, Deserialize)]
struct MiniHead {
    schema: [u8; 2],
    model: [u8; 2],
    flags: u8,
    seq: u32,
    seconds: u32,
    classes: u16,
}

/// The beginning of a heartbeat.
#[derive(Serialize, Deserialize)]
struct BeatHead {
    schema: [u8; 2],
    model: [u8; 2],
    flags: u8,
}

/// Bit 2 of the flags: everything in the window is counted.
const COMPLETE: u8 = 1 << 2;
/// Bit 3 of the flags: the change detector gave an alarm.
const ALARM: u8 = 1 << 3;
/// Where the lowest bits of the start's number are, in reports that have no more of it.
const BOOT_SHIFT: u32 = 4;
/// Bits of the start's number that short reports have.
pub const BOOT_MASK: u32 = 0xF;

/// Orders of the Golomb codes.
const SEQ: u32 = 7;
const INFERENCES: u32 = 8;
const SMALL: [u32; 3] = [1, 2, 2];
const TOTAL: u32 = 8;

/// The order for a counter.
const fn order(counter: Counter) -> u32 {
    match counter {
        Counter::Inferences => 8,
        Counter::Energy => 16,
        Counter::ArenaPeak => 12,
        Counter::CacheHits | Counter::ShadowRuns | Counter::Flips => 6,
        _ => 3,
    }
}

/// Bits of a rounded number: five of exponent, three of mantissa.
const ROUNDED: u32 = 8;

/// A number to one part in sixteen; exact below 16.
fn round(value: u32) -> u32 {
    if value < 8 {
        return value;
    }
    let shift = 28 - value.leading_zeros();
    // Half of what is dropped is added, so that the error goes both ways.
    let half = (1u32 << shift) >> 1;
    let value = value.saturating_add(half);
    let shift = 28 - value.leading_zeros();
    (shift + 1) << 3 | (value >> shift & 7)
}

/// The number that [`round`] gave; it never gives more than 2^32 - 2.
fn unround(code: u32) -> u32 {
    let (exponent, mantissa) = (code >> 3, code & 7);
    match exponent.checked_sub(1) {
        None => mantissa,
        Some(shift) => {
            (8 | mantissa).checked_shl(shift).filter(|v| v >> shift == 8 | mantissa).unwrap_or(MOST).min(MOST)
        }
    }
}

/// Seconds to one part in eight, in six bits: the cube roots of powers of two, and 0.
fn round_seconds(seconds: u32) -> u32 {
    if seconds == 0 { 0 } else { (1.5 + 3.0 * libm::log2f(seconds as f32)).min(63.0) as u32 }
}

fn unround_seconds(code: u32) -> u32 {
    code.checked_sub(1).map_or(0, |c| libm::roundf(libm::exp2f(c as f32 / 3.0)) as u32)
}

/// The logarithm of a count among codes of so many bits: 0 for none, 1 for one, the greatest for all of `n`.
fn round_count(count: u32, n: u32, bits: u32) -> u32 {
    let most = (1u32 << bits) - 1;
    match (count, n) {
        (0, _) => 0,
        (_, 0..2) => most,
        _ => {
            let part = libm::logf(count as f32) / libm::logf(n as f32);
            1 + libm::roundf(part * (most - 1) as f32).clamp(0.0, (most - 1) as f32) as u32
        }
    }
}

/// Counts of their codes, with the sum that is known. What rounding leaves over goes to the greatest.
fn unround_counts(counts: &mut [u32], n: u32, bits: u32) {
    let most = (1u32 << bits) - 1;
    let weigh = |code: u32| match code {
        0 => 0.0f64,
        _ => libm::exp(libm::log(f64::from(n.max(1))) * f64::from(code - 1) / f64::from(most - 1)),
    };
    let sum: f64 = counts.iter().map(|c| weigh(*c)).sum();
    if sum <= 0.0 {
        return;
    }
    let mut left = n;
    for count in counts.iter_mut() {
        *count = ((weigh(*count) / sum * f64::from(n)) as u32).min(left);
        left -= *count;
    }
    if let Some(greatest) = counts.iter_mut().max_by_key(|c| **c) {
        *greatest = greatest.saturating_add(left);
    }
}

/// The sums of counters that a mini report has.
const SUMS: usize = 13;

/// Bits for each value of a mini report.
const MINI_LATENCY: u32 = 3;
const MINI_BINS: u32 = 4;
const MINI_DISTANCES: u32 = 3;
const MINI_AXIS: u32 = 6;
/// Parts of a standard deviation in a mini report.
const MINI_AXIS_ONE: i32 = 16;

impl<const C: usize, const F: usize> Window<C, F> {
    /// Writes a report and says how long it is.
    ///
    /// # Errors
    /// When the buffer is too short.
    pub fn encode(&self, profile: Profile, into: &mut [u8]) -> Result<usize, EncodeError> {
        match profile {
            Profile::Heartbeat => self.heartbeat(into),
            Profile::Mini => self.mini(into),
            Profile::Full => self.full(into),
        }
        .ok_or(EncodeError::Space)
    }

    fn flags(&self) -> u8 {
        let alarm = self.counters.get(Counter::Alarms) > 0;
        self.head.arm as u8 | if self.head.complete { COMPLETE } else { 0 } | if alarm { ALARM } else { 0 }
    }

    fn short_flags(&self) -> u8 {
        self.flags() | ((self.head.boot & BOOT_MASK) << BOOT_SHIFT) as u8
    }

    fn heartbeat(&self, into: &mut [u8]) -> Option<usize> {
        let schema = Profile::Heartbeat.schema();
        let head = BeatHead { schema, model: self.head.model.to_be_bytes(), flags: self.short_flags() };
        let at = postcard::to_slice(&head, into).ok()?.len();
        let mut bits = Writer::new(into.get_mut(at..)?);
        bits.golomb(self.head.seq, SEQ)?;
        bits.golomb(self.head.span.saturating_sub(1), 0)?;
        bits.bits(round_seconds(self.head.seconds), 6)?;
        bits.golomb(self.counters.inferences(), INFERENCES)?;
        let counters = [self.counters.errors(), self.counters.get(Counter::DeadlineMisses), self.counters.bad_inputs()];
        counters.iter().zip(SMALL).try_for_each(|(n, k)| bits.golomb(*n, k))?;
        Some(at + bits.len())
    }

    /// What a mini report says of the counters.
    fn sums(&self) -> [u32; SUMS] {
        let get = |c| self.counters.get(c);
        [
            self.counters.errors(),
            get(Counter::DeadlineMisses),
            self.counters.bad_inputs(),
            get(Counter::Guardrails),
            get(Counter::Flips),
            get(Counter::Alarms),
            get(Counter::ShadowRuns),
            get(Counter::ShadowDisagreements),
            get(Counter::CacheHits),
            get(Counter::Resets),
            get(Counter::Dropped),
            get(Counter::Energy),
            get(Counter::ArenaPeak),
        ]
    }

    fn mini(&self, into: &mut [u8]) -> Option<usize> {
        let head = MiniHead {
            schema: Profile::Mini.schema(),
            model: self.head.model.to_be_bytes(),
            flags: self.short_flags(),
            seq: self.head.seq,
            seconds: self.head.seconds,
            classes: self.class_count,
        };
        let at = postcard::to_slice(&head, into).ok()?.len();
        let mut bits = Writer::new(into.get_mut(at..)?);
        // As the reader sees it, who has the errors rounded.
        let all = self.counters.inferences();
        let usual = Usual { all, good: all.saturating_sub(unround(round(self.counters.errors()))) };
        bits.golomb(self.head.span.saturating_sub(1), 0)?;
        bits.golomb(all, INFERENCES)?;
        for sum in self.sums() {
            bits.bits(u32::from(sum > 0), 1)?;
            if sum > 0 {
                bits.bits(round(sum), ROUNDED)?;
            }
        }
        let (first, live) = live(&self.latency);
        codes(&mut bits, usual, live, MINI_LATENCY, |bits| {
            bits.bits(u32::from(self.latency_first), 7)?;
            bits.bits(first as u32, 7)?;
            bits.bits(live.len() as u32, 7)
        })?;
        codes(&mut bits, usual, &self.confidence, MINI_BINS, |_| Some(()))?;
        codes(&mut bits, usual, self.classes(), MINI_BINS, |_| Some(()))?;
        codes(&mut bits, usual, &self.distances, MINI_DISTANCES, |_| Some(()))?;
        let embeddings = i64::from(self.embeddings());
        if embeddings > 0 {
            let half = 1i64 << (MINI_AXIS - 1);
            for sum in self.axes {
                let part = f64::from(MINI_AXIS_ONE) / f64::from(AXIS_ONE);
                let mean = libm::round(sum as f64 * part / embeddings as f64);
                let mean = (mean as i64).clamp(1 - half, half - 1);
                bits.bits((mean + half) as u32, MINI_AXIS)?;
            }
        }
        Some(at + bits.len())
    }

    fn full(&self, into: &mut [u8]) -> Option<usize> {
        let head = FullHead {
            schema: Profile::Full.schema(),
            model: self.head.model.to_be_bytes(),
            flags: self.flags(),
            boot: self.head.boot,
            seq: self.head.seq,
            seconds: self.head.seconds,
            classes: self.class_count,
            features: self.feature_count,
            latency_first: self.latency_first,
        };
        let at = postcard::to_slice(&head, into).ok()?.len();
        let mut bits = Writer::new(into.get_mut(at..)?);
        bits.golomb(self.head.span.saturating_sub(1), 0)?;
        for counter in Counter::ALL {
            let value = self.counters.get(counter);
            bits.bits(u32::from(value > 0), 1)?;
            if value > 0 {
                bits.golomb(value - 1, order(counter))?;
            }
        }
        let usual = Usual::of(&self.counters);
        let (first, live) = live(&self.latency);
        if usual.write(&mut bits, total(live))? > 0 {
            bits.bits(first as u32, 7)?;
            bits.bits(live.len() as u32, 7)?;
            write_counts(&mut bits, live, total(live))?;
        }
        let lists = [&self.confidence[..], self.classes(), &self.distances];
        for counts in lists.into_iter().chain(self.features().iter().map(|f| &f[..])) {
            let sum = usual.write(&mut bits, total(counts))?;
            write_counts(&mut bits, counts, sum)?;
        }
        if self.embeddings() > 0 {
            let sums = self.axes.map(|sum| (sum << 1 ^ sum >> 63) as u64);
            let width = 64 - sums.iter().fold(0, |all, s| all | s).leading_zeros();
            bits.bits(width, 7)?;
            for sum in sums {
                bits.bits((sum >> 32) as u32, width.saturating_sub(32))?;
                bits.bits(sum as u32, width.min(32))?;
            }
        }
        Some(at + bits.len())
    }
}

/// The buckets from the first to the last that hold anything.
fn live(counts: &[u32]) -> (usize, &[u32]) {
    let first = counts.iter().position(|c| *c > 0).unwrap_or(0);
    let end = counts.iter().rposition(|c| *c > 0).map_or(first, |last| last + 1);
    (first, counts.get(first..end).unwrap_or(&[]))
}

/// What the sum of a histogram usually is: all inferences, or all that did not fail. One or two bits then.
#[derive(Clone, Copy)]
struct Usual {
    all: u32,
    good: u32,
}

impl Usual {
    fn of(counters: &Counters) -> Self {
        let all = counters.inferences();
        Self { all, good: all.saturating_sub(counters.errors()) }
    }

    fn write(self, bits: &mut Writer<'_>, sum: u32) -> Option<u32> {
        match sum {
            _ if sum == self.all => bits.bits(0, 1)?,
            _ if sum == self.good => bits.bits(0b10, 2)?,
            _ => {
                bits.bits(0b11, 2)?;
                bits.golomb(sum, TOTAL)?;
            }
        }
        Some(sum)
    }

    fn read(self, bits: &mut Reader<'_>) -> Option<u32> {
        if bits.bits(1)? == 0 {
            return Some(self.all);
        }
        if bits.bits(1)? == 0 {
            return Some(self.good).filter(|good| *good != self.all);
        }
        bits.golomb(TOTAL).filter(|sum| *sum != self.all && *sum != self.good && *sum <= MOST)
    }
}

/// Rounded counts after their sum; nothing after a sum of 0.
fn codes(
    bits: &mut Writer<'_>,
    usual: Usual,
    counts: &[u32],
    width: u32,
    before: impl FnOnce(&mut Writer<'_>) -> Option<()>,
) -> Option<()> {
    let sum = usual.write(bits, total(counts))?;
    if sum == 0 {
        return Some(());
    }
    before(bits)?;
    counts.iter().try_for_each(|count| bits.bits(round_count(*count, sum, width), width))
}

fn read_codes(bits: &mut Reader<'_>, sum: u32, counts: &mut [u32], width: u32) -> Option<()> {
    for count in counts.iter_mut() {
        *count = bits.bits(width)?;
    }
    unround_counts(counts, sum, width);
    (total(counts) == sum).then_some(())
}

impl<'b, const C: usize, const F: usize> Report<'b, C, F> {
    /// Reads a report.
    ///
    /// # Errors
    /// When the bytes are none. A layout that is not known is no error.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let schema = *bytes.first_chunk::<2>().ok_or(DecodeError::Malformed)?;
        let Some(profile) = Profile::ALL.into_iter().find(|p| p.schema() == schema) else {
            return Ok(Self::Unknown { schema, bytes });
        };
        let window = match profile {
            Profile::Heartbeat => heartbeat(bytes),
            Profile::Mini => mini(bytes),
            Profile::Full => full(bytes),
        }?;
        Ok(Self::Known(profile, window))
    }
}

/// Reads a full report. Whoever reads no others, such as a device its own, needs no arithmetic of rounded counts.
pub(crate) fn decode_full<const C: usize, const F: usize>(bytes: &[u8]) -> Result<Window<C, F>, DecodeError> {
    if bytes.first_chunk() == Some(&Profile::Full.schema()) { full(bytes) } else { Err(DecodeError::Malformed) }
}

fn short_head(model: [u8; 2], flags: u8) -> Head {
    Head {
        model: u16::from_be_bytes(model),
        arm: Arm::from_bits(flags),
        boot: u32::from(flags) >> BOOT_SHIFT,
        complete: flags & COMPLETE != 0,
        ..Head::default()
    }
}

fn span(bits: &mut Reader<'_>, seq: u32) -> Option<u32> {
    bits.golomb(0)?.checked_add(1).filter(|span| *span <= seq.saturating_add(1))
}

fn heartbeat<const C: usize, const F: usize>(bytes: &[u8]) -> Result<Window<C, F>, DecodeError> {
    let (head, rest): (BeatHead, _) = postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)?;
    let read = || {
        let mut bits = Reader::new(rest);
        let mut into = short_head(head.model, head.flags);
        into.seq = bits.golomb(SEQ)?;
        into.span = span(&mut bits, into.seq)?;
        into.seconds = unround_seconds(bits.bits(6)?);
        let mut window = Window::new(into, crate::latency::FIRST, 0, 0);
        window.exact = false;
        window.counters.set(Counter::Inferences, bits.golomb(INFERENCES)?);
        let counters = [Counter::OtherErrors, Counter::DeadlineMisses, Counter::Stuck];
        for (counter, k) in counters.into_iter().zip(SMALL) {
            window.counters.set(counter, bits.golomb(k)?);
        }
        window.counters.set(Counter::Alarms, u32::from(head.flags & ALARM != 0));
        bits.ends().then_some(window)
    };
    read().ok_or(DecodeError::Malformed)
}

fn mini<const C: usize, const F: usize>(bytes: &[u8]) -> Result<Window<C, F>, DecodeError> {
    let (head, rest): (MiniHead, _) = postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)?;
    if usize::from(head.classes) > C {
        return Err(DecodeError::Room);
    }
    let read = || {
        let mut bits = Reader::new(rest);
        let mut into = short_head(head.model, head.flags);
        (into.seq, into.seconds) = (head.seq, head.seconds);
        into.span = span(&mut bits, into.seq)?;
        let mut window = Window::new(into, crate::latency::FIRST, head.classes, 0);
        window.exact = false;
        window.counters.set(Counter::Inferences, bits.golomb(INFERENCES).filter(|n| *n <= MOST)?);
        let sums = [
            Counter::OtherErrors,
            Counter::DeadlineMisses,
            Counter::Stuck,
            Counter::Guardrails,
            Counter::Flips,
            Counter::Alarms,
            Counter::ShadowRuns,
            Counter::ShadowDisagreements,
            Counter::CacheHits,
            Counter::Resets,
            Counter::Dropped,
            Counter::Energy,
            Counter::ArenaPeak,
        ];
        for counter in sums {
            if bits.bits(1)? == 1 {
                window.counters.set(counter, Some(unround(bits.bits(ROUNDED)?)).filter(|n| *n > 0)?);
            }
        }
        let usual = Usual::of(&window.counters);
        let sum = usual.read(&mut bits)?;
        if sum > 0 {
            window.latency_first = bits.bits(7)? as u8;
            let (first, len) = (bits.bits(7)? as usize, bits.bits(7)? as usize);
            let live = window.latency.get_mut(first..)?.get_mut(..len)?;
            read_codes(&mut bits, sum, live, MINI_LATENCY)?;
        }
        let classes = window.classes.get_mut(..usize::from(head.classes))?;
        let lists: [(&mut [u32], u32); 3] =
            [(&mut window.confidence, MINI_BINS), (classes, MINI_BINS), (&mut window.distances, MINI_DISTANCES)];
        for (counts, width) in lists {
            let sum = usual.read(&mut bits)?;
            if sum > 0 {
                read_codes(&mut bits, sum, counts, width)?;
            }
        }
        let embeddings = i64::from(total(&window.distances));
        if embeddings > 0 {
            for sum in &mut window.axes {
                let mean = i64::from(bits.bits(MINI_AXIS)?) - (1i64 << (MINI_AXIS - 1));
                *sum = mean * embeddings * i64::from(AXIS_ONE / MINI_AXIS_ONE);
            }
        }
        bits.ends().then_some(window)
    };
    read().ok_or(DecodeError::Malformed)
}

fn full<const C: usize, const F: usize>(bytes: &[u8]) -> Result<Window<C, F>, DecodeError> {
    let (head, rest): (FullHead, _) = postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)?;
    if usize::from(head.classes) > C || usize::from(head.features) > F {
        return Err(DecodeError::Room);
    }
    let read = || {
        let mut bits = Reader::new(rest);
        let mut into = short_head(head.model, head.flags & (ALARM | COMPLETE | 3));
        (into.boot, into.seq, into.seconds) = (head.boot, head.seq, head.seconds);
        into.span = span(&mut bits, into.seq)?;
        let mut window = Window::new(into, head.latency_first, head.classes, head.features);
        for counter in Counter::ALL {
            if bits.bits(1)? == 1 {
                let value = bits.golomb(order(counter))?.checked_add(1).filter(|v| *v <= MOST)?;
                window.counters.set(counter, value);
            }
        }
        // What is said twice is said alike.
        if head.flags != window.flags() {
            return None;
        }
        let usual = Usual::of(&window.counters);
        let sum = usual.read(&mut bits)?;
        if sum > 0 {
            let (first, len) = (bits.bits(7)? as usize, bits.bits(7)? as usize);
            let counts = window.latency.get_mut(first..)?.get_mut(..len).filter(|c| !c.is_empty())?;
            read_counts(&mut bits, counts, sum)?;
            if live(&window.latency).0 != first || live(&window.latency).1.len() != len {
                return None;
            }
        }
        let classes = window.classes.get_mut(..usize::from(head.classes))?;
        let features = window.features.get_mut(..usize::from(head.features))?;
        let lists: [&mut [u32]; 3] = [&mut window.confidence, classes, &mut window.distances];
        for counts in lists.into_iter().chain(features.iter_mut().map(|f| &mut f[..])) {
            let sum = usual.read(&mut bits)?;
            if counts.is_empty() && sum > 0 {
                return None;
            }
            read_counts(&mut bits, counts, sum)?;
        }
        if window.embeddings() > 0 {
            let width = bits.bits(7).filter(|w| *w <= 64)?;
            for sum in &mut window.axes {
                let high = u64::from(bits.bits(width.saturating_sub(32))?);
                let zigzag = high << 32 | u64::from(bits.bits(width.min(32))?);
                *sum = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            }
        }
        bits.ends().then_some(window)
    };
    read().ok_or(DecodeError::Malformed)
}

const _: () = assert!(BUCKETS < 128 && BINS == 10 && DISTANCES == 8 && AXES == 8);

#[cfg(test)]
mod tests;
