//! Who serves where a candidate does not simply do so, and the words of a comparison.

use crate::dashboard::markup::Html;
use crate::dashboard::{figure, picture};

/// What is compared in a stage, in the words of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Devices with the candidate, and devices without.
    Devices,
    /// Devices on which it runs in the shadow, and devices without.
    Shadows,
    /// Hours of the candidate and hours of the base, on the same devices.
    Hours,
}

impl Compared {
    pub(crate) const fn with(self) -> &'static str {
        match self {
            Self::Devices => "Canary",
            Self::Shadows => "With the shadow",
            Self::Hours => "Candidate's hours",
        }
    }

    pub(crate) const fn without(self) -> &'static str {
        match self {
            Self::Devices => "Control",
            Self::Shadows => "Without",
            Self::Hours => "Base's hours",
        }
    }

    /// What guardrails count.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Devices | Self::Shadows => "device-days",
            Self::Hours => "halves of device-days, each device's candidate's hours beside its base's",
        }
    }

    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Devices => "canary against control",
            Self::Shadows => "with the shadow against without",
            Self::Hours => "the candidate's hours against the base's",
        }
    }

    /// Heading of the column of devices on which the candidate does not simply serve.
    pub(crate) const fn beside(self) -> Option<&'static str> {
        match self {
            Self::Devices => None,
            Self::Shadows => Some("In the shadow"),
            Self::Hours => Some("Takes turns"),
        }
    }
}

/// Who serves where a candidate runs in the shadow or takes turns.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    /// The last hours with the current one at the end; empty for a shadow.
    pub(crate) hours: Vec<ServingHour>,
}

/// How many devices are served by which package in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServingHour {
    /// When it began.
    pub(crate) time: i64,
    pub(crate) candidate: u64,
    pub(crate) base: u64,
}

impl Serving {
    pub(crate) fn picture(&self) -> Html {
        let hours: Vec<(u64, u64)> = self.hours.iter().map(|h| (h.candidate, h.base)).collect();
        picture::turns(&hours)
    }

    /// Beginning of the first hour and of the last.
    pub(crate) fn ends(&self) -> (String, String) {
        let at = |hour: Option<&ServingHour>| hour.map_or_else(String::new, |h| figure::moment(h.time));
        (at(self.hours.first()), at(self.hours.last()))
    }
}
