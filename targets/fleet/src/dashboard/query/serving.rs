//! Who serves where a candidate does not simply do so.

use dunlin_rollout::Salt;
use dunlin_rollout::rollout::Exposure;

use crate::dashboard::figure;
use crate::dashboard::view::{Compared, Serving, ServingHour};
use crate::store::rollouts::Stored;
use crate::store::{Connection, devices};

/// Hours that are shown, the current one included.
const HOURS: i64 = 24;
/// Devices that are looked at; of more a part says the same.
const DEVICES: i64 = 10_000;

/// What a rollout's stage compares.
pub(super) fn compared(of: &Stored) -> Compared {
    match of.rollout.plan().stage(of.rollout.stage()).map(|s| s.exposure) {
        Some(Exposure::Shadow { .. }) => Compared::Shadows,
        Some(Exposure::Crossover { .. }) => Compared::Hours,
        _ => Compared::Devices,
    }
}

/// Whether the candidate serves in an hour that began at this moment.
pub(super) fn is_candidates(salt: Salt, identity: &[u8], time: i64) -> bool {
    salt.bucket(identity).hourly(u32::try_from(time / 3600).unwrap_or(u32::MAX), 2) != 0
}

/// Devices that have the candidate, by how it runs there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Have {
    pub(super) shadows: u64,
    pub(super) turns: u64,
    /// It serves alone.
    pub(super) alone: u64,
}

/// Who serves; nothing where it is the candidate or nobody asks.
pub(super) async fn serving(
    connection: &mut Connection,
    of: &Stored,
    have: Have,
    now: i64,
) -> Result<Option<Serving>, sqlx::Error> {
    let devices_have = |n: u64| if n == 1 { "one device".to_owned() } else { format!("{} devices", figure::count(n)) };
    let alone = match have.alone {
        0 => String::new(),
        n => format!(" On {}, as in the laboratory, it serves alone.", devices_have(n)),
    };
    match compared(of) {
        Compared::Devices => Ok(None),
        Compared::Shadows => {
            let mut text = format!(
                "The base. On {} the candidate runs beside it, and nobody uses what it says.{alone}",
                devices_have(have.shadows)
            );
            if let Some((mean, n)) = of.agreement() {
                text.push_str(&format!(
                    " In the shadow it agrees with the base on {} of the inputs that it saw (mean of {}).",
                    figure::percent(mean),
                    devices_have(n)
                ));
            }
            Ok(Some(Serving { title: "Who serves", text, hours: Vec::new() }))
        }
        Compared::Hours => {
            let identities = devices::that_take_turns(connection, &of.tenant, &of.id, DEVICES).await?;
            let salt = of.rollout.salt();
            let hour = |back: i64| {
                let time = (now / 3600 - back) * 3600;
                let candidate = identities.iter().filter(|i| is_candidates(salt, i, time)).count() as u64;
                ServingHour { time, candidate, base: identities.len() as u64 - candidate }
            };
            let hours: Vec<ServingHour> =
                if identities.is_empty() { Vec::new() } else { (0..HOURS).rev().map(hour).collect() };
            let mut text = match hours.last() {
                None => "No device takes turns yet.".to_owned(),
                Some(now) => format!(
                    "In this hour the candidate serves on {} of {}, the base on {}. Each device draws each hour anew, and \
                     is its own control.",
                    figure::count(now.candidate),
                    devices_have(now.candidate + now.base),
                    figure::count(now.base)
                ),
            };
            if have.turns > identities.len() as u64 {
                text.push_str(&format!(" These are the first of {} that take turns.", devices_have(have.turns)));
            }
            text.push_str(&alone);
            Ok(Some(Serving { title: "Who serves, by the hour", text, hours }))
        }
    }
}
