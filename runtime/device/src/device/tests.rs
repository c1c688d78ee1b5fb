use std::cell::{Cell, RefCell};
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use dunlin_engine::{InputError, Session, ops};
use dunlin_kernels::Scalar;
use dunlin_package::op::BinaryKind;
use dunlin_rollout::Value;
use dunlin_rollout::flag::{Reason, Setting};
use dunlin_telemetry::Arm;
use dunlin_update::delta::Applier;
use dunlin_update::record::prefix;
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::storage::Area;
use dunlin_update::trust::Ed25519;
use dunlin_update::{Outcome, Phase, Rejection, Reversal, StartCause, Verdict};
use proptest::prelude::*;

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
fn a_candidate_in_the_shadow_is_compared_and_never_served() {
    // Another class whenever the first number is the greatest by less than 10.
    let other = Sums { with: [-10.0, 0.0, 0.0, 0.0], ..Sums::GOOD }.package("2");
    let mut world = World::new();
    let old = world.factory.digest;
    world.server.flags = Some((1, flags(1, vec![flag("dunlin.shadow", Setting::Int(3))])));
    world.server.offer(&other, 2);
    world.live(
        |_| (),
        |life| {
            for _ in 0..3 {
                life.talk();
                life.sleep();
            }
            assert_eq!(life.device.updater.phase(), Phase::Staged);
            let mut seen = [0; 2];
            for i in 0..30 {
                let x = [if i < 15 { 5.0 } else { 0.0 }, i as f32 / 100.0, 1.0, 0.5];
                let (inferred, read) = life.infer(x).expect("it runs");
                assert_eq!((inferred.digest, read), (old, Some(x)), "the old one serves");
                if let Some(agrees) = inferred.shadow {
                    seen[0] += 1;
                    seen[1] += u32::from(!agrees);
                    assert_eq!(agrees, i >= 15, "{i}");
                }
            }
            assert_eq!(seen, [10, 5], "each third");
            life.device.close_window(life.now.get());
            life.sleep();
            life.talk();
            let shadow: Vec<_> = life.server.reports.values().filter(|r| r.arm == Arm::Shadow).collect();
            assert_eq!(shadow.iter().map(|r| r.shadow).collect::<Vec<_>>(), [[10, 5]]);
            assert_eq!(shadow[0].model, u16::from_be_bytes([old[0], old[1]]));
            // Without the flag it is tried.
            assert_eq!(life.device.take_flags(&flags(2, vec![])), Ok(true));
            life.poll();
            assert_eq!(life.device.updater.phase(), Phase::Trial);
        },
    );
}

#[test]
fn two_packages_take_turns_by_the_hour() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    let old = world.factory.digest;
    world.server.offer(&better, 2);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
            let on = flags(1, vec![flag("dunlin.crossover", Setting::Bool(true))]);
            assert_eq!(life.device.take_flags(&on), Ok(true));
            let mut hours = Vec::new();
            for _ in 0..48 {
                let (first, _) = life.infer([0.0; 4]).expect("it runs");
                let (second, _) = life.infer([0.0; 4]).expect("it runs");
                assert_eq!(first.digest, second.digest);
                hours.push(first.digest == better.digest);
                life.now.set(life.now.get() + 3600 * SECOND);
            }
            let newer = hours.iter().filter(|b| **b).count();
            assert!((12..=36).contains(&newer), "{newer} of 48 hours");
            assert_eq!(life.device.check_in().running, Some(better.digest));
            life.device.close_window(life.now.get());
            assert!(hours.contains(&false) && old != better.digest);
        },
    );
}

#[test]
fn it_is_as_small_as_stated() {
    type Flashed = Device<'static, Copied<'static, &'static mut Flash>, Ed25519, Scalar>;
    let size = size_of::<Flashed>();
    std::println!("{size} bytes");
    assert!(size <= 3328, "{size}");
    // With the least room for telemetry.
    let least = size_of::<Device<'static, Copied<'static, &'static mut Flash>, Ed25519, Scalar, 4, 0, 3, 128>>();
    std::println!("{least} bytes");
    assert!(least <= 2752, "{least}");
}

/// What happens in a step.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes on by so many milliseconds.
    Wait(u32),
    /// The clock is set.
    Jump(i64),
    Poll,
    Infer([i8; 4]),
    /// A datagram of the queue arrives: which, and whether it stays there.
    Deliver(u8, bool),
    /// One arrives with a bit flipped.
    Damage(u8, u16),
    /// Any bytes.
    Noise(Vec<u8>),
    Lose(u8),
    /// The power goes at so many steps of the flash from now.
    Cut(u16),
    Restart(bool),
    /// The server offers one of these, or something else that it must not.
    Publish(u8),
    Flags(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_000u32).prop_map(Step::Wait),
        1 => (-4_000_000_000i64..4_000_000_000).prop_map(Step::Jump),
        6 => Just(Step::Poll),
        6 => any::<[i8; 4]>().prop_map(Step::Infer),
        16 => (any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(i, stays)| Step::Deliver(i, stays)),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(i, bit)| Step::Damage(i, bit)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Noise),
        2 => any::<u8>().prop_map(Step::Lose),
        1 => (0..3000u16).prop_map(Step::Cut),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => (0..6u8).prop_map(Step::Publish),
        1 => (0..5u8, 0..4u8).prop_map(|(sequence, shadow)| Step::Flags(sequence, shadow)),
    ]
}

/// A candidate by number, and whether it may be kept.
fn candidate(which: u8) -> (Pack, bool) {
    let (model, good) = match which {
        0 => (Sums::BETTER, true),
        1 => (Sums { golden: false, ..Sums::BETTER }, false),
        2 => (Sums { with: [f32::NAN; 4], ..Sums::GOOD }, false),
        3 => (Sums { with: [0.0, 0.25, 0.0, 0.0], ..Sums::GOOD }, true),
        _ => (Sums { kind: BinaryKind::Min, with: [-1000.0; 4], golden: true }, false),
    };
    (model.package(&which.to_string()), good)
}

/// What serves is one of the packages, and gives its own numbers.
fn honest(packs: &[(Pack, bool)], factory: &Pack, sees: [f32; 4], ran: &Inferred, read: Option<[f32; 4]>) {
    let all = packs.iter().map(|(p, _)| p).chain([factory]);
    let Some(pack) = all.into_iter().find(|p| p.digest == ran.digest) else { panic!("a package nobody made ran") };
    if ran.inference.is_some() {
        let bits = |v: [f32; 4]| v.map(f32::to_bits);
        let expected = pack.model.run(sees);
        let same = read.is_some_and(|r| bits(r) == bits(expected) || expected.iter().any(|v| v.is_nan()));
        assert!(same, "{read:?} instead of {expected:?}");
    }
}

/// Lives until a restart; gives the steps that are left.
fn schedule(world: &mut World, steps: &[Step], packs: &[(Pack, bool)]) -> usize {
    let cause = if let Some(Step::Restart(true)) = steps.first() { StartCause::Fault } else { StartCause::Power };
    let (mut number, factory) = (world.boot, world.factory.clone());
    let left = world.try_live(
        |c| (c.cause, c.constant) = (cause, 2),
        |life| {
            let mut queue: Vec<Vec<u8>> = Vec::new();
            for (at, step) in steps.iter().enumerate() {
                match step {
                    Step::Wait(ms) => life.now.set(life.now.get() + u64::from(*ms) * 1000),
                    Step::Jump(by) => life.now.set(life.now.get().saturating_add_signed(*by)),
                    Step::Poll => life.poll(),
                    Step::Infer(x) => {
                        let sees = x.map(f32::from);
                        if let Ok((ran, read)) = life.infer(sees) {
                            honest(packs, &factory, sees, &ran, read);
                        }
                    }
                    Step::Deliver(..) | Step::Damage(..) | Step::Lose(_) if queue.is_empty() => {}
                    Step::Deliver(i, stays) => {
                        let i = usize::from(*i) % queue.len();
                        let datagram = if *stays { queue[i].clone() } else { queue.remove(i) };
                        life.receive(&datagram);
                    }
                    Step::Damage(i, bit) => {
                        let mut datagram = queue[usize::from(*i) % queue.len()].clone();
                        let bit = usize::from(*bit) % (datagram.len() * 8);
                        datagram[bit / 8] ^= 1 << (bit % 8);
                        life.receive(&datagram);
                    }
                    Step::Noise(bytes) => life.receive(bytes),
                    Step::Lose(i) => {
                        queue.remove(usize::from(*i) % queue.len());
                    }
                    Step::Cut(_) | Step::Restart(_) if at > 0 => return at,
                    Step::Cut(_) | Step::Restart(_) => {}
                    Step::Publish(which) => {
                        number += 1;
                        let (pack, _) = &packs[usize::from(*which) % packs.len()];
                        let mut publication = Publication::of(pack, number, number.into());
                        if *which == 5 {
                            // Signed for one package, and the bytes of another.
                            publication.stream = factory.bytes.clone();
                        }
                        life.server.publication = Some(publication);
                    }
                    Step::Flags(sequence, shadow) => {
                        let spec = flag("dunlin.shadow", Setting::Int((*shadow).into()));
                        let sequence = u64::from(*sequence);
                        life.server.flags = Some((sequence, flags(sequence, vec![spec])));
                    }
                }
                let mut asked = 0;
                while let Some(datagram) = life.transmit() {
                    asked += 1;
                    assert!(asked < 10, "it talks without end");
                    queue.extend(life.server.hear(&datagram));
                }
            }
            steps.len()
        },
    );
    let ends = |step: &Step| matches!(step, Step::Cut(_) | Step::Restart(_));
    left.unwrap_or_else(|| steps.iter().skip(1).position(ends).map_or(steps.len(), |i| i + 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, what serves is whole and signed; once things are well again, the device is where it should be, and
    /// a bad package is neither running nor ever taken again.
    #[test]
    fn whatever_happens_it_serves_and_comes_round(steps in prop::collection::vec(step(), 1..400), last in 0..5u8) {
        let packs: Vec<_> = (0..5).map(candidate).collect();
        let mut world = World::new();
        let mut rest = &steps[..];
        while !rest.is_empty() {
            world.flash.power_on();
            if let Some(Step::Cut(steps)) = rest.first() {
                world.flash.cut_after((*steps).into(), 7);
            }
            rest = &rest[schedule(&mut world, rest, &packs)..];
        }
        world.flash.power_on();
        prop_assert_eq!(world.flash.violations(), 0);
        // Things are well again.
        let (pack, good) = &packs[usize::from(last)];
        let number = 100_000;
        world.server = Server { wait: 1000, reports: world.server.reports.clone(), ..Server::default() };
        world.server.offer(pack, number);
        let factory = world.factory.clone();
        for lives in 0..2 {
            world.live(|c| c.constant = 2, |life| {
                for i in 0..60 {
                    life.talk();
                    let sees = [i as f32, 2.0, 3.0, 2.5];
                    let (ran, read) = life.infer(sees).expect("it runs");
                    honest(&packs, &factory, sees, &ran, read);
                    life.sleep();
                }
                let known = life.device.check_in();
                // What was on its way before stays so when nothing takes its place.
                let stays = !life.server.refused.is_empty() || known.running == Some(pack.digest);
                let halfway = known.phase == Phase::Fetching && stays;
                assert!(known.phase == Phase::Idle || halfway, "{lives}: {known:?} {:?}", life.server.refused);
                let (running, buried) = (known.running.expect("one runs"), life.device.updater.state());
                let runs = packs.iter().find(|(p, _)| p.digest == running);
                assert!(runs.is_none_or(|(_, good)| *good), "a bad one runs");
                if *good {
                    let buried = buried.is_buried(&pack.digest, number);
                    assert!(running == pack.digest || buried, "{known:?}");
                } else {
                    assert_ne!(running, pack.digest);
                }
            });
        }
    }

    /// However datagrams are lost, repeated and late: each inference is told exactly once, and the update arrives.
    #[test]
    fn reports_survive_a_bad_network(lost in 0..40u32, twice in 0..40u32, late in 0..40u32, seed in 1..u64::MAX) {
        let better = Sums::BETTER.package("2");
        let mut world = World::new();
        world.server.offer(&better, 2);
        let mut state = seed;
        let mut random = move |of: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as u32 % of
        };
        let inferences = world.live(|c| c.window = 20 * SECOND, |life| {
            let (mut inferences, mut queue) = (0, Vec::<Vec<u8>>::new());
            for i in 0..2500 {
                if i < 1500 {
                    life.infer([i as f32, 2.0, 3.0, 2.5]).expect("it runs");
                    inferences += 1;
                } else if i == 1500 {
                    life.device.close_window(life.now.get());
                }
                life.poll();
                while let Some(datagram) = life.transmit() {
                    if random(100) >= lost {
                        queue.extend(life.server.hear(&datagram));
                    }
                }
                while !queue.is_empty() && random(100) >= late {
                    let which = random(queue.len() as u32) as usize;
                    let datagram = if random(100) < twice { queue[which].clone() } else { queue.swap_remove(which) };
                    life.receive(&datagram);
                    while let Some(datagram) = life.transmit() {
                        queue.extend(life.server.hear(&datagram));
                    }
                }
                life.now.set(life.now.get() + SECOND);
            }
            assert_eq!(life.device.reports(), 0);
            assert_eq!(life.device.check_in().running, Some(better.digest));
            inferences
        });
        let told: u32 = world.server.reports.values().map(|r| r.inferences).sum();
        let dropped: u32 = world.server.reports.values().map(|r| r.dropped).sum();
        prop_assert!(told == inferences || dropped > 0, "{} of {}, {} windows dropped", told, inferences, dropped);
    }

    /// Datagrams of nothing but noise, and well-formed ones that answer nothing.
    #[test]
    fn noise_changes_nothing(noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..50)) {
        let mut world = World::new();
        let old = world.factory.digest;
        world.live(|_| (), |life| {
            for bytes in &noise {
                life.poll();
                while life.transmit().is_some() {}
                life.receive(bytes);
                let mut versioned = vec![message::VERSION];
                versioned.extend(bytes);
                life.receive(&versioned);
                life.now.set(life.now.get() + SECOND / 2);
            }
            assert_eq!(life.device.check_in().running, Some(old));
            assert_eq!(life.device.check_in().phase, Phase::Idle);
            assert_eq!(life.device.flags_sequence(), 0);
        });
    }
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
