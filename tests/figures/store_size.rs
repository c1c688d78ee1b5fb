//! How much of the disk a device's reports take in the server's database: real polls, each with one full report, and the
//! database's pages before and after.
//!
//! `store_size [--devices N] [--reports N] [--database URL]`: 2,000 devices with 12 reports each, SQLite. A year is counted
//! with a report an hour; what retention deletes is used again.

#[path = "server/load.rs"]
mod load;

use load::{Site, argument, engine, figure, fresh, sign_all};

/// Reports of a device in a year.
const HOURS: f64 = 8760.0;

/// Bytes that the tables and their indices take.
async fn bytes(database: &str) -> i64 {
    let pool = sqlx::AnyPool::connect(database).await.expect("connects");
    let text = match database.starts_with("sqlite") {
        true => "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
        false => "SELECT pg_total_relation_size('reports')",
    };
    let n = sqlx::query_scalar(text).fetch_one(&pool).await.expect("a size");
    pool.close().await;
    n
}

#[tokio::main]
async fn main() {
    let number = |name: &str, none: u32| argument(name).map_or(none, |n| n.parse().expect("a number"));
    // A device may send twenty polls at once.
    let (count, reports) = (number("--devices", 2000), number("--reports", 12).min(20));
    let site = Site::start().await;
    let tenant = fresh();
    site.tenant(&tenant, 1_000_000).await;
    let devices = site.devices(&tenant, &site.database(), count).await;
    let before = bytes(&site.database()).await;
    for n in 0..reports {
        for part in sign_all(&devices, n).chunks(64) {
            let sent = futures_util::future::join_all(part.iter().map(|signed| site.send(signed))).await;
            assert!(sent.iter().all(|s| matches!(s, Ok((200, _)))), "{sent:?}");
        }
    }
    let each = (bytes(&site.database()).await - before) as f64 / f64::from(count * reports);
    let engine = engine(&site);
    figure(&format!("store_bytes_per_report_{engine}"), each.round(), "B", "lower", None);
    figure(
        &format!("store_megabytes_per_device_year_{engine}"),
        (each * HOURS / 1e4).round() / 1e2,
        "MB",
        "lower",
        None,
    );
    site.stop().await;
}
