//! What an application pays for the front door: `OwnedSession::run`, `Device::infer` and `Session::new` over the loop that
//! `dunlin bench` measures.
//!
//! `cargo run --release -p dunlin-tests --example front_door [-- [FOLDER] [--rounds N]]`
//!
//! That loop is `Session::with_packed` with an input that is filled once. The others fill their input each time, as
//! applications do. Loading, compiling and repacking are left out. All run in this process, one thread, a few inferences each by
//! turns; a ratio is the median over rounds of two medians of the same round, so that a busy machine slows both. Models are
//! digits-2 and kws-1, and from FOLDER kws and mobilenetv2 (`NAME.onnx` beside `NAME.npz`).

use std::time::Instant;

use dunlin::kernels::{Backend, Best, Scalar, available};
use dunlin::{Arena, Block, InputError, Model, OwnedSession, Package, Session, ops};
use dunlin_cli::flock::memory::Memory;
use dunlin_device::{Config, Device, Memory as Lent, Task};
use dunlin_tests::corpus::corpus;
use dunlin_update::delta::Applier;
use dunlin_update::trust::{Ed25519, RoleKeys, RootKeys};
use dunlin_update::{Device as Profile, Installed, Limits, StartCause, Updater};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Models that are measured, where their input is f32, which is what `OwnedSession::run` takes.
const MODELS: [&str; 4] = ["digits-2", "kws-1", "kws", "mobilenetv2"];
/// Microseconds of a candidate's turn in a round, and inferences in it.
const TURN_US: f64 = 20_000.0;
const TURNS: std::ops::RangeInclusive<usize> = 3..=200;

/// An inference by one of the ways; what it gives counts.
type Candidate<'c> = (&'static str, f64, Box<dyn FnMut() -> Vec<u32> + 'c>);

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The application of the device.
struct Camera<'i> {
    samples: &'i [f32],
    output: Vec<u32>,
}

impl Task<Best> for Camera<'_> {
    fn fill(&mut self, session: &mut Session<'_, '_, Best>) -> Result<(), InputError> {
        session.input(0).copy_from_slice(self.samples)
    }

    fn read(&mut self, session: &Session<'_, '_, Best>) -> bool {
        read_into(&mut self.output, session.output(0).as_slice().unwrap_or_default());
        true
    }
}

fn read_into(to: &mut Vec<u32>, from: &[f32]) {
    to.clear();
    to.extend(from.iter().map(|value| value.to_bits()));
}

fn measure(name: &str, package_bytes: &[u8], samples: &[f32], backend: Best, rounds: usize) {
    let bytes = Block::from(package_bytes);
    let package = Package::open(&bytes).expect("a package");
    let model = Model::load(&package, ops::all()).expect("it loads");
    let mut packed = Block::zeroed(model.packed_len(backend));
    model.pack(backend, &mut packed);
    let arena_len = model.arena_len(backend);
    let (mut memory, mut memory2) = (Block::zeroed(arena_len), Block::zeroed(arena_len));
    let mut bench = Session::with_packed(&model, Arena::new(&mut memory), &packed, backend).expect("room");
    let mut unpacked = Session::new(&model, Arena::new(&mut memory2), backend).expect("room");
    let mut owned = OwnedSession::open_for(package_bytes, backend).expect("it opens");

    let mut storage = Memory::new(package_bytes.len().next_multiple_of(4096) + 4096);
    storage.install(package_bytes);
    let role = RoleKeys { threshold: 1, keys: 1 };
    let profile = Profile {
        identity: b"front-door",
        name: "model",
        target: "any",
        engine: (u16::MAX, 0),
        ops_version: u16::MAX,
        memory: u32::MAX,
        beside: true,
        starts: 2,
        limits: Limits { inferences: 100, errors: 3, late: 3, deadline_us: u32::MAX },
        root: RootKeys { version: 1, expires: u64::MAX, count: 1, keys: [[1; 32]; 8], roles: [role; 4] },
        factory: Some(Installed {
            slot: 0,
            len: package_bytes.len() as u32,
            digest: package.digest(),
            hash: Sha256::digest(package_bytes).into(),
            counter: 1,
            number: 1,
        }),
    };
    let mut decoder = Applier::new();
    let updater = Updater::open(storage, Ed25519, profile, StartCause::Power, &mut decoder).expect("memory");
    let (mut arena, mut documents, mut flags) = (Block::zeroed(arena_len), [0; 1024], [0; 512]);
    let lent = Lent { arena: &mut arena, documents: &mut documents, flags: &mut flags };
    let mut device = Device::new(updater, ops::all(), backend, Config::new(b"front-door", "model"), lent);
    let mut camera = Camera { samples, output: Vec::new() };
    let start = Instant::now();

    bench.input(0).copy_from_slice(samples).expect("an input");
    bench.run();
    let mut want = Vec::new();
    read_into(&mut want, bench.output(0).as_slice().unwrap_or_default());
    let mut candidates: Vec<Candidate<'_>> = vec![
        // Filled once, as `dunlin bench` does: what it gives may change after that, and nobody looks.
        (
            "bench",
            f64::NAN,
            Box::new(move || {
                bench.run();
                Vec::new()
            }),
        ),
        (
            "owned",
            1.05,
            Box::new(|| {
                let mut output = Vec::new();
                read_into(&mut output, owned.run(samples).expect("it runs"));
                output
            }),
        ),
        (
            "device",
            1.10,
            Box::new(|| {
                device.infer(|| start.elapsed().as_micros() as u64, &mut camera).expect("it runs");
                std::mem::take(&mut camera.output)
            }),
        ),
        (
            "unpacked",
            1.5,
            Box::new(move || {
                unpacked.input(0).copy_from_slice(samples).expect("an input");
                unpacked.run();
                let mut output = Vec::new();
                read_into(&mut output, unpacked.output(0).as_slice().unwrap_or_default());
                output
            }),
        ),
    ];
    // The first ones load, prove and repack.
    let mut longest = 0.0f64;
    for (what, _, infer) in &mut candidates {
        for _ in 0..2 {
            let output = infer();
            assert!(output.is_empty() || output == want, "{what} gives other bits");
        }
        let start = Instant::now();
        infer();
        longest = longest.max(start.elapsed().as_secs_f64() * 1e6);
    }
    let turns = ((TURN_US / longest) as usize).clamp(*TURNS.start(), *TURNS.end());
    let mut medians = vec![Vec::new(); candidates.len()];
    for round in 0..rounds {
        // Another one begins each time.
        for i in 0..candidates.len() {
            let i = (i + round) % candidates.len();
            let mut times = Vec::with_capacity(turns);
            for _ in 0..turns {
                let start = Instant::now();
                std::hint::black_box((candidates[i].2)());
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            medians[i].push(median(&mut times));
        }
    }
    let bench = medians[0].clone();
    for ((what, target, _), own) in candidates.iter().zip(&mut medians).skip(1) {
        let mut ratios: Vec<f64> = own.iter().zip(&bench).map(|(own, bench)| own / bench).collect();
        println!(
            "{}",
            json!({"figure": format!("front_door/{name}/{}/{what}", backend.name()), "value": median(own), "unit": "us",
            "better": "lower", "target": target, "peer": "dunlin bench", "ratio": median(&mut ratios)})
        );
    }
}

fn main() {
    let mut folder = None;
    let mut rounds = 41;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--rounds" {
            rounds = arguments.next().and_then(|n| n.parse().ok()).expect("--rounds takes a number");
        } else {
            folder = Some(argument);
        }
    }
    let items = corpus(folder.as_deref()).unwrap_or_else(|e| panic!("{}", e.text));
    for item in items.into_iter().filter(|item| MODELS.contains(&item.name.as_str())) {
        let compiled =
            dunlin::onnx::compile(&item.onnx, &item.options()).unwrap_or_else(|e| panic!("{}: {e}", item.name));
        let input = item.samples.inputs.first().and_then(|inputs| inputs.first()).expect("an input");
        if input.dtype != "<f4" {
            eprintln!("{} takes {}, not f32: left out", item.name, input.dtype);
            continue;
        }
        let samples: Vec<f32> = input.bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        for backend in available().filter(|backend| backend.name() != Scalar.name()) {
            measure(&item.name, &compiled.package, &samples, backend, rounds);
        }
    }
}
