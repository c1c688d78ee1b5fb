//! What a server would send, and what a firmware knows when it is built.

use dunlin_update::trust::{MAX_KEYS, RoleKeys, RootKeys, SIGNATURE_LEN};

/// Bytes that come from outside of the device: not counted as the program's.
macro_rules! server {
    ($name:ident, $file:literal) => {
        #[unsafe(link_section = ".server")]
        pub static $name: [u8; include_bytes!(concat!("../data/", $file)).len()] =
            *include_bytes!(concat!("../data/", $file));
    };
}

server!(OLD, "old.dunlin");
server!(PATCH, "new.patch");
server!(RELEASE, "new.release");
server!(ROLLOUT, "new.rollout");

/// `N` bytes of what is known when the firmware is built.
pub const fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = from[at + i];
        i += 1;
    }
    bytes
}

/// The number that postcard wrote at a place, and the place after it.
const fn number(from: &[u8], mut at: usize) -> (u64, usize) {
    let (mut number, mut shift) = (0, 0);
    loop {
        number |= ((from[at] & 0x7F) as u64) << shift;
        shift += 7;
        at += 1;
        if from[at - 1] < 0x80 {
            return (number, at);
        }
    }
}

/// The keys that the firmware is made with: the payload of the first root document.
const fn root(document: &[u8]) -> RootKeys {
    let (version, at) = number(document, 8 + document[6] as usize * SIGNATURE_LEN);
    let (expires, at) = number(document, at);
    let mut root = RootKeys {
        version: version as u32,
        expires,
        count: document[at],
        keys: [[0; 32]; MAX_KEYS],
        roles: [RoleKeys { threshold: 0, keys: 0 }; 4],
    };
    let mut i = 0;
    while i < MAX_KEYS {
        root.keys[i] = bytes(document, at + 1 + 32 * i);
        i += 1;
    }
    let at = at + 1 + 32 * MAX_KEYS;
    i = 0;
    while i < 4 {
        root.roles[i] = RoleKeys { threshold: document[at + 2 * i], keys: document[at + 2 * i + 1] };
        i += 1;
    }
    root
}

pub const FACTS: &[u8] = include_bytes!("../data/facts.bin");

/// The root that the firmware is made with.
pub const ROOT: RootKeys = root(include_bytes!("../data/1.root"));
