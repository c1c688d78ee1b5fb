use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const N: usize = 700;

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut content = payload.to_vec();
    content.extend([0; CRC_LEN]);
    let mut line = Vec::new();
    let content = seal(&mut content, payload.len()).expect("room for the CRC");
    encode(content, |bytes| {
        line.extend(bytes);
        Ok::<_, ()>(())
    })
    .expect("a vector takes all");
    line
}

/// Payloads and errors that a line gives.
fn decode(line: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut decoder = Decoder::<N>::new();
    let (mut frames, mut broken) = (Vec::new(), 0);
    for &byte in line {
        match decoder.push(byte) {
            Step::More => {}
            Step::Frame => frames.push(decoder.payload().to_vec()),
            Step::Broken(_) => broken += 1,
        }
    }
    (frames, broken)
}

#[test]
fn the_crc_is_the_one_of_zlib() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn a_frame_byte_for_byte() {
    let crc = crc32(&[1, 0, 2]).to_le_bytes();
    assert!(crc.iter().all(|&b| b != 0), "else the example needs another payload");
    let [a, b, c, d] = crc;
    assert_eq!(framed(&[1, 0, 2]), [0, 2, 1, 6, 2, a, b, c, d, 0]);
}

#[test]
fn idle_zeros_are_nothing() {
    assert_eq!(decode(&[0; 9]), (Vec::new(), 0));
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    // Lengths around a full run, and many zeros.
    let byte = prop_oneof![1 => Just(0u8), 3 => any::<u8>()];
    prop_oneof![
        prop::collection::vec(byte, 0..600),
        prop::collection::vec(1u8.., 245..270),
        prop::collection::vec(1u8.., 500..520),
    ]
}

proptest! {
    #[test]
    fn frames_come_back(payload in payloads()) {
        let line = framed(&payload);
        prop_assert!(line.len() <= encoded_len(payload.len()));
        prop_assert!(line[1..line.len() - 1].iter().all(|&b| b != 0));
        prop_assert_eq!(decode(&line), (std::vec![payload], 0));
    }

    #[test]
    fn the_cobs_crate_reads_the_same(payload in payloads()) {
        let line = framed(&payload);
        let content = cobs::decode_vec(&line[1..line.len() - 1]).expect("COBS");
        prop_assert_eq!(&content[..payload.len()], &payload[..]);
        let mut other = cobs::encode_vec(&content);
        other.push(0);
        prop_assert_eq!(decode(&other), (std::vec![payload], 0));
    }

    #[test]
    fn a_frame_after_garbage_is_whole(garbage in prop::collection::vec(any::<u8>(), 0..2000), payload in payloads()) {
        let mut line = garbage;
        line.extend(framed(&payload));
        let (frames, _) = decode(&line);
        prop_assert_eq!(frames.last(), Some(&payload));
    }

    #[test]
    fn one_flipped_bit_is_no_frame(payload in payloads(), at: prop::sample::Index, bit in 0..8u32) {
        let mut line = framed(&payload);
        let at = at.index(line.len());
        line[at] ^= 1 << bit;
        let (frames, _) = decode(&line);
        // The outer zeros are no part of the frame.
        let outer = at == 0 || at == line.len() - 1;
        prop_assert!(outer || frames.is_empty(), "{frames:?}");
    }

    #[test]
    fn a_lost_byte_costs_one_frame(first in payloads(), second in payloads(), at: prop::sample::Index) {
        let mut line = framed(&first);
        line.remove(at.index(line.len()));
        line.extend(framed(&second));
        let (frames, _) = decode(&line);
        prop_assert_eq!(frames.last(), Some(&second));
        prop_assert!(frames.len() <= 2);
    }
}
