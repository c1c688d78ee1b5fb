//! Every byte of what a server sends, changed; and what is refused for other reasons than trust.

use dunlin_update::storage::Area;
use dunlin_update::trust::{Role, TrustError, sign};
use dunlin_update::{Phase, Rejection, Reversal, UpdateError, Verdict};

use crate::bench::*;

#[test]
fn every_flipped_bit_of_the_documents_is_refused() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let honest = mail(&package("2"), 2);
    let mut next = honest.clone();
    next.roots = vec![signed(Role::Root, &root(2), &[1, 2])];
    let mut tried = 0;
    for part in 0..3 {
        let len = [next.roots[0].len(), honest.rollout.len(), honest.release.len()][part];
        for at in 0..len {
            let mut forged = if part == 0 { next.clone() } else { honest.clone() };
            let bytes = match part {
                0 => &mut forged.roots[0],
                1 => &mut forged.rollout,
                _ => &mut forged.release,
            };
            bytes[at] ^= 1 << (at % 8);
            let error = offer(&mut updater, &forged);
            assert!(matches!(error, Err(UpdateError::Trust(_))), "part {part}, byte {at}: {error:?}");
            assert_eq!(updater.phase(), Phase::Idle);
            tried += 1;
        }
    }
    assert!(tried > 600);
    assert_eq!(updater.state().root.version, 1);
}

#[test]
fn every_flipped_byte_of_the_package_is_refused() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let honest = mail(&package("2"), 2);
    for at in 0..honest.stream.len() {
        let mut forged = honest.clone();
        forged.stream[at] ^= 1 << (at % 8);
        assert_eq!(take(&mut updater, &forged), Err(UpdateError::Rejected(Rejection::Hash)), "byte {at}");
    }
    take(&mut updater, &honest).unwrap();
}

#[test]
fn truncated_and_oversized() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let honest = mail(&new, 2);
    for end in 0..honest.release.len() {
        let cut = Mail { release: honest.release[..end].to_vec(), ..honest.clone() };
        assert!(matches!(offer(&mut updater, &cut), Err(UpdateError::Trust(_))), "{end}");
        let cut = Mail { rollout: honest.rollout[..end.min(honest.rollout.len() - 1)].to_vec(), ..honest.clone() };
        assert!(matches!(offer(&mut updater, &cut), Err(UpdateError::Trust(_))), "{end}");
    }
    let short = Mail { stream: new[..new.len() - 1].to_vec(), ..honest.clone() };
    assert_eq!(offer(&mut updater, &short), Err(UpdateError::Rejected(Rejection::Hash)));
    let mut large = release(&new, 2);
    large.len = 1 << 20;
    let large = Mail { release: signed(Role::Targets, &large, &[4, 5]), ..honest };
    assert_eq!(offer(&mut updater, &large), Err(UpdateError::Rejected(Rejection::TooLarge)));
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
    drop(updater);
    let mut updater = bench.open();
    assert_eq!(offer(&mut updater, &mail(&new, 3)), Err(UpdateError::Rejected(Rejection::Tombstone)));
    let digest = dunlin_package::compute_digest(&new).unwrap();
    let lifted = digest[..16].to_vec().leak();
    let mut lift = rollout(&new, 4);
    lift.lifted = lifted;
    let lift = Mail { rollout: signed(Role::Rollout, &lift, &[6]), ..mail(&new, 4) };
    run(&mut updater, &lift);
}

#[test]
fn a_share_is_a_share() {
    let new = package("2");
    let mut share = rollout(&new, 2);
    share.share = 2_500;
    let meant = (0..4_000u32).filter(|n| share.bucket(&n.to_le_bytes()) < share.share).count();
    assert!((900..1_100).contains(&meant), "{meant} of 4,000");
}
