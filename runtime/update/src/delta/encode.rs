//! The encoder: tries every operation on every tensor and keeps the shortest.

mod regions;

use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;

use super::coder::Encoder;
use super::model::{Command, Models, Operation, UNITY, scaled};
use super::{Applier, Base, Header, MAX_BLOCK, Sink, StorageFault};
use regions::{Content, Place};

/// What a patch may look like.
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    /// Bytes of the result in a block, at most [`MAX_BLOCK`]. Smaller blocks are larger patches, and less is decoded
    /// again after a cut.
    pub block: u32,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { block: MAX_BLOCK }
    }
}

/// Why there is no patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The bytes that should be a package are none.
    Package {
        /// `base` or `target`.
        which: &'static str,
        /// What is wrong.
        error: dunlin_package::OpenError,
    },
    /// It is larger than a package can be.
    TooLarge,
    /// The patch does not give the target: a fault of the encoder.
    Fault,
}

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package { which, error } => write!(f, "the {which} is no package: {error}"),
            Self::TooLarge => f.write_str("the package is too large"),
            Self::Fault => f.write_str("the patch does not give the target back; please report it"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// What became of one part of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// A tensor's or a section's name.
    pub name: String,
    /// The operation that gives most of it.
    pub operation: &'static str,
    /// Bytes of it in the package.
    pub bytes: usize,
    /// Bytes of it in the patch, about.
    pub patch_bytes: usize,
}

/// A patch.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its bytes.
    pub patch: Vec<u8>,
    /// What they are of.
    pub regions: Vec<Region>,
}

/// A command with what it codes.
#[derive(Clone, Debug)]
struct Step {
    command: Command,
    /// Offset in the target.
    at: usize,
    factors: Vec<i32>,
}

/// Makes a patch from `base`, or from nothing, to `target`, both whole packages. It is decoded once before it is given.
///
/// # Errors
/// When one of them is no package.
pub fn encode(base: Option<&[u8]>, target: &[u8], options: &EncodeOptions) -> Result<Encoded, EncodeError> {
    let of = |which, bytes: &[u8]| {
        dunlin_package::compute_digest(bytes).map_err(|error| EncodeError::Package { which, error })
    };
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| EncodeError::TooLarge);
    let header = Header {
        base: base.map_or(Ok([0; 32]), |b| of("base", b))?,
        target: of("target", target)?,
        base_len: base.map_or(Ok(0), len)?,
        target_len: len(target)?,
    };
    let base = base.unwrap_or(&[]);
    let places = regions::places(base, target).map_err(|(which, error)| EncodeError::Package { which, error })?;
    let matches = Matches::new(base);
    let limit = options.block.clamp(1024, MAX_BLOCK) as usize;
    let mut patch = header.bytes().to_vec();
    let mut regions: Vec<Region> = Vec::new();
    let mut places = places.into_iter().flat_map(|p| p.parts(limit)).peekable();
    while let Some(first) = places.peek() {
        let start = first.at;
        let mut state = State::new(start);
        let mut end = start;
        while let Some(place) = places.next_if(|p| p.at + p.len - start <= limit) {
            let before = state.coder.len();
            let steps = best(&state, base, target, &place, &matches);
            for step in &steps {
                state.step(base, target, step);
            }
            end = place.at + place.len;
            let main = steps.iter().max_by_key(|s| s.command.len).map_or("", |s| s.command.operation.name());
            let patch_bytes = state.coder.len() - before;
            match regions.last_mut().filter(|r| r.name == place.name) {
                Some(region) => {
                    region.bytes += place.len;
                    region.patch_bytes += patch_bytes;
                }
                None => regions.push(Region { name: place.name, operation: main, bytes: place.len, patch_bytes }),
            }
        }
        state.flush();
        let payload = state.coder.finish();
        patch.extend(((end - start) as u32).to_le_bytes());
        patch.extend((payload.len() as u32).to_le_bytes());
        patch.extend(payload);
    }
    if decoded(base, &patch).as_deref() != Some(target) {
        return Err(EncodeError::Fault);
    }
    Ok(Encoded { patch, regions })
}

/// What a patch gives.
fn decoded(base: &[u8], patch: &[u8]) -> Option<Vec<u8>> {
    struct Memory<'a>(&'a [u8]);
    impl Base for Memory<'_> {
        fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
            let from = self.0.get(offset as usize..).and_then(|b| b.get(..into.len())).ok_or(StorageFault)?;
            into.copy_from_slice(from);
            Ok(())
        }
    }
    struct Grown(Vec<u8>);
    impl Sink for Grown {
        fn write(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
            self.0.extend(bytes);
            Ok(())
        }
    }
    let (mut applier, mut grown) = (Applier::new(), Grown(Vec::new()));
    applier.push(patch, &mut Memory(base), &mut grown).ok()?;
    applier.is_complete().then_some(grown.0)
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Difference => "difference",
            Self::Scaled => "scaled difference",
            Self::Words => "word difference",
            Self::Weights => "weights",
            Self::Bytes => "bytes",
            Self::NewWords => "words",
            Self::Digest => "digest",
        }
    }
}

#[derive(Clone)]
struct State {
    models: Models,
    coder: Encoder,
    /// Where the last command ended in the base.
    expected: u32,
    /// A copy that may grow.
    copy: Option<Command>,
}

impl State {
    fn new(start: usize) -> Self {
        Self { models: Models::new(), coder: Encoder::new(), expected: start as u32, copy: None }
    }

    /// Codes the copy that waits.
    fn flush(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.models.command(&mut self.coder, self.expected, &copy);
            self.expected = copy.base + copy.len;
        }
    }

    fn step(&mut self, base: &[u8], target: &[u8], step: &Step) {
        let command = step.command;
        let Command { operation, len, base: from, run } = command;
        if operation == Operation::Copy {
            match &mut self.copy {
                Some(copy) if copy.base + copy.len == from => copy.len += len,
                _ => {
                    self.flush();
                    self.copy = Some(command);
                }
            }
            return;
        }
        self.flush();
        self.models.command(&mut self.coder, self.expected, &command);
        let new = &target[step.at..step.at + len as usize];
        let old = if operation.reads_base() { &base[from as usize..(from + len) as usize] } else { &[][..] };
        if operation.is_words() {
            let mut before = 0;
            for (i, word) in new.chunks_exact(4).enumerate() {
                let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                let expected = if old.is_empty() { before } else { number(&old[4 * i..]) };
                before = self.models.word(&mut self.coder, expected, number(word));
            }
        } else if operation != Operation::Digest {
            let mut factor = UNITY;
            for (at, &value) in new.iter().enumerate() {
                let mut known = old.get(at).copied().unwrap_or(0);
                if operation == Operation::Scaled {
                    if at.is_multiple_of(run as usize) {
                        factor = self.models.factor(&mut self.coder, step.factors[at / run as usize]);
                    }
                    known = scaled(known, factor);
                }
                self.models.byte(&mut self.coder, operation, known, value);
            }
        }
        self.expected = if operation.reads_base() { from + len } else { self.expected.saturating_add(len) };
    }

    /// Bytes that steps would take, in 1/256.
    fn cost(&self, base: &[u8], target: &[u8], steps: &[Step]) -> usize {
        let mut trial = Self { coder: Encoder::new(), ..self.clone() };
        steps.iter().for_each(|s| trial.step(base, target, s));
        trial.flush();
        trial.coder.size()
    }
}

/// The shortest of the ways to give a region.
fn best(state: &State, base: &[u8], target: &[u8], place: &Place, matches: &Matches) -> Vec<Step> {
    let new = &target[place.at..place.at + place.len];
    let command = |operation, at: usize, len: usize, from: usize| Step {
        command: Command { operation, len: len as u32, base: from as u32, run: 1 },
        at,
        factors: Vec::new(),
    };
    let singles = |at: usize, len: usize, counterpart: Option<usize>| {
        let mut ways = Vec::new();
        let words = len.is_multiple_of(4);
        if let Some(from) = counterpart.filter(|&from| from + len <= base.len()) {
            if base[from..from + len] == target[at..at + len] {
                ways.push(vec![command(Operation::Copy, at, len, from)]);
            }
            ways.push(vec![command(Operation::Difference, at, len, from)]);
            if words {
                ways.push(vec![command(Operation::Words, at, len, from)]);
            }
        }
        if place.content == Content::Signed {
            ways.push(vec![command(Operation::Weights, at, len, 0)]);
        }
        ways.push(vec![command(Operation::Bytes, at, len, 0)]);
        if words && place.content != Content::Signed {
            ways.push(vec![command(Operation::NewWords, at, len, 0)]);
        }
        ways
    };
    let shortest = |state: &State, ways: Vec<Vec<Step>>| {
        ways.into_iter().min_by_key(|way| state.cost(base, target, way)).unwrap_or_default()
    };
    if place.name == regions::DIGEST {
        return vec![command(Operation::Digest, place.at, place.len, 0)];
    }
    let mut ways = singles(place.at, place.len, place.base);
    if let Some(from) = place.base.filter(|_| place.content == Content::Signed) {
        let old = &base[from..from + place.len];
        for grain in [1, 8, 64] {
            let factors = old.chunks(place.run).zip(new.chunks(place.run)).map(|(o, n)| factor(o, n, grain)).collect();
            let run = place.run as u32;
            let command = Command { operation: Operation::Scaled, len: place.len as u32, base: from as u32, run };
            ways.push(vec![Step { command, at: place.at, factors }]);
        }
    }
    if place.content == Content::Any {
        // What the base has anywhere is copied, the rest given by the shortest way.
        let mut steps: Vec<Step> = Vec::new();
        let mut trial = state.clone();
        let mut push = |trial: &mut State, way: Vec<Step>| {
            way.iter().for_each(|s| trial.step(base, target, s));
            steps.extend(way);
        };
        let (mut at, end, mut gap) = (place.at, place.at + place.len, place.at);
        // What follows a copy in the base is the likely counterpart of what follows it in the target.
        let mut shift = place.base.map(|b| b as isize - place.at as isize);
        while at < end {
            let expected = shift.and_then(|s| usize::try_from(at as isize + s).ok());
            match matches.longest(base, &target[at..end], expected) {
                Some((from, len)) => {
                    if gap < at {
                        let beside = shift.and_then(|s| usize::try_from(gap as isize + s).ok());
                        let way = shortest(&trial, singles(gap, at - gap, beside));
                        push(&mut trial, way);
                    }
                    push(&mut trial, vec![command(Operation::Copy, at, len, from)]);
                    shift = Some(from as isize - at as isize);
                    at += len;
                    gap = at;
                }
                None => at += 1,
            }
        }
        if gap < end {
            let beside = shift.and_then(|s| usize::try_from(gap as isize + s).ok());
            let way = shortest(&trial, singles(gap, end - gap, beside));
            push(&mut trial, way);
        }
        ways.push(steps);
    }
    shortest(state, ways)
}

/// The factor that brings old bytes nearest to new ones, in steps of `grain`.
fn factor(old: &[u8], new: &[u8], grain: i32) -> i32 {
    let (mut both, mut own) = (0i64, 0i64);
    for (o, n) in old.iter().zip(new) {
        let (o, n) = (i64::from(o.cast_signed()), i64::from(n.cast_signed()));
        // A byte at its limit may have stood for more.
        if n.abs() < 127 {
            both += o * n;
            own += o * o;
        }
    }
    if own == 0 {
        return UNITY;
    }
    let exact = (both as f64 / own as f64 * f64::from(UNITY)).round().clamp(-16_000.0, 16_000.0) as i32;
    (exact + grain / 2).div_euclid(grain) * grain
}

/// Where in the base every eight bytes are found.
struct Matches {
    places: HashMap<[u8; 8], Vec<u32>>,
}

/// Copies shorter than this are not worth a command.
const SHORTEST: usize = 12;
/// Places that are tried for each eight bytes.
const TRIED: usize = 32;

impl Matches {
    fn new(base: &[u8]) -> Self {
        let mut places: HashMap<[u8; 8], Vec<u32>> = HashMap::new();
        for (at, window) in base.windows(8).enumerate() {
            let key: [u8; 8] = std::array::from_fn(|i| window[i]);
            let list = places.entry(key).or_default();
            if list.len() < TRIED {
                list.push(at as u32);
            }
        }
        Self { places }
    }

    /// The longest run of the base that `new` begins with; where it is expected, a shorter one will do.
    fn longest(&self, base: &[u8], new: &[u8], expected: Option<usize>) -> Option<(usize, usize)> {
        let run = |from: usize| base[from..].iter().zip(new).take_while(|(a, b)| a == b).count();
        let here = expected.filter(|&e| e < base.len()).map(|e| (e, run(e))).filter(|(_, len)| *len >= SHORTEST / 2);
        let key: [u8; 8] = *new.first_chunk()?;
        let all = self.places.get(&key).into_iter().flatten().map(|&from| (from as usize, run(from as usize)));
        let found = all.max_by_key(|(_, len)| *len).filter(|(_, len)| *len >= SHORTEST);
        match (here, found) {
            (Some(h), Some(f)) if f.1 > h.1 + 8 => Some(f),
            (Some(h), _) => Some(h),
            (None, f) => f,
        }
    }
}
