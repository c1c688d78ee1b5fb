//! Pages from the store.

pub(super) mod device;
pub(super) mod drift;
pub(super) mod flags;
pub(super) mod health;
pub(super) mod log;
pub(super) mod operate;
mod progress;
pub(super) mod rollout;
mod serving;
pub(super) mod session;

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::figure;
use super::source::{Trouble, Viewer};
use super::view::Model;
use crate::auth::Role;
use crate::store::{self, Connection};

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Names and versions by digest.
#[derive(Debug, Default)]
struct Models(BTreeMap<String, (String, String)>);

impl Models {
    async fn load(connection: &mut Connection, tenant: &str) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query("SELECT digest, name, version FROM packages WHERE tenant = $1")
            .bind(tenant)
            .fetch_all(connection)
            .await?;
        let pair =
            |row: &sqlx::any::AnyRow| Ok((row.try_get("digest")?, (row.try_get("name")?, row.try_get("version")?)));
        rows.iter().map(pair).collect::<Result<_, sqlx::Error>>().map(Self)
    }

    /// What a digest is; a device may run what was never published here.
    fn of(&self, name: &str, digest: &str) -> Model {
        let (name, version) = match self.0.get(digest) {
            Some((name, version)) => (name.clone(), version.clone()),
            None => (name.to_owned(), "(not published here)".to_owned()),
        };
        Model { name, version, digest: digest.to_owned() }
    }

    /// Returns whether a digest is a package of this model, as far as packages are known.
    fn is_of(&self, name: &str, digest: &str) -> bool {
        self.0.get(digest).is_none_or(|(model, _)| model == name)
    }

    /// A digest's name in a legend.
    fn label(&self, digest: &str) -> String {
        match self.0.get(digest) {
            Some((name, version)) => format!("{name} {version}"),
            None => figure::short(digest).to_owned(),
        }
    }
}

/// Who was heard of since then is online: three intervals of polling.
async fn heard_since(connection: &mut Connection, viewer: &Viewer, now: i64) -> Result<i64, Trouble> {
    let tenant = store::tenants::get(connection, &viewer.tenant).await?.ok_or(Trouble::Missing("tenant"))?;
    Ok(now - 3 * i64::from(tenant.settings.poll_seconds))
}

/// What a viewer may do; nothing, should the name be none of a role's.
fn role(viewer: &Viewer) -> Role {
    Role::from_name(&viewer.role).unwrap_or(Role::Enrol)
}

/// Seconds after which pages are made anew whatever happened: devices say something all the time, and what they say is on
/// most pages.
const RENEWED: i64 = 15;

/// Differs whenever somebody or the server did something, and every few seconds.
pub(super) async fn revision(connection: &mut Connection, tenant: &str, now: i64) -> Result<String, sqlx::Error> {
    let row = sqlx::query(
        "SELECT audited, alerted, (SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND acknowledged IS NULL) AS unseen,
         (SELECT COUNT(*) FROM alerts WHERE tenant = $1 AND resolved IS NULL) AS unresolved,
         (SELECT CAST(COALESCE(SUM(version), 0) AS BIGINT) FROM rollouts WHERE tenant = $1) AS versions
         FROM tenants WHERE id = $1",
    )
    .bind(tenant)
    .fetch_one(connection)
    .await?;
    let mut revision = (now / RENEWED).to_string();
    for name in ["audited", "alerted", "unseen", "unresolved", "versions"] {
        let n: i64 = row.try_get(name)?;
        revision.push_str(&format!("-{n}"));
    }
    Ok(revision)
}
