use proptest::prelude::*;

use super::*;

/// Vectors that are published with the hash's other implementations.
#[test]
fn murmur3_is_the_published_one() {
    for (seed, text, hash) in [
        (0, "", 0),
        (1, "", 0x514E_28B7),
        (0xFFFF_FFFF, "", 0x81F1_6F39),
        (0, "\0\0\0\0", 0x2362_F9DE),
        (0x9747_B28C, "aaaa", 0x5A97_808A),
        (0x9747_B28C, "Hello, world!", 0x2488_4CBA),
        (0x9747_B28C, "The quick brown fox jumps over the lazy dog", 0x2FA8_26CD),
    ] {
        assert_eq!(murmur3(seed, text.as_bytes()), hash, "{text}");
    }
}

/// The verification value of SMHasher: keys 0, 01, 012, ..., seeds 256 - length, and the hash of all the hashes.
#[test]
fn murmur3_has_smhashers_verification_value() {
    let keys: std::vec::Vec<u8> = (0..=255).collect();
    let hashes: std::vec::Vec<u8> = (0..256).flat_map(|n| murmur3(256 - n as u32, &keys[..n]).to_le_bytes()).collect();
    assert_eq!(murmur3(0, &hashes), 0xB0F5_7EE3);
}

fn hex(text: &str) -> std::vec::Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn golden_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cohort.tsv");
    if std::env::var_os("DUNLIN_DRAW").is_some() {
        std::fs::write(path, drawn()).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let fields: std::vec::Vec<_> = line.split('\t').collect();
        let [salt, identity, bucket, canary, control, arm, hour, hourly, variant] = fields[..] else {
            panic!("{line}")
        };
        let salt = Salt::new(&hex(salt));
        let identity = hex(identity);
        let b = salt.bucket(&identity);
        assert_eq!(b.0, u32::from_str_radix(bucket, 16).unwrap(), "{line}");
        let share = |text: &str| Share::try_from(text.parse::<u64>().unwrap()).unwrap();
        let cohort = Cohort::new(salt, share(canary), share(control)).unwrap();
        assert_eq!(word(cohort.arm(&identity)), arm, "{line}");
        assert_eq!(b.hourly(hour.parse().unwrap(), 2).to_string(), hourly, "{line}");
        assert_eq!(b.variant(3).to_string(), variant, "{line}");
        count += 1;
    }
    assert_eq!(count, 48);
    assert_eq!(text, drawn(), "the file is old: run this test once with DUNLIN_DRAW=1");
}

fn word(arm: Arm) -> &'static str {
    match arm {
        Arm::Rest => "rest",
        Arm::Control => "control",
        Arm::Candidate(_) => "canary",
    }
}

fn drawn() -> std::string::String {
    use std::fmt::Write as _;
    let mut text = std::string::String::from(
        "# salt (hex)\tidentity (hex)\tbucket (hex)\tcanary bound\tcontrol bound\tarm\thour\tarm of 2 by the hour\tvariant of 3\n",
    );
    let show = |bytes: &[u8]| bytes.iter().fold(std::string::String::new(), |s, b| s + &std::format!("{b:02x}"));
    for salt in [&b""[..], b"rollout-1", b"rollout-2", &[0xFF; 5]] {
        for i in 0..12u32 {
            let identity: std::vec::Vec<u8> = match i {
                0 => std::vec::Vec::new(),
                1..=4 => (0..i as u8).collect(),
                5 => b"esp32-24:6f:28:aa:01:5c".to_vec(),
                6 => vec![0; 16],
                7 => vec![0xFF; 16],
                _ => std::format!("device-{i}").into_bytes(),
            };
            let (canary, control) = match i % 4 {
                0 => (Share::percent(1), Share::percent(3)),
                1 => (Share::percent(25), Share::percent(25)),
                2 => (Share::ALL, Share::NONE),
                _ => (Share::of(1, 3), Share::of(2, 3)),
            };
            let bucket = Salt::new(salt).bucket(&identity);
            let arm = word(Cohort::new(Salt::new(salt), canary, control).unwrap().arm(&identity));
            let hour = 489_000 + i;
            let _ = writeln!(
                text,
                "{}\t{}\t{:08x}\t{}\t{}\t{arm}\t{hour}\t{}\t{}",
                show(salt),
                show(&identity),
                bucket.0,
                canary.bound(),
                control.bound(),
                bucket.hourly(hour, 2),
                bucket.variant(3)
            );
        }
    }
    text
}

/// Identities as fleets have them: counted, in hexadecimal, as addresses.
fn identities(n: u32) -> std::vec::Vec<std::vec::Vec<u8>> {
    (0..n)
        .map(|i| match i % 3 {
            0 => std::format!("sensor-{i:06}").into_bytes(),
            1 => i.to_le_bytes().to_vec(),
            _ => std::vec![0x24, 0x6F, 0x28, (i >> 16) as u8, (i >> 8) as u8, i as u8],
        })
        .collect()
}

/// Pearson's statistic of counts against equal expectations.
fn chi_square(counts: &[u32]) -> f64 {
    let expected = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
    counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum()
}

#[test]
fn buckets_are_uniform() {
    let ids = identities(60_000);
    for salt in 0..20u8 {
        let salt = Salt::new(&[salt]);
        let mut counts = [0; 256];
        ids.iter().for_each(|id| counts[(salt.bucket(id).0 >> 24) as usize] += 1);
        // 255 degrees of freedom: mean 255, standard deviation 22.6; five of those.
        let chi = chi_square(&counts);
        assert!((142.0..368.0).contains(&chi), "{chi}");
    }
}

#[test]
fn salts_are_independent() {
    let ids = identities(60_000);
    for (a, b) in [(&b"rollout-1"[..], &b"rollout-2"[..]), (b"a", b"b"), (b"", b"\0"), (b"2026-11", b"2026-12")] {
        let mut counts = [0; 256];
        for id in &ids {
            let (x, y) = (Salt::new(a).bucket(id).0 >> 28, Salt::new(b).bucket(id).0 >> 28);
            counts[(x * 16 + y) as usize] += 1;
        }
        let chi = chi_square(&counts);
        assert!((142.0..368.0).contains(&chi), "{chi}");
    }
    // The hours of a device, and its variant against its bucket, too.
    let mut counts = [0; 256];
    for id in &ids {
        let bucket = Salt::new(b"crossover").bucket(id);
        let bits = (0..7).fold(0, |n, h| n << 1 | usize::from(bucket.hourly(489_000 + h, 2)));
        counts[bits << 1 | usize::from(bucket.0 >> 31 != 0)] += 1;
    }
    assert!((142.0..368.0).contains(&chi_square(&counts)));
    let mut counts = [0; 256];
    for id in &ids {
        let bucket = Salt::new(b"variants").bucket(id);
        counts[usize::from(bucket.variant(16)) << 4 | (bucket.0 >> 28) as usize] += 1;
    }
    assert!((142.0..368.0).contains(&chi_square(&counts)));
}

#[test]
fn all_is_all_and_none_is_none() {
    assert!(Share::ALL.reaches(Bucket(u32::MAX)) && Share::percent(100) == Share::ALL);
    assert!(!Share::NONE.reaches(Bucket(0)) && Share::percent(0) == Share::NONE);
    assert_eq!(Share::of(1, 4).bound(), 1 << 30);
    assert_eq!((Share::of(0, 0), Share::percent(1).rest().bound()), (Share::NONE, (1 << 32) - 42_949_672));
}

proptest! {
    #[test]
    fn widening_moves_nobody(ids in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..50), low in 0u32..5000, more in 0u32..3000, control in 0u32..2000, salt: [u8; 4]) {
        let share = |n| Share::of(n, 10_000);
        let before = Cohort::new(Salt::new(&salt), share(low), share(control)).unwrap();
        let after = before.widen(share(low + more), share(control)).unwrap();
        for id in &ids {
            match (before.arm(id), after.arm(id)) {
                (a, b) if a == b => {}
                (Arm::Rest, Arm::Candidate(0)) => {}
                moved => prop_assert!(false, "{:?}", moved),
            }
        }
        if more > 0 && low + more > low {
            prop_assert_eq!(after.widen(share(low), share(control)), Err(CohortError::Narrower));
        }
        prop_assert_eq!(before.widen(Share::ALL, Share::percent(1)), Err(CohortError::Overlap));
    }
}
