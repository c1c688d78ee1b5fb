//! Updates of a board whose power is cut at random moments, and what must hold after each cut.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dunlin_mcu::message::{Part, Refusal, Want};
use dunlin_update::{Outcome, Phase, Rejection, Reversal};

use super::goods::{Goods, Pack, Publication};
use super::{Bench, Board, Seen, State};

/// How an update ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A difference to a good package.
    Delta,
    /// A good package, whole.
    Whole,
    /// A golden vector fails.
    Spoiled,
    /// Golden vectors hold, and it reads real images wrongly.
    Bad,
}

/// Every story.
pub const STORIES: [Story; 4] = [Story::Delta, Story::Spoiled, Story::Whole, Story::Bad];

impl Story {
    fn pack(self, goods: &Goods) -> &Pack {
        match self {
            Self::Delta | Self::Whole => &goods.new,
            Self::Spoiled => &goods.spoiled,
            Self::Bad => &goods.bad,
        }
    }

    /// What the server has for it.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn publish(self, goods: &Goods) -> Result<Publication, String> {
        let base = (self != Self::Whole).then_some(&goods.old);
        goods.publish(self.pack(goods), base, 2)
    }

    /// How it ends, and with what running.
    #[must_use]
    pub fn end(self, goods: &Goods) -> (Outcome, [u8; 32]) {
        match self {
            Self::Delta | Self::Whole => (Outcome::Confirmed, goods.new.digest),
            Self::Spoiled => (Outcome::Reverted(Reversal::Golden), goods.old.digest),
            Self::Bad => (Outcome::Reverted(Reversal::Errors), goods.old.digest),
        }
    }
}

/// What a life of the board was.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Messages that came.
    pub messages: u32,
    /// The first byte of the stream that it asked for, if any.
    pub first: Option<u32>,
    /// What it said last.
    pub place: &'static str,
    /// Phases that it told.
    pub phases: Vec<Phase>,
    /// Packages that ran, one after the other.
    pub ran: Vec<[u8; 32]>,
}

/// Lets a board live until its update has ended as the story says and it has run the right package, or its power goes:
/// `true` for an end. All that it says is checked.
///
/// # Errors
/// What did not hold.
pub fn live(
    board: &mut Board,
    goods: &Goods,
    story: Story,
    published: &Publication,
    cut: Option<(u32, Duration)>,
) -> Result<(bool, Life), String> {
    let new = story.pack(goods).digest;
    let (outcome, digest) = story.end(goods);
    let mut life = Life { place: "start", ..Life::default() };
    let mut ended = false;
    if let Some((0, delay)) = cut {
        board.cut_after(delay);
    }
    while let Some(seen) = board.serve(Some(published))? {
        life.messages += 1;
        if let Some((at, delay)) = cut
            && at == life.messages
        {
            board.cut_after(delay);
        }
        match seen {
            Seen::CheckIn(State { running, phase, last, .. }) => {
                life.phases.push(phase);
                life.place = if phase == Phase::Trial { "trial" } else { "check-in" };
                let running = running.ok_or("nothing runs")?;
                if running != goods.old.digest && running != new {
                    return Err("what runs is neither the old package nor the new one".into());
                }
                if phase == Phase::Idle && last.is_some() {
                    if last != Some(outcome) || running != digest {
                        return Err(format!("{story:?} ended as {last:?}"));
                    }
                    (ended, life.place) = (true, "end");
                }
            }
            Seen::Want(Want { part: Part::Stream, offset, .. }) => {
                life.place = "stream";
                life.first = life.first.or(Some(offset));
            }
            Seen::Want(_) => life.place = "documents",
            Seen::Report { .. } => life.place = "reports",
            // It is offered what it has taken back, and knows better.
            Seen::Refused(Refusal::Unsuitable(Rejection::Tombstone)) if ended && digest == goods.old.digest => {}
            Seen::Refused(reason) => return Err(format!("{story:?} was refused: {reason:?}")),
            Seen::Ran { digest: ran, input, output } => {
                let pack = goods.find(&ran).ok_or("a package ran that nobody made")?;
                if pack.outputs.get(input as usize) != Some(&output) {
                    return Err(format!("image {input} gave other bits than on the host"));
                }
                if story == Story::Spoiled && ran == new {
                    return Err("a package ran whose golden vectors fail".into());
                }
                if life.ran.last() != Some(&ran) {
                    life.ran.push(ran);
                }
                if ended && ran == digest {
                    return Ok((true, life));
                }
                if ran == new {
                    life.place = "trial";
                }
            }
        }
    }
    Ok((false, life))
}

/// What was seen over many cuts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Times that the power was cut.
    pub cuts: u32,
    /// Updates that ended as they should.
    pub ends: u32,
    /// Lives that went on with a download.
    pub resumed: u32,
    /// Those of them that did not begin at the first byte.
    pub resumed_later: u32,
    /// What the device was doing, by the last that it said.
    pub places: BTreeMap<&'static str, u32>,
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % end.max(1)
    }
}

/// Cuts the power of a board `cuts` times while it updates, story after story, and lets every update end.
///
/// A cut comes after a random number of messages and a random time of up to 25 ms after it; or, one in six, at a random
/// time of up to 0.4 s after the start.
///
/// # Errors
/// What did not hold, with the seed.
pub fn endure(elf: &Path, goods: &Goods, name: &str, seed: u64, cuts: u32) -> Result<Tally, String> {
    let mut random = Random(seed | 1);
    let mut tally = Tally::default();
    let device = goods.device()?;
    for story in STORIES.into_iter().cycle() {
        if tally.cuts >= cuts {
            return Ok(tally);
        }
        let published = story.publish(goods)?;
        let bench = Bench::new(name, &device)?;
        let told = |error: String| format!("seed {seed}, {story:?}: {error}");
        // An update is as long as its stream, a few documents and a trial; what is beyond its end cuts nothing.
        let expected = 40 + published.stream.len() as u64 / 256;
        let mut interrupted = false;
        loop {
            let mut board = Board::start(elf, &bench.0).map_err(told)?;
            let cut = (tally.cuts < cuts).then(|| match random.below(6) {
                0 => (0, Duration::from_micros(random.below(400_000))),
                _ => (1 + random.below(expected) as u32, Duration::from_micros(random.below(25_000))),
            });
            let (ended, life) = live(&mut board, goods, story, &published, cut).map_err(told)?;
            if interrupted && let Some(first) = life.first {
                tally.resumed += 1;
                tally.resumed_later += u32::from(first > 0);
            }
            interrupted |= life.first.is_some();
            if ended {
                tally.ends += 1;
                break;
            }
            if cut.is_none() {
                return Err(format!("seed {seed}, {story:?}: the board stopped by itself"));
            }
            tally.cuts += 1;
            *tally.places.entry(life.place).or_default() += 1;
        }
    }
    Ok(tally)
}
