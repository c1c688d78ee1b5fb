//! A child: the real updater on files, that speaks frames over a socket and believes what `dunlin_update` believes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_device::frame::{Decoder, Step};
use dunlin_device::message::{self, CheckIn, Down, Fetching, News, Part, Report, Up, Want};
use dunlin_gateway::{Bridge, line};
use dunlin_update::delta::Applier;
use dunlin_update::file::Folder;
use dunlin_update::trust::{Ed25519, RootKeys};
use dunlin_update::{Device, Limits, Offer, Progress, StartCause, TransferOffer, Updater, Verdict};

/// Where the gateway is.
pub(crate) enum Way {
    Socket(Box<(TcpStream, Decoder<8192>)>),
    /// In this process, asking the server at once.
    Bridge(Box<Bridge>),
    Nowhere,
}

pub(crate) struct Child {
    pub(crate) identity: &'static [u8],
    pub(crate) updater: Updater<'static, Folder, Ed25519>,
    pub(crate) way: Way,
    pub(crate) flags: u64,
    /// Bytes of streams that came.
    pub(crate) fetched: u64,
    /// Offset of the first byte that was fetched of the last stream.
    pub(crate) first: Option<u32>,
}

fn limits() -> Limits {
    Limits { inferences: 0, errors: 0, late: 0, deadline_us: 0 }
}

impl Child {
    pub(crate) fn new(identity: &str, folder: &Path, root: RootKeys) -> Self {
        let identity: &'static [u8] = Box::leak(identity.as_bytes().into());
        let device = Device {
            identity,
            name: "m",
            target: "sim",
            engine: (1, 0),
            ops_version: 1,
            memory: 1 << 20,
            beside: true,
            starts: 3,
            limits: limits(),
            root,
            factory: None,
        };
        let storage = Folder::open(folder, 2, 1 << 21).expect("a folder");
        let decoder = Box::leak(Box::new(Applier::new()));
        let updater = Updater::open(storage, Ed25519, device, StartCause::Power, decoder).expect("opens");
        Self { identity, updater, way: Way::Nowhere, flags: 0, fetched: 0, first: None }
    }

    /// Connects, as often as it takes.
    pub(crate) fn connect(&mut self, address: SocketAddr) {
        let until = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        self.way = Way::Socket(Box::new((stream, Decoder::new())));
    }

    /// Says something; the answer's datagram, if one comes within the time.
    pub(crate) fn ask(&mut self, up: &Up<'_>, patience: Duration) -> Option<Vec<u8>> {
        let mut datagram = vec![0; 4096];
        let len = message::encode(up, &mut datagram).expect("room");
        datagram.truncate(len);
        match &mut self.way {
            Way::Nowhere => None,
            Way::Bridge(bridge) => {
                let mut reply = Vec::new();
                bridge.exchange(&datagram, &mut reply).expect("an answer").then_some(reply)
            }
            Way::Socket(line) => {
                let (stream, decoder) = &mut **line;
                let mut framed = Vec::new();
                line::wrap(&mut datagram, &mut framed);
                stream.write_all(&framed).ok()?;
                let until = Instant::now() + patience;
                let mut byte = [0];
                while Instant::now() < until {
                    match stream.read(&mut byte) {
                        Ok(0) => return None,
                        Ok(_) => match decoder.push(byte[0]) {
                            Step::Frame => return Some(decoder.payload().to_vec()),
                            Step::Broken(error) => panic!("{error:?}"),
                            Step::More => {}
                        },
                        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(_) => return None,
                    }
                }
                None
            }
        }
    }

    /// Asks for news; `None` when the line is gone.
    pub(crate) fn try_check_in(&mut self) -> Option<News> {
        let known = self.updater.check_in();
        let fetching = known.fetching.map(|(digest, transfer, next)| Fetching { digest, transfer, next });
        let up = Up::CheckIn(CheckIn {
            identity: self.identity,
            name: "m",
            running: known.running,
            phase: known.phase as u8,
            fetching,
            last: known.last,
            whole: known.whole,
            beside: known.beside,
            root: known.root,
            rollout: known.rollout,
            floor: known.floor,
            flags: self.flags,
            inferences: 0,
            failed: 0,
            slowest: 0,
        });
        let answer = self.ask(&up, Duration::from_secs(5))?;
        match message::decode(&answer).expect("a message") {
            Down::News(news) => Some(news),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn check_in(&mut self) -> News {
        self.try_check_in().expect("an answer")
    }

    /// Checks in as it is told to until there is something.
    pub(crate) fn await_news(&mut self, wanted: impl Fn(&News) -> bool) -> News {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let news = self.check_in();
            if wanted(&news) {
                return news;
            }
            assert!(Instant::now() < until, "no such news within a minute: {news:?}");
            std::thread::sleep(Duration::from_millis(u64::from(news.wait.min(500))));
        }
    }

    /// Hands a report over; whether it is stored.
    pub(crate) fn report(&mut self, boot: u32, seq: u32) -> bool {
        let bytes = [boot as u8, seq as u8, 7, 7];
        let answer = self.ask(&Up::Report(Report { boot, seq, bytes: &bytes }), Duration::from_secs(5));
        match answer.as_deref().map(message::decode) {
            None => false,
            Some(Ok(Down::Stored { boot: b, seq: s })) => {
                assert_eq!((b, s), (boot, seq));
                true
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Bytes of a part; `None` when there is no answer.
    pub(crate) fn part(&mut self, offer: [u8; 8], part: Part, offset: u32) -> Option<(Vec<u8>, u32)> {
        let answer = self.ask(&Up::Want(Want { offer, part, offset, len: 1024 }), Duration::from_secs(5))?;
        match message::decode(&answer).expect("a message") {
            Down::Chunk(chunk) => {
                assert_eq!((chunk.offer, chunk.part, chunk.offset), (offer, part, offset));
                Some((chunk.bytes.to_vec(), chunk.total))
            }
            Down::Gone { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn document(&mut self, offer: [u8; 8], part: Part) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let (bytes, total) = self.part(offer, part, whole.len() as u32)?;
            assert!(!bytes.is_empty());
            whole.extend(bytes);
            if whole.len() == total as usize {
                return Some(whole);
            }
        }
    }

    /// Takes an offer's documents, if it has to; whether they are believed.
    pub(crate) fn accept(&mut self, offer: &message::Offer) -> Option<()> {
        let known = self.updater.check_in();
        if known.fetching.is_some_and(|(d, t, _)| (d, t) == (offer.digest, offer.transfer)) {
            return Some(());
        }
        let rollout = self.document(offer.offer, Part::Rollout)?;
        let release = self.document(offer.offer, Part::Release)?;
        let transfer = TransferOffer { id: offer.transfer.id, len: offer.transfer.len, delta: offer.transfer.delta };
        let given = Offer { roots: &[], rollout: &rollout, release: &release, transfer };
        self.updater.offer(&given, None).expect("the offer is believed");
        Some(())
    }

    /// Fetches the stream from where it is; `None` when the line went away.
    pub(crate) fn fetch(&mut self, offer: &message::Offer) -> Option<()> {
        self.fetch_some(offer, usize::MAX).map(|_| ())
    }

    /// Fetches so many parts of it; whether it is whole.
    pub(crate) fn fetch_some(&mut self, offer: &message::Offer, most: usize) -> Option<bool> {
        let mut left = most;
        let mut progress = self.updater.resume().expect("resumes");
        self.first = None;
        while let Progress::More { next, .. } = progress {
            if left == 0 {
                return Some(false);
            }
            left -= 1;
            self.first.get_or_insert(next);
            let (bytes, total) = self.part(offer.offer, Part::Stream, next)?;
            assert_eq!(total, offer.transfer.len);
            self.fetched += bytes.len() as u64;
            progress = self.updater.receive(next, &bytes).expect("bytes are taken");
        }
        Some(true)
    }

    /// Starts what was fetched and keeps it.
    pub(crate) fn keep(&mut self) {
        self.updater.start().expect("starts");
        assert_eq!(self.updater.golden(true), Ok(Verdict::Confirmed));
    }

    pub(crate) fn running(&self) -> Option<[u8; 32]> {
        self.updater.running().map(|p| p.digest)
    }

    /// From the first check-in to the package that runs.
    pub(crate) fn update(&mut self) {
        let offer = self.await_news(|n| n.offer.is_some()).offer.expect("an offer");
        self.accept(&offer).expect("documents");
        self.fetch(&offer).expect("a stream");
        self.keep();
        assert_eq!(self.running(), Some(offer.digest));
    }
}
