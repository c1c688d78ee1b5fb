//! A model of the gateway's own: a [`Device`] whose packages are files and whose inferences applications on this machine
//! ask for.
//!
//! An application connects over TCP, as often as it likes, and asks: the number of bytes (u32, little endian), and the bytes
//! of the model's inputs, one after the other. It hears: a [`Served`] byte, the digest of the package that ran (32 bytes),
//! the number of bytes (u32, little endian), and the bytes of the outputs, one after the other.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_device::{Config, Copied, Device, Event, Memory, Task};
use dunlin_engine::{InputError, Session, ops};
use dunlin_kernels::{Best, best};
use dunlin_update::delta::Applier;
use dunlin_update::file::Folder;
use dunlin_update::trust::{Document, Ed25519, Role, RootKeys};
use dunlin_update::{Device as Profile, Limits, StartCause, Updater, Verdict};

use crate::bridge::Bridge;
use crate::child::{is_identity, replace};
use crate::site::Site;

/// Bytes of a datagram: reports are the longest that the device sends.
const DATAGRAM: usize = 2048;
/// Bytes of a package that are asked for at once.
const CHUNK: u16 = 16 << 10;
/// Datagrams that are exchanged before requests of applications are looked at again.
const TURNS: usize = 16;
/// How long requests are waited for at most.
const IDLE: Duration = Duration::from_millis(200);
/// Room for documents of updates, and for flags.
const DOCUMENTS: usize = 8 << 10;
/// Exchanges in which reports are handed over before the end.
const FAREWELL: usize = 64;

/// What the model is and may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Who the gateway is as a device.
    pub identity: Vec<u8>,
    /// The model's name.
    pub name: String,
    /// What packages are compiled for to run here.
    pub target: String,
    /// File with the signed root document that is trusted first.
    pub root: PathBuf,
    /// Bytes for tensors and operators.
    pub memory: u32,
    /// Bytes of the longest package.
    pub slot: u32,
    /// What a trial may and must do.
    pub limits: Limits,
    /// How often the telemetry's window is closed.
    pub window: Duration,
}

/// Why the model does not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum OwnError {
    /// A file cannot be used.
    File(PathBuf, io::Error),
    /// The root document is none, or is not signed by its own keys.
    Root(PathBuf, String),
    /// The slots cannot be used.
    Storage(String),
}

impl fmt::Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{} cannot be used: {error}", path.display()),
            Self::Root(path, why) => {
                write!(f, "{} is no root to trust: {why}; model.root names the signed document", path.display())
            }
            Self::Storage(why) => write!(f, "the model's slots cannot be used: {why}"),
        }
    }
}

impl std::error::Error for OwnError {}

/// How a request was served; the first byte of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Served {
    /// Outputs follow.
    Outputs = 0,
    /// No package is there yet.
    NoPackage = 1,
    /// A flag says that no model runs.
    Off = 2,
    /// The model has inputs of other lengths.
    Input = 3,
    /// The package does not load, or the storage failed.
    Failed = 4,
}

#[derive(Debug)]
struct Request {
    inputs: Vec<u8>,
    answer: Sender<Answer>,
}

#[derive(Debug)]
struct Answer {
    served: Served,
    digest: [u8; 32],
    outputs: Vec<u8>,
}

/// Where applications ask.
#[derive(Clone, Debug)]
pub struct Applications {
    requests: Sender<Request>,
    most: u32,
}

/// The other end of [`Applications`].
#[derive(Debug)]
pub struct Requests(Receiver<Request>);

/// Requests of applications, of at most so many bytes.
#[must_use]
pub fn applications(most: u32) -> (Applications, Requests) {
    let (requests, receiver) = channel();
    (Applications { requests, most }, Requests(receiver))
}

impl Applications {
    /// Serves all who connect, each in a thread.
    pub fn serve(self, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let applications = self.clone();
            std::thread::spawn(move || {
                if let Err(error) = applications.attend(&stream) {
                    tracing::debug!(%error, "an application's line ended");
                }
            });
        }
    }

    fn attend(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let mut head = [0; 4];
            stream.read_exact(&mut head)?;
            let len = u32::from_le_bytes(head);
            if len > self.most {
                return Err(io::Error::other(format!("{len} bytes of inputs; model.memory is {}", self.most)));
            }
            let mut inputs = vec![0; len as usize];
            stream.read_exact(&mut inputs)?;
            let (answer, answers) = channel();
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.requests.send(Request { inputs, answer }).map_err(|_| gone(()))?;
            let answer = answers.recv().map_err(|_| gone(()))?;
            let mut bytes = vec![answer.served as u8];
            bytes.extend(answer.digest);
            bytes.extend((answer.outputs.len() as u32).to_le_bytes());
            bytes.extend(answer.outputs);
            stream.write_all(&bytes)?;
        }
    }
}

/// One inference.
struct Asked<'r> {
    inputs: &'r [u8],
    outputs: Vec<u8>,
    fits: bool,
}

impl Task<Best> for Asked<'_> {
    fn fill(&mut self, session: &mut Session<'_, '_, Best>) -> Result<(), InputError> {
        let mut rest = self.inputs;
        let mut index = 0;
        while let Some(tensor) = session.input(index).tensor() {
            let (expected, got) = (tensor.bytes(), rest.len());
            let (bytes, more) = rest.split_at_checked(expected).ok_or(InputError::Length { expected, got })?;
            session.input(index).into_bytes().copy_from_slice(bytes);
            (rest, index) = (more, index + 1);
        }
        self.fits = rest.is_empty();
        if self.fits { Ok(()) } else { Err(InputError::Length { expected: 0, got: rest.len() }) }
    }

    fn read(&mut self, session: &Session<'_, '_, Best>) -> bool {
        self.outputs.clear();
        let all = (0..).map(|i| session.output(i)).take_while(|o| o.tensor().is_some());
        all.for_each(|output| self.outputs.extend(output.bytes()));
        true
    }
}

/// The root document, whose own keys have to have signed it.
fn root(path: &Path) -> Result<RootKeys, OwnError> {
    let bytes = fs::read(path).map_err(|e| OwnError::File(path.into(), e))?;
    let wrong = |why: &dyn fmt::Display| OwnError::Root(path.into(), why.to_string());
    let document = Document::read(&bytes, Role::Root).map_err(|e| wrong(&e))?;
    let keys: RootKeys = document.decode().map_err(|e| wrong(&e))?;
    if !keys.is_sound() {
        return Err(wrong(&"it has roles whose threshold their keys cannot reach"));
    }
    document.check(&keys, Role::Root, &Ed25519).map_err(|e| wrong(&e))?;
    Ok(keys)
}

/// Why the process starts: a fault when one of the same start of the machine did not end in order.
fn cause(marker: &Path) -> StartCause {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let before = fs::read_to_string(marker).ok();
    if before.is_some_and(|b| b == boot) { StartCause::Fault } else { StartCause::Power }
}

/// Counts starts, and those after a fault until [`told`].
fn next_boot(path: &Path, cause: StartCause) -> io::Result<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|n| n.parse::<u32>().unwrap_or_default());
    let boot = numbers.next().unwrap_or_default().wrapping_add(1);
    let faults = numbers.next().unwrap_or_default().saturating_add(u32::from(cause == StartCause::Fault));
    replace(path, format!("{boot} {faults}").as_bytes())?;
    Ok((boot, faults))
}

/// A report of this start has arrived.
fn told(path: &Path, boot: u32) -> io::Result<()> {
    replace(path, format!("{boot} 0").as_bytes())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Own {
    /// What can be found wrong before anything runs.
    ///
    /// # Errors
    /// Which file, and why.
    pub fn check(&self) -> Result<(), OwnError> {
        root(&self.root).map(|_| ())
    }

    /// Whether the identity can be one.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        is_identity(&self.identity) && !self.name.is_empty() && self.name.len() <= 64
    }

    /// Runs the model until `go_on` says no; reports are handed over to the site before the end.
    ///
    /// # Errors
    /// When files or slots cannot be used.
    pub fn run(
        &self,
        site: &Arc<Site>,
        state: &Path,
        requests: Requests,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), OwnError> {
        self.live(site, state, Some((requests, go_on)))
    }

    /// Has the model check in once, waiting for the server, and do all that follows from the answer: flags, and an update
    /// up to the start of its trial, which needs inferences of applications to end.
    ///
    /// # Errors
    /// When files or slots cannot be used. Whether the server answered is told by [`Site::deliver`].
    pub fn once(&self, site: &Arc<Site>, state: &Path) -> Result<(), OwnError> {
        self.live(site, state, None)
    }

    /// With requests until told to stop, or without for one round.
    fn live(
        &self,
        site: &Arc<Site>,
        state: &Path,
        serving: Option<(Requests, &dyn Fn() -> bool)>,
    ) -> Result<(), OwnError> {
        let folder = state.join("model");
        let file = |name: &str| folder.join(name);
        let failed = |name: &str| {
            let path = file(name);
            move |error| OwnError::File(path, error)
        };
        let root = root(&self.root)?;
        let storage = Folder::open(&folder, 2, self.slot).map_err(failed("lock"))?;
        let (marker, flags_file) = (file("running"), file("flags"));
        let cause = cause(&marker);
        let starts = file("boot");
        let (boot, faults) = next_boot(&starts, cause).map_err(failed("boot"))?;
        let now_running = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        replace(&marker, now_running.as_bytes()).map_err(failed("running"))?;

        let profile = Profile {
            identity: &self.identity,
            name: &self.name,
            target: &self.target,
            engine: (0, 1),
            ops_version: 1,
            memory: self.memory,
            beside: true,
            starts: 3,
            limits: self.limits,
            root,
            factory: None,
        };
        let mut room = vec![0; self.slot as usize + 16];
        let mut arena = vec![0; self.memory as usize + 16];
        let (mut documents, mut flags) = (vec![0; DOCUMENTS], vec![0; DOCUMENTS]);
        let mut decoder = Box::new(Applier::new());
        let slots = Copied::new(storage, &mut room);
        let updater = Updater::open(slots, Ed25519, profile, cause, &mut decoder)
            .map_err(|error| OwnError::Storage(error.to_string()))?;
        let config = Config {
            boot,
            cause,
            faults,
            chunk: CHUNK,
            interval: 60_000_000,
            window: u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX),
            ..Config::new(&self.identity, &self.name)
        };
        let memory = Memory { arena: &mut arena, documents: &mut documents, flags: &mut flags };
        let mut device = Device::new(updater, ops::all(), best(), config, memory);
        let started = Instant::now();
        let clock = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        device.set_time(clock(), seconds());
        if let Ok(document) = fs::read(&flags_file)
            && let Err(error) = device.take_flags(&document)
        {
            tracing::warn!(?error, "the flags of before are not obeyed");
        }

        let waits = serving.is_none();
        let mut carrier = Carrier { bridge: site.bridge(), waits, datagram: vec![0; DATAGRAM], reply: Vec::new() };
        let mut untold = Some(faults);
        let mut note = |event: Event, document: &[u8]| match event {
            Event::Flags { sequence } => {
                tracing::info!(sequence, "new flags");
                if let Err(error) = replace(&flags_file, document) {
                    tracing::warn!(%error, "flags are not kept beyond this start");
                }
            }
            Event::Accepted { next } => tracing::info!(next, "an update of the gateway's own model begins"),
            Event::Resumed { next } => tracing::info!(next, "an update of the gateway's own model goes on"),
            Event::Staged => tracing::info!("the gateway's own model has an update"),
            Event::Started => tracing::info!("the update of the gateway's own model is tried"),
            Event::Refused(reason) => tracing::warn!(?reason, "the gateway's own model takes no such update"),
            Event::Arranged => tracing::info!("what lies at the gateway runs otherwise from now on"),
            Event::Reported { .. } if untold.take().is_some_and(|faults| faults > 0) => {
                if let Err(error) = told(&starts, boot) {
                    tracing::warn!(%error, "faults will be told again");
                }
            }
            _ => {}
        };
        while serving.as_ref().is_none_or(|(_, go_on)| go_on()) {
            let event = device.poll(clock());
            note(event, device.flags_document());
            let mut busy = false;
            for _ in 0..TURNS {
                let Some(event) = carrier.exchange(clock(), |now, into| device.transmit(now, into).ok().flatten())
                else {
                    break;
                };
                busy = true;
                if let Some(reply) = event {
                    let event = device.receive(clock(), reply);
                    note(event, device.flags_document());
                }
                let event = device.poll(clock());
                note(event, device.flags_document());
            }
            let Some((Requests(requests), _)) = &serving else {
                if busy {
                    continue;
                }
                break;
            };
            let wait = Duration::from_micros(device.wake().saturating_sub(clock())).min(IDLE);
            match requests.recv_timeout(if busy { Duration::ZERO } else { wait }) {
                Ok(request) => {
                    let answer = answer(&mut device, &clock, &request.inputs);
                    // Whoever asked may be gone.
                    let _ = request.answer.send(answer);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // No applications: only packages and flags come.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
        // What was measured is handed over, as if it were time to check in.
        device.close_window(clock());
        let now = device.wake().max(clock());
        let _ = device.poll(now);
        for _ in 0..FAREWELL {
            if device.reports() == 0 {
                break;
            }
            match carrier.exchange(now, |now, into| device.transmit(now, into).ok().flatten()) {
                Some(Some(reply)) => drop(device.receive(now, reply)),
                _ => break,
            }
        }
        fs::remove_file(&marker).map_err(failed("running"))?;
        Ok(())
    }
}

/// The way between device and bridge.
struct Carrier {
    bridge: Bridge,
    /// Whether the server is waited for.
    waits: bool,
    datagram: Vec<u8>,
    reply: Vec<u8>,
}

impl Carrier {
    /// Carries what the device has to say, if anything, and gives the answer, if there is one.
    fn exchange(&mut self, now: u64, transmit: impl FnOnce(u64, &mut [u8]) -> Option<usize>) -> Option<Option<&[u8]>> {
        let len = transmit(now, &mut self.datagram)?;
        let said = self.datagram.get(..len).unwrap_or_default();
        let said = if self.waits {
            self.bridge.exchange(said, &mut self.reply)
        } else {
            self.bridge.receive(said, &mut self.reply)
        };
        match said {
            Ok(true) => Some(Some(&self.reply)),
            Ok(false) => Some(None),
            Err(error) => {
                tracing::warn!(%error, "the gateway's own model was not answered");
                Some(None)
            }
        }
    }
}

fn answer<S: dunlin_device::Slots, V: dunlin_update::trust::Verifier>(
    device: &mut Device<'_, S, V, Best>,
    clock: &dyn Fn() -> u64,
    inputs: &[u8],
) -> Answer {
    use dunlin_device::RunError;
    let mut asked = Asked { inputs, outputs: Vec::new(), fits: true };
    let none = |served| Answer { served, digest: [0; 32], outputs: Vec::new() };
    // Once more when the package that was to run was taken back instead.
    for _ in 0..2 {
        match device.infer(clock, &mut asked) {
            Ok(ran) => {
                match ran.verdict {
                    Verdict::Confirmed => tracing::info!("the update of the gateway's own model is kept"),
                    Verdict::Reverted(reason) => tracing::warn!(?reason, "the gateway's own model is taken back"),
                    _ => {}
                }
                match ran.inference {
                    Some(_) if !asked.fits || (asked.outputs.is_empty() && !inputs.is_empty()) => {
                        return none(Served::Input);
                    }
                    Some(_) => return Answer { served: Served::Outputs, digest: ran.digest, outputs: asked.outputs },
                    None => {}
                }
            }
            Err(RunError::NoPackage) => return none(Served::NoPackage),
            Err(RunError::Off) => return none(Served::Off),
            Err(error) => {
                tracing::warn!(%error, "the gateway's own model does not run");
                return none(Served::Failed);
            }
        }
    }
    none(Served::NoPackage)
}
