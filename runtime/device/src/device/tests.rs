use std::cell::{Cell, RefCell};
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use dunlin_engine::{InputError, Session, ops};
use dunlin_kernels::Scalar;
use dunlin_package::op::BinaryKind;
use dunlin_rollout::flag::{Reason, Setting};
use dunlin_rollout::{Manner, Value};
use dunlin_update::delta::Applier;
use dunlin_update::record::prefix;
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::Ed25519;
use dunlin_update::{Outcome, Phase, Rejection, Reversal, StartCause, Verdict};

mod beside;
mod schedules;
mod trial_end;

use super::*;
use crate::fixtures::{Pack, Publication, Server, Sums, flag, flags, profile, root, signed};
use crate::message::{self, Part, Untrusted};
use crate::slots::Copied;
use crate::task::{Inferred, RunError, Task};

type Slotted<'m> = Copied<'m, &'m mut Flash>;
type Tested<'m> = Device<'m, Slotted<'m>, Ed25519, Scalar>;

const SECOND: u64 = 1_000_000;

/// Sees a number of fours; keeps what it read.
struct Eye {
    sees: [f32; 4],
    read: Option<[f32; 4]>,
    usable: bool,
}

impl Eye {
    fn new() -> Self {
        Self { sees: [0.0; 4], read: None, usable: true }
    }
}

impl Task<Scalar> for Eye {
    fn fill(&mut self, session: &mut Session<'_, '_, Scalar>) -> Result<(), InputError> {
        session.input(0).copy_from_slice(&self.sees)
    }

    fn read(&mut self, session: &Session<'_, '_, Scalar>) -> bool {
        self.read = session.output(0).as_slice::<f32>().and_then(|v| v.try_into().ok());
        self.usable
    }
}

fn config(boot: u32) -> Config<'static> {
    Config {
        attributes: &[("board", Value::Text("m4"))],
        boot,
        chunk: 200,
        reply: SECOND,
        interval: 10 * SECOND,
        most: 100 * SECOND,
        window: 60 * SECOND,
        ..Config::new(b"device", "sums")
    }
}

/// What outlives a restart, and the clock.
struct World {
    flash: Flash,
    factory: Pack,
    server: Server,
    now: Cell<u64>,
    /// Microseconds of an inference.
    takes: Cell<u64>,
    boot: u32,
}

impl World {
    fn new() -> Self {
        let factory = Sums::GOOD.package("1");
        let mut flash = Flash::new(CHIPS[2], 2, 4096);
        flash.bytes(Area::Slot(0))[..factory.bytes.len()].copy_from_slice(&factory.bytes);
        let server = Server { wait: 5000, ..Server::default() };
        Self { flash, factory, server, now: Cell::new(500), takes: Cell::new(100), boot: 1 }
    }

    /// Starts the device and lives.
    fn live<T>(&mut self, change: impl FnOnce(&mut Config<'static>), life: impl FnOnce(&mut Life<'_, '_>) -> T) -> T {
        self.try_live(change, life).expect("the flash has power")
    }

    /// As `live`, if the power lasts for the start.
    fn try_live<T>(
        &mut self,
        change: impl FnOnce(&mut Config<'static>),
        life: impl FnOnce(&mut Life<'_, '_>) -> T,
    ) -> Option<T> {
        let (mut room, mut arena, mut documents, mut kept) = ([0; 4096], [0; 1024], [0; 1024], [0; 512]);
        let mut decoder = Applier::new();
        let mut config = config(self.boot);
        self.boot += 1;
        change(&mut config);
        let storage = Copied::new(&mut self.flash, &mut room);
        let updater = Updater::open(storage, Ed25519, profile(&self.factory), config.cause, &mut decoder).ok()?;
        let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut kept };
        let device: Tested<'_> = Device::new(updater, ops::all(), Scalar, config, memory);
        let mut run = Life { device, server: &mut self.server, now: &self.now, takes: &self.takes, events: Vec::new() };
        Some(life(&mut run))
    }
}

struct Life<'m, 'w> {
    device: Tested<'m>,
    server: &'w mut Server,
    now: &'w Cell<u64>,
    takes: &'w Cell<u64>,
    events: Vec<Event>,
}

impl Life<'_, '_> {
    fn note(&mut self, event: Event) {
        if event != Event::Quiet {
            self.events.push(event);
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        let event = self.device.receive(self.now.get(), datagram);
        self.note(event);
    }

    fn poll(&mut self) {
        let event = self.device.poll(self.now.get());
        self.note(event);
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        let mut datagram = [0; 512];
        let len = self.device.transmit(self.now.get(), &mut datagram).expect("it fits")?;
        Some(datagram[..len].to_vec())
    }

    /// A server in reach that answers at once, until there is nothing to say.
    fn talk(&mut self) {
        self.poll();
        while let Some(datagram) = self.transmit() {
            if let Some(answer) = self.server.hear(&datagram) {
                self.receive(&answer);
            }
        }
    }

    /// Time goes on to the next moment at which the device has something to do.
    fn sleep(&mut self) {
        self.now.set(self.now.get().max(self.device.wake()));
    }

    fn infer(&mut self, sees: [f32; 4]) -> Result<(Inferred, Option<[f32; 4]>), RunError> {
        let mut eye = Eye { sees, ..Eye::new() };
        let (now, takes) = (self.now, self.takes);
        let clock = || {
            now.set(now.get() + takes.get());
            now.get()
        };
        self.device.infer(clock, &mut eye).map(|inferred| (inferred, eye.read))
    }

    /// Different inputs, one after the other, until a trial has ended.
    fn trial(&mut self, inferences: u32) -> Verdict {
        let mut last = Verdict::None;
        for i in 0..inferences {
            let (inferred, _) = self.infer([i as f32, 1.5, 2.5, 3.5]).expect("it runs");
            last = inferred.verdict;
            if !matches!(last, Verdict::Trial { .. }) {
                break;
            }
        }
        last
    }
}

/// Fetches a candidate up to the start of its trial.
fn fetch(life: &mut Life<'_, '_>) {
    for _ in 0..4 {
        life.talk();
        if life.device.updater.phase() == Phase::Trial {
            return;
        }
        life.sleep();
    }
    panic!("{:?} {:?}", life.device.check_in(), life.events);
}

#[test]
fn a_good_model_is_fetched_tried_and_kept() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    world.server.offer(&better, 2);
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.infer([1.0, 2.0, 3.0, 4.0]).expect("runs").1, Some([1.0, 2.0, 3.0, 4.0]));
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
            assert_eq!(life.infer([1.0, 2.0, 3.0, 4.0]).expect("runs").1, Some([1.5, 2.0, 3.0, 4.0]));
            assert_eq!(life.server.streamed as usize, better.bytes.len(), "no byte came twice");
            life.talk();
            assert_eq!(life.device.check_in().last, Some((prefix(&better.digest), Outcome::Confirmed)));
        },
    );
    // And after a restart.
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.infer([0.0; 4]).expect("runs").0.digest, better.digest);
        },
    );
}

/// With no server in reach from the start of the trial on, it is taken back for this reason, and never taken again.
fn bad(model: Sums, reversal: Reversal, takes: u64) {
    let bad = model.package("bad");
    let mut world = World::new();
    world.server.offer(&bad, 2);
    let old = world.factory.digest;
    world.live(
        |c| c.constant = 2,
        |life| {
            fetch(life);
            life.takes.set(takes);
            assert_eq!(life.trial(10), Verdict::Reverted(reversal));
            life.takes.set(100);
            let (inferred, read) = life.infer([4.0, 3.0, 2.0, 1.0]).expect("the old one runs at once");
            assert_eq!((inferred.digest, read), (old, Some([4.0, 3.0, 2.0, 1.0])));
        },
    );
    for lives in 0..3 {
        // The same package under other documents, too.
        let number = 3 + lives;
        world.server.publication = Some(Publication::of(&bad, number, number.into()));
        world.server.streamed = 0;
        world.live(
            |_| (),
            |life| {
                for _ in 0..4 {
                    life.talk();
                    assert_eq!(life.infer([0.0; 4]).expect("runs").0.digest, old);
                    life.sleep();
                }
                assert_eq!(life.server.streamed, 0, "nothing of it was fetched");
                assert!(life.server.refused.contains(&Refusal::Unsuitable(Rejection::Tombstone)));
            },
        );
    }
}

#[test]
fn one_that_fails_its_golden_vectors_is_taken_back() {
    bad(Sums { golden: false, ..Sums::BETTER }, Reversal::Golden, 100);
}

#[test]
fn one_that_gives_no_numbers_is_taken_back() {
    // 0 / 0 at the first live input; the golden input has none.
    let model = Sums { kind: BinaryKind::Div, with: [0.0, 1.0, 1.0, 1.0], golden: true };
    assert!(model.run([1.0; 4])[0].is_infinite());
    bad(model, Reversal::NotANumber, 100);
}

#[test]
fn one_that_misses_deadlines_is_taken_back() {
    bad(Sums::BETTER, Reversal::Deadline, 5000);
}

#[test]
fn one_that_says_always_the_same_is_taken_back() {
    bad(Sums { kind: BinaryKind::Min, with: [-1000.0; 4], golden: true }, Reversal::Errors, 100);
}

#[test]
fn one_that_restarts_the_device_is_taken_back() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    world.server.offer(&better, 2);
    world.live(|_| (), fetch);
    for last in [None, Some(Reversal::Restarts)] {
        world.live(
            |c| c.cause = StartCause::Fault,
            |life| {
                let outcome = last.map(|r| (prefix(&better.digest), Outcome::Reverted(r)));
                assert_eq!(life.device.check_in().last, outcome);
            },
        );
    }
    world.live(|_| (), |life| assert_eq!(life.infer([0.0; 4]).expect("runs").0.digest, life_factory()));
    fn life_factory() -> [u8; 32] {
        Sums::GOOD.package("1").digest
    }
}

#[test]
fn without_a_server_it_runs_asks_less_often_and_keeps_its_reports() {
    let mut world = World::new();
    let sent = RefCell::new(Vec::new());
    world.live(
        |_| (),
        |life| {
            let mut inferences = 0;
            while life.now.get() < 3600 * SECOND {
                life.poll();
                while let Some(datagram) = life.transmit() {
                    sent.borrow_mut().push((life.now.get(), datagram));
                }
                life.infer([inferences as f32; 4]).expect("it runs");
                inferences += 1;
                life.sleep();
            }
            // An hour, 60 windows, 4 places.
            assert_eq!(life.device.reports(), 4);
            let asked = sent.borrow().len();
            assert!(asked < 500, "{asked} datagrams in an hour without an answer");
            while life.server.check_ins == 0 {
                life.sleep();
                life.talk();
            }
            let told: u32 = life.server.reports.values().map(|r| r.inferences).sum();
            let spans: u32 = life.server.reports.values().map(|r| r.span).sum();
            assert!(spans >= 58, "{spans}");
            // What is in the open window is not told yet.
            life.device.close_window(life.now.get());
            life.now.set(life.now.get() + 200 * SECOND);
            life.talk();
            let all: u32 = life.server.reports.values().map(|r| r.inferences).sum();
            assert!(told > 0 && all == inferences, "{told}, {all} of {inferences}");
            assert!(life.server.reports.values().all(|r| r.dropped == 0));
        },
    );
}

#[test]
fn a_loop_of_crashes_inside_a_window_is_told() {
    let mut world = World::new();
    // Five starts after a fault, each of which loses the window that it began.
    for fault in 1..=5 {
        world.live(|c| (c.cause, c.faults) = (StartCause::Fault, fault), |life| assert!(life.infer([1.0; 4]).is_ok()));
    }
    // One that nobody counts is one all the same; and none without a fault.
    for (cause, faults, told) in [
        (StartCause::Fault, 6, 6),
        (StartCause::Fault, 0, 1),
        (StartCause::Power, 0, 0),
        // The power went before the faults were told.
        (StartCause::Power, 6, 6),
    ] {
        world.server.reports.clear();
        world.live(
            |c| (c.cause, c.faults) = (cause, faults),
            |life| {
                for _ in 0..2 {
                    life.infer([1.0; 4]).expect("it runs");
                    life.device.close_window(life.now.get());
                }
                life.talk();
                let resets: Vec<u32> = life.server.reports.values().map(|r| r.resets).collect();
                assert_eq!(resets, [told, 0]);
            },
        );
    }
}

#[test]
fn a_report_that_was_merged_before_it_was_sent_has_its_new_name() {
    let mut world = World::new();
    world.live(
        |_| (),
        |life| {
            for i in 0..4 {
                life.infer([i as f32; 4]).expect("it runs");
                life.device.close_window(life.now.get());
            }
            // It is about to send the oldest of four; a fifth has the first two merged.
            life.poll();
            life.infer([5.0; 4]).expect("it runs");
            life.device.close_window(life.now.get());
            while let Some(datagram) = life.transmit() {
                if let Some(answer) = life.server.hear(&datagram) {
                    life.receive(&answer);
                }
            }
            let told: Vec<_> = life.server.reports.iter().map(|((_, seq), r)| (*seq, r.span, r.inferences)).collect();
            assert_eq!(told, [(1, 2, 2), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
            assert_eq!(life.device.reports(), 0);
        },
    );
}

#[test]
fn a_server_that_stores_nothing_does_not_keep_updates_away() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    world.server.mute = true;
    world.server.offer(&better, 2);
    world.live(
        |_| (),
        |life| {
            life.infer([1.0; 4]).expect("it runs");
            life.device.close_window(life.now.get());
            for _ in 0..30 {
                life.talk();
                life.sleep();
            }
            assert_eq!(life.trial(10), Verdict::Confirmed);
            assert_eq!(life.device.reports(), 1, "and the report is kept");
        },
    );
}

#[test]
fn the_other_side_cannot_make_it_ask_all_the_time_or_never() {
    for wait in [0, u32::MAX] {
        let mut world = World::new();
        world.server.wait = wait;
        world.live(
            |_| (),
            |life| {
                for _ in 0..20 {
                    life.talk();
                    life.now.set(life.now.get() + 100_000);
                }
                assert!(life.server.check_ins <= 3, "at most one a second");
                let before = life.server.check_ins;
                life.now.set(life.now.get() + 101 * SECOND);
                life.talk();
                assert!(life.server.check_ins > before, "but one in {} at least", life.device.config.most);
            },
        );
    }
}

#[test]
fn flags_are_obeyed_offline_and_the_kill_switch_works() {
    let mut world = World::new();
    let mut off = flag("dunlin.serve", Setting::Bool(false));
    (off.killed, off.off) = (true, Some(0));
    world.server.flags = Some((5, flags(5, vec![off, flag("loudness", Setting::Int(7))])));
    let loudness = Flag::new("loudness", 3i64);
    let mut kept = Vec::new();
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.device.flag(&loudness).reason, Reason::Error);
            assert_eq!(life.device.flag(&loudness).value, 3);
            life.talk();
            assert!(life.events.contains(&Event::Flags { sequence: 5 }));
            assert_eq!((life.device.flag(&loudness).value, life.device.flags_sequence()), (7, 5));
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off));
            kept = life.device.flags_document().to_vec();
            // What is older, forged or something else changes nothing.
            let older = flags(4, vec![]);
            assert_eq!(life.device.take_flags(&older), Err(Refusal::Untrusted(Untrusted::Replayed)));
            let mut forged = flags(6, vec![]);
            *forged.last_mut().expect("bytes") ^= 1;
            assert!(matches!(life.device.take_flags(&forged), Err(Refusal::Untrusted(Untrusted::Threshold))));
            let rollout = Publication::of(&Sums::BETTER.package("2"), 9, 9).rollout;
            assert_eq!(life.device.take_flags(&rollout), Err(Refusal::Untrusted(Untrusted::Mixed)));
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off));
            assert_eq!(life.device.take_flags(&flags(6, vec![])), Ok(true));
            assert!(life.infer([0.0; 4]).is_ok());
        },
    );
    // A stored document outlives a restart.
    world.server.flags = None;
    world.live(
        |_| (),
        |life| {
            assert!(life.infer([0.0; 4]).is_ok());
            assert_eq!(life.device.take_flags(&kept), Ok(true));
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off));
        },
    );
}

#[test]
fn a_stop_of_one_model_stops_that_model() {
    use dunlin_rollout::flag::{MODEL_ATTRIBUTE, RuleSpec, Serving, When};
    let mut world = World::new();
    let stop = |model: &str| {
        let mut serve = flag("dunlin.serve", Setting::Bool(true));
        serve.variants.push(("off".into(), Setting::Bool(false)));
        let when = Some(When::Equal(MODEL_ATTRIBUTE.into(), Setting::Text(model.into())));
        serve.rules.push(RuleSpec { when, serve: Serving::Variant(1) });
        serve
    };
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.device.take_flags(&flags(5, vec![stop("another")])), Ok(true));
            assert!(life.infer([0.0; 4]).is_ok());
            assert_eq!(life.device.take_flags(&flags(6, vec![stop("sums")])), Ok(true));
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off));
            assert_eq!(life.device.take_flags(&flags(7, vec![stop("another")])), Ok(true));
            assert!(life.infer([0.0; 4]).is_ok());
        },
    );
}

#[test]
fn under_a_new_root_old_flags_hold_until_new_ones_come() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    world.live(
        |_| (),
        |life| {
            let off = flags(u64::MAX, vec![flag("dunlin.serve", Setting::Bool(false))]);
            assert_eq!(life.device.take_flags(&off), Ok(true));
            let mut publication = Publication::of(&better, 2, 2);
            publication.offer.root = 2;
            publication.roots = vec![signed(dunlin_update::trust::Role::Root, &root(2, true))];
            life.server.publication = Some(publication);
            life.talk();
            assert_eq!(life.device.check_in().root, 2);
            life.sleep();
            life.talk();
            assert_eq!(life.device.flags_sequence(), 0, "whoever had the old key cannot keep new flags away");
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off), "but what was said holds");
        },
    );
}

#[test]
fn flags_that_are_refused_do_not_keep_offers_away() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    let mut forged = flags(6, vec![]);
    *forged.last_mut().expect("bytes") ^= 1;
    world.server.flags = Some((6, forged));
    world.server.offer(&better, 2);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            assert_eq!(life.server.refused, [Refusal::Untrusted(Untrusted::Threshold)]);
            assert_eq!(life.device.flags_sequence(), 0);
        },
    );
}

#[test]
fn it_is_as_small_as_stated() {
    type Flashed = Device<'static, Copied<'static, &'static mut Flash>, Ed25519, Scalar>;
    let size = size_of::<Flashed>();
    std::println!("{size} bytes");
    // With `std`, a list and a pool.
    let kept = if cfg!(feature = "std") { 32 } else { 0 };
    assert!(size <= 3368 + kept, "{size}");
    // With the least room for telemetry.
    let least = size_of::<Device<'static, Copied<'static, &'static mut Flash>, Ed25519, Scalar, 4, 0, 3, 128>>();
    std::println!("{least} bytes");
    assert!(least <= 2792 + kept, "{least}");
}

#[test]
fn late_answers_to_other_questions_are_ignored() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    world.server.offer(&better, 2);
    world.live(
        |_| (),
        |life| {
            let mut answers = Vec::<Vec<u8>>::new();
            life.poll();
            for _ in 0..5 {
                let Some(question) = life.transmit() else { break };
                let answer = life.server.hear(&question).expect("an answer");
                // All that came before, once more.
                for old in &answers {
                    let state = std::format!("{:?}", life.device.check_in());
                    life.receive(old);
                    assert_eq!(std::format!("{:?}", life.device.check_in()), state);
                    assert_eq!(life.transmit(), None, "and nothing is asked because of it");
                }
                life.receive(&answer);
                answers.push(answer);
            }
            assert!(matches!(life.events.last(), Some(Event::Received { .. })), "{:?}", life.events);
            assert!(matches!(
                message::decode::<message::Up<'_>>(&life.transmit().expect("a question")),
                Ok(message::Up::Want(message::Want { part: Part::Stream, .. }))
            ));
        },
    );
}
