//! A board under QEMU runs a model, and has it replaced over a serial line: the firmware `ota`, for real.

use std::path::PathBuf;
use std::sync::LazyLock;

use dunlin_tests::board::cuts::{Story, endure, live};
use dunlin_tests::board::goods::Goods;
use dunlin_tests::board::{Bench, Board, Seen};
use dunlin_tests::defmt::Strings;
use dunlin_tests::firmware;
use dunlin_update::{Outcome, Phase};

/// The firmware, if it can be built and run here.
static FIRMWARE: LazyLock<Option<PathBuf>> = LazyLock::new(|| match firmware::missing() {
    Some(what) => {
        eprintln!("skipped: needs {what}");
        None
    }
    None => {
        let image = firmware::build(firmware::TARGETS[0], "ota", &[]).expect("the firmware builds");
        Some(image.path().to_owned())
    }
});
static GOODS: LazyLock<Goods> = LazyLock::new(|| Goods::new().expect("the models compile"));

/// Plays a story without cuts.
fn play(story: Story) {
    let Some(elf) = FIRMWARE.as_deref() else { return };
    let goods = &*GOODS;
    let published = story.publish(goods).expect("it can be signed");
    let bench = Bench::new(&format!("{story:?}"), &goods.device().expect("it fits")).expect("a folder");
    let mut board = Board::start(elf, &bench.0).expect("QEMU starts");
    // Noise before the first answer, without a zero that would end it.
    board.disturb(b"\xFF\x01 a cable was plugged in \x80\x05").expect("the line is there");
    let (ended, life) = live(&mut board, goods, story, &published, None).expect("all that it says is right");
    assert!(ended, "the board stopped by itself");
    let (_, digest) = story.end(goods);
    assert_eq!(life.ran.last(), Some(&digest));
    assert!(life.phases.contains(&Phase::Trial) || story == Story::Spoiled, "{:?}", life.phases);
    assert_eq!(board.skipped, 0);
    println!("{story:?}: {} messages, {} bytes of stream", life.messages, published.stream.len());
    drop(board);
    let strings = Strings::read(&std::fs::read(elf).expect("the firmware")).expect("an ELF file with strings");
    let log = bench.log();
    let lines: Vec<String> = strings.lines(&log).map(|line| line.expect("a whole line of defmt")).collect();
    println!("{}", lines.join("\n"));
    let short = |digest: &[u8; 32]| digest[..4].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let new = short(&published.offer.digest);
    let told = match story.end(goods).0 {
        Outcome::Reverted(reason) => format!("warn  reverted {new}: {reason:?}"),
        _ => format!("info  confirmed {new}"),
    };
    assert!(lines.iter().any(|line| line.starts_with(&told)), "no line '{told}'");

    // Another start: the outcome is remembered, and nothing is fetched again.
    let mut board = Board::start(elf, &bench.0).expect("QEMU starts");
    let mut ran = false;
    while !ran {
        match board.serve(None).expect("it speaks").expect("it runs") {
            Seen::CheckIn(state) => assert_eq!(state.running, Some(digest)),
            Seen::Ran { digest: now, .. } => {
                assert_eq!(now, digest);
                ran = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_difference_is_fetched_tried_and_kept() {
    play(Story::Delta);
}

#[test]
fn a_whole_package_too() {
    play(Story::Whole);
}

#[test]
fn a_model_whose_golden_vector_fails_never_runs_live() {
    play(Story::Spoiled);
}

#[test]
fn a_model_that_reads_wrongly_is_taken_back() {
    if FIRMWARE.is_some() {
        assert!(GOODS.old.wrong <= 3 && GOODS.new.wrong <= 3 && GOODS.bad.wrong > 3, "the images tell them apart");
    }
    play(Story::Bad);
}

#[test]
fn power_cuts_at_random_moments() {
    let Some(elf) = FIRMWARE.as_deref() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
    let cuts = number("DUNLIN_CUTS").unwrap_or(24) as u32;
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = number("DUNLIN_SEED").unwrap_or(time.as_nanos() as u64);
    println!("DUNLIN_SEED={seed}");
    let tally = endure(elf, &GOODS, "cuts", seed, cuts).expect("every cut is survived");
    println!("{tally:?}");
    assert_eq!(tally.cuts, cuts);
    assert!(tally.resumed_later > 0, "no download went on where it was: {tally:?}");
}
