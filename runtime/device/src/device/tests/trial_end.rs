//! Trials that the fleet ends: by a rollout document of another package, and by the kill switch.

use super::*;

/// Talks and sleeps until nothing more happens.
fn settle(life: &mut Life<'_, '_>) {
    for _ in 0..4 {
        life.talk();
        life.sleep();
    }
}

fn publish(server: &mut Server, pack: &Pack, number: u32, sequence: u64) {
    server.publication = Some(Publication::of(pack, number, sequence));
}

/// A kill switch document: inference on or off.
fn serve(sequence: u64, on: bool) -> (u64, Vec<u8>) {
    let mut spec = flag("dunlin.serve", Setting::Bool(false));
    spec.killed = !on;
    spec.off = Some(0);
    spec.default = if on { None } else { Some(0) };
    (sequence, flags(sequence, vec![spec]))
}

#[test]
fn a_document_of_the_confirmed_package_ends_a_trial_at_the_next_poll() {
    let candidate = Sums::BETTER.package("2");
    let mut world = World::new();
    let base = world.factory.clone();
    publish(&mut world.server, &candidate, 2, 2);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            let (inferred, _) = life.infer([1.0, 2.0, 3.0, 4.0]).expect("it runs");
            assert_eq!((inferred.digest, inferred.verdict), (candidate.digest, Verdict::Trial { left: 5 }));
            let streamed = life.server.streamed;
            publish(life.server, &base, 1, 3);
            life.talk();
            life.sleep();
            life.talk();
            let told = life.device.check_in();
            assert_eq!((told.running, told.phase), (Some(base.digest), Phase::Idle));
            assert_eq!(told.last, Some((prefix(&candidate.digest), Outcome::Rejected(Rejection::Replaced))));
            assert!(life.events.contains(&Event::Arranged), "{:?}", life.events);
            let (inferred, _) = life.infer([1.0, 2.0, 3.0, 4.0]).expect("it runs");
            assert_eq!(inferred.digest, base.digest, "the next inference runs the base, without a restart");
            assert_eq!(life.server.streamed, streamed, "nothing is fetched to go back");
            assert!(life.server.refused.is_empty(), "{:?}", life.server.refused);
        },
    );
    // It outlives a restart, and the candidate is not blocked: a later document may bring it again.
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.device.check_in().running, Some(base.digest));
            publish(life.server, &candidate, 2, 4);
            fetch(life);
            assert_eq!(life.trial(10), Verdict::Confirmed);
        },
    );
}

#[test]
fn a_document_of_a_third_package_ends_a_trial_and_is_fetched() {
    let (candidate, third) =
        (Sums::BETTER.package("2"), Sums { with: [-3.0, 0.0, 0.0, 0.0], ..Sums::GOOD }.package("3"));
    let mut world = World::new();
    publish(&mut world.server, &candidate, 2, 2);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            publish(life.server, &third, 3, 3);
            settle(life);
            let told = life.device.check_in();
            assert_eq!((told.running, told.phase), (Some(third.digest), Phase::Trial), "{:?}", life.events);
            assert_eq!(life.trial(10), Verdict::Confirmed);
        },
    );
}

#[test]
fn an_older_document_of_the_confirmed_package_does_not_end_a_trial() {
    let candidate = Sums::BETTER.package("2");
    let mut world = World::new();
    let base = world.factory.clone();
    publish(&mut world.server, &candidate, 2, 5);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            publish(life.server, &base, 1, 4);
            settle(life);
            let told = life.device.check_in();
            assert_eq!((told.running, told.phase), (Some(candidate.digest), Phase::Trial));
            assert!(
                matches!(life.server.refused[..], [Refusal::Untrusted(Untrusted::Replayed)]),
                "{:?}",
                life.server.refused
            );
            assert_eq!(life.trial(10), Verdict::Confirmed);
        },
    );
}

#[test]
fn a_trial_goes_on_when_the_confirmed_package_is_damaged() {
    let candidate = Sums::BETTER.package("2");
    let mut world = World::new();
    let base = world.factory.clone();
    publish(&mut world.server, &candidate, 2, 2);
    world.live(|_| (), fetch);
    world.flash.bytes(Area::Slot(0))[40] ^= 1;
    publish(&mut world.server, &base, 1, 3);
    world.live(
        |_| (),
        |life| {
            settle(life);
            assert_eq!(life.device.check_in().running, Some(candidate.digest), "nothing else could run");
            assert_eq!(life.trial(10), Verdict::Confirmed);
            // Confirmed, it is left like any other: the base is fetched into the damaged slot.
            for _ in 0..8 {
                life.talk();
                life.sleep();
                life.trial(10);
            }
            assert_eq!(
                life.device.check_in().running,
                Some(base.digest),
                "{:?} {:?}",
                life.events,
                life.server.refused
            );
        },
    );
}

#[test]
fn the_kill_switch_ends_a_trial_and_none_starts_until_it_is_released() {
    let candidate = Sums::BETTER.package("2");
    let mut world = World::new();
    let base = world.factory.digest;
    publish(&mut world.server, &candidate, 2, 2);
    world.live(
        |_| (),
        |life| {
            fetch(life);
            life.server.flags = Some(serve(7, false));
            life.talk();
            life.sleep();
            life.talk();
            assert_eq!(life.device.check_in().running, Some(base), "the trial ended");
            assert_eq!(life.infer([0.0; 4]), Err(RunError::Off));
            // The offer still stands: it is fetched once more, and waits.
            settle(life);
            settle(life);
            let told = life.device.check_in();
            assert_eq!((told.running, told.phase), (Some(base), Phase::Staged), "{:?}", life.events);
            assert_eq!(life.server.streamed as usize, 2 * candidate.bytes.len(), "not fetched again and again");
            life.server.flags = Some(serve(8, true));
            settle(life);
            assert_eq!(life.device.check_in().phase, Phase::Trial, "{:?}", life.events);
            assert_eq!(life.trial(10), Verdict::Confirmed);
        },
    );
}

#[test]
fn a_kill_switch_that_was_stored_ends_a_trial_after_a_restart() {
    let candidate = Sums::BETTER.package("2");
    let mut world = World::new();
    let base = world.factory.digest;
    publish(&mut world.server, &candidate, 2, 2);
    world.live(|_| (), fetch);
    let (_, document) = serve(7, false);
    world.live(
        |_| (),
        |life| {
            assert_eq!(life.device.check_in().running, Some(candidate.digest));
            assert_eq!(life.device.take_flags(&document), Ok(true));
            life.poll();
            assert_eq!(life.device.check_in().running, Some(base));
        },
    );
}
