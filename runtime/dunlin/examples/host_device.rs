//! A device on a host: it runs the package that it left the factory with, and would take a signed update.
//!
//! `cargo run --release -p dunlin --example host_device --features device`

use std::time::Instant;

use dunlin::device::{Config, Copied, Device, Event, Memory, Task};
use dunlin::kernels::{Best, best};
use dunlin::package::Hash;
use dunlin::update::delta::Applier;
use dunlin::update::storage::{Area, Geometry, Storage, StorageFault};
use dunlin::update::trust::{Ed25519, RoleKeys, RootKeys};
use dunlin::update::{Device as Profile, Installed, Limits, StartCause, Updater};
use dunlin::{InputError, Package, Session, ops};

dunlin::include_model!(mod digits = "examples/digits.dunlin");

/// Bytes of a slot for a package, of the state record and of the journal.
const SLOT: usize = 64 << 10;
const SMALL: usize = 4 << 10;

/// Storage in memory: a real device has flash, a phone files (`dunlin::update::file::Folder`).
struct InMemory {
    state: [Vec<u8>; 2],
    journal: Vec<u8>,
    slots: [Vec<u8>; 2],
}

impl InMemory {
    fn with(package: &[u8]) -> Self {
        let mut slots = [vec![0xFF; SLOT], vec![0xFF; SLOT]];
        slots[0][..package.len()].copy_from_slice(package);
        Self { state: [vec![0xFF; SMALL], vec![0xFF; SMALL]], journal: vec![0xFF; SMALL], slots }
    }

    fn bytes(&mut self, area: Area, offset: u32, len: usize) -> Result<&mut [u8], StorageFault> {
        let all = match area {
            Area::State(index) => self.state.get_mut(usize::from(index)),
            Area::Journal => Some(&mut self.journal),
            Area::Slot(index) => self.slots.get_mut(usize::from(index)),
        };
        all.and_then(|all| all.get_mut(offset as usize..)?.get_mut(..len)).ok_or(StorageFault)
    }
}

impl Storage for InMemory {
    fn slots(&self) -> u8 {
        2
    }

    fn geometry(&self, area: Area) -> Geometry {
        let len = if matches!(area, Area::Slot(_)) { SLOT } else { SMALL };
        Geometry { len: len as u32, sector: 1024, unit: 4, erased: 0xFF }
    }

    fn read(&mut self, area: Area, offset: u32, into: &mut [u8]) -> Result<(), StorageFault> {
        into.copy_from_slice(self.bytes(area, offset, into.len())?);
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u32, bytes: &[u8]) -> Result<(), StorageFault> {
        self.bytes(area, offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn erase(&mut self, area: Area, offset: u32, len: u32) -> Result<(), StorageFault> {
        self.bytes(area, offset, len as usize)?.fill(0xFF);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageFault> {
        Ok(())
    }
}

/// What the application does with the model.
struct Camera {
    picture: [f32; digits::INPUT_LEN],
    digit: Option<usize>,
}

impl Task<Best> for Camera {
    fn fill(&mut self, session: &mut Session<'_, '_, Best>) -> Result<(), InputError> {
        session.input(0).copy_from_slice(&self.picture)
    }

    fn read(&mut self, session: &Session<'_, '_, Best>) -> bool {
        self.digit = session.output(0).argmax();
        self.digit.is_some()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let package = Package::open(digits::PACKAGE)?;
    let memory = dunlin::Model::load(&package, ops::all())?.arena_len(best());
    // `dunlin keys init` makes keys; nobody has these.
    let role = RoleKeys { threshold: 1, keys: 1 };
    let profile = Profile {
        identity: b"camera-1",
        name: digits::NAME,
        target: "any",
        engine: (0, 1),
        ops_version: 1,
        memory: u32::try_from(memory)?,
        beside: true,
        starts: 2,
        limits: Limits { inferences: 100, errors: 3, late: 5, deadline_us: 50_000 },
        root: RootKeys { version: 1, expires: u64::MAX, count: 1, keys: [[1; 32]; 8], roles: [role; 4] },
        factory: Some(Installed {
            slot: 0,
            len: u32::try_from(digits::PACKAGE.len())?,
            digest: package.digest(),
            hash: Hash::of(&[digits::PACKAGE]),
            counter: 1,
            number: 1,
        }),
    };
    let mut decoder = Applier::new();
    let mut room = vec![0; SLOT + 16];
    let slots = Copied::new(InMemory::with(digits::PACKAGE), &mut room);
    let updater =
        Updater::open(slots, Ed25519, profile, StartCause::Power, &mut decoder).map_err(|error| error.to_string())?;
    let (mut arena, mut documents, mut flags) = (vec![0; memory + 16], [0; 1024], [0; 512]);
    let lent = Memory { arena: &mut arena, documents: &mut documents, flags: &mut flags };
    let mut device = Device::new(updater, ops::all(), best(), Config::new(b"camera-1", digits::NAME), lent);

    let start = Instant::now();
    let now = || start.elapsed().as_micros() as u64;
    let mut camera = Camera { picture: [0.0; digits::INPUT_LEN], digit: None };
    for number in 0..100 {
        if device.poll(now()) == Event::Started {
            println!("another model begins");
        }
        let mut datagram = [0; 512];
        while let Some(len) = device.transmit(now(), &mut datagram)? {
            // A network would carry datagram[..len] to a gateway, and what it answers to `device.receive`.
            println!("{len} bytes to send");
        }
        camera.picture[number % digits::INPUT_LEN] = 1.0;
        device.infer(now, &mut camera).map_err(|error| error.to_string())?;
    }
    let counters = device.counters();
    println!(
        "{} inferences, the slowest took {} us; the last saw {:?}",
        counters.inferences, counters.slowest, camera.digit
    );
    Ok(())
}
