//! A simulated device: it polls, believes what `dunlin_update` believes, and does what it is told to.

use std::collections::BTreeMap;

use dunlin_fleet::{Clock as _, ManualClock, hex, wire};
use dunlin_telemetry::window::{Arm, Counter};
use dunlin_telemetry::{Profile, Recorder};
use dunlin_update::trust::{self, Audience, Ed25519, Manner, RootKeys, SecretKey};
use dunlin_update::{Outcome, Phase, Rejection, Reversal};
use hyper::StatusCode;

use super::site::{Answer, Client, Tenant};

/// What a candidate does on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It works.
    Good,
    /// It works, and fails in inferences.
    Fails,
    /// Its golden vectors fail: it is taken back at once.
    Reverts,
    /// The device fails in inferences, whatever it runs.
    Always,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) key: SecretKey,
    pub(crate) id: [u8; 16],
    pub(crate) model: String,
    pub(crate) root: RootKeys,
    pub(crate) running: Option<[u8; 32]>,
    pub(crate) previous: Option<[u8; 32]>,
    pub(crate) phase: Phase,
    pub(crate) candidate: Option<[u8; 32]>,
    pub(crate) last: Option<([u8; 16], Outcome)>,
    pub(crate) sequence: u64,
    pub(crate) flags: u64,
    pub(crate) boot: u32,
    pub(crate) seq: u32,
    pub(crate) unsent: Vec<wire::Report>,
    pub(crate) acknowledged: Vec<(u32, u32)>,
    pub(crate) offered: Vec<[u8; 32]>,
    /// Beginnings of digests that failed on it.
    pub(crate) buried: Vec<[u8; 16]>,
    /// It needs no polls between an offer and the end of its trial.
    pub(crate) is_quick: bool,
    pub(crate) behaviour: Behaviour,
    /// What runs in the shadow, on one of how many inputs, and of how many of a hundred answers it gives another.
    pub(crate) shadow: Option<([u8; 32], u32)>,
    pub(crate) disagrees: u32,
    /// The document by which what runs takes turns with what ran before.
    pub(crate) turns: Option<Audience>,
    /// The document by which what is on its way will be run.
    staged: Audience,
    pub(crate) clock: ManualClock,
    nonce: u64,
}

pub(crate) fn prefix(digest: &[u8; 32]) -> [u8; 16] {
    digest[..16].try_into().expect("16 bytes")
}

impl Device {
    /// Enrols a device with the `n`th key.
    pub(crate) async fn enrol(
        client: &Client,
        tenant: &Tenant,
        n: u32,
        running: Option<[u8; 32]>,
        clock: &ManualClock,
    ) -> Self {
        let mut seed = [0x5A; 32];
        seed[..4].copy_from_slice(&n.to_le_bytes());
        let key = SecretKey::from_seed(seed).expect("a seed");
        let answer = enrol(client, &tenant.enrol, &key).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
        let enrolled: wire::Enrolled = postcard::from_bytes(&answer.body).expect("an answer");
        Self {
            key,
            id: enrolled.device,
            model: "m".into(),
            root: tenant.root,
            running,
            previous: None,
            phase: Phase::Idle,
            candidate: None,
            last: None,
            sequence: 0,
            flags: 0,
            boot: 1,
            seq: 0,
            unsent: Vec::new(),
            acknowledged: Vec::new(),
            offered: Vec::new(),
            buried: Vec::new(),
            is_quick: false,
            behaviour: Behaviour::Good,
            shadow: None,
            disagrees: 2,
            turns: None,
            staged: Audience::ALL,
            clock: clock.clone(),
            nonce: 0,
        }
    }

    /// Measures an hour, to be sent with the next poll.
    pub(crate) fn measure(&mut self) {
        self.measure_for(3600);
    }

    /// Measures so many seconds.
    pub(crate) fn measure_for(&mut self, seconds: u32) {
        let (arm, digest) = match self.shadow {
            Some(_) => (Arm::Shadow, self.running),
            None => (Arm::Rest, self.running),
        };
        self.report(arm, digest, seconds, |_| ());
    }

    /// What serves in an hour: the arm, and the digest.
    pub(crate) fn serves(&self, hour: u32) -> (Arm, Option<[u8; 32]>) {
        match self.turns {
            Some(audience) if audience.salt.bucket(&self.id).hourly(hour, 2) == 0 => (Arm::Control, self.previous),
            Some(_) => (Arm::Candidate, self.running),
            None => (Arm::Rest, self.running),
        }
    }

    /// Measures the last hours, to be sent with the next poll: a window for each package that served in them. `more` says what
    /// else happened while a package served.
    pub(crate) fn measure_hours(&mut self, hours: u32, more: impl Fn(&mut Recorder<10, 0>, [u8; 32])) {
        let now = (self.clock.seconds() / 3600) as u32;
        for arm in [Arm::Rest, Arm::Control, Arm::Candidate] {
            let its: Vec<_> = (now - hours..now).map(|hour| self.serves(hour)).filter(|s| s.0 == arm).collect();
            if let Some((_, Some(digest))) = its.first().copied() {
                let seconds = 3600 * u32::try_from(its.len()).expect("few");
                self.report(arm, Some(digest), seconds, |recorder| more(recorder, digest));
            }
        }
    }

    fn report(&mut self, arm: Arm, digest: Option<[u8; 32]>, seconds: u32, more: impl FnOnce(&mut Recorder<10, 0>)) {
        let model = digest.map_or(0, |d| u16::from_be_bytes([d[0], d[1]]));
        let mut recorder = Recorder::<10, 0>::new(self.boot, model);
        if self.seq > 0 {
            // The start is in the first window alone.
            recorder.take(0);
        }
        recorder.set_arm(arm);
        recorder.count(Counter::Inferences, 1000);
        if let Some((_, every)) = self.shadow {
            recorder.count(Counter::ShadowRuns, 1000 / every);
            recorder.count(Counter::ShadowDisagreements, 10 * self.disagrees / every);
        }
        let by_candidate = self.candidate.is_some() && digest == self.candidate;
        if self.behaviour == Behaviour::Always || self.behaviour == Behaviour::Fails && by_candidate {
            recorder.count(Counter::InferenceErrors, 40);
        }
        more(&mut recorder);
        let mut bytes = [0; 512];
        let len = recorder.take(seconds).encode(Profile::Full, &mut bytes).expect("room");
        self.unsent.push(wire::Report { boot: self.boot, seq: self.seq, bytes: bytes[..len].to_vec() });
        self.seq += 1;
    }

    /// What the device says of a package that does not simply serve.
    pub(crate) fn beside(&self) -> Option<([u8; 16], Manner)> {
        match (self.phase, self.shadow, self.turns) {
            (Phase::Staged | Phase::Trial, ..) => None,
            (_, Some((digest, every)), _) => Some((prefix(&digest), Manner::Shadow { every })),
            (_, None, Some(_)) => self.running.map(|digest| (prefix(&digest), Manner::Hourly)),
            _ => None,
        }
    }

    pub(crate) fn body(&self) -> wire::Poll {
        wire::Poll {
            model: self.model.clone(),
            running: if self.phase == Phase::Trial { self.candidate } else { self.running },
            phase: wire::phase_number(self.phase),
            fetching: None,
            last: self.last,
            whole: None,
            beside: self.beside(),
            root: self.root.version,
            rollout: self.sequence,
            floor: 0,
            flags: self.flags,
            reports: self.unsent.clone(),
        }
    }

    /// The headers of a request with the next nonce.
    pub(crate) fn signed(&mut self, body: &[u8]) -> Vec<(&'static str, String)> {
        self.nonce = self.clock.micros().max(self.nonce + 1);
        let nonce = self.nonce.to_string();
        let signature = wire::signature(&self.key, "POST", "/d/v1/poll", &nonce, body);
        vec![(wire::DEVICE, hex(&self.id)), (wire::NONCE, nonce), (wire::SIGNATURE, signature)]
    }

    /// Polls once; nothing when the server does not answer.
    pub(crate) async fn try_poll(&mut self, client: &Client) -> Option<Answer> {
        let body = postcard::to_allocvec(&self.body()).expect("encodes");
        let headers = self.signed(&body);
        client.send("POST", "/d/v1/poll", &headers, body).await
    }

    /// Polls, and does what a device does with the answer.
    pub(crate) async fn poll(&mut self, client: &Client) -> wire::Answer {
        let answer = self.try_poll(client).await.expect("the server answers");
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
        let answer: wire::Answer = postcard::from_bytes(&answer.body).expect("an answer");
        self.take(&answer);
        answer
    }

    pub(crate) fn take(&mut self, answer: &wire::Answer) {
        self.unsent.retain(|r| !answer.acknowledged.contains(&(r.boot, r.seq)));
        self.acknowledged.extend(&answer.acknowledged);
        let candidate = self.candidate;
        let names_another = answer.offer.as_ref().is_some_and(|offer| {
            let rollout = trust::rollout(&self.root, &offer.rollout, &Ed25519);
            rollout.is_ok_and(|r| Some(r.digest) != candidate)
        });
        match self.phase {
            // An offer of another package ends what is pending.
            _ if names_another => {}
            // One step for each poll, as a slow device would.
            Phase::Staged => self.phase = Phase::Trial,
            Phase::Trial => self.finish(),
            _ => {}
        }
        if let Some(offer) = &answer.offer {
            self.accept(offer);
        }
        if self.is_quick && self.phase == Phase::Staged {
            self.finish();
        }
    }

    /// What `dunlin_update::Updater::offer` checks.
    fn accept(&mut self, offer: &wire::Offer) {
        for root in &offer.roots {
            self.root = trust::follow(&self.root, root, &Ed25519).expect("the root follows");
        }
        let rollout = trust::rollout(&self.root, &offer.rollout, &Ed25519).expect("the rollout is signed");
        let release = trust::release(&self.root, &offer.release, &Ed25519).expect("the release is signed");
        assert_eq!(rollout.digest, release.digest);
        assert_eq!((rollout.name, release.name), (self.model.as_str(), self.model.as_str()));
        assert!(rollout.sequence >= self.sequence, "an older rollout: {} after {}", rollout.sequence, self.sequence);
        assert!(rollout.expires > self.clock.seconds());
        assert!(rollout.audience.reaches(&self.id), "the document is not for this device");
        // Of what it has already it is only told anew by a newer document.
        let newer = rollout.sequence > self.sequence;
        if newer {
            for lifted in rollout.lifted.chunks_exact(16) {
                self.buried.retain(|b| b != lifted);
                self.last = self.last.filter(|(prefix, _)| prefix != lifted);
            }
        }
        self.sequence = rollout.sequence;
        if self.buried.contains(&prefix(&rollout.digest)) {
            self.last = Some((prefix(&rollout.digest), Outcome::Rejected(Rejection::Tombstone)));
            return;
        }
        let digest = Some(rollout.digest);
        match rollout.audience.manner {
            Manner::Shadow { every } => {
                assert_ne!(digest, self.running, "what serves has no shadow of itself");
                assert!(newer || self.shadow != Some((rollout.digest, every)), "it runs there already");
                self.shadow = Some((rollout.digest, every));
                return;
            }
            Manner::Instead if digest == self.running && matches!(self.phase, Phase::Staged | Phase::Trial) => {
                // What serves, or served before the trial, goes on to; the candidate is given up.
                let replaced = self.candidate.take().expect("a candidate is pending");
                self.last = Some((prefix(&replaced), Outcome::Rejected(Rejection::Replaced)));
                self.phase = Phase::Idle;
                return;
            }
            Manner::Instead if digest == self.running => {
                // What serves is to serve alone: a shadow is dropped, turns end.
                assert!(self.shadow.is_some() || self.turns.is_some(), "it serves alone already");
                if let Some((shadow, _)) = self.shadow.take() {
                    self.last = Some((prefix(&shadow), Outcome::Rejected(Rejection::Replaced)));
                }
                self.turns = None;
                return;
            }
            Manner::Instead if digest == self.previous && self.candidate == self.running => {
                // It lies whole in the other slot: back at once, without a download.
                self.back_without_fetching(rollout.digest);
                return;
            }
            Manner::Hourly if digest == self.running => {
                assert!(newer, "it takes turns already, or has nothing to do so with");
                self.turns = self.previous.map(|_| rollout.audience);
                return;
            }
            Manner::Hourly => {}
            Manner::Instead => {}
        }
        if self.phase != Phase::Idle && self.candidate == digest {
            // It has it already.
            return;
        }
        self.shadow = None;
        self.offered.push(rollout.digest);
        self.candidate = digest;
        self.staged = rollout.audience;
        self.phase = Phase::Staged;
    }

    fn back_without_fetching(&mut self, base: [u8; 32]) {
        (self.previous, self.running) = (self.running, Some(base));
        self.turns = None;
        self.last = Some((prefix(&base), Outcome::Confirmed));
    }

    fn finish(&mut self) {
        let Some(candidate) = self.candidate else { return };
        self.phase = Phase::Idle;
        self.boot += 1;
        self.seq = 0;
        if self.behaviour == Behaviour::Reverts {
            self.buried.push(prefix(&candidate));
            self.last = Some((prefix(&candidate), Outcome::Reverted(Reversal::Golden)));
        } else {
            self.previous = self.running;
            self.running = Some(candidate);
            self.turns = (self.staged.manner == Manner::Hourly && self.previous.is_some()).then_some(self.staged);
            self.last = Some((prefix(&candidate), Outcome::Confirmed));
        }
    }

    /// Takes the running candidate back after it was confirmed.
    pub(crate) fn revert(&mut self) {
        let running = self.running.expect("something runs");
        self.running = self.previous;
        self.turns = None;
        self.buried.push(prefix(&running));
        self.last = Some((prefix(&running), Outcome::Reverted(Reversal::Errors)));
    }
}

pub(crate) async fn enrol(client: &Client, token: &str, key: &SecretKey) -> Answer {
    let request =
        wire::Enrol { key: key.public(), target: "sim".into(), model: "m".into(), attributes: BTreeMap::new() };
    let body = postcard::to_allocvec(&request).expect("encodes");
    let headers = [
        ("authorization", format!("Bearer {token}")),
        (wire::SIGNATURE, wire::signature(key, "POST", "/d/v1/enrol", "0", &body)),
    ];
    client.send("POST", "/d/v1/enrol", &headers, body).await.expect("the server answers")
}
