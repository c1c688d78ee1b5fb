//! Power is cut during updates; the device has to come back with the old model or the new one. `figures/power_loss.rs`
//! does this for every step there is; here it is every step of one chip and a sample of the others.

use dunlin_tests::power_loss::{Count, STORIES, World, packs};
use dunlin_update::sim::CHIPS;

fn world(story: dunlin_tests::power_loss::Story, which: usize, chunk: usize) -> World {
    let (packs, bad) = packs(which).expect("the models compile");
    World::new(story, packs, bad, chunk, which as u64)
}

#[test]
fn one_cut() {
    let mut count = Count::default();
    for &story in STORIES {
        let world = world(story, 0, 512);
        for (i, &chip) in CHIPS.iter().enumerate() {
            let factory = world.factory(chip);
            let steps =
                world.play(&factory, &[], &mut count).unwrap_or_else(|e| panic!("{story:?}, {}: {e}", chip.name));
            for at in (0..steps).step_by(if i == 2 { 7 } else { 61 }) {
                let played = world.play(&factory, &[(at, at + 1)], &mut count);
                played.unwrap_or_else(|e| panic!("{story:?}, {}, cut at {at} of {steps}: {e}", chip.name));
            }
        }
    }
    println!("{} schedules, {} recoveries", count.schedules, count.recoveries);
    assert!(count.recoveries > 1000);
}

#[test]
fn two_cuts_and_more() {
    let mut count = Count::default();
    let mut random = 88_172_645_463_325_252u64;
    let mut next = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for (i, &story) in STORIES.iter().enumerate() {
        let world = world(story, i, 100 + i * 77);
        for &chip in CHIPS {
            let factory = world.factory(chip);
            let steps =
                world.play(&factory, &[], &mut count).unwrap_or_else(|e| panic!("{story:?}, {}: {e}", chip.name));
            for _ in 0..120 {
                let cuts = [(next(steps), next(1 << 40)), (next(steps), next(1 << 40)), (next(3000), next(1 << 40))];
                let cuts = &cuts[..2 + next(2) as usize];
                let played = world.play(&factory, cuts, &mut count);
                played.unwrap_or_else(|e| panic!("{story:?}, {}, cuts {cuts:?}: {e}", chip.name));
            }
        }
    }
    println!("{} schedules, {} recoveries", count.schedules, count.recoveries);
    assert!(count.recoveries > 5000);
}

#[test]
fn bits_that_rot() {
    for (which, &chip) in CHIPS.iter().enumerate() {
        let world = world(dunlin_tests::power_loss::Story::Twice, which, 300);
        let factory = world.factory(chip);
        for seed in 0..400 {
            world.rot(&factory, seed).unwrap_or_else(|e| panic!("{}, rot {seed}: {e}", chip.name));
        }
    }
}
