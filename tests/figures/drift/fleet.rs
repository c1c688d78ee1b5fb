//! A simulated fleet: devices with class mixes of their own, and what they count in windows of an hour.

use std::collections::HashMap;

use dunlin::kernels::best;
use dunlin::onnx::Options;
use dunlin_cli::model::{self, File};
use dunlin_telemetry::analysis::{Baseline, Feature, Random, Tally};
use dunlin_telemetry::calibrate::{Calibrated, Calibrator, Options as Calibration, Point};

use crate::scene::{Scene, Shift};

/// Devices of a fleet.
pub const DEVICES: usize = 50;
/// Inferences of a device in a window.
pub const EACH: usize = 40;
/// Windows of a week.
pub const WEEK: usize = 168;
/// How much alike the class mixes of devices are: the sum of the Dirichlet distribution's weights.
pub const CONCENTRATION: f64 = 30.0;
/// Views of the reference, and of each pool.
const VIEWS: usize = 4000;

/// What the engine gave for one input.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The item of the test data.
    pub item: usize,
    /// The class.
    pub class: usize,
    /// Its probability by softmax.
    pub confidence: f64,
    /// The outputs.
    pub outputs: Vec<f64>,
    /// Mean and standard deviation of the input.
    pub features: [f64; 2],
    /// Whether the class was right.
    pub right: bool,
}

/// The names of [`Seen::features`].
pub const FEATURES: [&str; 2] = ["input mean", "input deviation"];

/// A model with what its sensors see, and the reference.
pub struct World {
    /// The test data.
    pub scene: Scene,
    /// For each shift the inputs that devices draw from, by class of the item.
    pools: HashMap<Shift, Vec<Vec<Seen>>>,
    /// What the calibration found.
    pub calibrated: Calibrated,
    /// The same as a baseline.
    pub baseline: Baseline,
    /// Observations of the reference, for the peer.
    pub reference: Vec<Seen>,
}

fn seen(item: usize, x: &[f32], outputs: &[f32], label: Option<usize>) -> Seen {
    let outputs: Vec<f64> = outputs.iter().map(|&v| f64::from(v)).collect();
    let most = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let class = outputs.iter().position(|&v| v == most).unwrap_or(0);
    let confidence = 1.0 / outputs.iter().map(|v| (v - most).exp()).sum::<f64>();
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    Seen { item, class, confidence, outputs, features: [mean, variance.sqrt()], right: label == Some(class) }
}

impl World {
    /// Compiles the model, runs it on views of its test data and calibrates.
    pub fn new(name: &str, version: &str, seed: u64) -> Self {
        let scene = Scene::of(name, version);
        let file =
            File::from_bytes(name, scene.artifact.onnx, &Options::default()).unwrap_or_else(|e| panic!("{}", e.text));
        let mut random = Random::new(seed);
        let mut pools = HashMap::new();
        let mut reference = Vec::new();
        let classes = scene.artifact.labels.len();
        let ran = model::with(name, &file.bytes, best(), |_, running| {
            let mut infer = |i: usize, shift: Shift, random: &mut Random| {
                let (x, label) = scene.view(i, shift, random);
                running.session.input(0).copy_from_slice(&x).expect("an input of this length");
                running.run()?;
                Ok(seen(i, &x, running.session.output(0).as_slice::<f32>().expect("floats"), label))
            };
            for i in 0..VIEWS {
                reference.push(infer(i % scene.items.len(), Shift::None, &mut random)?);
            }
            for shift in [Shift::None, Shift::Noise, Shift::Blur, Shift::Gain, Shift::Unseen] {
                let mut pool = vec![Vec::new(); classes];
                for i in 0..VIEWS {
                    let item = i % scene.items.len();
                    pool[scene.labels[item]].push(infer(item, shift, &mut random)?);
                }
                pools.insert(shift, pool);
            }
            Ok(())
        });
        ran.unwrap_or_else(|e| panic!("{}", e.text));
        let mut calibrator = Calibrator::new(Calibration { classes, ..Calibration::default() });
        for s in &reference {
            let observation = Point {
                class: Some(s.class),
                confidence: Some(s.confidence),
                label: Some(if s.right { s.class } else { classes }),
                embedding: &s.outputs,
                features: &s.features,
            };
            calibrator.push(&observation).expect("outputs of one model");
        }
        let calibrated = calibrator.finish().expect("outputs that vary");
        let baseline = baseline(&calibrated);
        Self { scene, pools, calibrated, baseline, reference }
    }

    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.scene.artifact.name
    }

    /// Its classes.
    pub fn classes(&self) -> usize {
        self.scene.artifact.labels.len()
    }

    /// Share of right answers in the reference.
    pub fn accuracy(&self) -> f64 {
        self.calibrated.accuracy.unwrap_or(f64::NAN)
    }

    /// The bin of its confidence.
    pub fn confidence_bin(&self, seen: &Seen) -> usize {
        ((seen.confidence * 10.0) as usize).min(9)
    }

    /// What a device counts of its inferences.
    pub fn report(&self, seen: &[&Seen]) -> Tally {
        let b = &self.baseline;
        let projection = self.calibrated.projection.as_ref().expect("outputs are embeddings");
        let mut tally = Tally {
            class: vec![0; b.class.len()],
            confidence: vec![0; b.confidence.len()],
            distance: vec![0; b.distance.len()],
            features: b.features.iter().map(|f| vec![0; f.counts.len()]).collect(),
            points: 0,
            sum: vec![0.0; projection.rows.len()],
        };
        for s in seen {
            tally.class[s.class] += 1;
            tally.confidence[self.confidence_bin(s)] += 1;
            let z = projection.apply(&s.outputs);
            tally.distance[distance_bin(z.iter().map(|z| z * z).sum())] += 1;
            tally.points += 1;
            tally.sum.iter_mut().zip(&z).for_each(|(a, b)| *a += b);
            for ((counts, q), value) in tally.features.iter_mut().zip(&self.calibrated.features).zip(s.features) {
                counts[q.bin(value)] += 1;
            }
        }
        tally
    }

    /// One input of this class under a shift.
    fn draw(&self, class: usize, shift: Shift, random: &mut Random) -> &Seen {
        let pool = &self.pools[&shift.pool()][class];
        &pool[random.below(pool.len())]
    }
}

/// Bounds of the squared distance's bins.
fn distance_bin(d2: f64) -> usize {
    ((d2.max(1.0).log2().floor() as usize) + usize::from(d2 >= 1.0)).min(7)
}

fn baseline(calibrated: &Calibrated) -> Baseline {
    let mut distance = vec![0; 8];
    for &d2 in &calibrated.distances {
        distance[distance_bin(d2)] += 1;
    }
    let features = calibrated.features.iter().zip(FEATURES);
    Baseline {
        class: calibrated.class.clone(),
        confidence: calibrated.confidence.clone(),
        distance,
        features: features
            .map(|(q, name)| Feature { name: name.into(), edges: q.edges.clone(), counts: q.counts.clone() })
            .collect(),
        points: calibrated.n,
    }
}

/// A fleet's devices.
pub struct Devices {
    /// Cumulated class shares of each.
    mixes: Vec<Vec<f64>>,
    shift: Shift,
    random: Random,
}

impl Devices {
    /// Devices with mixes around the same share of every class, before any shift.
    pub fn new(classes: usize, seed: u64) -> Self {
        let mut devices = Self { mixes: Vec::new(), shift: Shift::None, random: Random::new(seed) };
        devices.mix(&vec![1.0 / classes as f64; classes]);
        devices
    }

    fn mix(&mut self, shares: &[f64]) {
        let weights: Vec<f64> = shares.iter().map(|s| s * CONCENTRATION).collect();
        self.mixes = (0..DEVICES)
            .map(|_| {
                let shares = self.random.dirichlet(&weights).into_iter();
                shares
                    .scan(0.0, |sum, s| {
                        *sum += s;
                        Some(*sum)
                    })
                    .collect()
            })
            .collect();
    }

    /// From now on under this shift.
    pub fn shift(&mut self, shift: Shift) {
        self.shift = shift;
        if shift == Shift::Mix {
            // Three classes take two thirds.
            let classes = self.mixes[0].len();
            let shares: Vec<f64> =
                (0..classes).map(|c| if c < 3 { 2.0 / 9.0 } else { 1.0 / 3.0 / (classes - 3) as f64 }).collect();
            self.mix(&shares);
        }
    }

    /// What every device sees in the next window.
    pub fn window<'w>(&mut self, world: &'w World) -> Vec<Vec<&'w Seen>> {
        let mut all = Vec::new();
        for (d, mix) in self.mixes.iter().enumerate() {
            let random = &mut self.random;
            let mut next = || {
                let at = random.uniform() * mix.last().copied().unwrap_or(1.0);
                let class = mix.iter().take_while(|&&share| share <= at).count().min(mix.len() - 1);
                world.draw(class, self.shift, random)
            };
            // A third of the devices.
            if self.shift == Shift::Stuck && d % 3 == 0 {
                all.push(vec![next(); EACH]);
            } else {
                all.push((0..EACH).map(|_| next()).collect());
            }
        }
        all
    }
}
