//! The attacks that section 1.5.2 of the specification of The Update Framework (1.0.34) lists, each by its name.

use dunlin_update::trust::{Role, Share, TrustError};
use dunlin_update::{Phase, Rejection, UpdateError};

use crate::bench::*;

pub(crate) fn untouched(updater: &TestUpdater<'_>, bench_old: &[u8]) {
    let digest = dunlin_package::compute_digest(bench_old).unwrap();
    assert_eq!(updater.running().unwrap().digest, digest);
    assert_eq!(updater.phase(), Phase::Idle);
}

#[test]
fn honest_offers_are_taken() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    run(&mut updater, &mail(&new, 2));
    assert_eq!(updater.running().unwrap().digest, dunlin_package::compute_digest(&new).unwrap());
}

#[test]
fn arbitrary_software_installation() {
    let mut bench = Bench::new();
    let old = bench.old.clone();
    let mut updater = bench.open();
    let evil = package("evil");
    // Signed by nobody, by a stranger, and another file in the place of the one that was signed.
    for keys in [&[][..], &[99, 98]] {
        let release = signed(Role::Targets, &release(&evil, 2), keys);
        let error = take(&mut updater, &Mail { release, ..mail(&evil, 2) });
        let valid = TrustError::Threshold { role: Role::Targets, valid: 0, needed: 2 };
        assert_eq!(error, Err(UpdateError::Trust(valid)));
    }
    let mut swapped = mail(&package("2"), 3);
    swapped.stream = evil;
    assert_eq!(take(&mut updater, &swapped), Err(UpdateError::Rejected(Rejection::Hash)));
    untouched(&updater, &old);
}

#[test]
fn endless_data() {
    let mut bench = Bench::new();
    let old = bench.old.clone();
    let mut updater = bench.open();
    let new = package("2");
    let honest = mail(&new, 2);
    let endless = Mail { rollout: [&honest.rollout[..], &[0; 5000]].concat(), ..honest.clone() };
    assert_eq!(offer(&mut updater, &endless), Err(UpdateError::Trust(TrustError::TooLong)));
    offer(&mut updater, &honest).unwrap();
    let mut stream = new.clone();
    stream.extend([0; 100_000]);
    assert_eq!(updater.receive(0, &stream), Err(UpdateError::Excess));
    assert_eq!(updater.running().unwrap().digest, dunlin_package::compute_digest(&old).unwrap());
    // Nothing was lost by it.
    updater.receive(0, &new).unwrap();
    assert_eq!(updater.phase(), Phase::Staged);
}

#[test]
fn extraneous_dependencies() {
    // A package depends on nothing but the engine, and a document with more than its fields is none.
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let mut fields = (release(&new, 2), "and install this too");
    let more = signed(Role::Targets, &fields, &[4, 5]);
    let error = offer(&mut updater, &Mail { release: more, ..mail(&new, 2) });
    assert_eq!(error, Err(UpdateError::Trust(TrustError::Malformed)));
    fields.0.ops_version = 2;
    let newer = signed(Role::Targets, &fields.0, &[4, 5]);
    let error = offer(&mut updater, &Mail { release: newer, ..mail(&new, 2) });
    assert_eq!(error, Err(UpdateError::Rejected(Rejection::Operators)));
}

#[test]
fn fast_forward() {
    // A stolen rollout key pushes the sequence and the time to their ends. New keys make the device listen again.
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let mut far = rollout(&new, u64::MAX);
    (far.time, far.expires, far.audience.share) = (NOW + 400, u64::MAX, Share::NONE);
    let pushed = Mail { rollout: signed(Role::Rollout, &far, &[6]), ..mail(&new, 2) };
    assert_eq!(offer(&mut updater, &pushed), Err(UpdateError::Rejected(Rejection::Cohort)));
    let replayed = offer(&mut updater, &mail(&new, 2));
    assert!(matches!(replayed, Err(UpdateError::Trust(_))), "{replayed:?}");
    let mut next = root(2);
    next.keys[5] = key(16).public();
    let mut honest = mail(&new, 2);
    honest.roots = vec![signed(Role::Root, &next, &[1, 2])];
    honest.rollout = signed(Role::Rollout, &rollout(&new, 2), &[16]);
    run(&mut updater, &honest);
}

#[test]
fn indefinite_freeze() {
    let mut bench = Bench::new();
    let old = bench.old.clone();
    let mut updater = bench.open();
    let new = package("2");
    // An old document, replayed for ever: the device's clock, or the time that a later document stated, ends it.
    let mut frozen = rollout(&new, 2);
    (frozen.time, frozen.expires) = (NOW - 200, NOW - 100);
    let frozen = Mail { rollout: signed(Role::Rollout, &frozen, &[6]), ..mail(&new, 2) };
    let expired = Err(UpdateError::Trust(TrustError::Expired { role: Role::Rollout }));
    assert_eq!(offer(&mut updater, &frozen), expired);
    let mut hint = rollout(&new, 3);
    hint.audience.share = Share::NONE;
    let hint = Mail { rollout: signed(Role::Rollout, &hint, &[6]), ..mail(&new, 2) };
    let no_clock = |updater: &mut TestUpdater<'_>, mail: &Mail| {
        let transfer = dunlin_update::TransferOffer { id: [0; 8], len: mail.stream.len() as u32, delta: false };
        let offer = dunlin_update::Offer { roots: &[], rollout: &mail.rollout, release: &mail.release, transfer };
        updater.offer(&offer, None)
    };
    assert_eq!(no_clock(&mut updater, &hint), Err(UpdateError::Rejected(Rejection::Cohort)));
    let mut late = rollout(&new, 4);
    (late.time, late.expires) = (NOW - 200, NOW - 100);
    let late = Mail { rollout: signed(Role::Rollout, &late, &[6]), ..mail(&new, 2) };
    assert_eq!(no_clock(&mut updater, &late), expired);
    // What expires is the offer: the running model runs on.
    untouched(&updater, &old);
}

#[test]
fn malicious_mirrors() {
    // A mirror that sends rubbish, then nothing, harms nobody: another one goes on.
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let honest = mail(&new, 2);
    let mut rubbish = honest.clone();
    rubbish.stream = vec![0x55; new.len()];
    assert_eq!(take(&mut updater, &rubbish), Err(UpdateError::Rejected(Rejection::Hash)));
    offer(&mut updater, &honest).unwrap();
    updater.receive(0, &new[..100]).unwrap();
    assert_eq!(updater.receive(300, &new[300..]), Err(UpdateError::Gap { expected: 100 }));
    updater.receive(50, &new[50..]).unwrap();
    assert_eq!(updater.phase(), Phase::Staged);
}

#[test]
fn mix_and_match() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let (two, three) = (package("2"), package("3"));
    let mixed = Mail { release: mail(&three, 3).release, ..mail(&two, 2) };
    assert_eq!(offer(&mut updater, &mixed), Err(UpdateError::Trust(TrustError::Mixed)));
}

#[test]
fn rollback() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let (two, three) = (package("2"), package("3"));
    let mut raised = mail(&three, 3);
    let mut fields = release(&three, 3);
    fields.counter = 6;
    raised.release = signed(Role::Targets, &fields, &[4, 5]);
    let before = mail(&two, 2);
    run(&mut updater, &raised);
    let replay = Err(UpdateError::Trust(TrustError::Replayed { newest: 3, found: 2 }));
    assert_eq!(offer(&mut updater, &before), replay);
    // Even whoever may roll out cannot bring back what targets has ruled out.
    let again = Mail { rollout: signed(Role::Rollout, &rollout(&two, 4), &[6]), ..before };
    assert_eq!(offer(&mut updater, &again), Err(UpdateError::Rejected(Rejection::Counter)));
    assert_eq!(updater.fall_back(), Err(UpdateError::Phase(Phase::Idle)));
}

#[test]
fn vulnerability_to_key_compromises() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let evil = package("evil");
    // One key of two, and the same key twice.
    for keys in [&[4][..], &[4, 4]] {
        let stolen = Mail { release: signed(Role::Targets, &release(&evil, 2), keys), ..mail(&evil, 2) };
        let error = UpdateError::Trust(TrustError::Threshold { role: Role::Targets, valid: 1, needed: 2 });
        assert_eq!(offer(&mut updater, &stolen), Err(error));
    }
    // One root key of two does not make a new root; nor do a new root's own keys alone.
    let mut coup = root(2);
    coup.keys[0] = key(66).public();
    coup.keys[1] = key(67).public();
    for keys in [&[1][..], &[66, 67], &[3, 66, 67]] {
        let coup = Mail { roots: vec![signed(Role::Root, &coup, keys)], ..mail(&evil, 2) };
        let error = offer(&mut updater, &coup);
        assert!(matches!(error, Err(UpdateError::Trust(TrustError::Threshold { role: Role::Root, .. }))), "{error:?}");
    }
    // A device that was away follows the chain 1, 2, 3, and the old keys are worth nothing then.
    let (mut second, mut third) = (root(2), root(3));
    second.keys[3] = key(14).public();
    third.keys[3] = key(14).public();
    third.keys[4] = key(15).public();
    let two = package("2");
    let mut honest = mail(&two, 2);
    honest.roots = vec![signed(Role::Root, &second, &[1, 2]), signed(Role::Root, &third, &[2, 3])];
    let old_keys = offer(&mut updater, &honest);
    assert!(matches!(old_keys, Err(UpdateError::Trust(TrustError::Threshold { valid: 0, .. }))), "{old_keys:?}");
    honest.roots.clear();
    honest.release = signed(Role::Targets, &release(&two, 2), &[14, 15]);
    run(&mut updater, &honest);
    assert_eq!(updater.state().root.version, 3);
}

#[test]
fn wrong_software_installation() {
    let mut bench = Bench::new();
    let mut updater = bench.open();
    let new = package("2");
    let mut other = release(&new, 2);
    other.target = "cortex-m0";
    let wrong = Mail { release: signed(Role::Targets, &other, &[4, 5]), ..mail(&new, 2) };
    assert_eq!(offer(&mut updater, &wrong), Err(UpdateError::Rejected(Rejection::Target)));
    let (mut other, mut stray) = (release(&new, 3), rollout(&new, 3));
    (other.name, stray.name) = ("speech", "speech");
    let wrong = Mail {
        release: signed(Role::Targets, &other, &[4, 5]),
        rollout: signed(Role::Rollout, &stray, &[6]),
        ..mail(&new, 3)
    };
    assert_eq!(offer(&mut updater, &wrong), Err(UpdateError::Rejected(Rejection::Name)));
}

#[test]
fn a_distributor_has_to_sign_where_the_root_says_so() {
    let mut bench = Bench::new();
    bench.root.roles[Role::Distributor as usize].threshold = 1;
    let mut updater = bench.open();
    let new = package("2");
    let mut honest = mail(&new, 2);
    let missing = TrustError::Threshold { role: Role::Distributor, valid: 0, needed: 1 };
    assert_eq!(offer(&mut updater, &honest), Err(UpdateError::Trust(missing)));
    honest.release = dunlin_update::trust::sign(&honest.release, Role::Distributor, &key(7)).unwrap();
    run(&mut updater, &honest);
}
