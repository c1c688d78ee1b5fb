//! A simulated device: it polls, believes what `dunlin_update` believes, and does what it is told to.

use std::collections::BTreeMap;

use dunlin_fleet::{Clock as _, ManualClock, hex, wire};
use dunlin_telemetry::window::{Arm, Counter};
use dunlin_telemetry::{Profile, Recorder};
use dunlin_update::trust::{self, Ed25519, Manner, RootKeys, SecretKey};
use dunlin_update::{Outcome, Phase, Reversal};
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
    pub(crate) behaviour: Behaviour,
    /// What runs in the shadow, on one of how many inputs, and of how many of a hundred answers it gives another.
    pub(crate) shadow: Option<([u8; 32], u32)>,
    pub(crate) disagrees: u32,
    had_shadow: bool,
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
            behaviour: Behaviour::Good,
            shadow: None,
            disagrees: 2,
            had_shadow: false,
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
        let model = self.running.map_or(0, |d| u16::from_be_bytes([d[0], d[1]]));
        let mut recorder = Recorder::<10, 0>::new(self.boot, model);
        recorder.set_arm(Arm::Rest);
        recorder.count(Counter::Inferences, 1000);
        if let Some((_, every)) = self.shadow {
            recorder.set_arm(Arm::Shadow);
            recorder.count(Counter::ShadowRuns, 1000 / every);
            recorder.count(Counter::ShadowDisagreements, 10 * self.disagrees / every);
        }
        if self.behaviour == Behaviour::Fails && self.candidate.is_some() && self.running == self.candidate {
            recorder.count(Counter::InferenceErrors, 40);
        }
        let mut bytes = [0; 512];
        let len = recorder.take(seconds).encode(Profile::Full, &mut bytes).expect("room");
        self.unsent.push(wire::Report { boot: self.boot, seq: self.seq, bytes: bytes[..len].to_vec() });
        self.seq += 1;
    }

    pub(crate) fn body(&self) -> wire::Poll {
        wire::Poll {
            model: self.model.clone(),
            running: self.running,
            phase: wire::phase_number(self.phase),
            fetching: None,
            last: self.last,
            whole: None,
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
        match self.phase {
            // One step for each poll, as a slow device would.
            Phase::Staged => self.phase = Phase::Trial,
            Phase::Trial => self.finish(),
            _ => {}
        }
        if let Some(offer) = &answer.offer {
            self.accept(offer);
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
        self.sequence = rollout.sequence;
        match rollout.audience.manner {
            Manner::Shadow { every } => {
                assert_ne!(Some(rollout.digest), self.running);
                (self.shadow, self.had_shadow) = (Some((rollout.digest, every)), true);
                return;
            }
            // What serves already: the shadow ends. It is said until a report shows that it did.
            Manner::Instead if Some(rollout.digest) == self.running && self.had_shadow => {
                self.shadow = None;
                return;
            }
            _ => self.shadow = None,
        }
        assert_ne!(Some(rollout.digest), self.running);
        if self.phase != Phase::Idle && self.candidate == Some(rollout.digest) {
            // It has it already.
            return;
        }
        self.offered.push(rollout.digest);
        self.candidate = Some(rollout.digest);
        self.phase = Phase::Staged;
    }

    fn finish(&mut self) {
        let Some(candidate) = self.candidate else { return };
        self.phase = Phase::Idle;
        self.boot += 1;
        self.seq = 0;
        if self.behaviour == Behaviour::Reverts {
            self.last = Some((prefix(&candidate), Outcome::Reverted(Reversal::Golden)));
        } else {
            self.previous = self.running;
            self.running = Some(candidate);
            self.last = Some((prefix(&candidate), Outcome::Confirmed));
        }
    }

    /// Takes the running candidate back after it was confirmed.
    pub(crate) fn revert(&mut self) {
        let running = self.running.expect("something runs");
        self.running = self.previous;
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
