//! The documents that the server signs itself, with each tenant's online key for rollouts.
//!
//! Root and targets keys never come here: what a package is, its operator has signed elsewhere. This key only says who
//! should run which of the packages that were signed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use dunlin_update::trust::{self, Audience, Document, Ed25519, Role, Rollout, RootKeys, SecretKey};

use crate::auth::key_file;
use crate::wire;

/// Documents that are kept, so that they are not signed again for each device.
const KEPT: usize = 1000;

/// What a rollout document says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    pub(crate) rollout: String,
    pub(crate) name: String,
    pub(crate) digest: [u8; 32],
    pub(crate) sequence: u64,
    pub(crate) signed: u64,
    pub(crate) expires: u64,
    /// Devices that are meant, and how they run it.
    pub(crate) audience: Audience,
    /// Whether devices on which the package failed may take it again.
    pub(crate) lifts: bool,
}

/// By tenant. Whatever is different in a document makes it another.
type Kept = (String, Terms);

/// Keys, and documents that were signed lately.
#[derive(Debug)]
pub(crate) struct Documents {
    folder: PathBuf,
    keys: Mutex<HashMap<String, SecretKey>>,
    kept: Mutex<HashMap<Kept, Vec<u8>>>,
}

impl Documents {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, keys: Mutex::default(), kept: Mutex::default() }
    }

    /// The tenant's key for rollouts; made when there is none.
    pub(crate) fn key(&self, tenant: &str) -> Result<SecretKey, String> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(tenant) {
            return Ok(key.clone());
        }
        let key = key_file(&self.folder.join(format!("{tenant}.rollout.key")))?;
        keys.insert(tenant.into(), key.clone());
        Ok(key)
    }

    /// The rollout document; the same for all whom it is for. Devices and server find out who that is by one function, so
    /// whoever hands the document on reaches nobody with it whom the stage does not reach.
    pub(crate) fn rollout(&self, tenant: &str, terms: &Terms) -> Result<Vec<u8>, String> {
        let kept = (tenant.to_owned(), terms.clone());
        if let Some(bytes) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&kept) {
            return Ok(bytes.clone());
        }
        let prefix = dunlin_update::record::prefix(&terms.digest);
        let rollout = Rollout {
            name: &terms.name,
            sequence: terms.sequence,
            time: terms.signed,
            expires: terms.expires,
            digest: terms.digest,
            audience: terms.audience,
            lifted: if terms.lifts { &prefix } else { &[] },
        };
        let unsigned = trust::envelope(Role::Rollout, &rollout).map_err(|e| e.to_string())?;
        let bytes = trust::sign(&unsigned, Role::Rollout, &self.key(tenant)?).map_err(|e| e.to_string())?;
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(kept, bytes.clone());
        Ok(bytes)
    }

    /// Flags, signed.
    pub(crate) fn flags(&self, tenant: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let unsigned = trust::envelope(Role::Rollout, &(wire::FLAGS, payload)).map_err(|e| e.to_string())?;
        trust::sign(&unsigned, Role::Rollout, &self.key(tenant)?).map_err(|e| e.to_string())
    }
}

/// The root in force after a chain of documents, the first of which is believed because its own keys signed it.
pub(crate) fn root_of(chain: &[Vec<u8>]) -> Result<RootKeys, String> {
    let (first, rest) = chain.split_first().ok_or("the tenant has no root yet")?;
    let document = Document::read(first, Role::Root).map_err(|e| e.to_string())?;
    let mut root: RootKeys = document.decode().map_err(|e| e.to_string())?;
    if !root.is_sound() {
        return Err("the root has roles whose threshold their keys cannot reach".into());
    }
    document.check(&root, Role::Root, &Ed25519).map_err(|e| e.to_string())?;
    for next in rest {
        root = trust::follow(&root, next, &Ed25519).map_err(|e| e.to_string())?;
    }
    Ok(root)
}

/// Whether what the server signs would be believed under a root.
pub(crate) fn may_sign(root: &RootKeys, key: &SecretKey) -> Result<(), String> {
    if root.role(Role::Rollout).threshold != 1 {
        return Err(format!(
            "the root wants {} signatures of the role rollout, the server has one key",
            root.role(Role::Rollout).threshold
        ));
    }
    if root.keys_of(Role::Rollout).any(|k| *k == key.public()) {
        return Ok(());
    }
    Err(format!("the root does not name the server's key {} in the role rollout", crate::hex(&key.public())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_for_whom_the_stage_is_for() {
        use dunlin_rollout::rollout::Exposure;
        use dunlin_rollout::{Salt, Share, Subject};
        let folder = tempfile::tempdir().expect("folder");
        let documents = Documents::new(folder.path().into());
        let salt = Salt::new(b"r1");
        let shares = (Share::percent(7), Share::percent(40));
        for (exposure, candidate) in [
            (Exposure::Share { canary: shares.0, control: shares.1 }, 0),
            (Exposure::Variants { share: shares.1, candidates: 2 }, 0),
            (Exposure::Variants { share: shares.1, candidates: 2 }, 1),
            (Exposure::Shadow { canary: shares.0, control: shares.1, every: 10 }, 0),
            (Exposure::Crossover { share: shares.0 }, 0),
        ] {
            let terms = Terms {
                rollout: "r1".into(),
                name: "m".into(),
                digest: [7; 32],
                sequence: 3,
                signed: 1,
                expires: 2,
                audience: exposure.audience(salt, candidate),
                lifts: false,
            };
            let bytes = documents.rollout("t", &terms).expect("signed");
            let read: Rollout<'_> = Document::read(&bytes, Role::Rollout).expect("document").decode().expect("rollout");
            let mut meant = 0;
            for device in 0..5000u32 {
                let identity = device.to_le_bytes();
                let installs = exposure.assign(salt, &Subject::new(&identity)).installs == Some(candidate);
                assert_eq!(read.audience.reaches(&identity), installs, "{exposure:?}");
                meant += u32::from(installs);
            }
            assert!((250..800).contains(&meant), "{meant} of 5000: {exposure:?}");
        }
    }

    #[test]
    fn flags_are_no_rollout_of_any_model() {
        let folder = tempfile::tempdir().expect("folder");
        let documents = Documents::new(folder.path().into());
        let payload = dunlin_rollout::flag::Document { sequence: 1, ..Default::default() }.encode().expect("a payload");
        let bytes = documents.flags("t", &payload).expect("signed");
        let document = Document::read(&bytes, Role::Rollout).expect("document");
        let read: (&str, &[u8]) = postcard::from_bytes(document.payload()).expect("flags");
        assert_eq!(read, (wire::FLAGS, &payload[..]));
        assert!(document.decode::<Rollout<'_>>().is_err());
    }
}
