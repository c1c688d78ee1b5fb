//! The documents that the server signs itself, with each tenant's online key for rollouts.
//!
//! Root and targets keys never come here: what a package is, its operator has signed elsewhere. This key only says who
//! should run which of the packages that were signed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use dunlin_update::trust::{self, Document, Ed25519, Role, Rollout, RootKeys, SecretKey};

use crate::auth::key_file;
use crate::wire;

/// Documents that are kept, so that they are not signed again for each device.
const KEPT: usize = 20_000;

/// What a rollout document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) rollout: String,
    pub(crate) name: String,
    pub(crate) digest: [u8; 32],
    pub(crate) sequence: u64,
    pub(crate) signed: u64,
    pub(crate) expires: u64,
    /// Devices that are meant, of 10,000.
    pub(crate) share: u16,
}

/// Tenant, rollout, sequence, and number of the salt.
type Kept = (String, String, u64, u32);

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

    /// A rollout document that a device with this identity accepts, and of others no more than the share.
    ///
    /// Cohorts are `dunlin-rollout`'s; a document has buckets of its own. So its salt is chosen for the device: the first
    /// with which the device's bucket is below the share. Whoever hands the document on reaches no larger part of the
    /// fleet with it than the stage does.
    pub(crate) fn rollout(&self, tenant: &str, terms: &Terms, identity: &[u8]) -> Result<Vec<u8>, String> {
        let share = terms.share.clamp(1, 10_000);
        let mut salt = Vec::new();
        let mut chosen = 0u32;
        for n in 0..u32::MAX {
            salt.clear();
            salt.extend(terms.rollout.as_bytes().iter().take(32));
            salt.extend(n.to_le_bytes());
            if document(terms, share, &salt).bucket(identity) < share {
                chosen = n;
                break;
            }
        }
        let kept = (tenant.to_owned(), terms.rollout.clone(), terms.sequence, chosen);
        if let Some(bytes) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&kept) {
            return Ok(bytes.clone());
        }
        let unsigned = trust::envelope(Role::Rollout, &document(terms, share, &salt)).map_err(|e| e.to_string())?;
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

fn document<'a>(terms: &'a Terms, share: u16, salt: &'a [u8]) -> Rollout<'a> {
    Rollout {
        name: &terms.name,
        sequence: terms.sequence,
        time: terms.signed,
        expires: terms.expires,
        digest: terms.digest,
        salt,
        share,
        lifted: &[],
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
    fn a_document_suits_its_device_and_few_others() {
        let folder = tempfile::tempdir().expect("folder");
        let documents = Documents::new(folder.path().into());
        let terms = Terms {
            rollout: "r1".into(),
            name: "m".into(),
            digest: [7; 32],
            sequence: 3,
            signed: 1,
            expires: 2,
            share: 100,
        };
        let mut others = 0;
        for device in 0..50u32 {
            let identity = device.to_le_bytes();
            let bytes = documents.rollout("t", &terms, &identity).expect("signed");
            let read: Rollout<'_> = Document::read(&bytes, Role::Rollout).expect("document").decode().expect("rollout");
            assert!(read.bucket(&identity) < read.share);
            others += (1000..2000u32).filter(|d| read.bucket(&d.to_le_bytes()) < read.share).count();
        }
        // 50,000 others, of which one in a hundred: 500, with a standard deviation of 22.
        assert!((350..650).contains(&others), "{others}");
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
