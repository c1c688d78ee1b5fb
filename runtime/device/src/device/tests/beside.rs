//! Packages in the shadow of another, by turns with another, and back without a download.

use dunlin_rollout::Salt;
use dunlin_telemetry::Arm;

use super::*;
use crate::fixtures::EXPIRES;

/// Says the news until there are none, a few times.
fn settle(life: &mut Life<'_, '_>) {
    for _ in 0..3 {
        life.talk();
        life.sleep();
    }
}

/// Publishes a package to be run in this manner.
fn publish(server: &mut Server, pack: &Pack, number: u32, sequence: u64, manner: Manner) {
    server.publication = Some(Publication::run_by(pack, number, sequence, manner));
}

/// Another class than the factory's whenever the first number is the greatest by less than 10.
fn other() -> Pack {
    Sums { with: [-10.0, 0.0, 0.0, 0.0], ..Sums::GOOD }.package("2")
}

#[test]
fn a_candidate_in_the_shadow_is_compared_and_never_served() {
    let other = other();
    let mut world = World::new();
    let old = world.factory.digest;
    publish(&mut world.server, &other, 2, 2, Manner::Shadow { every: 3 });
    let told = (prefix(&other.digest), Manner::Shadow { every: 3 });
    world.live(
        |_| (),
        |life| {
            settle(life);
            assert_eq!(life.device.updater.phase(), Phase::Staged);
            assert_eq!(life.device.check_in().beside, Some(told));
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
        },
    );
    // A restart changes nothing; after one that a fault caused the shadow rests.
    for (cause, runs) in [(StartCause::Power, true), (StartCause::Fault, false)] {
        world.live(
            |c| c.cause = cause,
            |life| {
                assert_eq!(life.device.check_in().beside, Some(told));
                let seen = (0..9).filter(|_| life.infer([0.0; 4]).expect("it runs").0.shadow.is_some()).count();
                assert_eq!(seen, if runs { 3 } else { 0 });
            },
        );
    }
    // It expires, and the old one serves on.
    world.live(
        |_| (),
        |life| {
            for (seconds, runs) in [(EXPIRES - 1, 3), (EXPIRES, 0)] {
                life.device.set_time(life.now.get(), seconds);
                let ran: Vec<_> = (0..9).map(|_| life.infer([0.0; 4]).expect("it runs").0).collect();
                assert_eq!(ran.iter().filter(|r| r.shadow.is_some()).count(), runs);
                assert!(ran.iter().all(|r| r.digest == old));
            }
        },
    );
    // More inputs; then it serves, and not a byte comes again.
    world.live(
        |_| (),
        |life| {
            let streamed = life.server.streamed;
            publish(life.server, &other, 2, 3, Manner::Shadow { every: 1 });
            settle(life);
            assert!(life.infer([0.0; 4]).expect("it runs").0.shadow.is_some());
            publish(life.server, &other, 2, 4, Manner::Instead);
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
            life.talk();
            assert_eq!(life.device.check_in().beside, None);
            assert_eq!(life.server.streamed, streamed);
            assert!(life.server.refused.is_empty(), "{:?}", life.server.refused);
        },
    );
}

#[test]
fn a_shadow_whose_bytes_rot_says_nothing_and_comes_anew() {
    let (other, mut world) = (other(), World::new());
    let factory = world.factory.clone();
    publish(&mut world.server, &other, 2, 2, Manner::Shadow { every: 1 });
    world.live(|_| (), settle);
    world.flash.bytes(Area::Slot(1))[40] ^= 1;
    world.live(
        |_| (),
        |life| {
            // It is no disagreement of the model's.
            assert_eq!(life.infer([5.0, 0.0, 1.0, 0.5]).expect("it runs").0.shadow, None);
            // When it is to serve it is found out, and fetched once more; in the shadow again it is believed.
            life.server.streamed = 0;
            publish(life.server, &other, 2, 3, Manner::Instead);
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
            publish(life.server, &factory, 1, 4, Manner::Instead);
            settle(life);
            publish(life.server, &other, 2, 5, Manner::Shadow { every: 1 });
            settle(life);
            assert_eq!(life.server.streamed as usize, other.bytes.len(), "{:?}", life.events);
            assert_eq!(life.infer([5.0, 0.0, 1.0, 0.5]).expect("it runs").0.shadow, Some(false));
            assert_eq!(life.infer([0.0, 0.5, 1.0, 0.5]).expect("it runs").0.shadow, Some(true));
        },
    );
}

#[test]
fn a_shadow_is_dropped_when_what_serves_is_to_go_on() {
    let (other, mut world) = (other(), World::new());
    let factory = world.factory.clone();
    publish(&mut world.server, &other, 2, 2, Manner::Shadow { every: 1 });
    world.live(
        |_| (),
        |life| {
            settle(life);
            assert!(life.infer([0.0; 4]).expect("it runs").0.shadow.is_some());
            publish(life.server, &factory, 1, 3, Manner::Instead);
            settle(life);
            assert!(life.events.contains(&Event::Arranged), "{:?}", life.events);
            let known = life.device.check_in();
            let replaced = (prefix(&other.digest), Outcome::Rejected(Rejection::Replaced));
            assert_eq!((known.phase, known.beside, known.last), (Phase::Idle, None, Some(replaced)));
            assert_eq!(life.infer([0.0; 4]).expect("it runs").0.shadow, None);
            // The same news again are none.
            let asked = life.server.check_ins;
            settle(life);
            assert!(life.server.check_ins <= asked + 3);
            assert!(life.server.refused.is_empty(), "{:?}", life.server.refused);
            // And it may be tried another time: nothing is held against it.
            publish(life.server, &other, 2, 4, Manner::Instead);
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
        },
    );
}

#[test]
fn a_device_that_runs_nothing_beside_refuses_it() {
    let (other, mut world) = (other(), World::new());
    for manner in [Manner::Shadow { every: 2 }, Manner::Hourly] {
        publish(&mut world.server, &other, 2, 2, manner);
        let (mut room, mut arena, mut documents, mut kept) = ([0; 4096], [0; 1024], [0; 1024], [0; 512]);
        let mut decoder = Applier::new();
        let storage = Copied::new(&mut world.flash, &mut room);
        let alone = dunlin_update::Device { beside: false, ..profile(&world.factory) };
        let updater = Updater::open(storage, Ed25519, alone, StartCause::Power, &mut decoder).expect("it opens");
        let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut kept };
        let device: Tested<'_> = Device::new(updater, ops::all(), Scalar, config(1), memory);
        let (server, now, takes) = (&mut world.server, &world.now, &world.takes);
        let mut life = Life { device, server, now, takes, events: Vec::new() };
        settle(&mut life);
        assert_eq!(life.server.refused.pop(), Some(Refusal::Unsuitable(Rejection::Beside)));
        assert_eq!(life.server.streamed, 0);
    }
}

/// The package that the hour belongs to, as a server says it.
fn serves_newer(hour: u32) -> bool {
    Salt::new(b"sums").bucket(b"device").hourly(hour, 2) == 1
}

#[test]
fn two_packages_take_turns_by_the_hour() {
    let better = Sums::BETTER.package("2");
    let mut world = World::new();
    let old = world.factory.clone();
    publish(&mut world.server, &better, 2, 2, Manner::Hourly);
    let mut streamed = 0;
    world.live(
        |_| (),
        |life| {
            life.device.set_time(life.now.get(), 1_800_000_000);
            fetch(life);
            assert_eq!(life.device.check_in().beside, None, "on trial it runs alone");
            assert_eq!(life.trial(10), Verdict::Confirmed);
            assert_eq!(life.device.check_in().beside, Some((prefix(&better.digest), Manner::Hourly)));
            let mut hours = Vec::new();
            for _ in 0..48 {
                let (first, _) = life.infer([0.0; 4]).expect("it runs");
                let (second, _) = life.infer([0.0; 4]).expect("it runs");
                assert_eq!(first.digest, second.digest);
                let newer = serves_newer((1_800_000_000 + life.now.get() / SECOND) as u32 / 3600);
                hours.push(first.digest == better.digest);
                assert_eq!(hours.last(), Some(&newer));
                life.now.set(life.now.get() + 3600 * SECOND);
                life.talk();
            }
            let newer = hours.iter().filter(|b| **b).count();
            assert!((12..=36).contains(&newer), "{newer} of 48 hours");
            assert_eq!(life.device.check_in().running, Some(better.digest));
            life.device.close_window(life.now.get());
            life.sleep();
            life.talk();
            // Each window is told with the arm and the model that it is of.
            let model = |pack: &Pack| u16::from_be_bytes([pack.digest[0], pack.digest[1]]);
            let of = |arm: Arm| life.server.reports.values().filter(move |r| r.arm == arm);
            assert!(of(Arm::Control).count() > 0 && of(Arm::Control).all(|r| r.model == model(&old)));
            assert!(of(Arm::Candidate).count() > 0 && of(Arm::Candidate).all(|r| r.model == model(&better)));
            streamed = life.server.streamed;
        },
    );
    // It is so after a restart, too. Then the newer one serves alone.
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.device.check_in().beside, Some((prefix(&better.digest), Manner::Hourly)));
            publish(life.server, &better, 2, 3, Manner::Instead);
            settle(life);
            assert_eq!(life.device.check_in().beside, None);
            for _ in 0..24 {
                assert_eq!(life.infer([0.0; 4]).expect("it runs").0.digest, better.digest);
                life.now.set(life.now.get() + 3600 * SECOND);
            }
            assert_eq!(life.server.streamed, streamed);
        },
    );
}

#[test]
fn the_package_before_serves_again_without_a_download() {
    let better = Sums::BETTER.package("2");
    for manner in [Manner::Instead, Manner::Hourly] {
        let mut world = World::new();
        let old = world.factory.clone();
        publish(&mut world.server, &better, 2, 2, manner);
        world.live(
            |_| (),
            |life| {
                fetch(life);
                assert_eq!(life.trial(10), Verdict::Confirmed);
                let streamed = life.server.streamed;
                publish(life.server, &old, 1, 3, Manner::Instead);
                settle(life);
                assert!(life.events.contains(&Event::Arranged), "{:?}", life.events);
                let known = life.device.check_in();
                assert_eq!((known.phase, known.running, known.beside), (Phase::Idle, Some(old.digest), None));
                assert_eq!(known.last, Some((prefix(&old.digest), Outcome::Confirmed)));
                assert_eq!(life.infer([0.0; 4]).expect("it runs").0.digest, old.digest);
                // The newer one, wanted again, is tried again, and lies there still.
                publish(life.server, &better, 2, 4, Manner::Instead);
                fetch(life);
                assert_eq!(life.trial(10), Verdict::Confirmed);
                assert_eq!(life.server.streamed, streamed);
                assert!(life.server.refused.is_empty(), "{:?}", life.server.refused);
            },
        );
        // One whose bytes have rotted comes anew.
        world.flash.bytes(Area::Slot(0))[40] ^= 1;
        world.live(
            |_| (),
            |life| {
                life.server.streamed = 0;
                publish(life.server, &old, 1, 5, Manner::Instead);
                fetch(life);
                assert_eq!(life.trial(10), Verdict::Confirmed);
                assert_eq!(life.server.streamed as usize, old.bytes.len());
                assert_eq!(life.infer([0.0; 4]).expect("it runs").0.digest, old.digest);
            },
        );
    }
}
