//! Many members on a few threads: each thread has members of its own and does what is due, in the order in which it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::tally::Tally;

/// How often threads say what they have counted.
const TELL: Duration = Duration::from_millis(200);

/// One of a flock.
pub trait Member: Send {
    /// Does what is due `now` and says when there is something to do again. Microseconds of the flock's time.
    fn turn(&mut self, now: u64, pace: &Pace, tally: &mut Tally) -> u64;

    /// Digest of what it runs.
    fn running(&self) -> Option<[u8; 32]>;
}

struct Slice<M> {
    members: Vec<M>,
    due: BinaryHeap<Reverse<(u64, usize)>>,
}

/// Members and what they have to do.
pub struct Flock<M> {
    slices: Vec<Slice<M>>,
    tally: Mutex<Tally>,
}

impl<M: Member> Flock<M> {
    /// So many members on so many threads. `make` gives one by its number, with the moment at which it has something to do
    /// first; keys take their time, so each thread makes its own.
    #[must_use]
    pub fn new(members: u32, threads: usize, make: impl Fn(u32) -> (u64, M) + Sync) -> Self {
        let (threads, make) = (u32::try_from(threads).unwrap_or(u32::MAX).max(1), &make);
        let slice = |thread: u32| {
            let mut slice = Slice { members: Vec::new(), due: BinaryHeap::new() };
            for n in (thread..members).step_by(threads as usize) {
                let (first, member) = make(n);
                slice.due.push(Reverse((first, slice.members.len())));
                slice.members.push(member);
            }
            slice
        };
        let slices = std::thread::scope(|scope| {
            let made: Vec<_> = (0..threads).map(|thread| scope.spawn(move || slice(thread))).collect();
            // Who panicked has said so.
            made.into_iter().filter_map(|m| m.join().ok()).collect()
        });
        Self { slices, tally: Mutex::default() }
    }

    /// Does everything that is due until a moment, that included, or until the pace is stopped.
    pub fn run(&mut self, pace: &Pace, until: u64) {
        let tally = &self.tally;
        std::thread::scope(|scope| {
            for slice in &mut self.slices {
                scope.spawn(move || slice.run(pace, until, tally));
            }
        });
    }

    /// What was counted until now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs, and gives a look at the counts from time to time on this thread.
    pub fn run_and_show(&mut self, pace: &Pace, until: u64, every: Duration, mut show: impl FnMut(&Tally)) {
        let tally = &self.tally;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.slices.iter_mut().map(|slice| scope.spawn(move || slice.run(pace, until, tally))).collect();
            while threads.iter().any(|t| !t.is_finished()) {
                std::thread::sleep(every);
                let now = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
                show(&now);
            }
        });
    }

    /// The members, in no particular order.
    pub fn members(&self) -> impl Iterator<Item = &M> {
        self.slices.iter().flat_map(|s| &s.members)
    }
}

impl<M: Member> Slice<M> {
    fn run(&mut self, pace: &Pace, until: u64, all: &Mutex<Tally>) {
        let mut tally = Tally::default();
        let mut told = Instant::now();
        while let Some(Reverse((due, n))) = self.due.peek().copied() {
            if due > until || !pace.wait(due) {
                break;
            }
            self.due.pop();
            if let Some(member) = self.members.get_mut(n) {
                // Where time is told, each has the time at which it is its turn.
                pace.tell(due);
                let now = pace.now();
                let next = member.turn(now, pace, &mut tally).max(now + 1);
                self.due.push(Reverse((next, n)));
            }
            if told.elapsed() > TELL {
                all.lock().unwrap_or_else(PoisonError::into_inner).add(&std::mem::take(&mut tally));
                told = Instant::now();
            }
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_fleet::SystemClock;

    use super::*;

    struct Every(u64, Vec<u64>);

    impl Member for Every {
        fn turn(&mut self, now: u64, _: &Pace, tally: &mut Tally) -> u64 {
            self.1.push(now);
            tally.polls += 1;
            now + self.0
        }

        fn running(&self) -> Option<[u8; 32]> {
            None
        }
    }

    #[test]
    fn everybody_gets_their_turns_in_time() {
        let pace = Pace::told(Arc::new(SystemClock));
        let mut flock = Flock::new(10, 3, |n| (u64::from(n) + 1, Every(10 * (u64::from(n) + 1), Vec::new())));
        flock.run(&pace, 100);
        flock.run(&pace, 200);
        let mut turns = 0;
        for Every(every, at) in flock.members() {
            let first = every / 10;
            let wanted: Vec<u64> = (0..).map(|k| first + k * every).take_while(|t| *t <= 200).collect();
            assert_eq!(*at, wanted, "every {every}");
            turns += at.len();
        }
        assert_eq!(flock.tally().polls, turns as u64);
    }
}
