//! One Ed25519 signature verified, by Dunlin or by a peer: how much flash, stack and how many instructions it takes.
//! Features `compact` and `dalek` choose `ed25519-compact` or `ed25519-dalek` in the place of Dunlin's own.
#![no_std]
#![no_main]

#[path = "../report.rs"]
mod report;
#[path = "../stack.rs"]
mod stack;

use core::hint::black_box;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::entry;
use dunlin_update::trust::Verifier;

/// RFC 8032, section 7.1, test 3: key, message, signature.
static VECTOR: [u8; 98] = *include_bytes!("../../data/rfc8032-3.bin");
/// Instructions of a tick: with `-icount shift=0` one takes a nanosecond, and the board's clock has 25 MHz.
const TICK: u32 = 40;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::leave(false, &[])
}

#[cfg(feature = "compact")]
struct Peer;

#[cfg(feature = "compact")]
impl Verifier for Peer {
    fn verify(&self, key: &[u8; 32], message: &[&[u8]], signature: &[u8; 64]) -> bool {
        let key = ed25519_compact::PublicKey::new(*key);
        let Ok(mut state) = key.verify_incremental(&ed25519_compact::Signature::new(*signature)) else { return false };
        message.iter().for_each(|part| state.absorb(part));
        state.verify().is_ok()
    }
}

#[cfg(all(feature = "dalek", not(feature = "compact")))]
struct Peer;

#[cfg(all(feature = "dalek", not(feature = "compact")))]
impl Verifier for Peer {
    fn verify(&self, key: &[u8; 32], message: &[&[u8]], signature: &[u8; 64]) -> bool {
        let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(key) else { return false };
        // It takes messages in one part.
        let &[message] = message else { return false };
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

#[cfg(not(any(feature = "dalek", feature = "compact")))]
use dunlin_update::trust::Ed25519 as Peer;

#[inline(never)]
fn verify(bytes: &[u8; 98]) -> bool {
    let Some((key, rest)) = bytes.split_first_chunk::<32>() else { return false };
    let Some((signature, message)) = rest.split_first_chunk::<64>() else { return false };
    Peer.verify(key, &[message], signature)
}

#[entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { report::leave(false, &[]) };
    let mut clock = peripherals.SYST;
    clock.set_clock_source(SystClkSource::Core);
    clock.set_reload(0x00FF_FFFF);
    clock.clear_current();
    clock.enable_counter();
    stack::paint();
    let before = cortex_m::peripheral::SYST::get_current();
    let valid = verify(black_box(&VECTOR));
    let after = cortex_m::peripheral::SYST::get_current();
    let used = stack::used() as u32;
    let mut forged = VECTOR;
    forged[97] ^= 1;
    let refused = !verify(black_box(&forged));
    // The counter has 24 bits, and goes down.
    let instructions = (before.wrapping_sub(after) & 0x00FF_FFFF) * TICK;
    report::leave(valid && refused, &[(b"stack_bytes", used), (b"instructions", instructions)])
}
