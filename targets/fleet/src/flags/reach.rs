//! Which devices get which variant: the devices' own evaluation, run over the devices that the server knows.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_rollout::flag::{Context, Document, FlagSpec, Setting, Value, When};
use serde::Serialize;
use utoipa::ToSchema;

use super::Flags;
use crate::error::{ApiError, ApiResult};
use crate::server::Inner;
use crate::store::devices::{self, Device, Filter};

/// Devices that are read at once.
const PAGE: i64 = 5000;

/// How many devices get which variant of a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Reach {
    /// The flag.
    pub(crate) key: String,
    /// Devices that it was evaluated for: all that are enrolled.
    pub(crate) devices: u64,
    /// Devices by the name of the variant that they get.
    pub(crate) variants: BTreeMap<String, u64>,
    /// Devices that keep the default that is compiled into them.
    pub(crate) compiled_in: u64,
    /// Attributes that conditions name and no device enrolled with. The devices themselves may have them.
    pub(crate) unknown_attributes: Vec<String>,
}

/// Attributes that conditions ask for, and a value of each type that they are compared with: devices enrol with text.
type Asked = BTreeMap<String, Vec<Setting>>;

fn ask(when: &When, asked: &mut Asked) {
    let mut note = |name: &String, like: Setting| asked.entry(name.clone()).or_default().push(like);
    match when {
        When::All(of) | When::Any(of) => of.iter().for_each(|w| ask(w, asked)),
        When::Not(of) => ask(of, asked),
        When::Has(name) | When::Version(name, ..) => note(name, Setting::Text(String::new())),
        When::Equal(name, value) => note(name, value.clone()),
        When::In(name, values) => values.iter().for_each(|v| note(name, v.clone())),
        When::Range(name, ..) => note(name, Setting::Int(0)),
    }
}

/// An attribute's text as the type that conditions compare it with.
fn typed<'t>(text: &'t str, like: &[Setting]) -> Value<'t> {
    let read = |like: &Setting| match like {
        Setting::Bool(_) => text.parse().ok().map(Value::Bool),
        Setting::Int(_) => text.parse().ok().map(Value::Int),
        Setting::Float(_) => text.parse().ok().map(Value::Float),
        Setting::Text(_) => Some(Value::Text(text)),
    };
    like.iter().find_map(read).unwrap_or(Value::Text(text))
}

struct Counting<'f> {
    flags: dunlin_rollout::Flags<'f>,
    asked: Asked,
    seen: BTreeSet<String>,
    reach: Vec<Reach>,
    now: u64,
}

impl Counting<'_> {
    fn add(&mut self, device: &Device) {
        let known: BTreeMap<String, String> = serde_json::from_str(&device.attributes).unwrap_or_default();
        let mut attributes = Vec::with_capacity(self.asked.len());
        for (name, like) in &self.asked {
            if let Some(text) = known.get(name) {
                attributes.push((name.as_str(), typed(text, like)));
                if !self.seen.contains(name) {
                    self.seen.insert(name.clone());
                }
            }
        }
        let identity = device.identity().unwrap_or_default();
        let context =
            Context { identity: &identity, attributes: &attributes, model: &device.model, now: Some(self.now) };
        for reach in &mut self.reach {
            reach.devices += 1;
            match self.flags.variant(&reach.key, &context) {
                Ok((Some(name), _)) => match reach.variants.get_mut(name) {
                    Some(n) => *n += 1,
                    None => drop(reach.variants.insert(name.to_owned(), 1)),
                },
                _ => reach.compiled_in += 1,
            }
        }
    }
}

/// Evaluates flags for every device of a tenant.
///
/// # Errors
/// 422 when devices would refuse the flags.
pub(crate) async fn of(app: &Inner, tenant: &str, flags: &[FlagSpec]) -> ApiResult<Vec<Reach>> {
    let now = app.clock.seconds();
    let payload = Document { sequence: 0, issued: now, ttl: 0, flags: flags.to_vec() }
        .encode()
        .map_err(|e| ApiError::unacceptable(e.to_string(), "change the flags so that it holds"))?;
    let opened = dunlin_rollout::Flags::open(&payload)
        .map_err(|e| ApiError::unacceptable(e.to_string(), "change the flags so that it holds"))?;
    let mut asked = Asked::new();
    let of_flag = |flag: &FlagSpec| {
        let mut mine = Asked::new();
        flag.rules.iter().filter_map(|r| r.when.as_ref()).for_each(|w| ask(w, &mut mine));
        mine
    };
    for flag in flags {
        for (name, like) in of_flag(flag) {
            asked.entry(name).or_default().extend(like);
        }
    }
    let empty = |flag: &FlagSpec| Reach {
        key: flag.key.clone(),
        variants: flag.variants.iter().map(|(name, _)| (name.clone(), 0)).collect(),
        ..Reach::default()
    };
    let mut counting =
        Counting { flags: opened, asked, seen: BTreeSet::new(), reach: flags.iter().map(empty).collect(), now };
    let mut filter = Filter { limit: PAGE, ..Filter::default() };
    loop {
        let page = devices::list(&mut *app.store.read().await?, tenant, &filter).await?;
        page.iter().for_each(|device| counting.add(device));
        let is_last = i64::try_from(page.len()).unwrap_or(PAGE) < PAGE;
        match page.last() {
            Some(last) if !is_last => filter.after.clone_from(&last.id),
            _ => break,
        }
    }
    let built_in = ["model", dunlin_rollout::flag::MODEL_ATTRIBUTE];
    for (reach, flag) in counting.reach.iter_mut().zip(flags) {
        let unknown = |name: &String| !counting.seen.contains(name) && !built_in.contains(&name.as_str());
        reach.unknown_attributes = of_flag(flag).into_keys().filter(unknown).collect();
    }
    Ok(counting.reach)
}

/// The flags that differ between two documents, by key: `added`, `changed` or `removed`.
pub(crate) fn changes(before: &Flags, after: &Flags) -> Vec<(String, &'static str)> {
    let mut all = Vec::new();
    for flag in &after.flags {
        match before.flag(&flag.key) {
            None => all.push((flag.key.clone(), "added")),
            Some(known) if known != flag => all.push((flag.key.clone(), "changed")),
            Some(_) => {}
        }
    }
    let gone = before.flags.iter().filter(|f| after.flag(&f.key).is_none());
    all.extend(gone.map(|f| (f.key.clone(), "removed")));
    all
}
