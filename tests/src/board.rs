//! A board under QEMU with a serial line to this program, which plays the gateway; and a hand that pulls the plug.

pub mod cuts;
pub mod goods;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dunlin_mcu::frame::{self, Decoder, Step};
use dunlin_mcu::message::{self, Chunk, Down, Fetching, News, Part, Refusal, Report, Up, Want};
use dunlin_update::{Outcome, Phase};

use goods::Publication;

/// The longest payload with its CRC.
const LINE: usize = 512;
/// Between check-ins, milliseconds.
const WAIT: u32 = 20;

/// Where things lie in the board's flash.
#[allow(dead_code, reason = "the firmware needs more of it")]
#[path = "../../firmware-examples/ota/src/map.rs"]
pub mod map;

/// What a device said.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It asked for news.
    CheckIn(State),
    /// It asked for bytes.
    Want(Want),
    /// It did not take an offer.
    Refused(Refusal),
    /// It made an inference.
    Ran {
        /// Digest of the package.
        digest: [u8; 32],
        /// Number of the image.
        input: u32,
        /// Bytes of the output.
        output: Vec<u8>,
    },
    /// It reported what it measured.
    Report {
        /// The start of the device.
        boot: u32,
        /// The window's number.
        seq: u32,
        /// Inferences that it tells of.
        inferences: u32,
    },
}

/// What a check-in tells.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Digest of what runs.
    pub running: Option<[u8; 32]>,
    /// Where the update is.
    pub phase: Phase,
    /// What is on its way.
    pub fetching: Option<Fetching>,
    /// How the last update ended.
    pub last: Option<Outcome>,
    /// Inferences since the start.
    pub inferences: u32,
    /// Those that the application could not use.
    pub failed: u32,
}

/// A running board. Dropping it pulls the plug.
pub struct Board {
    qemu: Arc<Mutex<Child>>,
    line: TcpStream,
    decoder: Decoder<LINE>,
    /// Bytes that came and are not looked at yet.
    came: std::collections::VecDeque<u8>,
    /// Bytes that were no message.
    pub skipped: u32,
}

impl Board {
    /// Switches a board on whose flash is `nor.bin` in `folder`; its logs go to `log.bin` there.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(elf: &Path, folder: &Path) -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let log = File::options().create(true).append(true).open(folder.join("log.bin")).map_err(text)?;
        let mut qemu = Command::new("qemu-system-arm")
            .args(["-M", "mps2-an386", "-nographic", "-monitor", "none"])
            .args(["-serial", &format!("tcp:127.0.0.1:{port},nodelay=on")])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(elf)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("qemu-system-arm: {e}"))?;
        listener.set_nonblocking(true).map_err(text)?;
        let start = Instant::now();
        let line = loop {
            match listener.accept() {
                Ok((line, _)) => break line,
                Err(e) if e.kind() == ErrorKind::WouldBlock && start.elapsed() < Duration::from_secs(20) => {
                    if let Ok(Some(status)) = qemu.try_wait() {
                        return Err(format!("QEMU ended: {status}"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => {
                    // The child would outlive the error otherwise.
                    let _ = qemu.kill();
                    let _ = qemu.wait();
                    return Err(e.to_string());
                }
            }
        };
        line.set_nonblocking(false).map_err(text)?;
        line.set_nodelay(true).map_err(text)?;
        line.set_read_timeout(Some(Duration::from_secs(20))).map_err(text)?;
        let qemu = Arc::new(Mutex::new(qemu));
        Ok(Self { qemu, line, decoder: Decoder::new(), came: Default::default(), skipped: 0 })
    }

    /// Pulls the plug after a while: SIGKILL.
    pub fn cut_after(&self, delay: Duration) {
        let qemu = Arc::clone(&self.qemu);
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            kill(&qemu);
        });
    }

    /// Puts bytes on the line that are no message.
    ///
    /// # Errors
    /// When the line is gone.
    pub fn disturb(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.line.write_all(bytes).map_err(|e| e.to_string())
    }

    /// The next thing that the device says, answered from what is published; `None` once the power is gone.
    ///
    /// # Errors
    /// When the device is silent for 20 seconds.
    pub fn serve(&mut self, published: Option<&Publication>) -> Result<Option<Seen>, String> {
        loop {
            let Some(byte) = self.came.pop_front() else {
                let mut buffer = [0; 1024];
                match self.line.read(&mut buffer) {
                    Ok(0) => return Ok(None),
                    Ok(n) => self.came.extend(&buffer[..n]),
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        return Err("the device is silent".into());
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Ok(None),
                }
                continue;
            };
            match self.decoder.push(byte) {
                Step::More => {}
                Step::Broken(_) => self.skipped += 1,
                Step::Frame => {
                    let payload = self.decoder.payload().to_vec();
                    let up: Up<'_> = message::decode(&payload).map_err(|e| format!("the device sent rubbish: {e}"))?;
                    let (seen, answer) = judge(up, published)?;
                    if let Some(answer) = answer
                        && self.send(&answer).is_err()
                    {
                        return Ok(None);
                    }
                    return Ok(Some(seen));
                }
            }
        }
    }

    fn send(&mut self, message: &Down<'_>) -> std::io::Result<()> {
        let mut content = [0; LINE];
        let len = message::encode(message, &mut content).map_err(std::io::Error::other)?;
        let sealed = frame::seal(&mut content, len).ok_or(ErrorKind::InvalidInput)?;
        let mut bytes = Vec::new();
        let whole = frame::encode(sealed, |piece| {
            bytes.extend(piece);
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = whole;
        self.line.write_all(&bytes)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        kill(&self.qemu);
    }
}

fn kill(qemu: &Mutex<Child>) {
    if let Ok(mut qemu) = qemu.lock() {
        // It may have ended already.
        let _ = qemu.kill();
        let _ = qemu.wait();
    }
}

/// What a gateway answers.
fn judge<'p>(up: Up<'_>, published: Option<&'p Publication>) -> Result<(Seen, Option<Down<'p>>), String> {
    Ok(match up {
        Up::CheckIn(known) => {
            let phase = known.phase().ok_or("a phase without a name")?;
            let state = State {
                running: known.running,
                phase,
                fetching: known.fetching,
                last: known.last.map(|(_, outcome)| outcome),
                inferences: known.inferences,
                failed: known.failed,
            };
            let news = published.filter(|p| known.running != Some(p.offer.digest));
            let answer = Down::News(News { wait: WAIT, offer: news.map(|p| p.offer), ..News::default() });
            (Seen::CheckIn(state), Some(answer))
        }
        Up::Want(want) => {
            let known = published.filter(|p| p.offer.offer == want.offer);
            let part = known.and_then(|p| match want.part {
                Part::Root(version) => p.roots.get(version as usize - 2).map(Vec::as_slice),
                Part::Rollout => Some(&p.rollout[..]),
                Part::Release => Some(&p.release[..]),
                Part::Stream => Some(&p.stream[..]),
                Part::Flags => None,
            });
            let bytes = part.and_then(|part| Some((part.len() as u32, part.get(want.offset as usize..)?)));
            let answer = bytes.map_or(Down::Gone { offer: want.offer }, |(total, bytes)| {
                let bytes = &bytes[..bytes.len().min(want.len.into())];
                let Want { offer, part, offset, .. } = want;
                Down::Chunk(Chunk { offer, part, offset, total, bytes })
            });
            (Seen::Want(want), Some(answer))
        }
        Up::Refused { reason, .. } => (Seen::Refused(reason), None),
        Up::Ran(ran) => (Seen::Ran { digest: ran.digest, input: ran.input, output: ran.output.to_vec() }, None),
        Up::Report(Report { boot, seq, bytes }) => {
            let inferences = match dunlin_telemetry::Report::<10, 2>::decode(bytes) {
                Ok(dunlin_telemetry::Report::Known(_, window)) => window.counters().inferences(),
                other => return Err(format!("a report that is none: {other:?}")),
            };
            (Seen::Report { boot, seq, inferences }, Some(Down::Stored { boot, seq }))
        }
    })
}

/// A folder with a board's flash and logs, removed at the end.
pub struct Bench(pub PathBuf);

impl Bench {
    /// A folder whose flash is `nor`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(name: &str, nor: &[u8]) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("dunlin-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        let bench = Self(path);
        bench.flash(nor)?;
        Ok(bench)
    }

    /// Makes the device anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flash(&self, nor: &[u8]) -> Result<(), String> {
        std::fs::write(self.0.join("nor.bin"), nor).map_err(|e| e.to_string())
    }

    /// What the device logged, as bytes of defmt.
    #[must_use]
    pub fn log(&self) -> Vec<u8> {
        std::fs::read(self.0.join("log.bin")).unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Left-overs in the temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
