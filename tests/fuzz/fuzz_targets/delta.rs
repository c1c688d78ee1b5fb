//! Any bytes as a patch, in any pieces: never more than the header says, and the same whatever the pieces.

#![no_main]

use dunlin_update::delta::{Applier, Base, Header, Sink};
use dunlin_update::storage::StorageFault;
use libfuzzer_sys::fuzz_target;

struct Memory(Vec<u8>);

impl Base for Memory {
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        let from = self.0.get(offset as usize..).and_then(|b| b.get(..into.len())).ok_or(StorageFault)?;
        into.copy_from_slice(from);
        Ok(())
    }
}

#[derive(Default)]
struct Grown(Vec<u8>);

impl Sink for Grown {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.0.extend(bytes);
        Ok(())
    }
}

fn apply(patch: &[u8], piece: usize) -> (bool, Vec<u8>) {
    let mut base = Memory((0..1000u32).map(|i| (i * i / 7) as u8).collect());
    let (mut applier, mut grown) = (Applier::new(), Grown::default());
    for bytes in patch.chunks(piece) {
        let result = applier.push(bytes, &mut base, &mut grown);
        assert!(grown.0.len() <= applier.header().map_or(0, |h| h.target_len as usize));
        if result.is_err() {
            return (false, grown.0);
        }
    }
    assert!(applier.checkpoint().is_none_or(|c| c.output_offset <= applier.written()));
    (true, grown.0)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece, patch)) = bytes.split_first() else { return };
    let piece = usize::from(piece).max(1);
    apply(patch, piece);
    // Past the header, and into the first block.
    let header = Header { base: [1; 32], target: [2; 32], base_len: 1000, target_len: 3000 };
    let mut whole = header.bytes().to_vec();
    whole.extend(3000u32.to_le_bytes());
    whole.extend((patch.len() as u32).to_le_bytes());
    whole.extend(patch);
    let (at_once, parted) = (apply(&whole, whole.len()), apply(&whole, piece));
    assert_eq!(at_once, parted);
});
