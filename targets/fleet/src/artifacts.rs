//! Artifacts by the SHA-256 of their bytes, in a folder or an S3-compatible store.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::hex;

/// Bytes of one request to a bucket; longer artifacts go there in parts.
#[cfg(feature = "s3")]
const PART: usize = 8 << 20;

/// Bytes of an artifact that are in memory at once while all of it is sent.
const STREAMED: u64 = 4 << 20;

/// Where artifacts are.
#[derive(Debug)]
pub(crate) struct Artifacts {
    store: Box<dyn ObjectStore>,
    /// Whether long artifacts are sent there in parts.
    #[cfg(feature = "s3")]
    in_parts: bool,
}

/// The name of some bytes.
pub(crate) fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Artifacts {
    /// A folder, or with the feature `s3` a bucket (`s3://bucket/prefix`, settings and credentials from `AWS_*` variables).
    ///
    /// # Errors
    /// What is wrong with the folder, or with the bucket or what is to open it. A bucket that does not answer is no error: it
    /// may answer later, and devices want to poll meanwhile.
    pub(crate) async fn open(place: &str) -> Result<Self, String> {
        if let Some(rest) = place.strip_prefix("s3://") {
            return Self::bucket(rest).await;
        }
        crate::private::folder(Path::new(place))
            .map_err(|e| format!("the artifact folder {place} cannot be made: {e}"))?;
        let folder = LocalFileSystem::new_with_prefix(Path::new(place))
            .map_err(|e| format!("the artifact folder {place} cannot be used: {e}"))?;
        // A package that was acknowledged has to survive a power cut like the row that names it.
        Ok(Self {
            store: Box::new(folder.with_fsync(true)),
            #[cfg(feature = "s3")]
            in_parts: false,
        })
    }

    #[cfg(feature = "s3")]
    async fn bucket(rest: &str) -> Result<Self, String> {
        use std::time::Duration;

        use object_store::aws::AmazonS3Builder;
        use object_store::{BackoffConfig, RetryConfig};

        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("s3://{rest} names no bucket: write s3://BUCKET/PREFIX"));
        }
        // Another one may be installed already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whoever waits for an answer rather hears that there is none.
        let retry = RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(15),
            backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
        };
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .build()
            .map_err(|e| format!("the bucket {bucket} cannot be used: {e}"))?;
        store.credentials().get_credential().await.map_err(|e| {
            format!(
                "there are no credentials for the bucket {bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 run where a role gives them ({e})"
            )
        })?;
        let store = object_store::prefix::PrefixStore::new(store, prefix);
        let artifacts = Self { store: Box::new(store), in_parts: true };
        if let Err(error) = artifacts.try_bucket().await {
            match fault(&error) {
                Some(why) => return Err(format!("the bucket {bucket} cannot be used: {why} ({})", said(&error))),
                None => {
                    tracing::error!(%error, bucket, "the bucket does not answer; without it no package comes or goes")
                }
            }
        }
        Ok(artifacts)
    }

    #[cfg(not(feature = "s3"))]
    async fn bucket(rest: &str) -> Result<Self, String> {
        Err(format!("s3://{rest} needs a server that was built with the feature s3: cargo build --features s3"))
    }

    /// Writes and reads, as the server will have to.
    #[cfg(feature = "s3")]
    async fn try_bucket(&self) -> object_store::Result<()> {
        const TEXT: &[u8] = b"Artifacts of a Dunlin fleet server, by the SHA-256 of their bytes.\n";
        let key = Key::from("about.txt");
        self.store.put(&key, PutPayload::from_static(TEXT)).await?;
        self.store.get_range(&key, 0..TEXT.len() as u64).await.map(drop)
    }

    fn key(hash: &[u8; 32]) -> Key {
        let name = hex(hash);
        Key::from(format!("{}/{name}", name.get(..2).unwrap_or_default()))
    }

    /// Stores bytes under their hash; storing them again changes nothing.
    pub(crate) async fn put(&self, bytes: Bytes) -> object_store::Result<[u8; 32]> {
        let hash = hash_of(&bytes);
        let key = Self::key(&hash);
        match self.store.head(&key).await {
            Ok(meta) if meta.size == bytes.len() as u64 => return Ok(hash),
            // Who may not list a bucket is told so of what is not there, too.
            Ok(_) | Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => {}
            Err(error) => return Err(error),
        }
        #[cfg(feature = "s3")]
        if self.in_parts && bytes.len() > PART {
            let upload = self.store.put_multipart(&key).await?;
            let mut upload = object_store::WriteMultipart::new_with_chunk_size(upload, PART);
            upload.put(bytes);
            upload.finish().await?;
            return Ok(hash);
        }
        self.store.put(&key, PutPayload::from_bytes(bytes)).await?;
        Ok(hash)
    }

    /// Removes an artifact that no row names any more.
    pub(crate) async fn remove(&self, hash: &[u8; 32]) -> object_store::Result<()> {
        match self.store.delete(&Self::key(hash)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Some bytes of an artifact.
    pub(crate) async fn range(&self, hash: &[u8; 32], range: Range<u64>) -> object_store::Result<Bytes> {
        self.store.get_range(&Self::key(hash), range).await
    }

    /// As many bytes as wanted, part by part. The first is there when this returns, so that a store that does not answer
    /// can be told before an answer has begun.
    pub(crate) async fn stream(
        self: &Arc<Self>,
        hash: [u8; 32],
        len: u64,
    ) -> object_store::Result<impl Stream<Item = object_store::Result<Bytes>> + Send + 'static> {
        let first = self.range(&hash, 0..len.min(STREAMED)).await?;
        let rest =
            futures_util::stream::try_unfold((self.clone(), first.len() as u64), move |(artifacts, at)| async move {
                if at >= len {
                    return Ok(None);
                }
                let part = artifacts.range(&hash, at..len.min(at + STREAMED)).await?;
                let next = at + part.len() as u64;
                Ok(Some((part, (artifacts, next))))
            });
        Ok(futures_util::stream::once(async move { Ok(first) }).chain(rest))
    }
}

/// What somebody has to set right, of errors of a bucket; `None` when it may well answer later.
#[cfg(feature = "s3")]
fn fault(error: &Error) -> Option<&'static str> {
    use object_store::client::{HttpError, HttpErrorKind};

    match error {
        // Keys are made by this server: what is missing is the bucket.
        Error::NotFound { .. } => Some("there is none of this name; make it, or set AWS_REGION and AWS_ENDPOINT_URL"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Some(
            "the credentials are not accepted; they need s3:PutObject and s3:GetObject below the prefix \
             (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
        ),
        Error::Generic { .. } => {
            let mut cause: Option<&dyn std::error::Error> = Some(error);
            while let Some(error) = cause {
                if let Some(error) = error.downcast_ref::<HttpError>() {
                    return matches!(error.kind(), HttpErrorKind::Unknown).then_some(
                        "it cannot be asked; AWS_ENDPOINT_URL has to be https://HOST, or AWS_ALLOW_HTTP=true set",
                    );
                }
                if error.to_string().starts_with("Server returned non-2xx status code: 5") {
                    return None;
                }
                cause = error.source();
            }
            Some("it refuses the request; AWS_REGION and AWS_ENDPOINT_URL have to be the bucket's")
        }
        _ => None,
    }
}

/// What a bucket's answer says, without the document around it; the whole error when it is no such document.
#[cfg(feature = "s3")]
fn said(error: &Error) -> String {
    let text = error.to_string();
    let part = |tag: &str| text.split_once(&format!("<{tag}>"))?.1.split_once('<').map(|(inner, _)| inner.to_owned());
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => text,
    }
}
