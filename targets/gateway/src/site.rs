//! What all children of a gateway share, and who speaks to the server for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dunlin_update::http::{self, MAX_REPORTS, Poll};

use crate::backoff::Backoff;
use crate::bridge::Bridge;
use crate::cache::{Cache, FetchError, Source};
use crate::child::{self, Child, readable};
use crate::client::{Client, ClientError};
use crate::clock::{Clock, SystemClock};
use crate::hex::hex;
use crate::spool::Spool;
use crate::status::{ChildStatus, Status};

/// Between two polls of one child, since the server allows one a second.
const GAP: Duration = Duration::from_secs(1);
/// How often a worker without work looks whether it should stop, at least.
const IDLE: Duration = Duration::from_secs(1);

/// What is different for one child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its identity.
    pub identity: Vec<u8>,
    /// What packages are compiled for to run on it.
    pub target: Option<String>,
    /// Attributes besides those of all.
    pub attributes: BTreeMap<String, String>,
}

/// How a site is to be.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The way to the server.
    pub client: Client,
    /// A token with the role `enrol`; without one only children serve that are enrolled already.
    pub token: Option<String>,
    /// Folder of keys, reports and artifacts, which one process at a time may use. `None`: all is in memory.
    pub state: Option<PathBuf>,
    /// What children's keys are derived from when there is no folder; `None`: they are fresh each time.
    pub secret: Option<[u8; 32]>,
    /// What packages are compiled for to run on the children.
    pub target: String,
    /// Attributes of all children, at most 31.
    pub attributes: BTreeMap<String, String>,
    /// Children that differ.
    pub rules: Vec<Rule>,
    /// Whether there are no others than those.
    pub only_listed: bool,
    /// Children, at most.
    pub max_children: usize,
    /// Bytes of artifacts that are kept.
    pub cache: u64,
    /// Bytes of reports that may wait for the server.
    pub reports: u64,
    /// When a child is asked to come again while the server is being asked.
    pub recheck: Duration,
    /// The longest that a child is asked to wait.
    pub max_wait: Duration,
    /// Where the time is from.
    pub clock: Arc<dyn Clock>,
}

impl SiteOptions {
    /// Everything in memory, without a token.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            token: None,
            state: None,
            secret: None,
            target: "any".into(),
            attributes: BTreeMap::new(),
            rules: Vec::new(),
            only_listed: false,
            max_children: 10_000,
            cache: 256 << 20,
            reports: 64 << 20,
            recheck: Duration::from_millis(500),
            max_wait: Duration::from_secs(900),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Why a site cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum SiteError {
    /// Another process has the folder.
    Busy(PathBuf),
    /// A file or folder cannot be used.
    Io(PathBuf, io::Error),
    /// No randomness.
    Random,
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(path) => {
                write!(
                    f,
                    "another process uses {}: one gateway at a time may, or give this one its own",
                    path.display()
                )
            }
            Self::Io(path, error) => write!(f, "{} cannot be used: {error}", path.display()),
            Self::Random => f.write_str("the system gives no randomness for keys"),
        }
    }
}

impl std::error::Error for SiteError {}

#[derive(Debug)]
enum Job {
    Poll(Arc<Child>),
    Fetch(Source, Backoff),
}

#[derive(Debug, Default)]
struct Queue {
    /// By time; the number keeps those of the same time apart.
    jobs: BTreeMap<(Duration, u64), Job>,
    number: u64,
    fetching: HashSet<[u8; 32]>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) polls: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) delivered: AtomicU64,
}

/// The shared part of a gateway.
#[derive(Debug)]
pub struct Site {
    pub(crate) options: SiteOptions,
    secret: [u8; 32],
    pub(crate) cache: Cache,
    pub(crate) spool: Spool,
    children: Mutex<HashMap<Vec<u8>, Arc<Child>>>,
    queue: Mutex<Queue>,
    more: Condvar,
    stopping: AtomicBool,
    pub(crate) counts: Counts,
    _lock: Option<std::fs::File>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that speak to the server; dropped, they go on.
#[derive(Debug)]
pub struct Workers {
    site: Arc<Site>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Lets requests that are under way end, and ends the threads.
    pub fn stop(self) {
        self.site.stop();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

impl Site {
    /// Opens the folder, with what is in it from before.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(options: SiteOptions) -> Result<Arc<Self>, SiteError> {
        let mut secret = [0; 32];
        match options.secret {
            Some(given) => secret = given,
            None => getrandom::fill(&mut secret).map_err(|_| SiteError::Random)?,
        }
        let mut children = HashMap::new();
        let mut held = None;
        if let Some(state) = &options.state {
            let wrong = |error| SiteError::Io(state.clone(), error);
            let folder = state.join("children");
            std::fs::create_dir_all(&folder).map_err(wrong)?;
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(state.join("lock"));
            let file = file.map_err(wrong)?;
            file.try_lock().map_err(|_| SiteError::Busy(state.clone()))?;
            held = Some(file);
            for child in Child::all(&folder, &secret).map_err(wrong)? {
                children.insert(child.identity.clone(), Arc::new(child));
            }
        }
        let place = options.state.clone().unwrap_or_default();
        let wrong = |error| SiteError::Io(place.clone(), error);
        let state = options.state.as_deref();
        let cache = Cache::open(state.map(|s| s.join("artifacts")).as_deref(), options.cache).map_err(wrong)?;
        let spool = Spool::open(state, options.reports).map_err(wrong)?;
        let site = Arc::new(Self {
            options,
            secret,
            cache,
            spool,
            children: Mutex::new(children),
            queue: Mutex::default(),
            more: Condvar::new(),
            stopping: AtomicBool::new(false),
            counts: Counts::default(),
            _lock: held,
        });
        // What children left here is delivered whether they come back or not.
        for child in site.children() {
            site.plan(&child);
        }
        Ok(site)
    }

    /// A line to one child.
    #[must_use]
    pub fn bridge(self: &Arc<Self>) -> Bridge {
        Bridge::new(self.clone())
    }

    pub(crate) fn now(&self) -> Duration {
        self.options.clock.now()
    }

    pub(crate) fn children(&self) -> Vec<Arc<Child>> {
        lock(&self.children).values().cloned().collect()
    }

    /// The child with this identity; `None` when no more are taken.
    pub(crate) fn child(&self, identity: &[u8]) -> io::Result<Option<Arc<Child>>> {
        let mut children = lock(&self.children);
        if let Some(child) = children.get(identity) {
            return Ok(Some(child.clone()));
        }
        let listed = self.options.rules.iter().any(|r| r.identity == identity);
        if children.len() >= self.options.max_children || (self.options.only_listed && !listed) {
            return Ok(None);
        }
        let folder = self.options.state.as_ref().map(|s| s.join("children"));
        let child = Arc::new(Child::open(identity, folder.as_deref(), &self.secret)?);
        children.insert(identity.to_vec(), child.clone());
        Ok(Some(child))
    }

    /// Puts a child into the queue when there is something to tell or to ask.
    pub(crate) fn plan(&self, child: &Arc<Child>) {
        let reports = self.spool.has(child.id);
        let mut state = child.state();
        let Some(due) = state.due(reports) else { return };
        if state.queued.is_none_or(|at| at > due) {
            state.queued = Some(due);
            drop(state);
            self.push(due, Job::Poll(child.clone()));
        }
    }

    /// Has an artifact fetched, unless that is under way.
    pub(crate) fn want(&self, source: &Source) {
        if lock(&self.queue).fetching.insert(source.hash) {
            let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
            self.push(self.now(), Job::Fetch(source.clone(), backoff));
        }
    }

    fn push(&self, at: Duration, job: Job) {
        let mut queue = lock(&self.queue);
        queue.number += 1;
        let number = queue.number;
        queue.jobs.insert((at, number), job);
        drop(queue);
        self.more.notify_one();
    }

    /// Starts threads that speak to the server for all children.
    #[must_use]
    pub fn start(self: &Arc<Self>, threads: usize) -> Workers {
        let work = |_| {
            let site = self.clone();
            std::thread::spawn(move || {
                while !site.is_stopping() {
                    if !site.turn() {
                        site.rest();
                    }
                }
            })
        };
        Workers { site: self.clone(), threads: (0..threads.max(1)).map(work).collect() }
    }

    fn rest(&self) {
        let queue = lock(&self.queue);
        let next = queue.jobs.keys().next().map_or(IDLE, |(at, _)| at.saturating_sub(self.now()).min(IDLE));
        if !next.is_zero() && !self.is_stopping() {
            drop(self.more.wait_timeout(queue, next));
        }
    }

    /// Ends workers and downloads.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Under the lock, so that nobody is between looking and waiting.
        let _queue = lock(&self.queue);
        self.more.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Does one thing that is due; `false` when nothing is.
    pub fn turn(&self) -> bool {
        let now = self.now();
        let mut queue = lock(&self.queue);
        let Some((&key, _)) = queue.jobs.first_key_value().filter(|((at, _), _)| *at <= now) else { return false };
        let Some(job) = queue.jobs.remove(&key) else { return false };
        drop(queue);
        match job {
            Job::Poll(child) => {
                child.state().queued = None;
                // Who holds it plans anew when done.
                if let Ok(_carrying) = child.carrying.try_lock() {
                    self.carry(&child);
                    self.plan(&child);
                }
            }
            Job::Fetch(source, backoff) => self.fetch(source, backoff),
        }
        true
    }

    /// Does what is due for a child now, waiting for the server.
    pub(crate) fn carry_now(&self, child: &Arc<Child>) {
        {
            let _carrying = lock(&child.carrying);
            let due = child.state().due(self.spool.has(child.id));
            if due.is_some_and(|at| at <= self.now()) {
                self.carry(child);
            }
            self.plan(child);
        }
        let source = child.state().offered().map(|o| o.source.clone());
        if let Some(source) = source.filter(|s| self.cache.get(&s.hash).is_none())
            && let Err(error) = self.obtain(&source)
        {
            self.failed(&source, &error);
        }
    }

    fn obtain(&self, source: &Source) -> Result<(), FetchError> {
        self.cache.fetch(&self.options.client, source, &|| !self.is_stopping())?;
        self.counts.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fetch(&self, source: Source, mut backoff: Backoff) {
        match self.obtain(&source) {
            Ok(()) => drop(lock(&self.queue).fetching.remove(&source.hash)),
            Err(_) if self.is_stopping() => {}
            Err(error) => {
                let retry_after = match &error {
                    FetchError::Client(error) => error.retry_after(),
                    _ => None,
                };
                if self.failed(&source, &error) {
                    let wait = backoff.next(retry_after);
                    self.push(self.now() + wait, Job::Fetch(source, backoff));
                } else {
                    lock(&self.queue).fetching.remove(&source.hash);
                }
            }
        }
    }

    /// Notes a failed download; whether it is worth trying from the same address.
    fn failed(&self, source: &Source, error: &FetchError) -> bool {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(artifact = %hex(&source.hash), %error, "not fetched");
        let gone = matches!(error, FetchError::Client(e) if matches!(e.status(), Some(401..=404)));
        if gone {
            // The address is too old: the next poll gives another.
            for child in self.children() {
                let mut state = child.state();
                if state.news.offered.as_ref().is_some_and(|o| o.source.hash == source.hash) {
                    (state.tag, state.told, state.news.offered) = (None, None, None);
                    drop(state);
                    self.plan(&child);
                }
            }
        }
        !gone
    }

    /// One poll for a child, which is enrolled before when it has to be. The caller holds `carrying`.
    fn carry(&self, child: &Child) {
        let result = self.poll(child);
        let now = self.now();
        let mut state = child.state();
        state.not_before = now + GAP;
        match result {
            Ok(()) => {
                state.backoff.reset();
                state.error = None;
            }
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                if error.status() == Some(401) {
                    // Not known any more: enrolling gives the same id.
                    state.credentials = None;
                }
                let wait = state.backoff.next(error.retry_after());
                state.not_before = now + wait.max(GAP);
                let again = state.error.replace(error.to_string());
                // Once for each kind of failure; thousands of children may have the same.
                if again != state.error {
                    tracing::warn!(child = %readable(&child.identity), %error, "not carried");
                }
            }
        }
    }

    fn poll(&self, child: &Child) -> Result<(), ClientError> {
        let (known, fetching, tag, credentials) = {
            let mut state = child.state();
            state.asked = false;
            let Some(known) = state.known.clone() else { return Ok(()) };
            (known, state.fetching, state.tag.clone(), state.credentials.clone())
        };
        let io = |e: io::Error| ClientError::Configuration(format!("the state folder cannot be written: {e}"));
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => child.enrolled(self.enrol(child, &known)?).map_err(io)?,
        };
        let reports = self.spool.oldest(child.id, MAX_REPORTS);
        let poll = Poll { fetching, reports, ..known.clone() };
        let polled = self.options.client.poll(&credentials, &poll, tag.as_deref())?;
        self.counts.polls.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        if let Some(answer) = &polled.answer {
            self.spool.delivered(child.id, &answer.acknowledged).map_err(io)?;
            self.counts.delivered.fetch_add(answer.acknowledged.len() as u64, Ordering::Relaxed);
        }
        let more = poll.reports.len() == MAX_REPORTS;
        let mut state = child.state();
        state.next = if more { now } else { now + polled.next };
        state.told = Some(known);
        if let Some(answer) = polled.answer {
            state.time = Some((answer.time, now));
            match child::news(&answer, poll.root) {
                Ok(news) => {
                    if let Some(offered) = &news.offered
                        && state.news.offered.as_ref().is_none_or(|o| o.offer != offered.offer)
                    {
                        let digest = hex(&offered.offer.digest);
                        tracing::info!(child = %readable(&child.identity), %digest, bytes = offered.source.len, "offered");
                    }
                    (state.news, state.tag) = (news, Some(polled.tag));
                }
                Err(why) => return Err(ClientError::Malformed(why.into())),
            }
        }
        let source = state.offered().map(|o| o.source.clone());
        drop(state);
        if let Some(source) = source.filter(|s| self.cache.get(&s.hash).is_none()) {
            self.want(&source);
        }
        Ok(())
    }

    fn enrol(&self, child: &Child, known: &Poll) -> Result<[u8; 16], ClientError> {
        let token = self.options.token.as_deref().ok_or_else(|| {
            ClientError::Configuration(
                "no token to enrol children with: make one with the role enrol, and set token_file".into(),
            )
        })?;
        let rule = self.options.rules.iter().find(|r| r.identity == child.identity);
        let mut attributes = self.options.attributes.clone();
        attributes.extend(rule.map(|r| r.attributes.clone()).unwrap_or_default());
        attributes.insert(http::IDENTITY.into(), hex(&child.identity));
        let target = rule.and_then(|r| r.target.as_deref()).unwrap_or(&self.options.target);
        let enrolled = self.options.client.enrol(token, &child.key, target, &known.model, &attributes)?;
        tracing::info!(child = %readable(&child.identity), device = %hex(&enrolled.device), "enrolled");
        Ok(enrolled.device)
    }

    /// Delivers what waits, reports and what a child said of itself, whatever the intervals say; whether all went well.
    pub fn deliver(&self) -> Result<(), String> {
        let mut failed = Ok(());
        for child in self.children() {
            let _carrying = lock(&child.carrying);
            let state = child.state();
            let spoke = state.seen.is_some() && state.error.is_none();
            let wait = state.untold().filter(|_| spoke).map(|at| at.saturating_sub(self.now()));
            drop(state);
            if let Some(wait) = wait {
                // Who was answered a moment ago is not answered again yet.
                std::thread::sleep(wait.min(GAP));
                self.carry(&child);
            }
            if let Some(error) = child.state().error.clone() {
                failed = Err(error);
                continue;
            }
            while self.spool.has(child.id) {
                let before = self.spool.oldest(child.id, 1);
                self.carry(&child);
                if let Some(error) = child.state().error.clone() {
                    failed = Err(error);
                    break;
                }
                if self.spool.oldest(child.id, 1) == before {
                    break;
                }
            }
        }
        failed
    }

    /// How things are.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = self.now();
        let (reports, report_bytes) = self.spool.waiting();
        let (artifacts, artifact_bytes) = self.cache.held();
        let mut children: Vec<ChildStatus> = self
            .children()
            .iter()
            .map(|child| {
                let reports = self.spool.oldest(child.id, usize::MAX).len();
                let state = child.state();
                let known = state.known.as_ref();
                ChildStatus {
                    identity: readable(&child.identity),
                    device: state.credentials.as_ref().map(|c| c.id().to_owned()),
                    model: known.map(|k| k.model.clone()),
                    running: known.and_then(|k| k.running).map(|d| hex(&d)),
                    phase: known
                        .and_then(|k| http::PHASES.get(usize::from(k.phase)))
                        .map(|p| format!("{p:?}").to_lowercase()),
                    offered: state.offered().map(|o| hex(&o.offer.digest)),
                    seen: state.seen.map(|at| now.saturating_sub(at).as_secs()),
                    inferences: state.inferences,
                    reports,
                    refused: state.refused,
                    error: state.error.clone(),
                }
            })
            .collect();
        children.sort_by(|a, b| a.identity.cmp(&b.identity));
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Status {
            server: self.options.client.server().to_owned(),
            time: self.options.clock.wall() / 1_000_000,
            pid: std::process::id(),
            polls: count(&self.counts.polls),
            failures: count(&self.counts.failures),
            fetched: count(&self.counts.fetched),
            delivered: count(&self.counts.delivered),
            reports,
            report_bytes,
            artifacts,
            artifact_bytes,
            children,
        }
    }
}
