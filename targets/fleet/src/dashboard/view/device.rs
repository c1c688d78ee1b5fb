//! Devices.

use askama::Template;

use super::{Badge, Frame, Model, Rate, Section, Tone};
use crate::dashboard::{figure, markup};

/// The list of devices.
#[derive(Template)]
#[template(path = "devices.html")]
pub(crate) struct DevicesPage {
    pub(crate) frame: Frame,
    pub(crate) filter: DeviceFilter,
    pub(crate) models: Vec<Model>,
    pub(crate) rings: Vec<String>,
    pub(crate) found: u64,
    pub(crate) devices: Vec<DeviceLine>,
    /// Address of the next page.
    pub(crate) next: Option<String>,
    /// Address of the page before.
    pub(crate) previous: Option<String>,
}

/// What devices are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct DeviceFilter {
    /// Part of an identity or of an attribute.
    pub(crate) q: String,
    /// `online`, `silent`, `never` or all.
    pub(crate) state: String,
    /// A running digest.
    pub(crate) running: String,
    /// A group or ring.
    pub(crate) ring: String,
    /// The page, from 0.
    pub(crate) page: u32,
}

/// A device in the list.
#[derive(Clone, Debug)]
pub(crate) struct DeviceLine {
    pub(crate) id: String,
    pub(crate) ring: String,
    pub(crate) state: Badge,
    pub(crate) seen: Option<i64>,
    pub(crate) running: Option<Model>,
    pub(crate) phase: String,
}

/// One device.
#[derive(Template)]
#[template(path = "device.html")]
pub(crate) struct DevicePage {
    pub(crate) frame: Frame,
    pub(crate) line: DeviceLine,
    pub(crate) enrolled: i64,
    pub(crate) boot: Option<u64>,
    pub(crate) sequence: Option<u64>,
    pub(crate) outcome: Option<String>,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) key: String,
    pub(crate) exposures: Vec<Exposure>,
    pub(crate) errors: Rate,
    pub(crate) deadline_misses: Rate,
    pub(crate) missing: Option<u64>,
    pub(crate) history: Vec<Event>,
    pub(crate) may_revoke: bool,
}

/// What a rollout did to a device.
#[derive(Clone, Debug)]
pub(crate) struct Exposure {
    pub(crate) rollout: String,
    pub(crate) candidate: String,
    pub(crate) arm: String,
    pub(crate) outcome: Badge,
    pub(crate) offered: Option<i64>,
    pub(crate) activated: Option<i64>,
}

/// Something that happened to a device.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) time: i64,
    pub(crate) what: Badge,
    pub(crate) detail: String,
}
