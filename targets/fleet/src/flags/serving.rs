//! The kill switch: inference stopped on the whole fleet or for one model, by the flag `dunlin.serve`.

use std::collections::BTreeSet;

use dunlin_rollout::flag::{FlagSpec, MODEL_ATTRIBUTE, RuleSpec, Serving, Setting, When};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Author, Flags, replace};
use crate::auth::Principal;
use crate::error::{ApiError, ApiResult};
use crate::server::Inner;
use crate::store::alerts::{self, Condition, Severity};
use crate::store::serving::{self, Obeying, Stop};
use crate::store::{Connection, flags, signed, tenants};

/// The key of the flag that devices obey.
pub(crate) const KEY: &str = "dunlin.serve";
/// The rule of the alert that is open while inference is stopped.
pub(crate) const RULE: &str = "serving_stopped";
/// How often a change is tried again that somebody else's came before.
const TRIES: u32 = 5;
/// What models' names are in [`stops`] when all models are meant.
const ALL: &str = "";

/// The kill switch as a new fleet has it: on.
pub(crate) fn default_flag() -> FlagSpec {
    FlagSpec {
        key: KEY.to_owned(),
        killed: false,
        off: Some(1),
        default: Some(0),
        variants: vec![("on".to_owned(), Setting::Bool(true)), ("off".to_owned(), Setting::Bool(false))],
        rules: Vec::new(),
    }
}

fn is_false(flag: &FlagSpec, variant: Option<u8>) -> bool {
    let value = variant.and_then(|n| flag.variants.get(usize::from(n)));
    matches!(value, Some((_, Setting::Bool(false))))
}

/// The model that a rule stops; nothing: it is another kind of rule.
fn stopped_model<'f>(flag: &FlagSpec, rule: &'f RuleSpec) -> Option<&'f str> {
    match (&rule.when, &rule.serve) {
        (Some(When::Equal(name, Setting::Text(model))), Serving::Variant(n))
            if name == MODEL_ATTRIBUTE && is_false(flag, Some(*n)) =>
        {
            Some(model)
        }
        _ => None,
    }
}

/// Where a flag stops inference: names of models, an empty one for the whole fleet. Rules of any other kind than "this model
/// is off" are not counted as a stop.
pub(crate) fn stops(flag: &FlagSpec) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    if flag.killed {
        if is_false(flag, flag.off) {
            all.insert(ALL.to_owned());
        }
        return all;
    }
    let mut rest = flag.rules.as_slice();
    while let [first, more @ ..] = rest
        && let Some(model) = stopped_model(flag, first)
    {
        all.insert(model.to_owned());
        rest = more;
    }
    let is_off = match rest.first() {
        None => is_false(flag, flag.default),
        Some(rule) => rule.when.is_none() && matches!(rule.serve, Serving::Variant(n) if is_false(flag, Some(n))),
    };
    if is_off {
        all.insert(ALL.to_owned());
    }
    all
}

/// The number of the variant that is false, which is added when there is none.
fn off_variant(flag: &mut FlagSpec) -> u8 {
    let found = flag.variants.iter().position(|(_, value)| *value == Setting::Bool(false));
    let place = found.unwrap_or_else(|| {
        let is_free = |name: &&str| flag.variants.iter().all(|(known, _)| known != name);
        let name = ["off", "stopped", "dunlin.stopped"].into_iter().find(is_free).unwrap_or("dunlin.off");
        flag.variants.push((name.to_owned(), Setting::Bool(false)));
        flag.variants.len() - 1
    });
    u8::try_from(place).unwrap_or(u8::MAX)
}

/// Stops one model, or all.
fn stop(flag: &mut FlagSpec, model: &str) {
    if stops(flag).contains(model) {
        return;
    }
    let off = off_variant(flag);
    if model == ALL {
        flag.killed = true;
        flag.off = Some(off);
        return;
    }
    let when = Some(When::Equal(MODEL_ATTRIBUTE.to_owned(), Setting::Text(model.to_owned())));
    // Before all others: the first that matches decides.
    flag.rules.insert(0, RuleSpec { when, serve: Serving::Variant(off) });
}

/// Ends the stop of one model, or all stops.
fn resume(flag: &mut FlagSpec, model: &str) -> ApiResult<()> {
    if model != ALL && flag.killed && is_false(flag, flag.off) {
        return Err(ApiError::conflict(
            format!("inference is stopped on the whole fleet, not only for {model:?}"),
            "resume the whole fleet: leave the model out",
        ));
    }
    if model == ALL {
        flag.killed = false;
    }
    let kept: Vec<bool> =
        flag.rules.iter().map(|r| stopped_model(flag, r).is_none_or(|m| model != ALL && m != model)).collect();
    let mut kept = kept.into_iter();
    flag.rules.retain(|_| kept.next().unwrap_or(true));
    if stops(flag).contains(model) {
        return Err(ApiError::conflict(
            format!("the flag {KEY:?} is false by a default or rule of its own"),
            "change the flag: PUT /v1/flags",
        ));
    }
    Ok(())
}

/// What a person does to inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Stop,
    Resume,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "serving.stop",
            Self::Resume => "serving.resume",
        }
    }
}

/// Where inference is stopped, and who obeys.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// Whether inference is stopped nowhere.
    pub(crate) serving: bool,
    /// The stops in force: at most one of the whole fleet, and one of each model.
    pub(crate) stops: Vec<StopStatus>,
    /// Version of the flags in force.
    pub(crate) version: u64,
    /// Devices in all.
    pub(crate) devices: i64,
    /// Devices that had the flags in force at their last poll.
    pub(crate) up_to_date: i64,
}

/// A stop.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StopStatus {
    /// The model that is stopped; null: the whole fleet.
    pub(crate) model: Option<String>,
    /// Since when, seconds since 1970.
    pub(crate) since: i64,
    /// Who stopped it.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// Devices that it is for.
    pub(crate) devices: i64,
    /// Of these the devices that had the stop at their last poll, and so obey it.
    pub(crate) obeying: i64,
    /// Of these the devices that have not polled with it yet.
    pub(crate) waiting: i64,
    /// Devices among the waiting that are silent: not heard of for three poll intervals.
    pub(crate) silent: i64,
}

impl StopStatus {
    fn new(of: Stop, counts: Obeying) -> Self {
        Self {
            model: Some(of.model).filter(|m| m != ALL),
            since: of.since,
            by: of.who,
            reason: of.reason,
            devices: counts.devices,
            obeying: counts.obeying,
            waiting: counts.devices - counts.obeying,
            silent: counts.silent,
        }
    }

    /// What is stopped, for people.
    pub(crate) fn what(&self) -> String {
        match &self.model {
            Some(model) => format!("inference of {model}"),
            None => "all inference".to_owned(),
        }
    }

    fn text(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        format!("{} is stopped by {}{reason}: {} of {} devices obey", self.what(), self.by, self.obeying, self.devices)
    }

    /// The key of its alert.
    fn key(&self) -> String {
        alert_key(self.model.as_deref().unwrap_or(ALL))
    }
}

fn alert_key(model: &str) -> String {
    if model == ALL { RULE.to_owned() } else { format!("{RULE}/{model}") }
}

/// The last moment at which a device that is not silent was heard of.
async fn heard_since(connection: &mut Connection, tenant: &str, now: i64) -> Result<i64, sqlx::Error> {
    let settings = tenants::get(connection, tenant).await?.map(|t| t.settings).unwrap_or_default();
    Ok(now - 3 * i64::from(settings.poll_seconds))
}

/// Returns the stops in force, with how many devices obey each.
pub(crate) async fn stopped(
    connection: &mut Connection,
    tenant: &str,
    now: i64,
) -> Result<Vec<StopStatus>, sqlx::Error> {
    let list = serving::list(connection, tenant).await?;
    let mut stops = Vec::with_capacity(list.len());
    if !list.is_empty() {
        let since = heard_since(connection, tenant, now).await?;
        for stop in list {
            let counts = serving::obeying(connection, tenant, &stop.model, stop.sequence, since).await?;
            stops.push(StopStatus::new(stop, counts));
        }
    }
    Ok(stops)
}

/// Returns where a tenant's inference is stopped.
pub(crate) async fn status(connection: &mut Connection, tenant: &str, now: i64) -> Result<Status, sqlx::Error> {
    let since = heard_since(connection, tenant, now).await?;
    let stored = flags::get(connection, tenant).await?;
    let (version, sequence) = stored.map_or((0, 0), |f| (f.version.unsigned_abs(), f.sequence));
    let stops = stopped(connection, tenant, now).await?;
    let all = serving::obeying(connection, tenant, ALL, sequence, since).await?;
    Ok(Status { serving: stops.is_empty(), stops, version, devices: all.devices, up_to_date: all.obeying })
}

/// Opens or updates the alert of each stop in force, with the numbers of now.
pub(crate) async fn alert(app: &Inner, tx: &mut Connection, tenant: &str, now: i64) -> Result<(), sqlx::Error> {
    for stop in stopped(tx, tenant, now).await? {
        let mut detail = json!(stop);
        detail["next"] = json!("resume when the reason is gone: on this page, or with `dunlin fleet resume`");
        let condition = Condition {
            key: &stop.key(),
            rule: RULE,
            severity: Severity::Critical,
            rollout: "",
            text: &stop.text(),
            detail: &detail,
        };
        if let alerts::Change::Opened(_) = alerts::set(tx, tenant, now, &condition).await? {
            app.metrics.alerts.add(1);
        }
    }
    Ok(())
}

/// Brings the record of stops and their alerts in step with the flag.
pub(super) async fn record(
    app: &Inner,
    tx: &mut Connection,
    author: &Author<'_>,
    flag: Option<&FlagSpec>,
    sequence: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    let wanted = flag.map(stops).unwrap_or_default();
    let known: BTreeSet<String> = serving::list(tx, author.tenant).await?.into_iter().map(|s| s.model).collect();
    for model in wanted.difference(&known) {
        let stop = Stop {
            model: model.clone(),
            since: now,
            who: author.name.to_owned(),
            reason: author.reason.to_owned(),
            sequence,
        };
        serving::insert(tx, author.tenant, &stop).await?;
    }
    for model in known.difference(&wanted) {
        serving::delete(tx, author.tenant, model).await?;
        alerts::clear(tx, author.tenant, now, &alert_key(model)).await?;
    }
    alert(app, tx, author.tenant, now).await
}

/// Brings the record of stops in step with flags that were stored before there was such a record.
pub(crate) async fn reconcile(app: &Inner, tx: &mut Connection, tenant: &str, now: i64) -> ApiResult<()> {
    let Some(stored) = flags::get(tx, tenant).await? else { return Ok(()) };
    let known = Flags::of(Some(&stored))?;
    let author = Author { tenant, name: "unknown", reason: "", action: "" };
    Ok(record(app, tx, &author, known.flag(KEY), stored.sequence, now).await?)
}

/// Stops or resumes inference; what is so already stays as it is, with who did it first. Returns whether anything changed.
///
/// # Errors
/// 404 for a model that neither a device nor a package has, 409 when what is resumed is stopped in another way.
pub(crate) async fn act(
    app: &Inner,
    who: &Principal,
    action: Action,
    model: Option<&str>,
    reason: &str,
) -> ApiResult<bool> {
    let tenant = who.tenant.id.as_str();
    let model = model.unwrap_or(ALL);
    for _ in 0..TRIES {
        let mut tx = app.store.write().await?;
        if action == Action::Stop && model != ALL {
            let known = serving::models(&mut tx, tenant).await?;
            if !known.iter().any(|m| m == model) {
                let hint = match known.as_slice() {
                    [] => "no device is enrolled and nothing is published yet".to_owned(),
                    known => format!("there are {}", known.join(", ")),
                };
                return Err(ApiError::not_found(format!("no device and no package has the model {model:?}"), hint));
            }
        }
        let before = flags::get(&mut tx, tenant).await?;
        let mut wanted = Flags::of(before.as_ref())?;
        let mut flag = wanted.flag(KEY).cloned().unwrap_or_else(default_flag);
        let known = flag.clone();
        match action {
            Action::Stop => stop(&mut flag, model),
            Action::Resume => resume(&mut flag, model)?,
        }
        if flag == known {
            return Ok(false);
        }
        wanted.insert(flag);
        let author = Author { tenant, name: &who.name, reason, action: action.name() };
        match replace(app, &mut tx, &author, before.as_ref(), &wanted).await {
            Ok(_) => {
                tx.commit().await?;
                tracing::warn!(tenant, model, reason, by = who.name, action = action.name(), "inference");
                return Ok(true);
            }
            // Somebody else wrote flags at this moment.
            Err(error) if error.status == axum::http::StatusCode::CONFLICT => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::unavailable("flags were written by others at each try"))
}

/// Returns the status as of now.
pub(crate) async fn now(app: &Inner, tenant: &str) -> ApiResult<Status> {
    Ok(status(&mut *app.store.read().await?, tenant, signed(app.clock.seconds())).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn stops_and_resumes_are_idempotent() {
        let mut flag = default_flag();
        assert_eq!(stops(&flag), set(&[]));
        for _ in 0..2 {
            stop(&mut flag, "a");
            assert_eq!((stops(&flag), flag.rules.len()), (set(&["a"]), 1));
        }
        stop(&mut flag, "b");
        assert_eq!(stops(&flag), set(&["a", "b"]));
        stop(&mut flag, ALL);
        assert_eq!(stops(&flag), set(&[ALL]));
        assert!(resume(&mut flag, "a").is_err(), "the whole fleet is stopped");
        resume(&mut flag, ALL).expect("resumed");
        assert_eq!(flag, default_flag());
        stop(&mut flag, "a");
        stop(&mut flag, "b");
        resume(&mut flag, "a").expect("resumed");
        assert_eq!(stops(&flag), set(&["b"]));
    }

    #[test]
    fn rules_of_ones_own_are_kept() {
        let own = RuleSpec {
            when: Some(When::Equal("region".to_owned(), Setting::Text("eu".to_owned()))),
            serve: Serving::Variant(0),
        };
        let only = vec![("yes".to_owned(), Setting::Bool(true))];
        let mut flag = FlagSpec {
            key: KEY.to_owned(),
            default: Some(0),
            variants: only,
            rules: vec![own.clone()],
            ..FlagSpec::default()
        };
        stop(&mut flag, "a");
        assert_eq!((flag.rules.len(), flag.rules.last()), (2, Some(&own)));
        assert_eq!(stops(&flag), set(&["a"]));
        stop(&mut flag, ALL);
        assert_eq!(stops(&flag), set(&[ALL]));
        resume(&mut flag, ALL).expect("resumed");
        assert_eq!((flag.rules.as_slice(), stops(&flag)), (&[own][..], set(&[])));
        flag.rules.clear();
        flag.default = flag.variants.iter().position(|(_, v)| *v == Setting::Bool(false)).map(|n| n as u8);
        assert_eq!(stops(&flag), set(&[ALL]));
        assert!(resume(&mut flag, ALL).is_err(), "its own default is off");
    }
}
