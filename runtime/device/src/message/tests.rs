use std::vec::Vec;

use dunlin_update::Reversal;
use proptest::prelude::*;

use super::*;

#[test]
fn a_check_in_byte_for_byte() {
    let message = Up::CheckIn(CheckIn {
        identity: b"dev",
        name: "digits",
        running: Some([7; 32]),
        phase: Phase::Idle as u8,
        fetching: None,
        last: Some(([9; PREFIX], Outcome::Reverted(Reversal::Golden))),
        whole: None,
        beside: Some(([7; PREFIX], Manner::Shadow { every: 300 })),
        root: 2,
        rollout: 300,
        floor: 1,
        flags: 400,
        inferences: 5,
        failed: 0,
        slowest: 128,
    });
    let mut buffer = [0; 128];
    let len = encode(&message, &mut buffer).expect("it fits");
    let mut expected: Vec<u8> = [&[3, 0, 3][..], b"dev", &[6], b"digits", &[1]].concat();
    expected.extend([7; 32]);
    expected.extend([0, 0, 1]);
    expected.extend([9; PREFIX]);
    expected.extend([2, 0, 0, 1]);
    expected.extend([7; PREFIX]);
    expected.extend([1, 0xAC, 2, 2, 0xAC, 2, 1, 0x90, 3, 5, 0, 0x80, 1]);
    assert_eq!(&buffer[..len], &expected);
    assert_eq!(decode::<Up<'_>>(&buffer[..len]), Ok(message));
    assert_eq!(decode::<Up<'_>>(&buffer[..len + 1]), Err(MessageError::Malformed));
}

#[test]
fn the_variants_have_the_numbers_of_the_document() {
    let number = |message: &Down<'_>| {
        let mut buffer = [0; 128];
        encode(message, &mut buffer).expect("it fits");
        buffer[1]
    };
    let transfer = Transfer { id: [0; 8], len: 0, delta: false };
    let chunk = Chunk { offer: [0; 8], part: Part::Stream, offset: 0, total: 0, bytes: &[] };
    let offer = Offer { offer: [0; 8], digest: [0; 32], root: 1, transfer };
    assert_eq!(number(&Down::News(News { offer: Some(offer), ..News::default() })), 0);
    assert_eq!(number(&Down::Chunk(chunk)), 1);
    assert_eq!(number(&Down::Gone { offer: [0; 8] }), 2);
    assert_eq!(number(&Down::Stored { boot: 0, seq: 0 }), 3);
    assert_eq!(PHASES.map(|p| p as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn news_byte_for_byte() {
    let transfer = Transfer { id: [3; 8], len: 300, delta: true };
    let offer = Some(Offer { offer: [2; 8], digest: [7; 32], root: 2, transfer });
    let flags = Some(FlagsOffer { offer: [1; 8], sequence: 129 });
    let message = Down::News(News { wait: 1000, time: 1_800_000_000, flags, offer });
    let mut buffer = [0; 128];
    let len = encode(&message, &mut buffer).expect("it fits");
    let mut expected: Vec<u8> = std::vec![3, 0, 0xE8, 7, 0x80, 0xA4, 0xA7, 0xDA, 6, 1];
    expected.extend([1; 8]);
    expected.extend([0x81, 1, 1]);
    expected.extend([2; 8]);
    expected.extend([7; 32]);
    expected.push(2);
    expected.extend([3; 8]);
    expected.extend([0xAC, 2, 1]);
    assert_eq!(&buffer[..len], &expected);
    assert_eq!(decode::<Down<'_>>(&buffer[..len]), Ok(message));
}

#[test]
fn reports_and_their_receipts_byte_for_byte() {
    let mut buffer = [0; 32];
    let up = Up::Report(Report { boot: 200, seq: 3, bytes: &[0x3F, 0x2A] });
    let len = encode(&up, &mut buffer).expect("it fits");
    assert_eq!(&buffer[..len], &[3, 4, 0xC8, 1, 3, 2, 0x3F, 0x2A]);
    let down = Down::Stored { boot: 200, seq: 3 };
    let len = encode(&down, &mut buffer).expect("it fits");
    assert_eq!(&buffer[..len], &[3, 3, 0xC8, 1, 3]);
    let want = Up::Want(Want { offer: [1; 8], part: Part::Flags, offset: 0, len: 128 });
    let len = encode(&want, &mut buffer).expect("it fits");
    assert_eq!(&buffer[..len], &[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 0, 0x80, 1]);
}

#[test]
fn another_version_is_named() {
    assert_eq!(decode::<Down<'_>>(&[1, 0, 0]), Err(MessageError::Version(1)));
}

#[test]
fn the_largest_chunk_has_the_overhead_that_is_stated() {
    let bytes = [255; 1024];
    let chunk = Chunk { offer: [255; 8], part: Part::Root(u32::MAX), offset: u32::MAX, total: u32::MAX, bytes: &bytes };
    let mut buffer = [0; 1100];
    let len = encode(&Down::Chunk(chunk), &mut buffer).expect("it fits");
    assert!(len + crate::frame::CRC_LEN <= bytes.len() + CHUNK_OVERHEAD, "{len}");
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut versioned = std::vec![VERSION];
        versioned.extend(&bytes);
        for payload in [&bytes, &versioned] {
            if let Ok(message) = decode::<Up<'_>>(payload) {
                let mut buffer = [0; 400];
                let len = encode(&message, &mut buffer).expect("it fits");
                prop_assert_eq!(decode::<Up<'_>>(&buffer[..len]), Ok(message));
            }
            if let Ok(message) = decode::<Down<'_>>(payload) {
                let mut buffer = [0; 400];
                let len = encode(&message, &mut buffer).expect("it fits");
                prop_assert_eq!(decode::<Down<'_>>(&buffer[..len]), Ok(message));
            }
        }
    }
}
