//! Artifacts by the SHA-256 of their bytes, in a folder or an S3-compatible store.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::hex;

/// Where artifacts are.
#[derive(Debug)]
pub(crate) struct Artifacts(Box<dyn ObjectStore>);

/// The name of some bytes.
pub(crate) fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Artifacts {
    /// A folder, or with the feature `s3` a bucket (`s3://bucket/prefix`, credentials from `AWS_*` variables).
    pub(crate) fn open(place: &str) -> Result<Self, String> {
        if let Some(rest) = place.strip_prefix("s3://") {
            return Self::bucket(rest);
        }
        crate::private::folder(Path::new(place))
            .map_err(|e| format!("the artifact folder {place} cannot be made: {e}"))?;
        let folder = LocalFileSystem::new_with_prefix(Path::new(place))
            .map_err(|e| format!("the artifact folder {place} cannot be used: {e}"))?;
        // A package that was acknowledged has to survive a power cut like the row that names it.
        Ok(Self(Box::new(folder.with_fsync(true))))
    }

    #[cfg(feature = "s3")]
    fn bucket(rest: &str) -> Result<Self, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let store = object_store::aws::AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map_err(|e| format!("the bucket {bucket} cannot be used: {e}"))?;
        Ok(Self(Box::new(object_store::prefix::PrefixStore::new(store, prefix))))
    }

    #[cfg(not(feature = "s3"))]
    fn bucket(rest: &str) -> Result<Self, String> {
        Err(format!("s3://{rest} needs a server that was built with the feature s3"))
    }

    fn key(hash: &[u8; 32]) -> Key {
        let name = hex(hash);
        Key::from(format!("{}/{name}", name.get(..2).unwrap_or_default()))
    }

    /// Stores bytes under their hash; storing them again changes nothing.
    pub(crate) async fn put(&self, bytes: Bytes) -> object_store::Result<[u8; 32]> {
        let hash = hash_of(&bytes);
        let key = Self::key(&hash);
        let present = self.0.head(&key).await.is_ok_and(|meta| meta.size == bytes.len() as u64);
        if !present {
            self.0.put(&key, PutPayload::from_bytes(bytes)).await?;
        }
        Ok(hash)
    }

    /// All bytes of an artifact, piece by piece.
    pub(crate) async fn stream(
        &self,
        hash: &[u8; 32],
    ) -> object_store::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        Ok(self.0.get(&Self::key(hash)).await?.into_stream())
    }

    /// Removes an artifact that no row names any more.
    pub(crate) async fn remove(&self, hash: &[u8; 32]) -> object_store::Result<()> {
        match self.0.delete(&Self::key(hash)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Some bytes of an artifact.
    pub(crate) async fn range(&self, hash: &[u8; 32], range: Range<u64>) -> object_store::Result<Bytes> {
        self.0.get_range(&Self::key(hash), range).await
    }
}
