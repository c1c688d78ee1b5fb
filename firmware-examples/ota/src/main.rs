//! A board that reads digits with a model in its flash, and has the model replaced over a serial line: fetched, verified,
//! tried, and kept or taken back, through whatever power cuts come.
#![no_std]
#![no_main]

mod board;
mod camera;
mod fault;
mod map;
mod nor;
#[path = "../../update/src/stack.rs"]
mod stack;

use cortex_m_rt::entry;
use cortex_m_semihosting::debug;
use defmt_semihosting as _;
use dunlin::kernels::{Native, native};
use dunlin::ops::{self, Operator};
use dunlin_mcu::message::{Ran, Up};
use dunlin_mcu::{Config, Device, Event, Factory, Link, Mapped, Memory, RunError, Wide, line, starts};
use dunlin_update::delta::Applier;
use dunlin_update::flash::{FlashStorage, Layout};
use dunlin_update::trust::Ed25519;
use dunlin_update::{Device as Profile, Limits, Updater, Verdict};

use board::{Counter, Uart};
use camera::Camera;
use nor::Nor;

const MODEL: &str = "digits";
/// Bytes for tensors and operators.
const MEMORY: usize = 32 * 1024;
/// Bytes that the device was made with, at most.
const FACTORY: usize = 1024;
/// Room for a rollout and a release document, and for flags.
const DOCUMENTS: usize = 1024;
const FLAGS: usize = 512;
/// The longest payload on the line: 256 bytes of a stream, and what is around them.
const LINE: usize = 288;
const LAYOUT: Layout = Layout::packed(map::STORAGE, map::SECTOR, map::SLOT, 2);
const _: () = assert!(LAYOUT.end() <= map::STARTS);

/// What the models of this device are made of. One that needs more does not load, and is taken back.
const OPERATORS: &[Operator<Native>] = &[
    ops::quantize::operator(),
    ops::conv::operator(),
    ops::max_pool::operator(),
    ops::transpose::operator(),
    ops::dequantize::operator(),
];

#[repr(align(16))]
struct Aligned([u8; MEMORY]);

static mut TENSORS: Aligned = Aligned([0; MEMORY]);
/// The decoder of differences, in static memory because it is large.
static mut DECODER: Applier = Applier::new();
static mut MADE: [u8; FACTORY] = [0; FACTORY];
static mut PAPERS: [u8; DOCUMENTS] = [0; DOCUMENTS];
static mut SWITCHES: [u8; FLAGS] = [0; FLAGS];

#[entry]
fn main() -> ! {
    stack::paint();
    // SAFETY: these are the only references, made once: `main` is entered once.
    let (tensors, decoder, made) = unsafe { (&mut (*&raw mut TENSORS).0, &mut *&raw mut DECODER, &mut *&raw mut MADE) };
    // SAFETY: as above.
    let (documents, flags) = unsafe { (&mut *&raw mut PAPERS, &mut *&raw mut SWITCHES) };
    let memory = Memory { arena: tensors, documents, flags };
    if let Err(error) = run(memory, decoder, made) {
        defmt::error!("stopped: {=str}", error);
    }
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}

/// The beginning of a digest, for logs.
fn short(digest: &[u8; 32]) -> u32 {
    digest.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

fn run(memory: Memory<'_>, decoder: &mut Applier, made: &mut [u8; FACTORY]) -> Result<(), &'static str> {
    let cause = fault::cause();
    let mut nor = Nor::take().ok_or("there is no nor.bin of the right length")?;
    made.copy_from_slice(nor.mapped(map::FACTORY, FACTORY).ok_or("the flash is too small")?);
    let factory = Factory::read(made).ok_or("the device was never made: its factory sector is empty")?;
    let start = starts::count(&mut nor, map::STARTS, cause).map_err(|_| "the starts cannot be counted")?;
    let storage = FlashStorage::new(nor, LAYOUT).ok_or("the layout does not fit the flash")?;
    let profile = Profile {
        identity: factory.identity,
        name: MODEL,
        target: "cortex-m4",
        engine: (0, 1),
        ops_version: 1,
        memory: MEMORY as u32,
        beside: true,
        starts: 2,
        limits: Limits { inferences: map::IMAGE_COUNT, errors: 3, late: 0, deadline_us: 0 },
        root: factory.root,
        factory: Some(factory.package),
    };
    let updater = Updater::open(storage, Ed25519, profile, cause, decoder).map_err(|_| "the flash cannot be used")?;
    let config = Config {
        boot: start.number,
        cause,
        faults: start.faults,
        chunk: 256,
        reply: 500_000,
        interval: 1_000_000,
        least: 1000,
        window: 1_000_000,
        ..Config::new(factory.identity, MODEL)
    };
    let mut device = Device::new(updater, OPERATORS, native(), config, memory);
    let mut link = Link::<_, LINE>::new(Uart::new());
    let mut clock = Wide::new(Counter::new());
    let known = device.check_in();
    defmt::info!("started: phase {=u8}, model {=u32:08x}", known.phase as u8, known.running.map_or(0, |d| short(&d)));
    let mut untold = start.faults > 0;
    let mut camera = Camera::new();
    loop {
        match line::poll(&mut device, &mut link, &mut clock) {
            Ok(Event::Quiet | Event::CheckedIn | Event::Received { .. }) => {}
            Ok(Event::Reported { .. }) if untold => {
                untold = false;
                let flash = device.updater().storage().flash();
                starts::told(flash, map::STARTS).map_err(|_| "the flash cannot be written")?;
            }
            Ok(event) => defmt::info!("{}", event),
            Err(error) => defmt::warn!("{}", error),
        }
        if device.is_waiting() {
            continue;
        }
        camera.look(device.updater().storage().flash()).ok_or("there are no images in the flash")?;
        let ran = match device.infer(|| clock.now(), &mut camera) {
            Ok(ran) => ran,
            Err(RunError::NoPackage) => return Err("no package may run"),
            Err(RunError::Load) => return Err("the package does not load"),
            Err(RunError::Update(_)) => return Err("the flash cannot be written"),
            Err(_) => continue,
        };
        match ran.verdict {
            Verdict::Confirmed => {
                defmt::info!("confirmed {=u32:08x}; stack {=usize} bytes", short(&ran.digest), stack::used())
            }
            Verdict::Reverted(reason) => {
                defmt::warn!("reverted {=u32:08x}: {}", short(&ran.digest), defmt::Debug2Format(&reason))
            }
            _ => {}
        }
        if let Some(inference) = ran.inference {
            let (input, output) = camera.last();
            let message = Ran { digest: ran.digest, input, micros: inference.micros, output };
            if link.send(&Up::Ran(message)).is_err() {
                defmt::warn!("an inference could not be told");
            }
        }
    }
}
