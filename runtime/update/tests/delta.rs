//! Differences: they give the target back however the patch is parted, from every place to begin again, and nothing a
//! patch says makes the decoder fail.

use dunlin_package::plan::{Place, PlanWriter, Tensor};
use dunlin_package::{Builder, DType, ManifestDraft};
use dunlin_update::delta::{Applier, Base, Checkpoint, DeltaError, EncodeOptions, HEADER_LEN, Header, Sink, encode};
use dunlin_update::storage::StorageFault;
use proptest::prelude::*;

struct Memory<'a>(&'a [u8]);

impl Base for Memory<'_> {
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

/// A package of one tensor of weights, a bias and a scale.
fn package(version: &str, weights: &[i8], words: &[i32], scales: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = weights.iter().map(|w| w.cast_unsigned()).collect();
    let mut tensors = Vec::new();
    let mut push = |dtype, dims: [u32; 6], rank, offset: usize| {
        tensors.push(Tensor { dtype, rank, place: Place::Weights(offset as u32), dims, scale: 0.0, zero_point: 0 });
    };
    push(DType::I8, [8, weights.len() as u32 / 8, 1, 1, 1, 1], 2, 0);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    push(DType::I32, [words.len() as u32, 1, 1, 1, 1, 1], 1, bytes.len());
    bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    push(DType::F32, [scales.len() as u32, 1, 1, 1, 1, 1], 1, bytes.len());
    bytes.extend(scales.iter().flat_map(|w| w.to_le_bytes()));
    let plan = PlanWriter { tensors, ..PlanWriter::default() }.write().unwrap();
    let manifest = ManifestDraft { name: "m".into(), version: version.into(), ..ManifestDraft::default() };
    Builder { manifest, plan, weights: bytes, ..Builder::default() }.build().unwrap()
}

fn random(n: usize, seed: u32, limit: i32) -> Vec<i8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i32 % limit
    };
    (0..n).map(|_| ((next() + next()) / 2).clamp(-127, 127) as i8).collect()
}

fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let weights = random(4096, 7, 127);
    let base = package("1", &weights, &[5, -900, 70_000], &[0.5, 0.25]);
    let tuned: Vec<i8> = weights.iter().zip(random(4096, 9, 3)).map(|(w, d)| w.saturating_add(d)).collect();
    let sparse: Vec<i8> = weights.iter().enumerate().map(|(i, w)| if i % 97 == 0 { w ^ 3 } else { *w }).collect();
    let scaled: Vec<i8> = weights.iter().map(|w| (f32::from(*w) * 0.83).round() as i8).collect();
    vec![
        ("the same", base.clone(), base.clone()),
        ("tuned", base.clone(), package("2", &tuned, &[6, -905, 70_100], &[0.51, 0.25])),
        ("sparse", base.clone(), package("2", &sparse, &[5, -900, 70_000], &[0.5, 0.25])),
        ("scaled", base.clone(), package("2", &scaled, &[5, -900, 70_000], &[0.6, 0.3])),
        ("new", base.clone(), package("2", &random(4096, 99, 127), &[1, 2, 3], &[0.1, 0.2])),
        ("longer", base.clone(), package("a longer one", &random(9000, 5, 100), &[1; 50], &[0.1; 50])),
        ("from nothing", vec![], base),
    ]
}

fn patch(base: &[u8], target: &[u8], block: u32) -> Vec<u8> {
    let base = (!base.is_empty()).then_some(base);
    encode(base, target, &EncodeOptions { block }).unwrap().patch
}

#[test]
fn patches_are_small_where_packages_are_alike() {
    let size = |name: &str| {
        let (_, base, target) = pairs().into_iter().find(|p| p.0 == name).unwrap();
        patch(&base, &target, 1 << 16).len()
    };
    // 4,096 weights: nothing, 1.8 bits each, 43 places of 12 bits, eight factors, and nothing to save.
    assert!(size("the same") < HEADER_LEN + 32, "{}", size("the same"));
    assert!(size("tuned") < HEADER_LEN + 980, "{}", size("tuned"));
    assert!(size("sparse") < HEADER_LEN + 160, "{}", size("sparse"));
    assert!(size("scaled") < HEADER_LEN + 200, "{}", size("scaled"));
    assert!(size("new") < HEADER_LEN + 4096, "{}", size("new"));
}

#[test]
fn any_parting_gives_the_same() {
    for (name, base, target) in pairs() {
        let patch = patch(&base, &target, 2048);
        for piece in [1, 2, 3, 7, 64, 1000, patch.len()] {
            let (mut applier, mut grown) = (Applier::new(), Grown::default());
            for bytes in patch.chunks(piece) {
                applier.push(bytes, &mut Memory(&base), &mut grown).unwrap();
            }
            assert!(applier.is_complete() && grown.0 == target, "{name}, pieces of {piece}");
            let header = applier.header().unwrap();
            assert_eq!(header.target, dunlin_package::compute_digest(&target).unwrap());
            assert_eq!(Header::read(&header.bytes()), Ok(*header));
        }
    }
}

#[test]
fn it_begins_again_from_wherever_it_was() {
    for (name, base, target) in pairs() {
        let patch = patch(&base, &target, 1024);
        let (mut applier, mut grown) = (Applier::new(), Grown::default());
        let mut seen: Vec<Checkpoint> = Vec::new();
        for byte in &patch {
            applier.push(&[*byte], &mut Memory(&base), &mut grown).unwrap();
            assert_eq!(applier.written() as usize, grown.0.len());
            let Some(checkpoint) = applier.checkpoint() else { continue };
            assert!(checkpoint.output_offset <= applier.written());
            if seen.last() == Some(&checkpoint) || checkpoint.patch_offset == 0 {
                continue;
            }
            seen.push(checkpoint);
            let header = Header::read(patch.first_chunk().unwrap()).unwrap();
            let mut again = Applier::resume(&header, checkpoint);
            let mut rest = Grown(target[..checkpoint.output_offset as usize].to_vec());
            again.push(&patch[checkpoint.patch_offset as usize..], &mut Memory(&base), &mut rest).unwrap();
            assert!(again.is_complete() && rest.0 == target, "{name} from {checkpoint:?}");
        }
        assert!(seen.len() * 1024 >= target.len(), "{name}: {} places", seen.len());
    }
}

#[test]
fn the_decoder_is_small() {
    let size = size_of::<Applier>();
    assert!(size <= 4500, "{size} bytes");
}

/// A decoder fed with bytes of a stranger: it says no, or gives as many bytes as the header says.
fn survive(base: &[u8], patch: &[u8], piece: usize) -> Result<(), DeltaError> {
    let (mut applier, mut grown) = (Applier::new(), Grown::default());
    for bytes in patch.chunks(piece.max(1)) {
        let result = applier.push(bytes, &mut Memory(base), &mut grown);
        let limit = applier.header().map_or(0, |h| h.target_len as usize);
        assert!(grown.0.len() <= limit);
        result?;
    }
    Ok(())
}

#[test]
fn damaged_patches_are_survived() {
    for (_, base, target) in pairs() {
        let patch = patch(&base, &target, 4096);
        for at in (0..patch.len()).step_by(5).chain(HEADER_LEN..HEADER_LEN + 40) {
            let mut bytes = patch.clone();
            bytes[at] ^= 1 << (at % 8);
            let _ = survive(&base, &bytes, 100);
            // A shorter base than the header says is the storage's to refuse.
            let _ = survive(&base[..base.len() / 2], &bytes, 100);
        }
    }
}

#[test]
fn nothing_may_follow_the_end() {
    let (_, base, target) = pairs().swap_remove(1);
    let mut bytes = patch(&base, &target, 4096);
    bytes.push(0);
    assert_eq!(survive(&base, &bytes, 50), Err(DeltaError::Excess));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..100) {
        let base = [7u8; 300];
        let header = Header { base: [0; 32], target: [0; 32], base_len: 300, target_len: 5000 };
        let mut patch = header.bytes().to_vec();
        patch.extend(&bytes);
        let _ = survive(&base, &patch, piece);
        let mut block = header.bytes().to_vec();
        block.extend(3000u32.to_le_bytes());
        block.extend((bytes.len() as u32).to_le_bytes());
        block.extend(&bytes);
        let _ = survive(&base, &block, piece);
        let _ = survive(&base, &bytes, piece);
    }

    #[test]
    fn any_pair_comes_back(
        old in proptest::collection::vec(any::<i8>(), 64..600),
        new in proptest::collection::vec(any::<i8>(), 64..600),
        words in proptest::collection::vec(any::<i32>(), 1..40),
        block in 1024u32..5000,
    ) {
        let (base, target) = (package("1", &old, &words, &[0.5]), package("2", &new, &words[..1], &[0.25]));
        let patch = patch(&base, &target, block);
        prop_assert!(patch.len() < HEADER_LEN + target.len() + 64);
    }
}
