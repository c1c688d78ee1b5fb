//! Damaged packages do not open.

use dunlin_package::{OpenError, Package, body_len};

use crate::sample;

#[test]
fn every_changed_byte_is_noticed() {
    let good = sample::draft().build().unwrap();
    let digest = Package::open(&good).unwrap().digest();
    let body = body_len(&good).unwrap();
    // Of the seal, the signature's own bytes are for whoever verifies it.
    let mut free: Vec<usize> = (body + 16..body + 25).collect();
    free.extend(body + 32..body + 96);
    assert_eq!(good.len(), body + 96);
    let mut bytes = good.clone();
    for at in 0..good.len() {
        for mask in [0x01, 0x80, 0xFF] {
            bytes[at] = good[at] ^ mask;
            match Package::open(&bytes) {
                Ok(package) => {
                    assert!(free.contains(&at), "byte {at} ^ {mask:#x} opened");
                    assert_eq!(package.digest(), digest);
                }
                Err(_) => assert!(!free.contains(&at), "byte {at} ^ {mask:#x} refused"),
            }
        }
        bytes[at] = good[at];
    }
}

#[test]
fn every_truncation_is_noticed() {
    let good = sample::draft().build().unwrap();
    for len in 0..good.len() {
        match Package::open(&good[..len]) {
            Err(OpenError::Truncated { needed, got }) => {
                assert_eq!(got, len);
                assert!(needed > len && needed <= good.len());
            }
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn appended_bytes_are_noticed() {
    let mut bytes = sample::draft().build().unwrap();
    let expected = bytes.len();
    bytes.push(0);
    let got = bytes.len();
    assert_eq!(Package::open(&bytes).err(), Some(OpenError::TrailingBytes { expected, got }));
}
