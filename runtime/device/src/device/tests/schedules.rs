//! Random schedules: whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

/// What happens in a step.
#[derive(Clone, Debug)]
enum Step {
    /// Time goes on by so many milliseconds.
    Wait(u32),
    /// The clock is set.
    Jump(i64),
    Poll,
    Infer([i8; 4]),
    /// A datagram of the queue arrives: which, and whether it stays there.
    Deliver(u8, bool),
    /// One arrives with a bit flipped.
    Damage(u8, u16),
    /// Any bytes.
    Noise(Vec<u8>),
    Lose(u8),
    /// The power goes at so many steps of the flash from now.
    Cut(u16),
    Restart(bool),
    /// The server offers one of these, or something else that it must not.
    Publish(u8, Manner),
    Flags(u8, bool),
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => Just(Manner::Instead),
        2 => (0..4u32).prop_map(|every| Manner::Shadow { every }),
        2 => Just(Manner::Hourly),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30_000u32).prop_map(Step::Wait),
        1 => (-4_000_000_000i64..4_000_000_000).prop_map(Step::Jump),
        6 => Just(Step::Poll),
        6 => any::<[i8; 4]>().prop_map(Step::Infer),
        16 => (any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(i, stays)| Step::Deliver(i, stays)),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(i, bit)| Step::Damage(i, bit)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Noise),
        2 => any::<u8>().prop_map(Step::Lose),
        1 => (0..3000u16).prop_map(Step::Cut),
        1 => any::<bool>().prop_map(Step::Restart),
        2 => (0..7u8, manner()).prop_map(|(which, manner)| Step::Publish(which, manner)),
        1 => (0..5u8, any::<bool>()).prop_map(|(sequence, serves)| Step::Flags(sequence, serves)),
    ]
}

/// A candidate by number, and whether it may be kept.
fn candidate(which: u8) -> (Pack, bool) {
    let (model, good) = match which {
        0 => (Sums::BETTER, true),
        1 => (Sums { golden: false, ..Sums::BETTER }, false),
        2 => (Sums { with: [f32::NAN; 4], ..Sums::GOOD }, false),
        3 => (Sums { with: [0.0, 0.25, 0.0, 0.0], ..Sums::GOOD }, true),
        _ => (Sums { kind: BinaryKind::Min, with: [-1000.0; 4], golden: true }, false),
    };
    (model.package(&which.to_string()), good)
}

/// What serves is one of the packages, and gives its own numbers.
fn honest(packs: &[(Pack, bool)], factory: &Pack, sees: [f32; 4], ran: &Inferred, read: Option<[f32; 4]>) {
    let all = packs.iter().map(|(p, _)| p).chain([factory]);
    let Some(pack) = all.into_iter().find(|p| p.digest == ran.digest) else { panic!("a package nobody made ran") };
    if ran.inference.is_some() {
        let bits = |v: [f32; 4]| v.map(f32::to_bits);
        let expected = pack.model.run(sees);
        let same = read.is_some_and(|r| bits(r) == bits(expected) || expected.iter().any(|v| v.is_nan()));
        assert!(same, "{read:?} instead of {expected:?}");
    }
}

/// Lives until a restart; gives the steps that are left.
fn schedule(world: &mut World, steps: &[Step], packs: &[(Pack, bool)]) -> usize {
    let cause = if let Some(Step::Restart(true)) = steps.first() { StartCause::Fault } else { StartCause::Power };
    let (mut number, factory) = (world.boot, world.factory.clone());
    let left = world.try_live(
        |c| (c.cause, c.constant) = (cause, 2),
        |life| {
            let mut queue: Vec<Vec<u8>> = Vec::new();
            for (at, step) in steps.iter().enumerate() {
                match step {
                    Step::Wait(ms) => life.now.set(life.now.get() + u64::from(*ms) * 1000),
                    Step::Jump(by) => life.now.set(life.now.get().saturating_add_signed(*by)),
                    Step::Poll => life.poll(),
                    Step::Infer(x) => {
                        let sees = x.map(f32::from);
                        if let Ok((ran, read)) = life.infer(sees) {
                            honest(packs, &factory, sees, &ran, read);
                        }
                    }
                    Step::Deliver(..) | Step::Damage(..) | Step::Lose(_) if queue.is_empty() => {}
                    Step::Deliver(i, stays) => {
                        let i = usize::from(*i) % queue.len();
                        let datagram = if *stays { queue[i].clone() } else { queue.remove(i) };
                        life.receive(&datagram);
                    }
                    Step::Damage(i, bit) => {
                        let mut datagram = queue[usize::from(*i) % queue.len()].clone();
                        let bit = usize::from(*bit) % (datagram.len() * 8);
                        datagram[bit / 8] ^= 1 << (bit % 8);
                        life.receive(&datagram);
                    }
                    Step::Noise(bytes) => life.receive(bytes),
                    Step::Lose(i) => {
                        queue.remove(usize::from(*i) % queue.len());
                    }
                    Step::Cut(_) | Step::Restart(_) if at > 0 => return at,
                    Step::Cut(_) | Step::Restart(_) => {}
                    Step::Publish(which, manner) => {
                        number += 1;
                        let pack = packs.get(usize::from(*which)).map_or(&factory, |(pack, _)| pack);
                        // Each second time the factory's package by its own release, which is the oldest.
                        let release = if *which == 6 && number % 2 == 0 { 1 } else { number };
                        let mut publication = Publication::run_by(pack, release, number.into(), *manner);
                        if *which == 5 {
                            // Signed for one package, and the bytes of another.
                            publication.stream = packs[0].0.bytes.clone();
                        }
                        life.server.publication = Some(publication);
                    }
                    Step::Flags(sequence, serves) => {
                        let spec = flag("dunlin.serve", Setting::Bool(*serves));
                        let sequence = u64::from(*sequence);
                        life.server.flags = Some((sequence, flags(sequence, vec![spec])));
                    }
                }
                let mut asked = 0;
                while let Some(datagram) = life.transmit() {
                    asked += 1;
                    assert!(asked < 10, "it talks without end");
                    queue.extend(life.server.hear(&datagram));
                }
            }
            steps.len()
        },
    );
    let ends = |step: &Step| matches!(step, Step::Cut(_) | Step::Restart(_));
    left.unwrap_or_else(|| steps.iter().skip(1).position(ends).map_or(steps.len(), |i| i + 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, what serves is whole and signed; once things are well again, the device is where it should be, and
    /// a bad package is neither running nor ever taken again.
    #[test]
    fn whatever_happens_it_serves_and_comes_round(steps in prop::collection::vec(step(), 1..400), last in 0..5u8) {
        let packs: Vec<_> = (0..5).map(candidate).collect();
        let mut world = World::new();
        let mut rest = &steps[..];
        while !rest.is_empty() {
            world.flash.power_on();
            if let Some(Step::Cut(steps)) = rest.first() {
                world.flash.cut_after((*steps).into(), 7);
            }
            rest = &rest[schedule(&mut world, rest, &packs)..];
        }
        world.flash.power_on();
        prop_assert_eq!(world.flash.violations(), 0);
        // Things are well again.
        let (pack, good) = &packs[usize::from(last)];
        let number = 100_000;
        world.server = Server { wait: 1000, reports: world.server.reports.clone(), ..Server::default() };
        world.server.offer(pack, number);
        let factory = world.factory.clone();
        for lives in 0..2 {
            world.live(|c| c.constant = 2, |life| {
                for i in 0..60 {
                    life.talk();
                    let sees = [i as f32, 2.0, 3.0, 2.5];
                    let (ran, read) = life.infer(sees).expect("it runs");
                    honest(&packs, &factory, sees, &ran, read);
                    life.sleep();
                }
                let known = life.device.check_in();
                // What was on its way before stays so when nothing takes its place.
                let stays = !life.server.refused.is_empty() || known.running == Some(pack.digest);
                let halfway = matches!(known.phase, Phase::Fetching | Phase::Staged) && stays;
                assert!(known.phase == Phase::Idle || halfway, "{lives}: {known:?} {:?}", life.server.refused);
                let (running, buried) = (known.running.expect("one runs"), life.device.updater.state());
                let runs = packs.iter().find(|(p, _)| p.digest == running);
                assert!(runs.is_none_or(|(_, good)| *good), "a bad one runs");
                if *good {
                    let buried = buried.is_buried(&pack.digest, number);
                    assert!(running == pack.digest || buried, "{known:?}");
                } else {
                    assert_ne!(running, pack.digest);
                }
            });
        }
    }

    /// However datagrams are lost, repeated and late: each inference is told exactly once, and the update arrives.
    #[test]
    fn reports_survive_a_bad_network(lost in 0..40u32, twice in 0..40u32, late in 0..40u32, seed in 1..u64::MAX) {
        let better = Sums::BETTER.package("2");
        let mut world = World::new();
        world.server.offer(&better, 2);
        let mut state = seed;
        let mut random = move |of: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as u32 % of
        };
        let inferences = world.live(|c| c.window = 20 * SECOND, |life| {
            let (mut inferences, mut queue) = (0, Vec::<Vec<u8>>::new());
            for i in 0..2500 {
                if i < 1500 {
                    life.infer([i as f32, 2.0, 3.0, 2.5]).expect("it runs");
                    inferences += 1;
                } else if i == 1500 {
                    life.device.close_window(life.now.get());
                }
                life.poll();
                while let Some(datagram) = life.transmit() {
                    if random(100) >= lost {
                        queue.extend(life.server.hear(&datagram));
                    }
                }
                while !queue.is_empty() && random(100) >= late {
                    let which = random(queue.len() as u32) as usize;
                    let datagram = if random(100) < twice { queue[which].clone() } else { queue.swap_remove(which) };
                    life.receive(&datagram);
                    while let Some(datagram) = life.transmit() {
                        queue.extend(life.server.hear(&datagram));
                    }
                }
                life.now.set(life.now.get() + SECOND);
            }
            assert_eq!(life.device.reports(), 0);
            assert_eq!(life.device.check_in().running, Some(better.digest));
            inferences
        });
        let told: u32 = world.server.reports.values().map(|r| r.inferences).sum();
        let dropped: u32 = world.server.reports.values().map(|r| r.dropped).sum();
        prop_assert!(told == inferences || dropped > 0, "{} of {}, {} windows dropped", told, inferences, dropped);
    }

    /// Datagrams of nothing but noise, and well-formed ones that answer nothing.
    #[test]
    fn noise_changes_nothing(noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..50)) {
        let mut world = World::new();
        let old = world.factory.digest;
        world.live(|_| (), |life| {
            for bytes in &noise {
                life.poll();
                while life.transmit().is_some() {}
                life.receive(bytes);
                let mut versioned = vec![message::VERSION];
                versioned.extend(bytes);
                life.receive(&versioned);
                life.now.set(life.now.get() + SECOND / 2);
            }
            assert_eq!(life.device.check_in().running, Some(old));
            assert_eq!(life.device.check_in().phase, Phase::Idle);
            assert_eq!(life.device.flags_sequence(), 0);
        });
    }
}
