//! A device that hears anything at all, in any order, while its clock is set and it is polled: an answer or none, and what
//! runs is what ran.
//!
//! The bytes are steps, so that the fuzzer also answers what the device asks; signatures are half of them good.
#![no_main]

use dunlin_device::message::{self, Chunk, Down, FlagsOffer, News, Offer, Up};
use dunlin_device::{Config, Copied, Device, Memory, Task};
use dunlin_engine::{InputError, Session, ops};
use dunlin_kernels::Scalar;
use dunlin_update::delta::Applier;
use dunlin_update::record::{Installed, Transfer};
use dunlin_update::sim::{CHIPS, Flash};
use dunlin_update::trust::{PublicKey, RoleKeys, RootKeys, Verifier};
use dunlin_update::{Device as Profile, Limits, StartCause, Updater};
use libfuzzer_sys::fuzz_target;

/// Believes what ends with an even byte, so that the fuzzer gets past the signatures.
struct Lenient;

impl Verifier for Lenient {
    fn verify(&self, _: &PublicKey, _: &[&[u8]], signature: &[u8; 64]) -> bool {
        signature[63].is_multiple_of(2)
    }
}

struct Nothing;

impl Task<Scalar> for Nothing {
    fn fill(&mut self, _: &mut Session<'_, '_, Scalar>) -> Result<(), InputError> {
        Ok(())
    }

    fn read(&mut self, _: &Session<'_, '_, Scalar>) -> bool {
        true
    }
}

/// SHA-256 of sixteen bytes 0xFF, which the slot of the factory's package has.
const ERASED: [u8; 32] = [
    0x5A, 0xC6, 0xA5, 0x94, 0x5F, 0x16, 0x50, 0x09, 0x11, 0x21, 0x91, 0x29, 0x98, 0x4B, 0xA8, 0xB3, 0x87, 0xA0, 0x6F,
    0x24, 0xFE, 0x38, 0x3C, 0xE4, 0xE8, 0x1A, 0x73, 0x29, 0x40, 0x65, 0x46, 0x1B,
];

/// Takes bytes from the front, zeros at the end.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let n = rest.len().min(N);
    let mut bytes = [0; N];
    bytes[..n].copy_from_slice(&rest[..n]);
    *rest = &rest[n..];
    bytes
}

/// A good answer to what the device asked, of these bytes.
fn answer(question: &[u8], rest: &mut &[u8]) -> Option<Vec<u8>> {
    let up: Up<'_> = message::decode(question).expect("a device says messages");
    let [a, b, c, d] = take::<4>(rest).map(u32::from);
    let down = match up {
        Up::CheckIn(_) => {
            let transfer = Transfer { id: [6; 8], len: c, delta: d & 4 != 0 };
            let offer = Offer { offer: [a as u8; 8], digest: [5; 32], root: d >> 4, transfer };
            let flags = FlagsOffer { offer: [b as u8; 8], sequence: c.into() };
            let flags = (d & 1 != 0).then_some(flags);
            Down::News(News { wait: a * 97, time: b.into(), flags, offer: (d & 2 != 0).then_some(offer) })
        }
        Up::Want(want) => {
            let (bytes, left) = rest.split_at(rest.len().min(a as usize));
            *rest = left;
            let total = want.offset + if b & 1 == 0 { a } else { c };
            Down::Chunk(Chunk { offer: want.offer, part: want.part, offset: want.offset, total, bytes })
        }
        Up::Report(report) => Down::Stored { boot: report.boot, seq: report.seq },
        _ => return None,
    };
    let mut buffer = vec![0; 512];
    let len = message::encode(&down, &mut buffer).expect("it fits");
    buffer.truncate(len);
    Some(buffer)
}

fuzz_target!(|bytes: &[u8]| {
    let role = RoleKeys { threshold: 1, keys: 1 };
    let mut keys = [[0; 32]; 8];
    keys[0] = [1; 32];
    let root =
        RootKeys { version: 1, expires: u64::MAX, count: 1, keys, roles: [role, role, role, RoleKeys::default()] };
    let factory = Installed { slot: 0, len: 16, digest: [9; 32], hash: ERASED, counter: 0, number: 1 };
    let profile = Profile {
        identity: b"device",
        name: "a",
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: 1 << 10,
        beside: true,
        starts: 1,
        limits: Limits { inferences: 0, errors: 0, late: 0, deadline_us: 0 },
        root,
        factory: Some(factory),
    };
    let mut flash = Flash::new(CHIPS[0], 2, 1024);
    let (mut room, mut arena, mut documents, mut flags) = ([0; 1024], [0; 1024], [0; 600], [0; 300]);
    let mut decoder = Applier::new();
    let slots = Copied::new(&mut flash, &mut room);
    let updater = Updater::open(slots, Lenient, profile, StartCause::Power, &mut decoder).expect("it has power");
    let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut flags };
    let config = Config { chunk: 64, interval: 1000, least: 10, ..Config::new(b"device", "a") };
    let mut device = Device::new(updater, ops::all(), Scalar, config, memory);
    let (mut now, mut question, mut rest) = (0u64, Vec::new(), bytes);
    while let Some((&step, left)) = rest.split_first() {
        rest = left;
        match step % 8 {
            0 => now = now.wrapping_add(u64::from_le_bytes(take(&mut rest))),
            1 => now = now.wrapping_add(1 << (step >> 3)),
            2 => {
                let (datagram, left) = rest.split_at(rest.len().min(usize::from(step >> 3) * 4));
                rest = left;
                device.receive(now, datagram);
            }
            3 => {
                let mut datagram = vec![message::VERSION];
                datagram.extend(take::<24>(&mut rest));
                device.receive(now, &datagram);
            }
            4 => {
                let _ = device.infer(|| now, &mut Nothing);
            }
            _ if question.is_empty() => {
                device.poll(now);
            }
            _ => {
                if let Some(down) = answer(&question, &mut rest) {
                    device.receive(now, &down);
                }
                question.clear();
            }
        }
        let mut datagram = [0; 512];
        for asked in 0.. {
            assert!(asked < 3, "it talks without end");
            match device.transmit(now, &mut datagram).expect("it fits") {
                Some(len) => question = datagram[..len].to_vec(),
                None => break,
            }
        }
        let _ = device.wake();
    }
    assert_eq!(device.check_in().running, Some([9; 32]), "nothing has the hash of what it was said to be");
});
