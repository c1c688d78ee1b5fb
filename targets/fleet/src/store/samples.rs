//! What alert rules saw: hourly samples for their baselines, and the last evaluation of each.

use sqlx::Row as _;

use super::Connection;

/// Which rule, about which model. The model is empty where a rule is about the fleet or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) rule: &'a str,
    pub(crate) model: &'a str,
}

/// Adds the sample of an hour, unless there is one.
pub(crate) async fn insert(
    tx: &mut Connection,
    key: Key<'_>,
    hour: i64,
    bad: i64,
    total: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO alert_samples (tenant, rule, model, hour, bad, total) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
    )
    .bind(key.tenant)
    .bind(key.rule)
    .bind(key.model)
    .bind(hour)
    .bind(bad)
    .bind(total)
    .execute(tx)
    .await
    .map(drop)
}

/// The samples at the same time of day, one hour more or less, from an hour on and before another: hour, bad, total.
pub(crate) async fn at_time_of_day(
    connection: &mut Connection,
    key: Key<'_>,
    from: i64,
    before: i64,
) -> Result<Vec<(i64, i64, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT hour, bad, total FROM alert_samples
         WHERE tenant = $1 AND rule = $2 AND model = $3 AND hour >= $4 AND hour < $5 AND ($5 - hour) % 24 IN (0, 1, 23) ORDER BY hour",
    )
    .bind(key.tenant)
    .bind(key.rule)
    .bind(key.model)
    .bind(from)
    .bind(before)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|r| Ok((r.try_get("hour")?, r.try_get("bad")?, r.try_get("total")?))).collect()
}

/// Deletes samples before an hour.
pub(crate) async fn prune(tx: &mut Connection, tenant: &str, before: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM alert_samples WHERE tenant = $1 AND hour < $2")
        .bind(tenant)
        .bind(before)
        .execute(tx)
        .await
        .map(drop)
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// There is enough data, and the condition does not hold.
    Ok,
    /// The condition holds, or held so shortly ago that its alert stays open.
    Firing,
    /// There is too little data to say either.
    NoData,
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Firing => "firing",
            Self::NoData => "no_data",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "ok" => Self::Ok,
            "firing" => Self::Firing,
            _ => Self::NoData,
        }
    }
}

/// The last evaluation of a rule.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Evaluation {
    /// `silent`, `inference_errors`, `deadline_misses`, `resets`, `enrolments`, `device_quota` or `server_lag`.
    pub(crate) rule: String,
    /// The model; of `server_lag` what lags. Empty: the whole fleet.
    pub(crate) model: String,
    /// When, seconds since 1970.
    pub(crate) evaluated: i64,
    pub(crate) status: Status,
    /// So many
    pub(crate) bad: i64,
    /// of so many; of `enrolments` 1, and of `server_lag` 1000: the numbers are counts and milliseconds.
    pub(crate) total: i64,
    /// The share above which the alert opens.
    pub(crate) threshold: f64,
    /// The median share at this time of day on the days before; null: too few days to say.
    pub(crate) baseline: Option<f64>,
    /// Hours that the baseline is of.
    pub(crate) samples: i64,
    /// When the condition stopped holding; 0 while it holds.
    #[serde(skip)]
    pub(crate) quiet_since: i64,
}

impl Evaluation {
    /// Bad of total.
    pub(crate) fn share(&self) -> Option<f64> {
        (self.total > 0).then(|| self.bad as f64 / self.total as f64)
    }
}

/// The last evaluations of a tenant's rules.
pub(crate) async fn evaluations(connection: &mut Connection, tenant: &str) -> Result<Vec<Evaluation>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM alert_rules WHERE tenant = $1 ORDER BY rule, model")
        .bind(tenant)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|r| {
            Ok(Evaluation {
                rule: r.try_get("rule")?,
                model: r.try_get("model")?,
                evaluated: r.try_get("evaluated")?,
                status: Status::from_name(r.try_get("status")?),
                bad: r.try_get("bad")?,
                total: r.try_get("total")?,
                threshold: r.try_get("threshold")?,
                baseline: r.try_get("baseline")?,
                samples: r.try_get("samples")?,
                quiet_since: r.try_get("quiet_since")?,
            })
        })
        .collect()
}

/// Stores an evaluation in the place of the one before.
pub(crate) async fn put(tx: &mut Connection, tenant: &str, of: &Evaluation) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO alert_rules (tenant, rule, model, evaluated, status, bad, total, threshold, baseline, samples,
         quiet_since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (tenant, rule, model) DO UPDATE SET evaluated = excluded.evaluated, status = excluded.status,
         bad = excluded.bad, total = excluded.total, threshold = excluded.threshold, baseline = excluded.baseline,
         samples = excluded.samples, quiet_since = excluded.quiet_since",
    )
    .bind(tenant)
    .bind(&of.rule)
    .bind(&of.model)
    .bind(of.evaluated)
    .bind(of.status.name())
    .bind(of.bad)
    .bind(of.total)
    .bind(of.threshold)
    .bind(of.baseline)
    .bind(of.samples)
    .bind(of.quiet_since)
    .execute(tx)
    .await
    .map(drop)
}

pub(crate) async fn delete(tx: &mut Connection, key: Key<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM alert_rules WHERE tenant = $1 AND rule = $2 AND model = $3")
        .bind(key.tenant)
        .bind(key.rule)
        .bind(key.model)
        .execute(tx)
        .await
        .map(drop)
}
