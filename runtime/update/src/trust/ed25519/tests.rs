//! Vectors that others published, edge cases, and other implementations beside this one.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use proptest::prelude::*;
use sha2::{Digest, Sha512};

use super::field::Field;
use super::{subtract, verify, words};

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().expect("so many bytes")
}

/// What `ed25519-dalek` says when it is strict.
fn strict(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    ed25519_dalek::VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

/// What `ed25519-compact` says, which multiplies by the cofactor.
fn cofactored(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = ed25519_compact::Signature::new(*signature);
    ed25519_compact::PublicKey::new(*key).verify(message, &signature).is_ok()
}

/// This implementation's answer, which neither of the others may be stricter than.
fn judged(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let valid = verify(key, &[message], signature);
    assert!(!valid || strict(key, message, signature), "dalek refuses it");
    assert!(!valid || cofactored(key, message, signature), "ed25519-compact refuses it");
    // However the message is parted.
    let (first, second) = message.split_at(message.len() / 3);
    assert_eq!(valid, verify(key, &[first, &[], second], signature));
    valid
}

/// RFC 8032, section 7.1: 1, 2, 3 and SHA(abc).
#[test]
fn vectors_of_the_rfc() {
    let vectors = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b\
             be24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430\
             2aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716e\
             d28dc027beceea1ec40a",
        ),
        (
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643c\
             e80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138a\
             c17ad9bef1177331a704",
        ),
    ];
    for (key, message, signature) in vectors {
        let (key, message, mut signature) = (array(key), bytes(message), array(signature));
        assert!(judged(&key, &message, &signature), "{key:?}");
        for bit in 0..512 {
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(!judged(&key, &message, &signature), "bit {bit}");
            signature[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn vectors_of_wycheproof() {
    let text = include_str!("../../../tests/ed25519/wycheproof.txt");
    let mut count = [0; 2];
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[number, result, key, signature, message] = &fields[..] else { panic!("{line}") };
        let message = bytes(if message == "-" { "" } else { message });
        let valid = judged(&array(key), &message, &array(signature));
        assert_eq!(valid, result == "valid", "test {number}");
        count[usize::from(valid)] += 1;
    }
    assert_eq!(count, [51, 88]);
}

/// The cases of *Taming the many EdDSAs* (github.com/novifinancial/ed25519-speccheck, Apache-2.0): message, key,
/// signature. Small orders of A and R in all mixtures, points of mixed order with and without the cofactor, S beyond the
/// order. Whoever is strict and has no cofactor takes none but the one in which A and R have mixed order and the equation
/// holds without it.
#[test]
fn vectors_that_implementations_disagree_on() {
    let text = include_str!("../../../tests/ed25519/speccheck.txt");
    let mut taken = Vec::new();
    for (i, line) in text.lines().filter(|l| !l.starts_with('#')).enumerate() {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[message, key, signature] = &fields[..] else { panic!("{line}") };
        let (key, message, signature) = (array(key), bytes(message), array(signature));
        let valid = judged(&key, &message, &signature);
        assert_eq!(valid, strict(&key, &message, &signature), "case {i}");
        if valid {
            taken.push(i);
        }
    }
    assert_eq!(taken, [7]);
}

/// A signature by a key with a part of small order, and an R with one.
fn with_torsion(secret: &Scalar, nonce: &Scalar, a: usize, r: usize, message: &[u8]) -> ([u8; 32], [u8; 64]) {
    let key = (ED25519_BASEPOINT_POINT * secret + EIGHT_TORSION[a]).compress().to_bytes();
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[r]).compress().to_bytes();
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice((nonce + k * secret).as_bytes());
    (key, signature)
}

#[test]
fn points_of_small_order_sign_nothing() {
    // With A and R of small order S = 0 fits any message in eight of its forms.
    for a in 0..8 {
        for r in 0..8 {
            for n in 0..16u8 {
                let (key, signature) = with_torsion(&Scalar::ZERO, &Scalar::ZERO, a, r, &[n]);
                assert!(!judged(&key, &[n], &signature), "A {a}, R {r}");
            }
        }
    }
    // R alone, and A alone.
    let secret = Scalar::from(7u8);
    for i in 0..8 {
        for n in 0..16u8 {
            let (key, signature) = with_torsion(&secret, &Scalar::ZERO, 0, i, &[n]);
            assert!(!judged(&key, &[n], &signature), "R {i}");
            let (key, signature) = with_torsion(&Scalar::ZERO, &secret, i, 0, &[n]);
            assert!(!judged(&key, &[n], &signature), "A {i}");
        }
    }
}

/// Every y from p on that 255 bits hold, with either sign: 38 encodings of points that have others, and 2^255 - 1.
#[test]
fn encodings_that_are_not_canonical_are_refused() {
    let mut points = 0;
    for low in 0xEDu8..=0xFF {
        for sign in [0x7F, 0xFF] {
            let mut y = [0xFF; 32];
            (y[0], y[31]) = (low, sign);
            assert!(super::Point::decode(&y).is_none());
            points += usize::from(ed25519_dalek::VerifyingKey::from_bytes(&y).is_ok());
            // As R, with a right equation for whoever reads it otherwise.
            let hash = Sha512::new().chain_update(y).chain_update(key_of(7)).chain_update(b"m").finalize();
            let k = Scalar::from_bytes_mod_order_wide(&hash.into());
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&y);
            signature[32..].copy_from_slice((k * Scalar::from(7u8)).as_bytes());
            assert!(!judged(&key_of(7), b"m", &signature));
        }
    }
    assert!(points > 10, "{points} of them are points for others");
    // x = 0 with a sign.
    for y in [1u8, 0xEC] {
        let mut bytes = if y == 1 { [0; 32] } else { [0xFF; 32] };
        (bytes[0], bytes[31]) = (y, if y == 1 { 0x80 } else { 0xFF });
        assert!(super::Point::decode(&bytes).is_none());
    }
}

fn key_of(secret: u8) -> [u8; 32] {
    (ED25519_BASEPOINT_POINT * Scalar::from(secret)).compress().to_bytes()
}

/// The order of the base point, as bytes.
fn order() -> [u8; 32] {
    let mut bytes = (Scalar::ZERO - Scalar::ONE).to_bytes();
    bytes[0] += 1;
    bytes
}

/// S plus a multiple of the order fits the equation as well as S does.
#[test]
fn an_s_beyond_the_order_is_refused() {
    let (key, signature) = with_torsion(&Scalar::from(9u8), &Scalar::from(11u8), 0, 0, b"m");
    assert!(judged(&key, b"m", &signature));
    let mut forged = signature;
    for times in 1..8 {
        let mut carry = 0u16;
        for (to, from) in forged[32..].iter_mut().zip(order()) {
            carry += u16::from(*to) + u16::from(from);
            *to = carry as u8;
            carry >>= 8;
        }
        assert!(!judged(&key, b"m", &forged), "{times} times");
    }
    for s in [order(), [0xFF; 32]] {
        forged[32..].copy_from_slice(&s);
        assert!(!judged(&key, b"m", &forged));
    }
}

/// Numbers at the seams: around 0, p, 2 p and 2^256.
fn seams() -> Vec<Field> {
    let mut all = Vec::new();
    for (low, top, middle) in [(0, 0, 0), (0xFFFF_FFED, 0x7FFF_FFFF, u32::MAX), (0xFFFF_FFDA, u32::MAX, u32::MAX)] {
        for i in 0..80u32 {
            let mut words = [middle; 8];
            (words[0], words[7]) = (u32::wrapping_add(low, i.wrapping_sub(40)), top);
            all.push(Field::new(words));
        }
    }
    all
}

/// The remainder by the slowest way there is.
fn slow(product: &[u32; 16]) -> [u32; 8] {
    let prime: [u32; 8] = [0xFFFF_FFED, !0, !0, !0, !0, !0, !0, 0x7FFF_FFFF];
    let mut rest = [0u32; 8];
    for word in product.iter().rev() {
        for i in (0..32).rev() {
            let mut carry = word >> i & 1;
            for place in &mut rest {
                (*place, carry) = (*place << 1 | carry, *place >> 31);
            }
            subtract(&mut rest, &prime);
        }
    }
    rest
}

fn long_product(a: &[u32; 8], b: &[u32; 8]) -> [u32; 16] {
    let mut product = [0u128; 17];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            let p = u128::from(*x) * u128::from(*y);
            product[i + j] += p & 0xFFFF_FFFF;
            product[i + j + 1] += p >> 32;
        }
    }
    let mut carry = 0;
    std::array::from_fn(|i| {
        carry += product[i];
        let word = carry as u32;
        carry >>= 32;
        word
    })
}

fn agrees(a: Field, b: Field) {
    let wide = |f: &Field| long_product(&f.canonical(), &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(a.canonical(), slow(&wide(&a)));
    let mut product = a;
    product.multiply(&b);
    assert_eq!(product.canonical(), slow(&long_product(&a.canonical(), &b.canonical())), "{a:?} {b:?}");
    let (mut sum, mut difference) = (a, a);
    sum.add(&b);
    difference.subtract(&b);
    let mut twice = a;
    twice.add(&a);
    let mut again = sum;
    again.add(&difference);
    assert_eq!(again.canonical(), twice.canonical(), "{a:?} {b:?}");
    sum.subtract(&b);
    assert_eq!(sum.canonical(), a.canonical(), "{a:?} {b:?}");
}

#[test]
fn the_field_is_right_at_its_seams() {
    let all = seams();
    for a in &all {
        for b in &all {
            agrees(*a, *b);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_field_is_right(a in any::<[u32; 8]>(), b in any::<[u32; 8]>()) {
        let (a, b) = (Field::new(a), Field::new(b));
        agrees(a, b);
        let mut one = a;
        one.invert();
        one.multiply(&a);
        prop_assert_eq!(one.canonical(), [u32::from(!a.is_zero()), 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn scalars_are_reduced_as_elsewhere(wide in proptest::collection::vec(any::<u8>(), 64)) {
        let wide: [u8; 64] = wide.try_into().unwrap();
        let theirs = Scalar::from_bytes_mod_order_wide(&wide);
        let mut hash = [0; 8];
        hash.iter_mut().zip(wide.chunks(8)).for_each(|(to, b)| *to = u64::from_be_bytes(b.try_into().unwrap()));
        prop_assert_eq!(super::scalar::reduce(&hash), words(theirs.as_bytes()));
    }

    #[test]
    fn hashes_are_those_of_sha2(message in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600) {
        let mut hash = super::Sha512::new();
        let (first, second) = message.split_at(at.min(message.len()));
        hash.update(first);
        hash.update(second);
        let ours: Vec<u8> = hash.finish().iter().flat_map(|word| word.to_be_bytes()).collect();
        prop_assert_eq!(&ours[..], &Sha512::digest(&message)[..]);
    }

    #[test]
    fn points_are_points_as_elsewhere(bytes in any::<[u8; 32]>()) {
        let theirs = curve25519_dalek::edwards::CompressedEdwardsY(bytes).decompress();
        let ours = super::Point::decode(&bytes);
        prop_assert_eq!(ours.is_some(), theirs.is_some());
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.encode(), words(&theirs.compress().to_bytes()));
            prop_assert_eq!(ours.has_small_order(), theirs.is_small_order());
        }
    }

    #[test]
    fn honest_signatures_are_valid_and_others_are_not(
        seed in any::<[u8; 32]>(),
        message in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed));
        let (key, signature) = (*pair.pk, *pair.sk.sign(&message, None));
        prop_assert!(judged(&key, &message, &signature));
        let mut all = [&key[..], &signature, &message].concat();
        all[at.index(96 + message.len())] ^= 1 << bit;
        let (key, rest) = all.split_first_chunk::<32>().unwrap();
        let (signature, message) = rest.split_first_chunk::<64>().unwrap();
        prop_assert!(!judged(key, message, signature));
    }

    #[test]
    fn points_of_mixed_order_are_judged_as_by_dalek(
        secret in any::<[u8; 32]>(),
        nonce in any::<[u8; 32]>(),
        a in 0usize..8,
        r in 0usize..8,
        message in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (secret, nonce) = (Scalar::from_bytes_mod_order(secret), Scalar::from_bytes_mod_order(nonce));
        let (key, signature) = with_torsion(&secret, &nonce, a, r, &message);
        prop_assert!(cofactored(&key, &message, &signature));
        prop_assert_eq!(judged(&key, &message, &signature), strict(&key, &message, &signature));
    }
}
