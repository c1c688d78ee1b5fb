//! What the production line and the server have: packages, keys, documents, differences.

use dunlin::kernels::Scalar;
use dunlin::onnx::{Golden, Options, compile};
use dunlin::{Arena, Block, Model, Package, Session, ops};
use dunlin_cli::npz;
use dunlin_mcu::Factory;
use dunlin_mcu::message::Offer;
use dunlin_update::delta::{EncodeOptions, encode};
use dunlin_update::flash::Layout;
use dunlin_update::record::{Installed, Transfer};
use dunlin_update::trust::{Audience, Release, Role, RoleKeys, Rollout, RootKeys, SecretKey, envelope, sign};
use sha2::{Digest, Sha256};

use super::map;

/// Bytes that a block of a difference gives: a download resumes at one.
const BLOCK: u32 = 4096;
const IDENTITY: &[u8] = b"board 1";
const NAME: &str = "digits";

/// A package, and what it gives for each image.
pub struct Pack {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub digest: [u8; 32],
    /// Bytes of the output, by image.
    pub outputs: Vec<Vec<u8>>,
    /// Images that it reads wrongly.
    pub wrong: usize,
}

/// What a device may be offered.
pub struct Publication {
    /// What it hears first.
    pub offer: Offer,
    /// Root documents from version 2 on.
    pub roots: Vec<Vec<u8>>,
    /// The rollout document.
    pub rollout: Vec<u8>,
    /// The release document.
    pub release: Vec<u8>,
    /// The package or the difference.
    pub stream: Vec<u8>,
}

/// Packages, keys and images.
pub struct Goods {
    /// What the device is made with: digits 2.
    pub old: Pack,
    /// Digits 2, trained on.
    pub new: Pack,
    /// As `new`, with a golden vector that it does not give.
    pub spoiled: Pack,
    /// Digits 3, which reads real images wrongly and whose golden vectors hold.
    pub bad: Pack,
    images: Vec<(Vec<u8>, u8)>,
    roots: Vec<Vec<u8>>,
}

fn key(role: Role) -> SecretKey {
    SecretKey::from_seed([role as u8 + 1; 32]).expect("a seed")
}

/// A root in which each role has one key.
fn root(version: u32) -> RootKeys {
    let mut keys = [[0; 32]; 8];
    let used = [Role::Root, Role::Targets, Role::Rollout];
    keys.iter_mut().zip(used).for_each(|(to, role)| *to = key(role).public());
    let role = |i: u8| RoleKeys { threshold: 1, keys: 1 << i };
    let roles = [role(0), role(1), role(2), RoleKeys::default()];
    RootKeys { version, expires: u64::MAX, count: 3, keys, roles }
}

fn signed<T: serde::Serialize>(role: Role, fields: &T) -> Result<Vec<u8>, String> {
    let plain = envelope(role, fields).map_err(|e| e.to_string())?;
    sign(&plain, role, &key(role)).map_err(|e| e.to_string())
}

/// Outputs of a package for inputs of bytes.
fn run(package: &[u8], inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let block = Block::from(package);
    let package = Package::open(&block).map_err(|e| e.to_string())?;
    let model = Model::load(&package, ops::all::<Scalar>()).map_err(|e| e.to_string())?;
    let mut memory = Block::zeroed(model.arena_len(Scalar));
    let mut session = Session::new(&model, Arena::new(&mut memory), Scalar).map_err(|e| e.to_string())?;
    let run = |input: &Vec<u8>| {
        session.input(0).into_bytes().copy_from_slice(input);
        session.run();
        session.output(0).bytes().to_vec()
    };
    Ok(inputs.iter().map(run).collect())
}

fn floats(pixels: &[u8]) -> Vec<u8> {
    pixels.iter().flat_map(|&p| (f32::from(p) * (1.0 / 255.0)).to_le_bytes()).collect()
}

impl Goods {
    /// Compiles the models and runs them on the images.
    ///
    /// # Errors
    /// What does not compile.
    pub fn new() -> Result<Self, String> {
        let artifact = dunlin_models::find(NAME, Some("2")).ok_or("no digits 2")?;
        let test = npz::read(artifact.test)?;
        let (x, y) = (test.get("x").ok_or("no x")?, test.get("y").ok_or("no y")?);
        let labels = y.bytes.chunks_exact(8).map(|y| y[0]);
        let images = x.bytes.chunks_exact(map::PIXELS).map(<[u8]>::to_vec).zip(labels);
        let images: Vec<(Vec<u8>, u8)> = images.take(map::IMAGE_COUNT as usize).collect();
        let golden = npz::read(artifact.golden)?;
        let inputs: Vec<Vec<u8>> =
            golden.iter().filter(|(k, _)| k.starts_with("in")).map(|(_, a)| a.bytes.clone()).collect();
        let pack = |onnx: &[u8], version: &str, spoil: bool| {
            let mut options = Options {
                name: NAME.into(),
                version: version.into(),
                target: "cortex-m4".into(),
                ..Options::default()
            };
            let plain = compile(onnx, &options).map_err(|e| e.to_string())?.package;
            let outputs = run(&plain, &inputs)?;
            options.golden = inputs
                .iter()
                .zip(outputs)
                .map(|(input, output)| Golden { inputs: vec![input.clone()], outputs: vec![output] })
                .collect();
            if spoil {
                options.golden[1].outputs[0][5] ^= 1;
                options.unchecked_golden = true;
            }
            let bytes = compile(onnx, &options).map_err(|e| e.to_string())?.package;
            let digest = Package::open(&Block::from(&bytes[..])).map_err(|e| e.to_string())?.digest();
            let inputs: Vec<Vec<u8>> = images.iter().map(|(pixels, _)| floats(pixels)).collect();
            let outputs = run(&bytes, &inputs)?;
            let digit = |output: &[u8]| {
                let values: Vec<f32> =
                    output.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| f32::from_le_bytes(*b)).collect();
                (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b]))
            };
            let right = |(output, (_, label)): &(&Vec<u8>, &(Vec<u8>, u8))| digit(output) == Some((*label).into());
            let wrong = outputs.iter().zip(&images).filter(|pair| !right(pair)).count();
            Ok::<_, String>(Pack { bytes, digest, outputs, wrong })
        };
        let tuned = include_bytes!("../../../models/variants/fine-tuned.onnx");
        let bad = dunlin_models::find(NAME, Some("3")).ok_or("no digits 3")?;
        Ok(Self {
            old: pack(artifact.onnx, "2", false)?,
            new: pack(tuned, "3", false)?,
            spoiled: pack(tuned, "4", true)?,
            bad: pack(bad.onnx, "5", false)?,
            roots: vec![signed(Role::Root, &root(2))?],
            images,
        })
    }

    /// The package with this digest.
    #[must_use]
    pub fn find(&self, digest: &[u8; 32]) -> Option<&Pack> {
        [&self.old, &self.new, &self.spoiled, &self.bad].into_iter().find(|p| p.digest == *digest)
    }

    /// The flash of a device as it leaves the production line.
    ///
    /// # Errors
    /// When the parts do not fit.
    pub fn device(&self) -> Result<Vec<u8>, String> {
        let mut nor = vec![0xFF; map::FLASH as usize];
        let package = Installed {
            slot: 0,
            len: self.old.bytes.len() as u32,
            digest: self.old.digest,
            hash: Sha256::digest(&self.old.bytes).into(),
            counter: 1,
            number: 1,
        };
        let factory = Factory { identity: IDENTITY, root: root(1), package };
        factory
            .write(&mut nor[map::FACTORY as usize..map::IMAGES as usize])
            .ok_or("the factory sector is too small")?;
        for (at, (pixels, digit)) in (map::IMAGES as usize..).step_by(map::IMAGE_STRIDE as usize).zip(&self.images) {
            nor[at..at + map::PIXELS].copy_from_slice(pixels);
            nor[at + map::PIXELS] = *digit;
        }
        let layout = Layout::packed(map::STORAGE, map::SECTOR, map::SLOT, 2);
        let slot = layout.slots as usize;
        if self.old.bytes.len() > map::SLOT as usize {
            return Err("the slot is too small".into());
        }
        nor[slot..slot + self.old.bytes.len()].copy_from_slice(&self.old.bytes);
        Ok(nor)
    }

    /// Root documents from version 1 on; the newest gives the role of rollouts to a fleet server's key.
    ///
    /// # Errors
    /// When they cannot be signed.
    pub fn roots_with(&self, rollout: [u8; 32]) -> Result<Vec<Vec<u8>>, String> {
        let mut newer = root(2);
        newer.keys.iter_mut().skip(2).take(1).for_each(|key| *key = rollout);
        Ok(vec![signed(Role::Root, &root(1))?, signed(Role::Root, &newer)?])
    }

    /// Signs a package as release `number` and makes the difference to `base`, or has it come whole.
    ///
    /// # Errors
    /// When it has no package format.
    pub fn publish(&self, pack: &Pack, base: Option<&Pack>, number: u32) -> Result<Publication, String> {
        let block = Block::from(&pack.bytes[..]);
        let package = Package::open(&block).map_err(|e| e.to_string())?;
        let manifest = package.manifest();
        let release = Release {
            name: NAME,
            version: manifest.version,
            digest: pack.digest,
            hash: Sha256::digest(&pack.bytes).into(),
            len: pack.bytes.len() as u32,
            number,
            counter: 1,
            expires: 0,
            target: manifest.target,
            engine_min: (manifest.engine_min.major, manifest.engine_min.minor),
            ops_version: manifest.ops_version,
            memory: manifest.arena_bytes + manifest.scratch_bytes,
        };
        let rollout = Rollout {
            name: NAME,
            sequence: number.into(),
            time: 1,
            expires: u64::MAX,
            digest: pack.digest,
            audience: Audience::ALL,
            lifted: b"",
        };
        let stream = match base {
            Some(base) => {
                let options = EncodeOptions { block: BLOCK };
                encode(Some(&base.bytes), &pack.bytes, &options).map_err(|e| e.to_string())?.patch
            }
            None => pack.bytes.clone(),
        };
        let first = |bytes: &[u8]| *Sha256::digest(bytes).first_chunk::<8>().expect("a hash has 32 bytes");
        let (rollout, release) = (signed(Role::Rollout, &rollout)?, signed(Role::Targets, &release)?);
        let transfer = Transfer { id: first(&stream), len: stream.len() as u32, delta: base.is_some() };
        let offer = first(&[&rollout[..], &release, &transfer.id].concat());
        Ok(Publication {
            offer: Offer { offer, digest: pack.digest, root: 1 + self.roots.len() as u32, transfer },
            roots: self.roots.clone(),
            rollout,
            release,
            stream,
        })
    }
}
