//! The alert on devices that still run a recalled package: open until there are none.

use serde_json::json;

use crate::server::Inner;
use crate::store::alerts::{self, Change, Condition, Severity};
use crate::store::recalls::{self, Progress, Recall};
use crate::store::{packages, signed};

/// Counts the devices of each open recall. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &Inner) {
    let open = async { recalls::all_open(&mut *app.store.read().await?).await };
    match open.await {
        Ok(all) => {
            for recall in all {
                if let Err(error) = consider(app, &recall).await {
                    tracing::error!(%error, tenant = recall.tenant, digest = recall.digest, "a recall was not looked at");
                }
            }
        }
        Err(error) => tracing::error!(%error, "recalls were not looked at"),
    }
}

async fn consider(app: &Inner, recall: &Recall) -> Result<(), sqlx::Error> {
    let now = signed(app.clock.seconds());
    let mut connection = app.store.read().await?;
    let silent_before = recalls::silent_before(&mut connection, &recall.tenant, now).await?;
    let devices = recalls::progress(&mut connection, &recall.tenant, &recall.digest, silent_before).await?;
    let package = packages::get(&mut connection, &recall.tenant, &recall.digest).await?;
    drop(connection);
    let is_over = if recall.keeps {
        // Devices that serve it keep it; shadows and downloads have ended once everybody had the time to poll.
        devices.told == devices.back && recall.ordered < silent_before
    } else {
        devices.running == 0 && devices.told == devices.back
    };
    let key = format!("stranded/{}", recall.digest);
    let mut tx = app.store.write().await?;
    if is_over {
        recalls::set_open(&mut tx, (&recall.tenant, &recall.digest), false).await?;
    }
    if recall.keeps || devices.running == 0 {
        alerts::clear(&mut tx, &recall.tenant, now, &key).await?;
        return tx.commit().await;
    }
    let version = package.map_or_else(|| short(&recall.digest).to_owned(), |p| p.version);
    let detail = json!({
        "rollout": recall.rollout, "model": recall.name, "digest": recall.digest, "base": recall.base,
        "ordered": recall.ordered, "ordered_by": recall.ordered_by, "devices": devices,
        "next": next(devices),
    });
    let condition = Condition {
        key: &key,
        rule: "stranded",
        severity: if devices.blocked > 0 { Severity::Critical } else { Severity::Warning },
        rollout: &recall.rollout,
        text: &text(recall, &version, devices),
        detail: &detail,
    };
    if let Change::Opened(_) = alerts::set(&mut tx, &recall.tenant, now, &condition).await? {
        app.metrics.alerts.add(1);
    }
    tx.commit().await
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn text(recall: &Recall, version: &str, devices: Progress) -> String {
    let (who, verb) = if devices.running == 1 { ("device", "runs") } else { ("devices", "run") };
    format!(
        "{} {who} still {verb} {} {version}, which the rollout {} recalled: {} told to leave it, {} left it, {} silent, {} cannot",
        devices.running, recall.name, recall.rollout, devices.told, devices.back, devices.silent, devices.blocked
    )
}

/// Returns what to do about devices that do not leave.
fn next(devices: Progress) -> &'static str {
    if devices.blocked > 0 {
        "publish a newer package and roll it out: some devices cannot go back to the base"
    } else if devices.silent == devices.running {
        "look for the silent devices: they leave it when they next poll"
    } else {
        "wait for two poll intervals"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_about_what_keeps_devices() {
        let devices = |running, silent, blocked| Progress { running, silent, blocked, ..Progress::default() };
        assert!(next(devices(5, 5, 1)).starts_with("publish"));
        assert!(next(devices(5, 5, 0)).starts_with("look for"));
        assert!(next(devices(5, 4, 0)).starts_with("wait"));
    }
}
