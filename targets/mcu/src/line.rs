//! A device at its end of a serial line.

use dunlin::kernels::Backend;
use dunlin_device::{Device, Event, Slots};
use dunlin_update::trust::Verifier;
use embedded_io::{Read, ReadReady, Write};

use crate::clock::{Clock, Wide};
use crate::link::{Link, LinkError};

/// Takes what came, does what the time brings, and sends what there is to send. Never waits for an answer.
///
/// While [`Device::is_waiting`], call it again soon: the line has no buffer.
///
/// # Errors
/// When the port fails, or the link is too short for a message. Nothing is lost: the question is repeated.
pub fn poll<S, V, B, P, K, const C: usize, const F: usize, const N: usize, const R: usize, const L: usize>(
    device: &mut Device<'_, S, V, B, C, F, N, R>,
    link: &mut Link<P, L>,
    clock: &mut Wide<K>,
) -> Result<Event, LinkError>
where
    S: Slots,
    V: Verifier,
    B: Backend,
    P: Read + ReadReady + Write,
    K: Clock,
{
    let now = clock.now();
    let mut event = match link.receive_payload()? {
        Some(datagram) => device.receive(now, datagram),
        None => Event::Quiet,
    };
    if event == Event::Quiet {
        event = device.poll(now);
    }
    while link.send_payload(|into| device.transmit(now, into))? {}
    Ok(event)
}

#[cfg(test)]
mod tests;
