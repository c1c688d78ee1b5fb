use super::*;

fn finding(statistic: &str, level: &str) -> Finding {
    Finding {
        subject: "class".into(),
        statistic: statistic.into(),
        level: level.into(),
        value: None,
        low: None,
        high: None,
        unit: None,
        n: 0,
        m: 0,
        devices: 0,
        warn: 0.0,
        act: 0.0,
        p: None,
        reason: String::new(),
    }
}

#[test]
fn two_windows_make_an_alert_once_and_a_steady_one_clears_it() {
    let mut cohort = Cohort::default();
    let mut push = |a: &str, b: &str| {
        let news = step(&mut cohort, &[finding("psi", a), finding("jensen_shannon", b)], &[], 7);
        (news.raised.len(), news.cleared.len())
    };
    // Raised without a number of an alert is cleared silently: nobody was told.
    assert_eq!(push("act", "steady"), (0, 0), "one window is none");
    assert_eq!(push("steady", "act"), (0, 0), "another statistic in the next is none either");
    assert_eq!(push("steady", "warn"), (1, 0), "the lesser of two");
    assert_eq!(push("steady", "act"), (0, 0), "once");
    assert_eq!(push("not_enough_data", "not_enough_data"), (0, 0), "nothing is said");
    assert_eq!(push("steady", "act"), (1, 0), "graver");
    assert_eq!(push("steady", "warn"), (0, 0), "not as grave is no news");
    cohort.standing.values_mut().for_each(|s| s.alert = Some(1));
    let news = step(&mut cohort, &[finding("jensen_shannon", "steady")], &[], 8);
    assert_eq!(news, News { raised: vec![], cleared: vec!["class".into()] });
    assert!(cohort.standing.is_empty());
}

#[test]
fn what_all_show_is_not_said_of_a_part() {
    let mut cohort = Cohort::default();
    let said = ["class".to_owned()];
    for _ in 0..3 {
        assert_eq!(step(&mut cohort, &[finding("psi", "act")], &said, 7), News::default());
    }
    assert_eq!(step(&mut cohort, &[finding("psi", "act")], &[], 8).raised, ["class"], "now it is the part's alone");
}
