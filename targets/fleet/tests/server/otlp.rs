//! Metrics of the fleet at a collector.

use dunlin_fleet::{Clock as _, ManualClock, Role, Server};
use serde_json::json;

use super::receiver::{Manner, Receiver};
use super::rollouts::Flock;
use super::site::{self, Client, Site, config, on_each_engine, publish};

/// Fields of a protobuf message: number, and the bytes or the number that it has.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Result<&[u8], u64>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            n |= u64::from(first & 0x7F) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        n
    }
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Err(varint(&mut bytes)),
            1 => {
                let (eight, rest) = bytes.split_first_chunk::<8>().expect("eight bytes");
                bytes = rest;
                Err(u64::from_le_bytes(*eight))
            }
            2 => {
                let len = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                Ok(value)
            }
            kind => panic!("wire type {kind}"),
        };
        list.push((key >> 3, value));
    }
    list
}

fn message<'a>(bytes: &'a [u8], path: &[u64]) -> Vec<&'a [u8]> {
    path.iter().fold(vec![bytes], |found, number| {
        let of = |b: &&'a [u8]| {
            fields(b).into_iter().filter(|(n, _)| n == number).filter_map(|(_, v)| v.ok()).collect::<Vec<_>>()
        };
        found.iter().flat_map(of).collect()
    })
}

/// The value of a counter in an export request (opentelemetry/proto/metrics/v1/metrics.proto).
fn counter(request: &[u8], name: &str) -> Option<u64> {
    let metrics = message(request, &[1, 2, 2]);
    let metric = metrics.into_iter().find(|m| message(m, &[1]) == [name.as_bytes()])?;
    let point = message(metric, &[7, 1]).into_iter().next()?;
    fields(point).into_iter().find(|(n, _)| *n == 6).and_then(|(_, v)| v.err())
}

#[test]
fn each_hour_is_exported_once_and_until_it_is_taken() {
    on_each_engine(|folder, database| async move {
        let receiver = Receiver::start(Manner::Refuses(503)).await;
        let clock = ManualClock::new();
        let mut wanted = config(&folder, &database, &clock);
        wanted.otlp = Some(format!("http://{}", receiver.address));
        let server = Server::start(wanted.clone()).await.expect("starts");
        let second = match database.engine {
            "postgres" => Some(Server::start(wanted).await.expect("starts")),
            _ => None,
        };
        let system = server.token("system", "installer", Role::Admin).await.expect("a token");
        let client = Client::new(server.address());
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let site = Site { server, client, clock, system };
        let one = tenant.keys.package("m", 1, 500);
        publish(&site.client, &tenant, &one).await.ok();
        // Earlier hours have nothing, and are done with.
        site.server.tick().await;
        let mut flock = Flock::enrol(&site, &tenant, 12, &one).await;
        site.clock.skip(3600 - site.clock.seconds() % 3600 + 60);
        let hour = site.clock.seconds() / 3600;
        flock.devices.iter_mut().for_each(super::device::Device::measure);
        flock.poll(&site).await;
        site.clock.skip(3600 + 120);
        let tick = async || match &second {
            Some(second) => drop(tokio::join!(site.server.tick(), second.tick())),
            None => site.server.tick().await,
        };
        tick().await;
        tick().await;
        assert_eq!(receiver.came().len(), 1, "refused, and not again at once");
        receiver.now(Manner::Takes);
        site.clock.skip(60);
        tick().await;
        site.clock.skip(600);
        tick().await;
        let came = receiver.came();
        assert_eq!(came.len(), 2, "taken once");
        let (path, headers, body) = &came[1];
        assert_eq!(
            (path.as_str(), headers["content-type"].as_bytes()),
            ("/v1/metrics", &b"application/x-protobuf"[..])
        );
        // Twelve devices with a thousand inferences each.
        assert_eq!(counter(body, "dunlin.inferences"), Some(12_000));
        assert_eq!(counter(body, "dunlin.inference_errors"), Some(0));
        let resource = message(body, &[1, 1, 1]);
        let pairs: Vec<(String, String)> = resource
            .iter()
            .map(|pair| {
                let text = |path: &[u64]| String::from_utf8_lossy(message(pair, path)[0]).into_owned();
                (text(&[1]), text(&[2, 1]))
            })
            .collect();
        for (key, value) in
            [("dunlin.tenant", "a"), ("dunlin.model", "m"), ("dunlin.arm", "rest"), ("dunlin.devices", "12")]
        {
            assert!(pairs.contains(&(key.into(), value.into())), "{key}={value}: {pairs:?}");
        }
        let point = message(body, &[1, 2, 2, 7, 1])[0];
        let start = fields(point).into_iter().find(|(n, _)| *n == 2).and_then(|(_, v)| v.err());
        assert_eq!(start, Some(hour * 3600 * 1_000_000_000));
        if let Some(second) = second {
            second.stop().await;
        }
        site.server.stop().await;
    });
}
