use super::*;
use crate::reference::{Change, Draft, EmbeddingDraft, Feature};
use proptest::prelude::*;

/// A reference with two watched values and an embedding of four values in two axes.
fn reference() -> std::vec::Vec<u8> {
    let feature = |port, statistic, inner: [f32; 2]| Feature {
        port,
        statistic,
        bins: 3,
        edges: [-10.0, inner[0], inner[1], 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        counts: [5, 5, 5, 0, 0, 0, 0, 0, 0, 0],
    };
    Draft {
        n: 15,
        deadline_us: 1000,
        classes: std::vec![5, 5, 5],
        change: Change { mean: 2.0, drift: 0.5, threshold: 60.0 },
        features: std::vec![
            feature(Port::Input(0), Statistic::Mean, [0.0, 1.0]),
            feature(Port::Output(0), Statistic::Element(1), [0.25, 0.5]),
        ],
        embedding: Some(EmbeddingDraft {
            port: Port::Input(0),
            pool: 1,
            distance_first: 0,
            rows: std::vec![(std::vec![1, 0, 0, 0], 1.0, 0.0), (std::vec![0, 2, 0, 0], 0.5, 1.0)],
            distances: [15, 0, 0, 0, 0, 0, 0, 0],
        }),
        ..Draft::new()
    }
    .write()
    .expect("a reference")
}

#[test]
fn the_default_recorder_is_small() {
    let size = size_of::<DefaultRecorder>();
    println!("{size} bytes, a sample {} bytes", size_of::<Sample>());
    assert!(size <= 384, "{size}");
    assert!(size_of::<Sample>() <= 64);
}

#[test]
fn an_inference_is_counted_everywhere() {
    let bytes = reference();
    let reference = Reference::read(&bytes).expect("a reference");
    let mut recorder = Recorder::<4, 2>::new(3, 0xABCD).shaped(&reference);
    let inputs = [Values::F32(&[3.0, 1.0, 0.0, -2.0])];
    let outputs = [Values::F32(&[0.1, 0.3, 0.6])];
    let seen = Observation { micros: 1500, inputs: &inputs, outputs: &outputs, ..Observation::default() }.classified();
    assert_eq!((seen.class, seen.confidence), (Some(2), Some(0.6)));
    let sample = Sample::of(&reference, &seen);
    assert!(!recorder.add(&sample));
    recorder.count(Counter::Resets, 1);
    recorder.set_arm(Arm::Control);
    let window = recorder.take(60);
    let counter = |c| window.counters().get(c);
    let counters =
        [Counter::Inferences, Counter::DeadlineMisses, Counter::Resets, Counter::Stuck, Counter::Flips].map(counter);
    assert_eq!(counters, [1, 1, 1, 0, 0]);
    assert_eq!(window.latency()[latency::place(1500, latency::FIRST)], 1);
    assert_eq!(window.confidence(), &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(window.classes(), [0, 0, 1]);
    assert_eq!(window.features()[0][..3], [0, 1, 0]);
    assert_eq!(window.features()[1][..3], [0, 1, 0]);
    // z = (3, 0), so the squared distance is 9, from 8 to 16.
    assert_eq!((window.mean(0), window.mean(1)), (Some(3.0), Some(0.0)));
    assert_eq!(window.distances(), &[0, 0, 0, 0, 1, 0, 0, 0]);
    let head = window.head();
    assert_eq!(
        (head.model, head.arm, head.boot, head.seq, head.span, head.seconds),
        (0xABCD, Arm::Control, 3, 0, 1, 60)
    );
    // Windows begin empty; what crosses them goes on.
    assert!(!recorder.add(&sample));
    let window = recorder.take(90);
    assert_eq!((window.head().seq, window.head().seconds), (1, 30));
    let counter = |c| window.counters().get(c);
    assert_eq!([Counter::Inferences, Counter::Resets, Counter::Stuck].map(counter), [1, 0, 1]);
}

#[test]
fn inputs_that_are_no_inputs_are_counted() {
    let mut recorder = DefaultRecorder::new(0, 0);
    let mut add = |values: Values<'_>| {
        let inputs = [values];
        recorder.add(&Sample::of(&Reference::NONE, &Observation { inputs: &inputs, ..Observation::default() }));
    };
    add(Values::F32(&[0.0, f32::NAN]));
    add(Values::F32(&[0.0, f32::INFINITY]));
    add(Values::I8 { q: &[127, -128, 0, 0, 1], scale: 1.0, zero_point: 0 });
    add(Values::I8 { q: &[127, -128, 0, 0, 1], scale: 1.0, zero_point: 0 });
    add(Values::I8 { q: &[127, 0, 0, 2], scale: 1.0, zero_point: 0 });
    let counters = recorder.counters();
    let counted = [Counter::NotANumber, Counter::Saturated, Counter::Stuck].map(|c| counters.get(c));
    assert_eq!(counted, [2, 2, 1]);
}

#[test]
fn faults_shadows_caches_and_energy_are_counted() {
    let mut recorder = DefaultRecorder::new(0, 0);
    for (fault, class) in
        [(Some(Fault::Input), None), (Some(Fault::Inference), None), (Some(Fault::Output), Some(1)), (None, Some(2))]
    {
        let seen = Observation { fault, class, energy_uj: 7, shadow: class.map(|c| c == 2), ..Observation::default() };
        recorder.add(&Sample::of(&Reference::NONE, &seen));
    }
    let seen = Observation { fault: Some(Fault::Other), cached: true, guardrail: true, ..Observation::default() };
    recorder.add(&Sample::of(&Reference::NONE, &seen));
    recorder.count(Counter::ArenaPeak, 900);
    recorder.count(Counter::ArenaPeak, 700);
    let counters = recorder.counters();
    assert_eq!(counters.errors(), 4);
    let counted = [
        Counter::ShadowRuns,
        Counter::ShadowDisagreements,
        Counter::CacheHits,
        Counter::Guardrails,
        Counter::Energy,
        Counter::ArenaPeak,
        Counter::Flips,
    ]
    .map(|c| counters.get(c));
    assert_eq!(counted, [2, 1, 1, 1, 28, 900, 1]);
}

#[test]
fn a_change_gives_an_alarm_and_noise_does_not() {
    let bytes = reference();
    let reference = Reference::read(&bytes).expect("a reference");
    let mut recorder = Recorder::<3, 2>::new(0, 0).shaped(&reference);
    let mut run = |scale: f32, n: u32| {
        let mut state = 9u32;
        let mut alarm = None;
        for i in 0..n {
            let mut next = || {
                // The sum of four even numbers is near enough to a normal one; its variance is a third.
                let mut sum = 0.0;
                for _ in 0..4 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    sum += state as f32 / u32::MAX as f32 - 0.5;
                }
                sum * 1.732 * scale
            };
            let values = [next(), 1.0 + next(), 0.0, i as f32];
            let inputs = [Values::F32(&values)];
            let seen = Observation { inputs: &inputs, ..Observation::default() };
            if recorder.add(&Sample::of(&reference, &seen)) && alarm.is_none() {
                alarm = Some(i);
            }
        }
        alarm
    };
    assert_eq!(run(1.0, 3000), None);
    let found = run(2.5, 100).expect("an alarm");
    assert!(found < 20, "{found}");
}

#[test]
fn a_full_window_says_so() {
    let mut recorder = DefaultRecorder::new(0, 0);
    let seen = Observation { micros: 5, class: Some(3), confidence: Some(1.0), ..Observation::default() };
    let sample = Sample::of(&Reference::NONE, &seen);
    for _ in 0..u32::from(u16::MAX) {
        assert!(!recorder.is_full());
        recorder.add(&sample);
    }
    assert!(recorder.is_full());
    recorder.add(&sample);
    let window = recorder.take(1);
    assert!(!window.head().complete);
    assert_eq!((window.classes()[3], window.counters().inferences()), (65_535, 65_535));
    recorder.add(&sample);
    assert!(recorder.take(2).head().complete);
}

/// Samples cross from an interrupt through a queue without a lock.
#[test]
fn samples_go_through_a_queue() {
    let mut queue = heapless::spsc::Queue::<Sample, 4>::new();
    let (mut producer, mut consumer) = queue.split();
    let mut recorder = DefaultRecorder::new(0, 0);
    for round in 0..10u16 {
        for class in 0..3 {
            let seen = Observation { class: Some((round + class) % 10), ..Observation::default() };
            producer.enqueue(Sample::of(&Reference::NONE, &seen)).expect("room for three");
        }
        while let Some(sample) = consumer.dequeue() {
            recorder.add(&sample);
        }
    }
    assert_eq!(recorder.counters().inferences(), 30);
}

proptest! {
    /// Whatever is seen, nothing panics, and sums agree.
    #[test]
    fn whatever_is_seen(
        seen in proptest::collection::vec((any::<u32>(), any::<Option<u16>>(), any::<Option<f32>>(), any::<[f32; 4]>()), 1..50)
    ) {
        let bytes = reference();
        let reference = Reference::read(&bytes).expect("a reference");
        let mut recorder = Recorder::<3, 2>::new(0, 0).shaped(&reference);
        for (micros, class, confidence, values) in &seen {
            let inputs = [Values::F32(values)];
            let outputs = [Values::F32(values)];
            let (class, confidence) = (*class, *confidence);
            let seen =
                Observation { micros: *micros, inputs: &inputs, outputs: &outputs, class, confidence, ..Observation::default() };
            recorder.add(&Sample::of(&reference, &seen));
        }
        let window = recorder.take(1);
        prop_assert_eq!(window.latency().iter().sum::<u32>(), seen.len() as u32);
        prop_assert!(window.embeddings() <= seen.len() as u32);
        let mut bytes = [0; 512];
        prop_assert!(window.encode(crate::Profile::Full, &mut bytes).is_ok());
    }

    /// The int8 form agrees with the float form.
    #[test]
    fn integers_and_floats_agree(q in proptest::collection::vec(any::<i8>(), 1..40), zero in -128i32..128) {
        let scale = 0.03f32;
        let floats: std::vec::Vec<f32> = q.iter().map(|q| scale * (i32::from(*q) - zero) as f32).collect();
        let integers = Values::I8 { q: &q, scale, zero_point: zero };
        let floats = Values::F32(&floats);
        prop_assert_eq!(integers.greatest(), floats.greatest());
        for statistic in [Statistic::Mean, Statistic::Range, Statistic::Element(q.len() as u32 / 2)] {
            let (a, b) = (integers.statistic(statistic).unwrap(), floats.statistic(statistic).unwrap());
            prop_assert!((a - b).abs() < 1e-3, "{} {}", a, b);
        }
    }
}

#[test]
fn inputs_and_outputs_may_be_seen_apart() {
    let bytes = reference();
    let reference = Reference::read(&bytes).expect("a reference");
    let inputs = [Values::F32(&[3.0, 1.0, 0.0, f32::INFINITY])];
    let outputs = [Values::F32(&[0.1, 0.3, 0.6])];
    let together = Observation { micros: 1500, inputs: &inputs, outputs: &outputs, ..Observation::default() };
    let input = Sample::of(&reference, &Observation { inputs: &inputs, ..Observation::default() });
    let output = Observation { micros: 1500, outputs: &outputs, ..Observation::default() };
    let whole = Sample::of(&reference, &together.classified());
    let joined = Sample::of(&reference, &output.classified()).joined(&input);
    // The hash of an input is only compared with that of the one before.
    assert_eq!(Sample { input_hash: whole.input_hash, ..joined }, whole);
    let again = Sample::of(&reference, &output.classified()).joined(&input);
    assert_eq!(joined, again);
    let mut recorder = Recorder::<4, 2>::new(3, 0xABCD).shaped(&reference);
    recorder.add(&joined.with_shadow(true));
    recorder.add(&joined.with_shadow(false));
    let counters = [Counter::Stuck, Counter::ShadowRuns, Counter::ShadowDisagreements, Counter::NotANumber];
    assert_eq!(counters.map(|c| recorder.counters().get(c)), [1, 2, 1, 2]);
}

#[test]
fn another_model_is_counted_in_the_next_window_of_the_same_start() {
    let bytes = reference();
    let reference = Reference::read(&bytes).expect("a reference");
    let mut recorder = Recorder::<4, 2>::new(3, 1);
    let seen = Observation { class: Some(1), ..Observation::default() };
    recorder.add(&Sample::of(&Reference::NONE, &seen));
    assert_eq!((recorder.take(9).head().seq, recorder.class_count), (0, 4));
    recorder.serve(2, &reference);
    recorder.add(&Sample::of(&reference, &Observation { class: Some(2), ..seen }));
    let window = recorder.take(20);
    let head = window.head();
    assert_eq!((head.model, head.boot, head.seq, head.seconds), (2, 3, 1, 11));
    assert_eq!((window.classes(), window.counters().get(Counter::Flips)), (&[0, 0, 1][..], 0));
}
