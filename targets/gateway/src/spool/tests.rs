use proptest::prelude::*;

use super::*;

const A: Child = [1; 16];
const B: Child = [2; 16];

fn numbers(spool: &Spool, child: Child) -> Vec<(u32, u32)> {
    spool.oldest(child, usize::MAX).iter().map(|r| (r.boot, r.seq)).collect()
}

#[test]
fn reports_wait_until_they_are_delivered_and_survive_in_between() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Spool::open(Some(folder.path()), 1 << 20).expect("opens");
    let spool = open();
    for seq in 0..5 {
        spool.keep(A, 1, seq, &[seq as u8; 9]).expect("kept");
    }
    spool.keep(B, 1, 3, b"b").expect("kept");
    spool.keep(B, 1, 3, b"b").expect("the same again");
    assert_eq!(spool.oldest(A, 2).len(), 2);
    spool.delivered(A, &[(1, 0), (1, 1), (9, 9)]).expect("noted");
    drop(spool);
    let spool = open();
    assert_eq!(numbers(&spool, A), [(1, 2), (1, 3), (1, 4)]);
    assert_eq!(spool.oldest(B, 9), [Report { boot: 1, seq: 3, bytes: b"b".to_vec() }]);
    assert!(spool.has(B) && !spool.has([3; 16]));
    assert_eq!(spool.waiting().0, 4);
}

#[test]
fn what_a_power_cut_leaves_of_a_record_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("reports.log");
    let whole = [record(KEPT, &(A, 1, 1), b"first"), record(KEPT, &(A, 1, 2), b"second")].concat();
    let first = size(b"first") as usize;
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        let spool = Spool::open(Some(folder.path()), 1 << 20).expect("opens");
        let there = numbers(&spool, A);
        assert_eq!(there, if cut < first { vec![] } else { vec![(1, 1)] }, "cut at {cut}");
        // And what comes next is not lost behind it.
        spool.keep(A, 2, 0, b"next").expect("kept");
        drop(spool);
        let spool = Spool::open(Some(folder.path()), 1 << 20).expect("opens");
        assert_eq!(numbers(&spool, A).last(), Some(&(2, 0)), "cut at {cut}");
    }
}

#[test]
fn a_full_spool_refuses_and_takes_again_once_the_server_has_some() {
    let spool = Spool::open(None, 3 * size(&[0; 100])).expect("in memory");
    for seq in 0..3 {
        spool.keep(A, 1, seq, &[0; 100]).expect("room");
    }
    assert!(matches!(spool.keep(A, 1, 3, &[0; 100]), Err(SpoolError::Full(_))));
    assert!(matches!(spool.keep(A, 1, 3, &[0; MAX_REPORT + 1]), Err(SpoolError::TooLong(_))));
    spool.keep(A, 1, 2, &[0; 100]).expect("it is there already");
    spool.delivered(A, &[(1, 0)]).expect("noted");
    spool.keep(A, 1, 3, &[0; 100]).expect("room");
}

#[test]
fn a_log_of_delivered_reports_is_written_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Spool::open(Some(folder.path()), 64 << 20).expect("opens");
    {
        // Without a sync for each.
        let mut log = lock(&spool.log);
        for seq in 0..400 {
            log.append(&record(KEPT, &(A, 1, seq), &[7; 1000])).expect("written");
            log.waiting.insert((A, 1, seq), vec![7; 1000]);
            log.live += size(&[7; 1000]);
        }
    }
    let before = fs::metadata(folder.path().join("reports.log")).expect("there").len();
    let most: Vec<_> = (0..399).map(|seq| (1, seq)).collect();
    spool.delivered(A, &most).expect("noted");
    let after = fs::metadata(folder.path().join("reports.log")).expect("there").len();
    assert!(after < before / 100, "{after} of {before} bytes");
    spool.keep(A, 2, 0, b"x").expect("kept");
    drop(spool);
    let spool = Spool::open(Some(folder.path()), 1 << 20).expect("opens");
    assert_eq!(numbers(&spool, A), [(1, 399), (2, 0)]);
}

#[test]
fn children_that_hand_over_together_share_syncs_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Spool::open(Some(folder.path()), 64 << 20).expect("opens");
    std::thread::scope(|scope| {
        for child in 0..8 {
            let spool = &spool;
            scope.spawn(move || (0..20).for_each(|seq| spool.keep([child; 16], 1, seq, b"x").expect("kept")));
        }
    });
    drop(spool);
    let spool = Spool::open(Some(folder.path()), 64 << 20).expect("opens");
    assert_eq!(spool.waiting().0, 160);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_open_and_never_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut at = 0;
        while let Some((_, _, _, len)) = bytes.get(at..).and_then(parse) {
            at += len;
        }
        prop_assert!(at <= bytes.len());
    }

    #[test]
    fn records_come_back(child in any::<[u8; 16]>(), boot: u32, seq: u32, bytes in proptest::collection::vec(any::<u8>(), 0..MAX_REPORT)) {
        let record = record(KEPT, &(child, boot, seq), &bytes);
        prop_assert_eq!(parse(&record), Some((KEPT, (child, boot, seq), &bytes[..], record.len())));
    }
}
