//! Every byte of what a server sends, changed; and what is refused for other reasons than trust.

use dunlin_update::storage::Area;
use dunlin_update::trust::{self, Audience, Manner, Role, Salt, Share, TrustError, sign};
use dunlin_update::{Rejection, Reversal, UpdateError, Verdict};

use crate::attacks::untouched;
use crate::bench::*;
use crate::tally;

#[test]
fn no_forgery_of_any_kind_is_taken() {
    for kind in tally::all(&[5]) {
        println!("{}: {} of {} were taken", kind.name, kind.accepted, kind.tried);
        assert_eq!(kind.accepted, 0, "{kind:?}");
        assert!(kind.tried >= 8, "{kind:?}");
    }
    // What they were made of is good as it is: without the change it is taken.
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let mut honest = mail(&package("2"), 2);
    honest.roots = vec![signed(Role::Root, &root(2), &[1, 2])];
    take(&mut updater, &honest).unwrap();
    assert_eq!(updater.state().root.version, 2);
}

#[test]
fn what_is_wrong_is_told() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let honest = mail(&new, 2);
    let short = Mail { stream: new[..new.len() - 1].to_vec(), ..honest.clone() };
    assert_eq!(offer(&mut updater, &short), Err(UpdateError::Rejected(Rejection::Hash)));
    let mut large = release(&new, 2);
    large.len = 1 << 20;
    let large = Mail { release: signed(Role::Targets, &large, &[4, 5]), ..honest };
    assert_eq!(offer(&mut updater, &large), Err(UpdateError::Rejected(Rejection::TooLarge)));
}

/// What expires at a second is not taken at that second any more.
#[test]
fn the_second_of_expiry_is_too_late() {
    let new = package("2");
    for (by, role) in [(0, Role::Root), (1, Role::Rollout), (2, Role::Targets)] {
        for late in [false, true] {
            let expires = if late { NOW } else { NOW + 1 };
            let mut bench = Bench::new();
            if by == 0 {
                bench.root.expires = expires;
            }
            let mut updater = bench.open();
            let mut mail = mail(&new, 2);
            if by == 1 {
                let fields = dunlin_update::trust::Rollout { expires, ..rollout(&new, 2) };
                mail.rollout = signed(Role::Rollout, &fields, &[6]);
            }
            if by == 2 {
                let fields = dunlin_update::trust::Release { expires, ..release(&new, 2) };
                mail.release = signed(Role::Targets, &fields, &[4, 5]);
            }
            let expected = if late { Err(UpdateError::Trust(TrustError::Expired { role })) } else { Ok(()) };
            assert_eq!(offer(&mut updater, &mail), expected, "{role:?}");
        }
    }
}

/// New firmware with another root makes the device listen again, as a root that comes by the chain does.
#[test]
fn a_root_that_firmware_brings_forgets_what_stolen_keys_said() {
    let mut bench = Bench::new();
    let new = package("2");
    let mut far = rollout(&new, u64::MAX);
    (far.time, far.expires, far.audience.share) = (NOW + 400, u64::MAX, Share::NONE);
    let pushed = Mail { rollout: signed(Role::Rollout, &far, &[6]), ..mail(&new, 2) };
    assert_eq!(offer(&mut bench.open(), &pushed), Err(UpdateError::Rejected(Rejection::Cohort)));
    bench.root = root(2);
    bench.root.keys[5] = key(16).public();
    let honest = Mail { rollout: signed(Role::Rollout, &rollout(&new, 2), &[16]), ..mail(&new, 2) };
    run(&mut bench.open(), &honest);
}

#[test]
fn a_signature_counts_in_one_role_and_one_kind_of_document_only() {
    let mut bench = Bench::new();
    // Key 6 has the roles of rollout and of targets, alone.
    bench.root.roles[Role::Targets as usize].keys = 0b10_0000;
    bench.root.roles[Role::Targets as usize].threshold = 1;
    let mut updater = bench.open();
    let new = package("2");
    let honest = Mail { release: signed(Role::Targets, &release(&new, 2), &[6]), ..mail(&new, 2) };
    let wrong_role =
        sign(&dunlin_update::trust::envelope(Role::Targets, &release(&new, 2)).unwrap(), Role::Rollout, &key(6));
    let forged = Mail { release: wrong_role.unwrap(), ..honest.clone() };
    let none = TrustError::Threshold { role: Role::Targets, valid: 0, needed: 1 };
    assert_eq!(offer(&mut updater, &forged), Err(UpdateError::Trust(none)));
    let forged = Mail { release: honest.rollout.clone(), ..honest.clone() };
    let document = TrustError::Document { expected: Role::Targets };
    assert_eq!(offer(&mut updater, &forged), Err(UpdateError::Trust(document)));
    offer(&mut updater, &honest).unwrap();
}

#[test]
fn what_is_swapped_after_it_was_verified_never_runs() {
    let new = package("2");
    // Between verification and start.
    let mut bench = Bench::new();
    let mut updater = bench.open();
    take(&mut updater, &mail(&new, 2)).unwrap();
    updater.storage().bytes(Area::Slot(1))[200] ^= 4;
    assert_eq!(updater.start(), Err(UpdateError::Rejected(Rejection::Hash)));
    // Between two starts of its trial.
    let mut bench = Bench::new();
    let old = dunlin_package::compute_digest(&bench.old).unwrap();
    let mut updater = bench.open();
    take(&mut updater, &mail(&new, 2)).unwrap();
    updater.start().unwrap();
    updater.storage().bytes(Area::Slot(1))[200] ^= 4;
    let updater = bench.open();
    assert_eq!(updater.running().unwrap().digest, old);
    let reason = dunlin_update::Outcome::Reverted(Reversal::Damaged);
    assert_eq!(updater.state().last.unwrap().1, reason);
    // Long after it was confirmed: the one before it runs again.
    let mut bench = Bench::new();
    run(&mut bench.open(), &mail(&new, 2));
    bench.flash.bytes(Area::Slot(1))[200] ^= 4;
    assert_eq!(bench.open().running().unwrap().digest, old);
    bench.flash.bytes(Area::Slot(0))[200] ^= 4;
    assert_eq!(bench.open().running(), None);
}

#[test]
fn what_failed_here_is_taken_again_only_when_its_tombstone_is_lifted() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    take(&mut updater, &mail(&new, 2)).unwrap();
    updater.start().unwrap();
    assert_eq!(updater.golden(false), Ok(Verdict::Reverted(Reversal::Golden)));
    assert_eq!(offer(&mut updater, &mail(&new, 3)), Err(UpdateError::Rejected(Rejection::Tombstone)));
    let mut updater = bench.open();
    assert_eq!(offer(&mut updater, &mail(&new, 3)), Err(UpdateError::Rejected(Rejection::Tombstone)));
    let digest = dunlin_package::compute_digest(&new).unwrap();
    let lifted = digest[..16].to_vec().leak();
    let mut lift = rollout(&new, 4);
    lift.lifted = lifted;
    let lift = Mail { rollout: signed(Role::Rollout, &lift, &[6]), ..mail(&new, 4) };
    assert!(updater.check_in().last.is_some(), "it says how it ended");
    offer(&mut updater, &lift).unwrap();
    assert_eq!(updater.check_in().last, None, "and no longer, so that the next end is news");
    run(&mut updater, &lift);
}

#[test]
fn a_share_is_a_share() {
    let new = package("2");
    let mut share = rollout(&new, 2);
    share.audience = Audience::share(Salt::new(b"salt"), Share::percent(25));
    let meant = (0..4_000u32).filter(|n| share.audience.reaches(&n.to_le_bytes())).count();
    assert!((900..1_100).contains(&meant), "{meant} of 4,000");
}

/// The fields as `TRUST.md` gives them, and what a device makes of them.
#[test]
fn an_audience_has_these_bytes() {
    let new = package("2");
    let mut shadow = rollout(&new, 2);
    let shares = Audience::share(Salt::new(b"salt"), Share::percent(25));
    for (audience, bytes) in [
        (Audience::ALL, &[0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0][..]),
        (Audience { salt: Salt::from_bits(0x81), ..shares }, &[0x81, 1, 0x80, 0x80, 0x80, 0x80, 4, 0, 0, 0]),
        (Audience { parts: 3, part: 2, share: Share::NONE, ..Audience::ALL }, &[0, 0, 3, 2, 0]),
        (
            Audience { manner: Manner::Shadow { every: 300 }, ..Audience::ALL },
            &[0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 1, 0xAC, 2],
        ),
        (Audience { manner: Manner::Hourly, ..Audience::ALL }, &[0, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 2]),
    ] {
        shadow.audience = audience;
        let document = signed(Role::Rollout, &shadow, &[6]);
        let payload = trust::Document::read(&document, Role::Rollout).unwrap().payload();
        // After it comes the empty list of lifted digests.
        assert!(payload.ends_with(&[bytes, &[0]].concat()), "{audience:?}: {payload:02x?}");
        let read = trust::rollout(&root(1), &document, &trust::Ed25519).unwrap();
        assert_eq!(read.audience, audience);
    }
}

#[test]
fn what_is_to_run_beside_the_model_never_takes_its_place() {
    let mut bench = Bench::new();
    let old = bench.old.clone();
    let mut updater = bench.open();
    let new = package("2");
    for (sequence, manner) in [(2, Manner::Shadow { every: 10 }), (3, Manner::Hourly)] {
        let mut beside = rollout(&new, sequence);
        beside.audience.manner = manner;
        let mail = Mail { rollout: signed(Role::Rollout, &beside, &[6]), ..mail(&new, 2) };
        assert_eq!(offer(&mut updater, &mail), Err(UpdateError::Rejected(Rejection::Beside)));
    }
    untouched(&updater, &old);
}
