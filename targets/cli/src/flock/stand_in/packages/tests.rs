use dunlin_update::trust::{Audience, Share};

use super::*;

const IDENTITY: [u8; 16] = [7; 16];
const BASE: [u8; 32] = [1; 32];
const CANDIDATE: [u8; 32] = [2; 32];
/// An hour in which documents are good, and the second at which they expire.
const HOUR: u64 = 1000;
const EXPIRES: u64 = HOUR * 3600 + 7200;

fn rollout(digest: [u8; 32], sequence: u64, manner: Manner) -> Rollout<'static> {
    let audience = Audience { manner, ..Audience::share(Salt::new(b"salt"), Share::ALL) };
    Rollout { name: "m", sequence, time: 0, expires: EXPIRES, digest, audience, lifted: &[] }
}

fn release(digest: [u8; 32]) -> Release<'static> {
    let number = u32::from(digest[0]);
    Release {
        name: "m",
        version: "1",
        digest,
        hash: [0; 32],
        len: 1,
        number,
        counter: 0,
        expires: 0,
        target: "any",
        engine_min: (0, 0),
        ops_version: 0,
        memory: 0,
    }
}

fn offer(packages: &mut Packages, digest: [u8; 32], sequence: u64, manner: Manner) -> Result<Taken, Refused> {
    let rollout = rollout(digest, sequence, manner);
    packages.offer(&rollout, &release(digest), &IDENTITY, Some(HOUR * 3600))
}

/// Takes an offer, fetches it and stages it.
fn staged(manner: Manner) -> Packages {
    let mut packages = Packages::new(Some(BASE));
    assert_eq!(offer(&mut packages, CANDIDATE, 1, manner), Ok(Taken::Fetch));
    packages.stage(&rollout(CANDIDATE, 1, manner), &release(CANDIDATE));
    packages
}

fn confirmed(manner: Manner) -> Packages {
    let mut packages = staged(manner);
    assert!(packages.start());
    assert_eq!((packages.running(), packages.phase()), (Some(CANDIDATE), Phase::Trial));
    packages.confirm();
    packages
}

#[test]
fn a_shadow_has_no_trial_until_it_is_to_serve() {
    let manner = Manner::Shadow { every: 4 };
    let mut packages = staged(manner);
    assert!(!packages.start(), "a shadow stays staged");
    assert_eq!(packages.beside(), Some((prefix(&CANDIDATE), manner)));
    assert_eq!(packages.running(), Some(BASE));
    assert!(matches!(packages.serving(&IDENTITY, HOUR), Some(Serving::WithShadow { digest: BASE, every: 4, .. })));
    assert_eq!(packages.serving(&IDENTITY, HOUR + 2), Some(Serving::Alone(BASE)), "the document has expired");
    assert_eq!(offer(&mut packages, CANDIDATE, 2, Manner::Instead), Ok(Taken::Arranged), "it is there already");
    assert!(packages.start());
    packages.confirm();
    assert_eq!((packages.running(), packages.beside()), (Some(CANDIDATE), None));
}

#[test]
fn a_shadow_that_is_ended_is_rejected_as_replaced() {
    let mut packages = staged(Manner::Shadow { every: 4 });
    assert_eq!(offer(&mut packages, BASE, 2, Manner::Instead), Ok(Taken::Arranged));
    assert_eq!((packages.running(), packages.beside(), packages.phase()), (Some(BASE), None, Phase::Idle));
    assert_eq!(packages.last, Some((prefix(&CANDIDATE), Outcome::Rejected(Rejection::Replaced))));
}

#[test]
fn turns_are_taken_by_the_hour_and_end_with_the_document() {
    let packages = confirmed(Manner::Hourly);
    assert_eq!(packages.beside(), Some((prefix(&CANDIDATE), Manner::Hourly)));
    let bucket = Salt::new(b"salt").bucket(&IDENTITY);
    for hour in HOUR..HOUR + 2 {
        let wanted = match bucket.hourly(hour as u32, 2) {
            0 => Serving::Base(BASE),
            _ => Serving::Candidate(CANDIDATE),
        };
        assert_eq!(packages.serving(&IDENTITY, hour), Some(wanted));
    }
    assert_eq!(packages.serving(&IDENTITY, HOUR + 2), Some(Serving::Alone(CANDIDATE)));
}

#[test]
fn a_rollback_of_turns_fetches_nothing() {
    let mut packages = confirmed(Manner::Hourly);
    assert_eq!(offer(&mut packages, BASE, 2, Manner::Instead), Ok(Taken::Arranged));
    assert_eq!((packages.running(), packages.beside()), (Some(BASE), None));
    assert_eq!(packages.last, Some((prefix(&BASE), Outcome::Confirmed)));
    assert_eq!(packages.serving(&IDENTITY, HOUR), Some(Serving::Alone(BASE)));
}

#[test]
fn a_rollback_ends_a_trial() {
    let mut packages = staged(Manner::Instead);
    assert!(packages.start());
    assert_eq!(offer(&mut packages, BASE, 2, Manner::Instead), Ok(Taken::Arranged));
    assert_eq!((packages.running(), packages.phase()), (Some(BASE), Phase::Idle));
    assert_eq!(packages.last, Some((prefix(&CANDIDATE), Outcome::Rejected(Rejection::Replaced))));
}

#[test]
fn what_failed_is_not_taken_again_until_its_tombstone_is_lifted() {
    let mut packages = staged(Manner::Instead);
    assert!(packages.start());
    packages.revert();
    assert_eq!((packages.running(), packages.phase()), (Some(BASE), Phase::Idle));
    assert_eq!(offer(&mut packages, CANDIDATE, 2, Manner::Instead), Err(Refused));
    let lifted = prefix(&CANDIDATE);
    let again = Rollout { lifted: &lifted, ..rollout(CANDIDATE, 3, Manner::Instead) };
    assert_eq!(packages.offer(&again, &release(CANDIDATE), &IDENTITY, None), Ok(Taken::Fetch));
    assert_eq!(packages.last, None);
}

#[test]
fn documents_that_are_old_expired_or_for_others_are_refused() {
    let mut packages = confirmed(Manner::Instead);
    let instead = rollout(BASE, 2, Manner::Instead);
    assert_eq!(packages.offer(&instead, &release(BASE), &IDENTITY, Some(EXPIRES)), Err(Refused), "expired");
    assert_eq!(offer(&mut packages, BASE, 0, Manner::Instead), Err(Refused), "older than one before");
    let nobody = Audience::share(Salt::new(b"salt"), Share::NONE);
    let other = Rollout { audience: nobody, ..instead };
    assert_eq!(packages.offer(&other, &release(BASE), &IDENTITY, None), Err(Refused), "for others");
    assert_eq!(packages.running(), Some(CANDIDATE));
}

#[test]
fn a_package_below_the_floor_is_refused() {
    let mut packages = staged(Manner::Instead);
    packages.stage(&rollout(CANDIDATE, 1, Manner::Instead), &Release { counter: 1, ..release(CANDIDATE) });
    assert!(packages.start());
    packages.confirm();
    assert_eq!(packages.floor(), 1);
    assert_eq!(offer(&mut packages, BASE, 2, Manner::Instead), Err(Refused));
}
