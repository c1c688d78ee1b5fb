//! Cuts the power at every step of every story on every chip, then twice and more at random; prints what was tried.
//!
//! `power_loss [--two N] [--stride N] [--report FILE]`: `--two` schedules of two or three cuts (1,000,000), every
//! `--stride`th single cut (1: all of them).

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dunlin_tests::power_loss::{Count, STORIES, Story, World, packs};
use dunlin_update::sim::CHIPS;

/// What is counted over all threads.
#[derive(Default)]
struct Tally {
    single: AtomicU64,
    multiple: AtomicU64,
    recoveries: AtomicU64,
    rotten: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Schedules that one thread takes at a time.
const BATCH: u64 = 2000;

fn xorshift(state: &mut u64, n: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % n.max(1)
}

fn argument(name: &str) -> Option<String> {
    let mut all = std::env::args().skip_while(|a| a != name);
    all.next().and(all.next())
}

fn main() {
    let number = |name: &str, none: u64| argument(name).map_or(none, |n| n.parse().expect("a number"));
    let (two, stride) = (number("--two", 1_000_000), number("--stride", 1).max(1));
    // A unit of work: a story on a chip, and either all its single cuts or a batch of random ones.
    let pairs: Vec<(usize, usize)> = (0..STORIES.len()).flat_map(|s| (0..CHIPS.len()).map(move |c| (s, c))).collect();
    let batches = two.div_ceil(BATCH) as usize;
    let next = AtomicUsize::new(0);
    let tally = Tally::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let unit = next.fetch_add(1, Ordering::Relaxed);
                    if unit >= pairs.len() + batches {
                        return;
                    }
                    let single = unit < pairs.len();
                    let (story, chip) = pairs[unit % pairs.len()];
                    work(single, unit as u64, story, chip, stride, &tally);
                }
            });
        }
    });
    let failures = tally.failures.into_inner().unwrap_or_default();
    let [single, multiple, recoveries, rotten] =
        [&tally.single, &tally.multiple, &tally.recoveries, &tally.rotten].map(|n| n.load(Ordering::Relaxed));
    let line = |figure: &str, value: u64, better: &str, target: &str| {
        format!(
            "{{\"figure\":\"power_loss/{figure}\",\"value\":{value},\"unit\":\"count\",\"better\":\"{better}\",\"target\":{target},\"peer\":null,\"ratio\":null}}"
        )
    };
    let lines = [
        line("single_cut_schedules", single, "higher", "null"),
        line("multiple_cut_schedules", multiple, "higher", "1000000"),
        line("recoveries", recoveries, "higher", "null"),
        line("bit_rot_schedules", rotten, "higher", "null"),
        line("geometries", CHIPS.len() as u64, "higher", "8"),
        line("stories", STORIES.len() as u64, "higher", "null"),
        line("failures", failures.len() as u64, "lower", "0"),
    ];
    lines.iter().for_each(|l| println!("{l}"));
    failures.iter().take(20).for_each(|f| eprintln!("{f}"));
    if let Some(path) = argument("--report") {
        let mut file = std::fs::File::create(&path).expect("the report can be written");
        for chip in CHIPS {
            writeln!(file, "{chip:?}").expect("the report can be written");
        }
        lines.iter().chain(&failures).for_each(|l| writeln!(file, "{l}").expect("the report can be written"));
    }
    assert!(failures.is_empty(), "{} schedules failed", failures.len());
}

fn work(single: bool, unit: u64, story: usize, chip: usize, stride: u64, tally: &Tally) {
    let mut random = (unit + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (story, chip) = (STORIES[story], CHIPS[chip]);
    let (packs, bad) = packs(unit as usize).expect("the models compile");
    let chunk = 64 + xorshift(&mut random, 700) as usize;
    let world = World::new(story, packs, bad, chunk, xorshift(&mut random, u64::MAX));
    let factory = world.factory(chip);
    let mut count = Count::default();
    let mut failures = Vec::new();
    let mut play = |cuts: &[(u64, u64)]| {
        world.play(&factory, cuts, &mut count).unwrap_or_else(|e| {
            failures.push(format!("{story:?}, {}, cuts {cuts:?}, unit {unit}: {e}", chip.name));
            0
        })
    };
    let steps = play(&[]);
    let tried = if single {
        let mut at = 0;
        while at < steps {
            play(&[(at, xorshift(&mut random, u64::MAX))]);
            at += stride;
        }
        &tally.single
    } else {
        for _ in 0..BATCH {
            let mut cut = |n: u64| (xorshift(&mut random, n), xorshift(&mut random, u64::MAX));
            // The second falls soon after the first start, where recovery is, half of the time.
            let soon = if cut(2).0 == 0 { 4000 } else { steps };
            let cuts = [cut(steps), cut(soon), cut(4000)];
            play(&cuts[..2 + usize::from(cut(4).0 == 0)]);
        }
        &tally.multiple
    };
    tried.fetch_add(count.schedules - 1, Ordering::Relaxed);
    if !single && story == Story::Twice {
        for _ in 0..BATCH / 10 {
            let seed = xorshift(&mut random, u64::MAX);
            if let Err(e) = world.rot(&factory, seed) {
                failures.push(format!("{story:?}, {}, rot {seed}, unit {unit}: {e}", chip.name));
            }
            tally.rotten.fetch_add(1, Ordering::Relaxed);
        }
    }
    tally.recoveries.fetch_add(count.recoveries, Ordering::Relaxed);
    if let Ok(mut all) = tally.failures.lock() {
        all.extend(failures);
    }
}
