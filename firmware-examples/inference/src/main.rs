//! Runs a package's golden vectors with the scalar kernels and with the target's own, and counts instructions: under `qemu
//! -icount shift=0` an instruction is a nanosecond, so that a tick of a 25 MHz board is 40 of them.
//!
//! `DUNLIN_PACKAGE=model.dunlin cargo run --release --target thumbv7em-none-eabihf --bin inference`
#![no_std]
#![no_main]

mod sweep;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use dunlin::kernels::{Backend, Scalar, native};
use dunlin::{Arena, Model, Package, Session, ops};

/// A thousand times the instructions of a tick.
const TICK: u64 = match u64::from_str_radix(env!("DUNLIN_TICK_PS"), 10) {
    Ok(tick) => tick,
    Err(_) => 0,
};
/// SysTick counts down from here.
const TOP: u32 = 0x00FF_FFFF;

#[repr(align(16))]
struct Aligned<T: ?Sized>(T);

static PACKAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/package.dunlin")));
static mut MEMORY: Aligned<[u8; 384 * 1024]> = Aligned([0; 384 * 1024]);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}

/// Bytes of arena and scratch, and instructions of an inference, if all golden vectors come out right.
fn measure<B: Backend>(package: &Package<'_>, memory: &mut [u8], backend: B) -> Option<(usize, u64)> {
    let model = Model::load(package, ops::all()).ok()?;
    let bytes = model.arena_len(backend);
    let mut session = Session::new(&model, Arena::new(memory), backend).ok()?;
    let mut instructions = 0;
    for case in package.golden()?.cases() {
        for (i, tensor) in case.inputs().enumerate() {
            let to = session.input(i).into_bytes();
            to.get_mut(..tensor.data.len())?.copy_from_slice(tensor.data);
        }
        let start = SYST::get_current();
        session.run();
        // Down, and at most once around.
        instructions = u64::from(start.wrapping_sub(SYST::get_current()) & TOP) * TICK / 1000;
        let right = case.outputs().enumerate().all(|(i, tensor)| session.output(i).bytes() == tensor.data);
        if !right {
            return None;
        }
    }
    Some((bytes, instructions))
}

fn run(memory: &mut [u8]) -> Option<()> {
    let compared = sweep::run()?;
    let package = Package::open(&PACKAGE.0).ok()?;
    let (_, scalar) = measure(&package, memory, Scalar)?;
    let (arena, instructions) = measure(&package, memory, native())?;
    hprintln!(
        "{{\"right\":true,\"backend\":\"{}\",\"shapes\":{},\"arena\":{},\"scalar\":{},\"instructions\":{}}}",
        native().name(),
        compared,
        arena,
        scalar,
        instructions
    );
    Some(())
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
    let done = run(unsafe { &mut (*&raw mut MEMORY).0 });
    debug::exit(if done.is_some() { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {}
}
