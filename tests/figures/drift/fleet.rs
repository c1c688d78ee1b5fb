//! A simulated fleet: devices with class mixes of their own, which run the real recorder and send real reports.

use std::collections::HashMap;

use dunlin::Package;
use dunlin::kernels::best;
use dunlin::onnx::Options;
use dunlin_cli::failure::Failure;
use dunlin_cli::model::{self, File};
use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::analysis::{Baseline, Fleet, Random, Tally};
use dunlin_telemetry::calibrate::{Calibrator, Options as Calibration, Spec};
use dunlin_telemetry::reference::{Confidence, Port, Statistic};
use dunlin_telemetry::report::Report;
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample, Values};

use crate::scene::{Scene, Shift};

/// What is done with an input, its output and its label.
type Label<'s> = dyn FnMut(&[f32], &[f32], Option<usize>) + 's;

/// Devices of a fleet.
pub(crate) const DEVICES: usize = 50;
/// Inferences of a device in a window.
pub(crate) const EACH: usize = 40;
/// Windows of a week.
pub(crate) const WEEK: usize = 168;
/// How much alike the class mixes of devices are: the sum of the Dirichlet distribution's weights.
pub(crate) const CONCENTRATION: f64 = 30.0;
/// Views of the reference, and of each pool.
const VIEWS: usize = 4000;
/// The names of [`Seen::features`].
pub(crate) const FEATURES: [&str; 2] = ["input mean", "input range"];

/// One inference.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The item of the test data.
    pub(crate) item: usize,
    /// The class that the engine gave.
    pub(crate) class: usize,
    /// Its probability by softmax.
    pub(crate) confidence: f64,
    /// The watched values.
    pub(crate) features: [f64; 2],
    /// Whether the class was right.
    pub(crate) right: bool,
    /// What the device's code makes of it.
    pub(crate) sample: Option<Sample>,
}

/// A model with what its sensors see, and the reference.
pub(crate) struct World {
    /// The test data.
    pub(crate) scene: Scene,
    /// For each shift the inputs that devices draw from, by class of the item.
    pools: HashMap<Shift, Vec<Vec<Seen>>>,
    /// The package's drift section.
    pub(crate) section: Vec<u8>,
    /// The reference's counts.
    pub(crate) baseline: Baseline,
    /// Share of right answers in the reference.
    pub(crate) accuracy: f64,
    /// Inferences of the reference.
    pub(crate) reference: Vec<Seen>,
    model: u16,
}

/// What the engine gave for an input, with the device's sample where there is a reference yet.
fn seen(item: usize, x: &[f32], output: &[f32], label: Option<usize>, reference: Option<&Reference<'_>>) -> Seen {
    let (inputs, outputs) = ([Values::F32(x)], [Values::F32(output)]);
    let observation = Observation { micros: 1000, inputs: &inputs, outputs: &outputs, ..Observation::default() };
    let observation = observation.classified_by(0, Confidence::Softmax);
    let class = observation.class.map_or(0, usize::from);
    let watch = |statistic| f64::from(inputs[0].statistic(statistic).unwrap_or(f32::NAN));
    Seen {
        item,
        class,
        confidence: observation.confidence.map_or(f64::NAN, f64::from),
        features: [watch(Statistic::Mean), watch(Statistic::Range)],
        right: label == Some(class),
        sample: reference.map(|r| Sample::of(r, &observation)),
    }
}

impl World {
    /// Compiles the model, calibrates it on views of its test data, and runs it on others.
    pub(crate) fn new(name: &str, version: &str, seed: u64) -> Self {
        let scene = Scene::of(name, version);
        let file =
            File::from_bytes(name, scene.artifact.onnx, &Options::default()).unwrap_or_else(|e| panic!("{}", e.text));
        let [first, second, ..] = Package::open(&file.bytes).expect("a package").digest();
        let classes = scene.artifact.labels.len();
        let spec = Spec {
            class_output: Some(0),
            confidence_by: Confidence::Softmax,
            deadline_us: 0,
            features: vec![(Port::Input(0), Statistic::Mean), (Port::Input(0), Statistic::Range)],
            embedding: Some((Port::Output(0), 1)),
        };
        let mut random = Random::new(seed);
        let ran = model::with(name, &file.bytes, best(), |_, running| {
            let mut infer = |i: usize,
                             shift: Shift,
                             random: &mut Random,
                             reference: Option<&Reference<'_>>,
                             label: &mut Label<'_>| {
                let (x, right) = scene.view(i, shift, random);
                running.session.input(0).copy_from_slice(&x).expect("an input of this length");
                running.run()?;
                let output = running.session.output(0);
                let output = output.as_slice::<f32>().expect("floats");
                label(&x, output, right);
                Ok::<_, Failure>(seen(i, &x, output, right, reference))
            };
            let mut calibrator = Calibrator::new(Calibration { classes, ..Calibration::default() });
            let mut reference = Vec::new();
            for i in 0..VIEWS {
                let item = i % scene.items.len();
                let push = &mut |x: &[f32], output: &[f32], label: Option<usize>| {
                    let (inputs, outputs) = ([Values::F32(x)], [Values::F32(output)]);
                    let observation = Observation { inputs: &inputs, outputs: &outputs, ..Observation::default() };
                    calibrator.observe(&spec, &observation, label).expect("outputs of one model");
                };
                reference.push(infer(item, Shift::None, &mut random, None, push)?);
            }
            let calibrated = calibrator.finish().expect("outputs that vary");
            let section = calibrated.draft(&spec).write().expect("a drift section");
            let read = Reference::read(&section).expect("a reference");
            let mut pools = HashMap::new();
            for shift in [Shift::None, Shift::Noise, Shift::Blur, Shift::Gain, Shift::Unseen] {
                let mut pool = vec![Vec::new(); classes];
                for i in 0..VIEWS {
                    let item = i % scene.items.len();
                    let seen = infer(item, shift, &mut random, Some(&read), &mut |_, _, _| {})?;
                    pool[scene.labels[item]].push(seen);
                }
                pools.insert(shift, pool);
            }
            let baseline = Baseline::from(&read);
            Ok((pools, baseline, section, calibrated.accuracy.unwrap_or(f64::NAN), reference))
        });
        let (pools, baseline, section, accuracy, reference) = ran.unwrap_or_else(|e| panic!("{}", e.text));
        Self { scene, pools, section, baseline, accuracy, reference, model: u16::from_be_bytes([first, second]) }
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &'static str {
        self.scene.artifact.name
    }

    /// Its classes.
    pub(crate) fn classes(&self) -> usize {
        self.scene.artifact.labels.len()
    }

    /// One input of this class under a shift.
    fn draw(&self, class: usize, shift: Shift, random: &mut Random) -> &Seen {
        let pool = &self.pools[&shift.pool()][class];
        &pool[random.below(pool.len())]
    }
}

/// A fleet's devices.
pub(crate) struct Devices<'w> {
    world: &'w World,
    /// Cumulated class shares of each.
    mixes: Vec<Vec<f64>>,
    recorders: Vec<Recorder<10, 2>>,
    /// What a stuck sensor sees.
    stuck: Vec<Option<&'w Seen>>,
    shift: Shift,
    random: Random,
    hours: u32,
    /// Bytes of the reports so far, and their number.
    pub(crate) bytes: (usize, usize),
}

impl<'w> Devices<'w> {
    /// Devices with mixes around the same share of every class, before any shift.
    pub(crate) fn new(world: &'w World, seed: u64) -> Self {
        let reference = Reference::read(&world.section).expect("a reference");
        let recorder = Recorder::new(1, world.model).shaped(&reference);
        let mut devices = Self {
            world,
            mixes: Vec::new(),
            recorders: vec![recorder; DEVICES],
            stuck: vec![None; DEVICES],
            shift: Shift::None,
            random: Random::new(seed),
            hours: 0,
            bytes: (0, 0),
        };
        devices.mix(&vec![1.0 / world.classes() as f64; world.classes()]);
        devices
    }

    fn mix(&mut self, shares: &[f64]) {
        let weights: Vec<f64> = shares.iter().map(|s| s * CONCENTRATION).collect();
        self.mixes = (0..DEVICES)
            .map(|_| {
                let mut sum = 0.0;
                let cumulate = |share: f64| {
                    sum += share;
                    sum
                };
                self.random.dirichlet(&weights).into_iter().map(cumulate).collect()
            })
            .collect();
    }

    /// From now on under this shift.
    pub(crate) fn shift(&mut self, shift: Shift) {
        self.shift = shift;
        if shift == Shift::Mix {
            // Three classes take two thirds.
            let classes = self.world.classes();
            let share = |c: usize| if c < 3 { 2.0 / 9.0 } else { 1.0 / 3.0 / (classes - 3) as f64 };
            self.mix(&(0..classes).map(share).collect::<Vec<f64>>());
        }
    }

    fn next(&mut self, device: usize) -> &'w Seen {
        if let Some(seen) = self.stuck[device] {
            return seen;
        }
        let mix = &self.mixes[device];
        let at = self.random.uniform() * mix.last().copied().unwrap_or(1.0);
        let class = mix.iter().take_while(|&&share| share <= at).count().min(mix.len() - 1);
        let seen = self.world.draw(class, self.shift, &mut self.random);
        // A third of the sensors.
        if self.shift == Shift::Stuck && device.is_multiple_of(3) {
            self.stuck[device] = Some(seen);
        }
        seen
    }

    /// The next window: what each device saw.
    pub(crate) fn see(&mut self) -> Vec<Vec<&'w Seen>> {
        (0..DEVICES).map(|device| (0..EACH).map(|_| self.next(device)).collect()).collect()
    }

    /// Records, reports, and reads the reports as a server does.
    pub(crate) fn report(&mut self, seen: &[Vec<&'w Seen>]) -> Fleet {
        self.hours += 1;
        let mut fleet = Fleet::default();
        for (device, (recorder, seen)) in self.recorders.iter_mut().zip(seen).enumerate() {
            for one in seen {
                recorder.add(one.sample.as_ref().expect("pools have samples"));
            }
            let mut buffer = [0; 512];
            let len = recorder.take(self.hours * 3600).encode(Profile::Full, &mut buffer).expect("room for a report");
            self.bytes = (self.bytes.0 + len, self.bytes.1 + 1);
            let report = Report::<10, 2>::decode(&buffer[..len]).expect("a report");
            let Report::Known(_, window) = report else { panic!("a report of this version") };
            let mut counts = Aggregate::new();
            counts.add(&window);
            fleet.add(device as u64, &Tally::from(&counts));
        }
        fleet
    }
}
