//! The bytes are pinned: devices in the field and servers are not updated on the same day.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::Reversal;

#[test]
fn a_poll_has_the_bytes_that_it_always_had() {
    let poll = Poll {
        model: "m".into(),
        running: Some([1; 32]),
        phase: phase_number(Phase::Fetching),
        fetching: Some(([2; 32], 300)),
        last: Some(([3; 16], Outcome::Reverted(Reversal::Golden))),
        whole: None,
        beside: Some(([4; 16], Manner::Shadow { every: 300 })),
        root: 7,
        rollout: 1 << 40,
        floor: 1,
        flags: 300,
        reports: vec![Report { boot: 1, seq: 2, bytes: vec![9, 8] }],
    };
    let golden: Vec<u8> = [
        &[1, b'm', 1][..],
        &[1; 32],
        &[2, 1],
        &[2; 32],
        &[0xAC, 2, 1],
        &[3; 16],
        &[2, 0, 0, 1],
        &[4; 16],
        &[1, 0xAC, 2, 7, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 0xAC, 2],
        &[1, 1, 2, 2, 9, 8],
    ]
    .concat();
    assert_eq!(postcard::to_allocvec(&poll), Ok(golden.clone()));
    assert_eq!(postcard::from_bytes(&golden), Ok(poll));
}

#[test]
fn an_answer_has_the_bytes_that_it_always_had() {
    let answer = Answer {
        time: 300,
        next: 60,
        acknowledged: vec![(1, 2)],
        nonce: "n".into(),
        offer: Some(Offer {
            roots: vec![vec![5]],
            rollout: vec![6],
            release: vec![7, 7],
            id: [8; 8],
            len: 300,
            delta: true,
            url: "/u".into(),
        }),
        flags: Some(vec![9]),
    };
    let golden: Vec<u8> = [
        &[0xAC, 2, 60, 1, 1, 2, 1, b'n'][..],
        &[1, 1, 1, 5, 1, 6, 2, 7, 7],
        &[8; 8],
        &[0xAC, 2, 1, 2, b'/', b'u'],
        &[1, 1, 9],
    ]
    .concat();
    assert_eq!(postcard::to_allocvec(&answer), Ok(golden.clone()));
    assert_eq!(postcard::from_bytes(&golden), Ok(answer));
}

#[test]
fn an_enrolment_has_the_bytes_that_it_always_had() {
    let attributes = BTreeMap::from([("site".into(), "a".into())]);
    let enrol = Enrol { key: [4; 32], target: "t".into(), model: "m".into(), attributes };
    let golden: Vec<u8> = [&[4; 32][..], b"\x01t\x01m\x01\x04site\x01a"].concat();
    assert_eq!(postcard::to_allocvec(&enrol), Ok(golden));
    let enrolled = Enrolled { device: [6; 16], roots: vec![vec![5]] };
    assert_eq!(postcard::to_allocvec(&enrolled), Ok([&[6; 16][..], &[1, 1, 5]].concat()));
}

#[test]
fn phases_keep_their_numbers() {
    for (number, phase) in PHASES.into_iter().enumerate() {
        assert_eq!((usize::from(phase_number(phase)), phase as usize), (number, number));
    }
}

#[test]
fn what_is_signed_binds_method_path_nonce_and_body() {
    let signed = message("POST", POLL_PATH, "5", b"body");
    let expected = b"dunlin-request-1\0POST\n/d/v1/poll\n5\n";
    assert_eq!(signed.split_at(expected.len()), (&expected[..], &dunlin_package::Hash::of(&[b"body"])[..]));
    let key = SecretKey::from_seed([1; 32]);
    let text = signature(&key, "POST", POLL_PATH, "5", b"body");
    let digits: Vec<u8> = text.as_bytes().chunks(2).map(|p| (nibble(p[0]) << 4) | nibble(p[1])).collect();
    assert_eq!(digits, key.sign_bytes(&signed));
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).expect("a digit") as u8
}
