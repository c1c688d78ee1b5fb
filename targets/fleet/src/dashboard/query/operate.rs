//! The kill switch, the form of a flag, and the alerts of the past.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dunlin_rollout::flag::FlagSpec;
use serde_json::{Value, json};
use sqlx::Row as _;

use super::health;
use crate::auth::Principal;
use crate::dashboard::figure;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{AlertsPage, Badge, FlagForm, FlagPage, Frame, PastAlert, ServingPage, SwitchPage, Tone};
use crate::error::{ApiError, ApiResult};
use crate::flags::{self, Author, Flags, form, reach, serving};
use crate::server::App;
use crate::store::alerts::{self, Severity, State};
use crate::store::{self, Connection};

/// Alerts on a page.
const PAGE: i64 = 50;

pub(in crate::dashboard) async fn serving_page(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    stops: bool,
    model: Option<String>,
) -> Result<ServingPage, Trouble> {
    let tenant = store::tenants::get(connection, &viewer.tenant).await?.ok_or(Trouble::Missing("tenant"))?;
    let mut models = store::serving::models(connection, &viewer.tenant).await?;
    if stops && model.as_ref().is_some_and(|m| !models.contains(m)) {
        return Err(Trouble::Missing("model"));
    }
    models.retain(|m| model.as_ref() != Some(m));
    let models = models.into_iter().map(|m| (m.clone(), crate::dashboard::page::escape(&m))).collect();
    let named = model.as_deref().unwrap_or_default();
    let devices = store::serving::obeying(connection, &viewer.tenant, named, 0, 0).await?.devices;
    let poll_seconds = tenant.settings.poll_seconds;
    Ok(ServingPage { frame, stops, model, devices, models, poll_seconds })
}

/// A flag as the form has it.
pub(in crate::dashboard) fn form_of(flag: &FlagSpec) -> FlagForm {
    let name = |n: Option<u8>| {
        let found = n.and_then(|n| flag.variants.get(usize::from(n)));
        found.map(|(name, _)| name.clone()).unwrap_or_default()
    };
    let variants: Vec<String> =
        flag.variants.iter().map(|(name, value)| format!("{name} = {}", flags::value_text(value))).collect();
    let rules: Vec<String> = flag.rules.iter().map(|rule| flags::rule_text(flag, rule)).collect();
    FlagForm {
        key: flag.key.clone(),
        variants: variants.join("\n"),
        default: name(flag.default),
        off: name(flag.off),
        rules: rules.join("\n"),
        ..FlagForm::default()
    }
}

/// Reads the form.
///
/// # Errors
/// Names the field and the value that is wrong.
pub(in crate::dashboard) fn flag_of(form: &FlagForm) -> ApiResult<FlagSpec> {
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
    };
    let mut variants = Vec::new();
    for line in lines(&form.variants) {
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| ApiError::unacceptable(format!("variants: {line:?} has no ="), "write NAME = VALUE"))?;
        variants.push(json!([name.trim(), flags::read_value(value.trim())]));
    }
    let mut rules = Vec::new();
    for line in lines(&form.rules) {
        rules.push(if line.starts_with('{') {
            serde_json::from_str(&line).map_err(|e| {
                ApiError::unacceptable(format!("rules: {line:?} is no JSON: {e}"), "write A = B -> VARIANT")
            })?
        } else {
            json!(line)
        });
    }
    if !form.percent.trim().is_empty() {
        let percent = form.percent.trim().trim_end_matches('%').trim_end();
        rules.push(json!(format!("-> {} {percent}%", form.percent_variant.trim())));
    }
    let named = |text: &str| if text.trim().is_empty() { Value::Null } else { json!(text.trim()) };
    let flag = json!({
        "key": form.key.trim(), "variants": variants, "rules": rules,
        "default": named(&form.default), "off": named(&form.off),
    });
    Ok(form::flag("flag", &flag)?)
}

/// What tells one form from another.
fn mark(form: &FlagForm) -> String {
    let mut hasher = DefaultHasher::new();
    FlagForm { csrf: String::new(), previewed: String::new(), ..form.clone() }.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

async fn known(app: &App, viewer: &Viewer) -> Result<Flags, Trouble> {
    let stored = store::flags::get(&mut *app.store.read().await?, &viewer.tenant).await?;
    Ok(Flags::of(stored.as_ref())?)
}

/// The form of a flag, or of a new one.
pub(in crate::dashboard) async fn flag_page(
    app: &App,
    viewer: &Viewer,
    frame: Frame,
    key: Option<&str>,
) -> Result<FlagPage, Trouble> {
    let form = match key {
        None => FlagForm {
            variants: "on = true\noff = false".to_owned(),
            default: "off".to_owned(),
            off: "off".to_owned(),
            ..FlagForm::default()
        },
        Some(key) => form_of(known(app, viewer).await?.flag(key).ok_or(Trouble::Missing("flag"))?),
    };
    Ok(FlagPage { frame, form, exists: key.is_some(), error: None, after: None, before: None, saves: None })
}

/// The form with whom it would reach, or with what is wrong.
pub(in crate::dashboard) async fn flag_preview(
    app: &App,
    viewer: &Viewer,
    frame: Frame,
    form: FlagForm,
) -> Result<FlagPage, Trouble> {
    let known = known(app, viewer).await?;
    let before = known.flag(form.key.trim()).cloned();
    let exists = before.is_some();
    let mut page = FlagPage { frame, form, exists, error: None, after: None, before: None, saves: None };
    let wanted = async {
        let mut flag = flag_of(&page.form)?;
        flag.killed = before.as_ref().is_some_and(|b| b.killed);
        let mut all = known.clone();
        all.insert(flag.clone());
        flags::check(app, &viewer.tenant, &all)?;
        let after = reach::of(app, &viewer.tenant, &[flag]).await?.pop();
        let before = match &before {
            Some(before) => reach::of(app, &viewer.tenant, std::slice::from_ref(before)).await?.pop(),
            None => None,
        };
        Ok::<_, ApiError>((before, after))
    };
    match wanted.await {
        Ok((before, after)) => {
            page.saves = Some(mark(&page.form));
            page.before = before;
            page.after = after;
        }
        Err(error) if error.status.is_server_error() => return Err(error.into()),
        Err(error) => page.error = Some((error.problem.error, error.problem.hint)),
    }
    Ok(page)
}

/// Stores the flag of a form, if it is what was previewed; `false`: it is not.
pub(in crate::dashboard) async fn flag_save(app: &App, who: &Principal, form: &FlagForm) -> Result<bool, Trouble> {
    if form.previewed != mark(form) {
        return Ok(false);
    }
    let mut flag = flag_of(form)?;
    change(app, who, "flags.set", |known| {
        flag.killed = known.flag(&flag.key).is_some_and(|f| f.killed);
        known.insert(flag);
        Ok(())
    })
    .await?;
    Ok(true)
}

/// Changes flags as they are now.
async fn change(
    app: &App,
    who: &Principal,
    action: &str,
    change: impl FnOnce(&mut Flags) -> ApiResult<()>,
) -> Result<(), Trouble> {
    let mut tx = app.store.write().await?;
    let before = store::flags::get(&mut tx, &who.tenant.id).await?;
    let mut wanted = Flags::of(before.as_ref())?;
    change(&mut wanted)?;
    let author = Author { tenant: &who.tenant.id, name: &who.name, reason: "", action };
    flags::replace(app, &mut tx, &author, before.as_ref(), &wanted).await?;
    Ok(tx.commit().await?)
}

/// Asks before a flag is killed or revived.
pub(in crate::dashboard) async fn switch_page(
    app: &App,
    viewer: &Viewer,
    frame: Frame,
    key: &str,
) -> Result<SwitchPage, Trouble> {
    let known = known(app, viewer).await?;
    let flag = known.flag(key).ok_or(Trouble::Missing("flag"))?;
    let off = flag.off.and_then(|n| flag.variants.get(usize::from(n)));
    let off = off.map_or_else(|| "the default that is compiled into them".to_owned(), |(name, _)| name.clone());
    Ok(SwitchPage { frame, key: key.to_owned(), killed: flag.killed, off })
}

/// Kills or revives a flag.
pub(in crate::dashboard) async fn switch(app: &App, who: &Principal, key: &str, killed: bool) -> Result<(), Trouble> {
    if key == serving::KEY {
        return Err(Trouble::Refused {
            error: "The kill switch is not an ordinary flag".to_owned(),
            hint: "Stop and resume inference on the health page.".to_owned(),
        });
    }
    let action = if killed { "flags.kill" } else { "flags.revive" };
    change(app, who, action, |flags| {
        let flag = flags.flags.iter_mut().find(|f| f.key == key);
        flag.ok_or_else(|| ApiError::missing("flag", key))?.killed = killed;
        Ok(())
    })
    .await
}

/// All alerts, the newest first.
pub(in crate::dashboard) async fn alerts_page(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    before: Option<i64>,
) -> Result<AlertsPage, Trouble> {
    let found = alerts::newest(connection, &viewer.tenant, before.unwrap_or(i64::MAX), PAGE).await?;
    let is_full = i64::try_from(found.len()).is_ok_and(|n| n == PAGE);
    let older = found.last().filter(|last| is_full && last.n > 1).map(|last| format!("/alerts?before={}", last.n));
    let lines = found.into_iter().map(|alert| {
        let state = match (alert.state, alert.severity) {
            (State::Open, _) => Badge::new(Tone::Watch, "open"),
            (State::Resolved, Severity::Info) => Badge::new(Tone::Quiet, "news"),
            (State::Resolved, _) if alert.resolved.is_some() => Badge::new(Tone::Good, "resolved"),
            (State::Resolved, _) => Badge::new(Tone::Quiet, "acknowledged"),
        };
        let tone = match alert.severity {
            Severity::Info => Tone::Good,
            Severity::Warning => Tone::Watch,
            Severity::Critical => Tone::Bad,
        };
        let detail = serde_json::from_str(&alert.detail).unwrap_or_default();
        let (n, opened, severity, resolved) = (alert.n, alert.time, alert.severity.name(), alert.resolved);
        let acknowledged = alert.acknowledged.zip(alert.acknowledged_by);
        let rule = alert.kind.clone();
        let shown = health::alert(alert.n, alert.time, alert.rollout, &alert.kind, alert.text, detail);
        PastAlert {
            n,
            tone,
            severity,
            rule,
            title: shown.title,
            link: shown.link,
            opened,
            acknowledged,
            state,
            resolved,
        }
    });
    let alerts = lines.collect();
    Ok(AlertsPage { frame, alerts, older, newer: before.map(|_| "/alerts".to_owned()) })
}

/// Acknowledges all news.
pub(in crate::dashboard) async fn acknowledge_news(
    tx: &mut Connection,
    viewer: &Viewer,
    now: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE alerts SET acknowledged = $2, acknowledged_by = $3
         WHERE tenant = $1 AND acknowledged IS NULL AND kind IN ('completed', 'advance', 'drift_cleared')",
    )
    .bind(&viewer.tenant)
    .bind(now)
    .bind(&viewer.actor)
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// What is known about the fleet where no alert is open: a tick only where data supports it.
pub(in crate::dashboard) async fn calm(
    connection: &mut Connection,
    viewer: &Viewer,
    now: i64,
) -> Result<Badge, sqlx::Error> {
    let rules = store::samples::evaluations(connection, &viewer.tenant).await?;
    let devices: i64 = sqlx::query("SELECT COUNT(*) AS n FROM devices WHERE tenant = $1")
        .bind(&viewer.tenant)
        .fetch_one(connection)
        .await?
        .try_get("n")?;
    Ok(judged(&rules, devices, now))
}

/// Seconds after which what was evaluated says nothing about now.
const FRESH: i64 = 5 * crate::alerting::EVERY;

fn judged(rules: &[store::samples::Evaluation], devices: i64, now: i64) -> Badge {
    use crate::store::samples::Status;
    let quiet = |why: String| Badge::new(Tone::Quiet, format!("No open alerts, but {why}."));
    if devices == 0 {
        return quiet("no device is enrolled, so nothing is known".to_owned());
    }
    let Some(evaluated) = rules.iter().map(|r| r.evaluated).max() else {
        return quiet("alert rules were not evaluated yet".to_owned());
    };
    if now - evaluated > FRESH {
        return quiet(format!("alert rules were last evaluated {}", figure::ago(evaluated, now)));
    }
    let of = |name: &'static str| rules.iter().filter(move |r| r.rule == name);
    let silence = crate::alerting::SILENT.name;
    if of(silence).next().is_none() || of(silence).any(|r| r.status == Status::NoData) {
        return quiet("it is too early to say which devices are silent".to_owned());
    }
    let rates = ["inference_errors", "deadline_misses", "resets"];
    let models: Vec<&str> = of(silence).map(|r| r.model.as_str()).collect();
    let is_unknown = |model: &&&str| {
        rates.iter().all(|rate| of(rate).filter(|r| r.model == ***model).all(|r| r.status == Status::NoData))
    };
    let unknown: Vec<&str> = models.iter().filter(is_unknown).copied().collect();
    if !unknown.is_empty() {
        return quiet(format!("too few reports of the last hour say how {} does", unknown.join(", ")));
    }
    Badge::new(Tone::Good, "No open alerts.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{Evaluation, Status};

    fn rule(rule: &str, status: Status) -> Evaluation {
        Evaluation {
            rule: rule.to_owned(),
            model: "m".to_owned(),
            evaluated: 1000,
            status,
            bad: 0,
            total: 1,
            threshold: 0.5,
            baseline: None,
            samples: 0,
            quiet_since: 0,
        }
    }

    #[test]
    fn no_data_is_no_tick() {
        let all = |silent, rates| {
            vec![
                rule("silent", silent),
                rule("inference_errors", rates),
                rule("deadline_misses", rates),
                rule("resets", rates),
            ]
        };
        let tone = |rules: &[Evaluation], devices, now| judged(rules, devices, now).tone;
        assert_eq!(tone(&all(Status::Ok, Status::Ok), 5, 1060), Tone::Good);
        assert_eq!(tone(&all(Status::Ok, Status::Ok), 0, 1060), Tone::Quiet);
        assert_eq!(tone(&all(Status::Ok, Status::Ok), 5, 1000 + FRESH + 1), Tone::Quiet);
        assert_eq!(tone(&all(Status::NoData, Status::Ok), 5, 1060), Tone::Quiet);
        assert_eq!(tone(&all(Status::Ok, Status::NoData), 5, 1060), Tone::Quiet);
        assert_eq!(tone(&[], 5, 1060), Tone::Quiet);
    }

    #[test]
    fn a_form_reads_as_the_flag_that_it_is_of() {
        let flag = json!({ "key": "k", "off": "off", "default": "on", "variants": { "off": false, "on": true }, "rules": [
            "region = eu and n in 1, 2 -> on", "v >= 1.2 -> off", "-> on 20%, off 30%", "a != \"7\" -> on",
            { "when": { "any": [{ "attribute": "x", "known": true }, { "attribute": "y", "equals": "a and b" }] }, "serve": "off" },
            { "when": { "attribute": "y", "equals": "a -> b" }, "serve": "off" },
        ] });
        let flag = form::flag("flag", &flag).expect("a flag");
        let shown = form_of(&flag);
        assert_eq!(flag_of(&shown).expect(&shown.rules), flag, "{}", shown.rules);
        assert!(
            shown.rules.starts_with("region = eu and n in 1, 2 -> on\nv >= 1.2 -> off\n-> on 20%, off 30%\n"),
            "{}",
            shown.rules
        );
        let text = FlagForm { variants: "a = 0.5\nb = 1.0".to_owned(), percent: "5".to_owned(), ..form_of(&flag) };
        let text = FlagForm {
            percent_variant: "b".to_owned(),
            rules: String::new(),
            default: "a".to_owned(),
            off: String::new(),
            ..text
        };
        assert_eq!(flag_of(&text).expect("a flag").rules.len(), 1);
        let error = flag_of(&FlagForm { percent_variant: "c".to_owned(), ..text }).expect_err("no such variant");
        assert!(error.problem.error.contains("\"c\""), "{:?}", error.problem);
    }
}
