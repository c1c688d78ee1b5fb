//! What telemetry costs beside an inference: the keyword model runs with the real engine, its inputs and outputs go
//! through the recorder, and SysTick counts. Under `qemu -icount shift=0` an instruction is a nanosecond, so that a tick
//! of the board's 25 MHz is 40 of them.
#![no_std]
#![no_main]

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use dunlin::kernels::native;
use dunlin::{Arena, Model, Package, Session};
use dunlin_telemetry::recorder::DefaultRecorder;
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample, Values};

/// Instructions of a tick.
const TICK: u32 = 40;
/// Inferences that the recorder is measured on.
const ROUNDS: u32 = 64;
/// SysTick counts down from here.
const TOP: u32 = 0x00FF_FFFF;

dunlin::include_model!(
    /// The keyword model.
    mod kws = "data/kws.dunlin"
);

static mut MEMORY: [u8; kws::ARENA_LEN] = [0; kws::ARENA_LEN];

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}

/// Instructions that something takes.
fn instructions(what: impl FnOnce()) -> u32 {
    let start = SYST::get_current();
    what();
    // Down, and at most once around.
    (start.wrapping_sub(SYST::get_current()) & TOP) * TICK
}

fn measure(memory: &'static mut [u8]) -> Option<()> {
    let package = Package::open(kws::PACKAGE).ok()?;
    let reference = Reference::read(package.drift()?).ok()?;
    let model = Model::load(&package, kws::ops()).ok()?;
    let mut session = Session::new(&model, Arena::new(memory), native()).ok()?;
    let golden = package.golden()?;
    let case = golden.cases().next()?;
    let bytes = case.inputs().next()?.data;
    let mut elements = [0.0f32; kws::INPUT_LEN];
    let words = bytes.chunks_exact(4).filter_map(|b| b.first_chunk());
    elements.iter_mut().zip(words).for_each(|(to, from)| *to = f32::from_le_bytes(*from));
    session.input(0).copy_from_slice(&elements).ok()?;
    let inference = instructions(|| session.run());
    let right = case.outputs().enumerate().all(|(i, tensor)| session.output(i).bytes() == tensor.data);
    let digest = package.digest();
    let boot = 1;
    let mut recorder: DefaultRecorder =
        Recorder::new(boot, u16::from_be_bytes(*digest.first_chunk()?)).shaped(&reference);
    let output = session.output(0);
    let (inputs, outputs) = ([Values::F32(&elements)], [Values::F32(output.as_slice()?)]);
    let mut alarms = 0;
    let recording = instructions(|| {
        for _ in 0..ROUNDS {
            let seen = Observation { micros: 5000, inputs: &inputs, outputs: &outputs, ..Observation::default() };
            let seen = seen.classified_by(reference.class_output().unwrap_or(0), reference.confidence_by());
            alarms += u32::from(recorder.add(&Sample::of(&reference, &seen)));
        }
    }) / ROUNDS;
    let mut bytes = [0; 256];
    let mut len = 0;
    let window = recorder.take(3600);
    let reporting = instructions(|| len = window.encode(Profile::Full, &mut bytes).unwrap_or(0));
    let embedding = reference.embedding().map_or(0, |e| e.len() * e.axes());
    hprintln!(
        "{{\"right\":{},\"inference\":{},\"recording\":{},\"reporting\":{},\"report_bytes\":{},\"recorder_bytes\":{},\"products\":{},\"features\":{},\"alarms\":{}}}",
        right,
        inference,
        recording,
        reporting,
        len,
        size_of::<DefaultRecorder>(),
        embedding,
        reference.features().count(),
        alarms
    );
    (right && len > 0 && window.counters().inferences() == ROUNDS).then_some(())
}

#[entry]
fn main() -> ! {
    if let Some(mut peripherals) = cortex_m::Peripherals::take() {
        let syst = &mut peripherals.SYST;
        syst.set_clock_source(SystClkSource::Core);
        syst.set_reload(TOP);
        syst.clear_current();
        syst.enable_counter();
    }
    // SAFETY: this is the one reference, made once: `main` is entered once.
    let done = measure(unsafe { &mut *(&raw mut MEMORY) });
    debug::exit(if done.is_some() { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {}
}
