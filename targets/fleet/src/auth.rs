//! Who asks: operators by bearer tokens, devices by signatures.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use dunlin_update::trust::{Ed25519, SecretKey, Verifier as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};
use crate::server::App;
use crate::store::devices::Device;
use crate::store::{self, tenants::Tenant};
use crate::{hex, unhex, wire};

/// What a token's owner may do; each role may what those before it may, but for enrolment, which may nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Enrol devices; for factories and installers.
    Enrol,
    /// Read everything.
    Viewer,
    /// Publish packages, run rollouts, set flags.
    Operator,
    /// Approve stages.
    Approver,
    /// Tokens, roots, settings.
    Admin,
}

impl Role {
    /// All, from the least.
    pub const ALL: [Self; 5] = [Self::Enrol, Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// A fresh secret, and the hash by which it is known.
pub(crate) fn fresh_token() -> Result<(String, String), getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let secret = format!("dnl_{}", hex(&bytes));
    let hash = token_hash(&secret);
    Ok((secret, hash))
}

pub(crate) fn token_hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// Whose token came with a request.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) tenant: Tenant,
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl Principal {
    /// Goes on with who has at least this role.
    pub(crate) fn at_least(&self, role: Role) -> ApiResult<()> {
        if self.role >= role {
            return Ok(());
        }
        Err(ApiError::forbidden(
            format!("the role {} may not do this", self.role.name()),
            format!("use a token with the role {} or above", role.name()),
        ))
    }

    /// Goes on with those who may do this to the whole installation.
    pub(crate) fn of_installation(&self) -> ApiResult<()> {
        if self.tenant.id == "system" && self.role == Role::Admin {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "only the installation's administrators may do this",
            "use an admin token of the tenant `system`",
        ))
    }

    /// Whose token a header has.
    pub(crate) async fn of(headers: &HeaderMap, app: &App) -> ApiResult<Self> {
        let secret = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        let secret = secret.ok_or_else(|| {
            ApiError::unauthorized("no token", "send `Authorization: Bearer TOKEN`; `dunlin-fleet token` makes one")
        })?;
        let mut connection = app.store.read().await?;
        let found = store::tokens::find(&mut connection, &token_hash(secret)).await?;
        let (tenant, token) = found
            .ok_or_else(|| ApiError::unauthorized("the token is not known or was revoked", "ask for a new one"))?;
        let tenant =
            store::tenants::get(&mut connection, &tenant).await?.ok_or_else(|| ApiError::missing("tenant", ""))?;
        Ok(Self { tenant, name: token.name, role: token.role })
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let principal = Self::of(&parts.headers, app).await?;
        let rate = principal.tenant.settings.operator_rate;
        // Each token for itself: one script that asks too often keeps nobody else from stopping a rollout.
        let key = format!("o/{}/{}", principal.tenant.id, principal.name);
        app.limits.take(&key, rate, app.clock.micros()).map_err(|seconds| {
            app.metrics.refused.add(1);
            ApiError::too_many("this token", seconds)
        })?;
        Ok(principal)
    }
}

/// Somebody with at least the role of this number. It is checked before anything else of the request is looked at, so that
/// who may not learns nothing from how it is refused.
pub(crate) struct By<const ROLE: u8>(pub(crate) Principal);

/// For [`By`]: reads.
pub(crate) const VIEWER: u8 = Role::Viewer as u8;
/// For [`By`]: runs rollouts.
pub(crate) const OPERATOR: u8 = Role::Operator as u8;
/// For [`By`]: approves.
pub(crate) const APPROVER: u8 = Role::Approver as u8;
/// For [`By`]: sets up the tenant.
pub(crate) const ADMIN: u8 = Role::Admin as u8;
/// For [`By`]: sets up the installation.
pub(crate) const INSTALLATION: u8 = u8::MAX;

impl<const ROLE: u8> FromRequestParts<App> for By<ROLE> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let who = Principal::from_request_parts(parts, app).await?;
        match Role::ALL.into_iter().find(|role| *role as u8 == ROLE) {
            Some(role) => who.at_least(role)?,
            None => who.of_installation()?,
        }
        Ok(Self(who))
    }
}

/// Somebody who may enrol devices.
pub(crate) struct Enroller(pub(crate) Principal);

impl FromRequestParts<App> for Enroller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Self> {
        let principal = Principal::of(&parts.headers, app).await?;
        if principal.role != Role::Enrol && principal.role != Role::Admin {
            return Err(ApiError::forbidden("this token does not enrol", "use a token with the role enrol"));
        }
        let rate = principal.tenant.settings.device_rate;
        app.limits.take(&format!("d/{}", principal.tenant.id), rate, app.clock.micros()).map_err(|seconds| {
            app.metrics.refused.add(1);
            ApiError::too_many("the fleet", seconds)
        })?;
        Ok(Self(principal))
    }
}

/// What makes the server's own marks: on nonces and on artifacts' addresses. All replicas have the same.
#[derive(Clone, Debug)]
pub(crate) struct Seal(Vec<u8>);

impl Seal {
    pub(crate) fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    fn mac(&self, parts: &[&str]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!("any length will do"));
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    /// A mark over some text.
    pub(crate) fn mark(&self, parts: &[&str]) -> String {
        hex(self.mac(parts).finalize().into_bytes().get(..16).unwrap_or_default())
    }

    /// Whether a mark is ours.
    pub(crate) fn is_mark(&self, parts: &[&str], mark: &str) -> bool {
        unhex(mark).is_some_and(|m| m.len() == 16 && self.mac(parts).verify_truncated_left(&m).is_ok())
    }

    /// A nonce for the next request of a device.
    pub(crate) fn nonce(&self, device: &str, micros: u64) -> String {
        format!("{micros}.{}", self.mark(&["nonce", device, &micros.to_string()]))
    }
}

/// Whether the connection has a certificate for the device that the request says it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certified(bool);

impl FromRequestParts<App> for Certified {
    type Rejection = std::convert::Infallible;

    #[cfg(feature = "tls")]
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        use axum::extract::ConnectInfo;
        let peer = parts.extensions.get::<ConnectInfo<crate::tls::Peer>>();
        let id = parts.headers.get(wire::DEVICE).and_then(|v| v.to_str().ok());
        Ok(Self(peer.zip(id).is_some_and(|(peer, id)| peer.0.is(id))))
    }

    #[cfg(not(feature = "tls"))]
    async fn from_request_parts(_: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(false))
    }
}

/// Seconds that a device's clock may be off.
const SKEW: u64 = 300;
/// Seconds that a nonce of the server's is good for.
const NONCE_LIFE: u64 = 86_400;

/// The device a signed request is from, and the request's nonce; that it was not seen before is for the transaction to
/// check that takes the request's content.
pub(crate) async fn device(
    app: &App,
    headers: &HeaderMap,
    method: &str,
    path: &str,
    body: &[u8],
    certified: Certified,
) -> ApiResult<(Device, u64)> {
    let header = |name: &'static str| {
        headers.get(name).and_then(|v| v.to_str().ok()).ok_or_else(|| {
            ApiError::unauthorized(format!("no header {name}"), "sign requests as `targets/fleet/README.md` says")
        })
    };
    let (id, nonce) = (header(wire::DEVICE)?, header(wire::NONCE)?);
    let stranger = || ApiError::unauthorized("this device is not known here, or was revoked", "enrol it");
    let device = store::devices::by_id(&mut *app.store.read().await?, id).await?.ok_or_else(stranger)?;
    let micros = fresh(app, id, nonce)?;
    if certified.0 {
        return Ok((device, micros));
    }
    if !signed_by(&device.key, &wire::message(method, path, nonce, body), header(wire::SIGNATURE)?) {
        return Err(ApiError::unauthorized(
            "the signature is not the device's",
            "sign domain, method, path, nonce and the body's SHA-256 with the key that was enrolled",
        ));
    }
    Ok((device, micros))
}

/// The time that a nonce states, if it is of these days and, when it is marked, ours.
fn fresh(app: &App, id: &str, nonce: &str) -> ApiResult<u64> {
    let now = app.clock.micros();
    let (time, mark) = nonce.split_once('.').map_or((nonce, None), |(time, mark)| (time, Some(mark)));
    let stale = || {
        ApiError::unauthorized(
            "the nonce is not of these minutes",
            "set the device's clock, or take a nonce from /d/v1/nonce",
        )
    };
    let micros: u64 = time.parse().map_err(|_| stale())?;
    let off = now.abs_diff(micros) / 1_000_000;
    let good = match mark {
        None => off <= SKEW,
        Some(mark) => off <= NONCE_LIFE && app.seal.is_mark(&["nonce", id, time], mark),
    };
    if good { Ok(micros) } else { Err(stale()) }
}

/// Whether a header's signature is a key's over a message.
pub(crate) fn signed_by(key: &[u8; 32], message: &[u8], signature: &str) -> bool {
    let signature: Option<[u8; 64]> = unhex(signature).and_then(|s| s.try_into().ok());
    signature.is_some_and(|s| Ed25519.verify(key, &[message], &s))
}

/// Reads a key's seed from a file of 64 hexadecimal digits; makes the file when there is none.
pub(crate) fn key_file(path: &std::path::Path) -> Result<SecretKey, String> {
    let failed = |e: std::io::Error| format!("the key file {} cannot be used: {e}", path.display());
    let seed = match std::fs::read_to_string(path) {
        Ok(text) => crate::hex::unhex_array(text.trim())
            .ok_or_else(|| format!("the key file {} does not have 64 hexadecimal digits", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|e| format!("no randomness: {e}"))?;
            write_private(path, &hex(&seed)).map_err(failed)?;
            // Two that start at once: the one whose file stayed is right.
            let text = std::fs::read_to_string(path).map_err(failed)?;
            crate::hex::unhex_array(text.trim()).ok_or_else(|| format!("{} is damaged", path.display()))?
        }
        Err(error) => return Err(failed(error)),
    };
    SecretKey::from_seed(seed).map_err(|e| format!("the key file {}: {e}", path.display()))
}

/// Writes a file that only its owner reads, whole or not at all; one that is there stays.
fn write_private(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(folder) = path.parent() {
        crate::private::folder(folder)?;
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match std::fs::hard_link(&fresh, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::remove_file(&fresh)
}
