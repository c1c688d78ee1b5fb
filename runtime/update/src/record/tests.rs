//! Records come back, whatever is damaged, and are stored as postcard writes them.

use proptest::prelude::*;

use super::*;
use crate::sim::{CHIPS, Flash};

fn largest() -> State {
    let package =
        Installed { slot: 255, len: u32::MAX, digest: [255; 32], hash: [255; 32], counter: u32::MAX, number: u32::MAX };
    let transfer = Transfer { id: [255; 8], len: u32::MAX, delta: true };
    let mut state = State::factory(RootKeys::largest(), Some(package));
    state.previous = Some(package);
    state.candidate = Some(Candidate { package, transfer, attempt: u32::MAX, stage: Stage::Trial { starts: 255 } });
    (state.floor, state.rollout, state.time) = (u32::MAX, u64::MAX, u64::MAX);
    state.tombstones = [Tombstone { prefix: [255; PREFIX], number: u32::MAX }; TOMBSTONES];
    (state.buried, state.whole) = (u32::MAX, Some([255; PREFIX]));
    state.last = Some(([255; PREFIX], Outcome::Reverted(Reversal::Ordered)));
    (state.manner, state.salt) = (Manner::Shadow { every: u32::MAX }, Salt::from_bits(u32::MAX));
    state.until = u64::MAX;
    state
}

/// The newest record's sequence and state.
fn load(flash: &mut Flash) -> Option<(u32, State)> {
    let mut state = State::factory(RootKeys::largest(), None);
    let mut records = Records::NONE;
    records.load(flash, &mut state).expect("it reads").then_some((records.sequence, state))
}

#[test]
fn the_largest_state_fits_and_comes_back() {
    for chip in CHIPS {
        let mut flash = Flash::new(*chip, 2, 4096);
        let mut records = Records { sequence: 6, newest: 1 };
        let state = largest();
        records.save(&mut flash, &state).expect("it fits");
        assert_eq!(load(&mut flash), Some((7, state)));
        assert_eq!(flash.violations(), 0);
        // One copy of two carries a damage anywhere; two do not.
        let (first, second) = (0, RECORD_LEN);
        for at in 0..BODY_LEN + SUM_LEN {
            flash.bytes(Area::State(0))[first + at] ^= 1;
            assert_eq!(load(&mut flash), Some((7, state)), "byte {at}");
            flash.bytes(Area::State(0))[second + at] ^= 1;
            assert_eq!(load(&mut flash), None, "byte {at}");
            flash.bytes(Area::State(0))[first + at] ^= 1;
            flash.bytes(Area::State(0))[second + at] ^= 1;
        }
    }
}

fn installed() -> impl Strategy<Value = Installed> {
    any::<(u8, u32, [u8; 32], [u8; 32], u32, u32)>().prop_map(|(slot, len, digest, hash, counter, number)| Installed {
        slot,
        len,
        digest,
        hash,
        counter,
        number,
    })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (installed(), any::<([u8; 8], u32, bool, u32, u8)>()).prop_map(|(package, (id, len, delta, attempt, starts))| {
        let stage = match starts % 3 {
            0 => Stage::Fetching,
            1 => Stage::Staged,
            _ => Stage::Trial { starts },
        };
        Candidate { package, transfer: Transfer { id, len, delta }, attempt, stage }
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (0usize..25).prop_map(|n| match n {
        0..16 => Outcome::Rejected(Rejection::ALL[n]),
        16..24 => Outcome::Reverted(Reversal::ALL[n - 16]),
        _ => Outcome::Confirmed,
    })
}

prop_compose! {
    fn states()(
        confirmed in proptest::option::of(installed()),
        previous in proptest::option::of(installed()),
        candidate in proptest::option::of(candidate()),
        numbers in any::<(u32, u64, u64, u32)>(),
        tombstones in any::<[([u8; PREFIX], u32); TOMBSTONES]>(),
        whole in any::<Option<[u8; PREFIX]>>(),
        last in proptest::option::of((any::<[u8; PREFIX]>(), outcome())),
        (way, every, salt, until) in any::<(u8, u32, u32, u64)>(),
        root in any::<(u32, u64, u8, [[u8; 32]; 8], [(u8, u8); 4])>(),
    ) -> State {
        let (version, expires, count, keys, roles) = root;
        let roles = roles.map(|(threshold, keys)| crate::trust::RoleKeys { threshold, keys });
        let (floor, rollout, time, buried) = numbers;
        let manner = [Manner::Instead, Manner::Shadow { every }, Manner::Hourly][usize::from(way % 3)];
        let salt = Salt::from_bits(salt);
        let tombstones = tombstones.map(|(prefix, number)| Tombstone { prefix, number });
        let root = RootKeys { version, expires, count, keys, roles };
        State { confirmed, previous, candidate, floor, root, rollout, time, tombstones, buried, whole, last, manner, salt, until }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_state_comes_back_and_is_stored_as_postcard_writes_it(state in states()) {
        let mut flash = Flash::new(CHIPS[4], 2, 4096);
        let mut records = Records::NONE;
        records.save(&mut flash, &state).unwrap();
        prop_assert_eq!(load(&mut flash), Some((1, state)));
        let theirs = postcard::to_allocvec(&state).unwrap();
        let record = &flash.bytes(Area::State(0))[..RECORD_LEN];
        prop_assert_eq!(&record[4..8], &(theirs.len() as u32).to_le_bytes());
        prop_assert!(record[HEAD_LEN..].starts_with(&theirs));
        prop_assert!(record[HEAD_LEN + theirs.len()..BODY_LEN].iter().all(|b| *b == 0));
        prop_assert_eq!(&record[BODY_LEN..BODY_LEN + SUM_LEN], &Hash::of(&[&record[..BODY_LEN]])[..SUM_LEN]);
    }
}

#[test]
fn a_damaged_record_leaves_nothing_of_itself() {
    let old = State::factory(RootKeys::largest(), None);
    for copies in [&[0][..], &[0, 1]] {
        for at in [0, 5, HEAD_LEN, HEAD_LEN + 40, BODY_LEN - 1, BODY_LEN] {
            let mut flash = Flash::new(CHIPS[4], 2, 4096);
            let mut records = Records::NONE;
            records.save(&mut flash, &old).unwrap();
            records.save(&mut flash, &largest()).unwrap();
            for copy in copies {
                flash.bytes(Area::State(1))[copy * RECORD_LEN + at] ^= 1;
            }
            let expected = if copies.len() == 2 { (1, old) } else { (2, largest()) };
            assert_eq!(load(&mut flash), Some(expected), "byte {at}, copies {copies:?}");
        }
    }
}

/// A folder keeps a record that comes piece by piece as one that is whole or not there.
#[test]
fn a_folder_replaces_a_record_as_a_whole() {
    let path = std::env::temp_dir().join(format!("dunlin-record-{}", std::process::id()));
    let mut records = Records::NONE;
    let mut folder = crate::file::Folder::open(&path, 2, 100).unwrap();
    let load = |folder: &mut crate::file::Folder| {
        let (mut records, mut state) = (Records::NONE, State::factory(RootKeys::largest(), None));
        records.load(folder, &mut state).unwrap().then_some((records.sequence, state))
    };
    assert_eq!(load(&mut folder), None);
    let small = State::factory(RootKeys::largest(), None);
    records.save(&mut folder, &small).unwrap();
    records.save(&mut folder, &largest()).unwrap();
    assert_eq!(load(&mut folder), Some((2, largest())));
    // One that is begun and never synced leaves what was there.
    folder.erase(Area::State(1), 0, RECORD_LEN as u32).unwrap();
    folder.write(Area::State(1), 64, &[1; 64]).unwrap();
    let mut begun = [0; 65];
    folder.read(Area::State(1), 63, &mut begun).unwrap();
    assert_eq!((begun[0], begun[1], begun[64]), (0xFF, 1, 1));
    drop(folder);
    let mut folder = crate::file::Folder::open(&path, 2, 100).unwrap();
    assert_eq!(load(&mut folder), Some((2, largest())));
    records.save(&mut folder, &small).unwrap();
    assert_eq!(load(&mut folder), Some((3, small)));
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn the_oldest_tombstone_takes_older_releases_with_it() {
    let mut state = State::factory(RootKeys::largest(), None);
    let package =
        |n: u8| Installed { slot: 0, len: 1, digest: [n; 32], hash: [0; 32], counter: 0, number: u32::from(n) };
    for n in 1..=TOMBSTONES as u8 + 3 {
        state.bury(&package(n));
    }
    for n in 1..=TOMBSTONES as u8 + 3 {
        assert!(state.is_buried(&[n; 32], u32::from(n)), "{n}");
    }
    assert!(!state.is_buried(&[99; 32], 99));
    state.lift(&[10; PREFIX]);
    assert!(!state.is_buried(&[10; 32], 10));
}
