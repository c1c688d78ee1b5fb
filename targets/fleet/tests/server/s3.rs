//! Artifacts in a bucket: the server's own program against moto, which speaks S3 and checks signatures.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_fleet::ManualClock;
use serde_json::{Value, json};

use super::database::{Database, free_port};
use super::device::Device;
use super::program::{self, Program};
use super::site::{self, Client, Published, Tenant, on_each_engine, publish};

/// Where moto's server is: `MOTO_SERVER`, or on the path.
fn moto() -> Option<PathBuf> {
    let place = std::env::var_os("MOTO_SERVER").map_or_else(|| "moto_server".into(), PathBuf::from);
    let runs = Command::new(&place).arg("--help").output().is_ok_and(|o| o.status.success());
    if !runs {
        eprintln!("SKIPPED: moto_server is not installed");
    }
    runs.then_some(place)
}

/// A running S3; what is in it is gone with it.
struct S3 {
    child: Child,
    port: u16,
    client: Client,
}

impl S3 {
    async fn start(place: &Path) -> Self {
        Self::on(place, free_port()).await
    }

    async fn on(place: &Path, port: u16) -> Self {
        let child = Command::new(place)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let client = Client::new(([127, 0, 0, 1], port).into());
        let began = Instant::now();
        while client.send("GET", "/moto-api/data.json", &[], "").await.is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "moto does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, port, client }
    }

    /// A request that nobody signed, which moto takes as long as it does not look at signatures.
    async fn unsigned(&self, service: &str, method: &str, path: &str, body: &str) -> String {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=x"
        );
        let headers =
            [("authorization", scope), ("content-type", "application/x-www-form-urlencoded; charset=utf-8".into())];
        let answer = self.client.send(method, path, &headers, body.to_owned()).await.expect("moto answers");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status.is_success(), "{service} {path} {body}: {text}");
        text
    }

    async fn bucket(&self, name: &str) {
        self.unsigned("s3", "PUT", &format!("/{name}"), "").await;
    }

    /// Somebody who may do all with a bucket, and the key's two halves. From then on signatures are checked.
    async fn user(&self, bucket: &str) -> (String, String) {
        let iam = |body: String| async move { self.unsigned("iam", "POST", "/", &body).await };
        iam("Action=CreateUser&Version=2010-05-08&UserName=fleet".into()).await;
        let may = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:GetObject"], "Resource": format!("arn:aws:s3:::{bucket}/*") }] });
        let may = encoded(&may.to_string());
        iam(format!("Action=PutUserPolicy&Version=2010-05-08&UserName=fleet&PolicyName=p&PolicyDocument={may}")).await;
        let made = iam("Action=CreateAccessKey&Version=2010-05-08&UserName=fleet".into()).await;
        let part = |tag: &str| {
            let rest = made.split_once(&format!("<{tag}>")).expect("the tag").1;
            rest.split_once('<').expect("its end").0.to_owned()
        };
        self.check_signatures(true).await;
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    /// From now on, or no longer.
    async fn check_signatures(&self, on: bool) {
        let after = if on { "0" } else { "inf" };
        self.client.send("POST", "/moto-api/reset-auth", &[], after).await.expect("moto answers").ok();
    }

    /// The variables by which the server's program finds it.
    fn settings(&self, key: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", key.into()),
            ("AWS_SECRET_ACCESS_KEY", secret.into()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As forms have it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Where a server is, and how it finds the bucket.
struct Place<'p> {
    folder: &'p Path,
    database: &'p Database,
    artifacts: &'p str,
    settings: &'p [(&'static str, String)],
}

impl Place<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin-fleet"));
        command.args(["--data".as_ref(), self.folder.as_os_str()]);
        command.args(["--database", &self.database.url, "--artifacts", self.artifacts]).env("RUST_LOG", "off");
        std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("AWS_")).for_each(|(k, _)| {
            command.env_remove(k);
        });
        command.envs(self.settings.iter().map(|(k, v)| (k, v)));
        command
    }

    fn start(&self) -> Result<(Program, Client), String> {
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        Program::start(command)
    }
}

/// An SQLite database and a runtime, for what has nothing to do with the engine.
fn once<F: Future<Output = ()>>(test: impl FnOnce(PathBuf, Database) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let database = Database { engine: "sqlite", url: format!("sqlite://{}", folder.path().join("fleet.db").display()) };
    runtime.block_on(test(folder.path().to_owned(), database));
}

/// The address of what a device is offered, for all of it.
async fn offered(client: &Client, tenant: &Tenant, n: u32, running: &Published) -> String {
    let mut device = Device::enrol(client, tenant, n, Some(running.digest), &ManualClock::new()).await;
    device.poll(client).await.offer.expect("an offer").url
}

async fn part(client: &Client, url: &str, range: &str) -> site::Answer {
    client.send("GET", url, &[("range", format!("bytes={range}"))], "").await.expect("an answer")
}

/// A rollout of the second package to all.
async fn roll_out(client: &Client, tenant: &Tenant, from: &Published, to: &Published) {
    let stages = json!([{ "canary_percent": 100, "device_days": 1000, "zero_failures": true }]);
    let draft =
        json!({ "candidates": [to.id()], "base": from.id(), "strategy": { "kind": "stages", "stages": stages } });
    client.call("PUT", "/v1/rollouts/r", &tenant.operator, draft).await.ok();
    client.call("POST", "/v1/rollouts/r/start", &tenant.operator, Value::Null).await.ok();
}

#[test]
fn packages_come_from_a_bucket_across_kills_and_replicas() {
    let Some(moto) = moto() else { return };
    on_each_engine(|folder, database| {
        let moto = moto.clone();
        async move {
            let s3 = S3::start(&moto).await;
            s3.bucket("models").await;
            let (key, secret) = s3.user("models").await;
            let settings = s3.settings(&key, &secret);
            let place =
                Place { folder: &folder, database: &database, artifacts: "s3://models/a/fleet", settings: &settings };
            let system = program::token(place.command());
            let (server, client) = place.start().expect("starts");
            let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
            // One that is sent in parts, and not a multiple of them.
            let (one, two) = (tenant.keys.package("m", 1, 300), tenant.keys.package("m", 2, (20 << 20) + 123));
            publish(&client, &tenant, &one).await.ok();
            publish(&client, &tenant, &two).await.ok();
            publish(&client, &tenant, &two).await.ok();
            roll_out(&client, &tenant, &one, &two).await;
            let url = offered(&client, &tenant, 1, &one).await;

            // All of it, by a program that knows no ranges.
            let whole = client.send("GET", &url, &[], "").await.expect("an answer");
            assert_eq!((whole.status.as_u16(), whole.body.len()), (200, two.bytes.len()));
            assert!(whole.body == two.bytes, "other bytes than were published");
            assert_eq!(whole.headers["content-length"], two.bytes.len().to_string().as_str());
            let content = format!("/v1/packages/{}/content", two.id());
            let content = client.call("GET", &content, &tenant.viewer, Value::Null).await;
            assert!(content.status.is_success() && content.body == two.bytes, "other bytes for operators");

            // In parts, with a server killed in between.
            let first = part(&client, &url, "0-1048575").await;
            assert_eq!(first.status.as_u16(), 206);
            let mut got = first.body.to_vec();
            server.kill();
            let (server, client) = place.start().expect("starts again");
            while got.len() < two.bytes.len() {
                let next = part(&client, &url, &format!("{}-", got.len())).await;
                assert_eq!(next.status.as_u16(), 206);
                let range = next.headers["content-range"].to_str().expect("text").to_owned();
                assert!(range.starts_with(&format!("bytes {}-", got.len())), "{range}");
                got.extend_from_slice(&next.body);
            }
            assert!(got == two.bytes, "other bytes than were published");
            let last = part(&client, &url, "-5").await;
            assert_eq!(last.body, two.bytes[two.bytes.len() - 5..]);

            // Another replica has nothing but database, keys and bucket in common.
            if database.engine == "postgres" {
                let (other, client) = place.start().expect("another");
                assert_eq!(part(&client, &url, "7-9").await.body, two.bytes[7..10]);
                other.kill();
            }

            // A copy says that artifacts are elsewhere, and the server that comes of it finds them there.
            if database.engine == "sqlite" {
                let copy = folder.join("copy");
                let said = place.command().arg("backup").arg(&copy).output().expect("runs");
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                assert!(said.status.success() && text.contains("artifacts stay in s3://models/a/fleet"), "{text}");
                assert!(!copy.join("artifacts").exists());
                let fresh = folder.join("fresh");
                dunlin_fleet::backup::restore(&copy, &fresh).expect("restored");
                let url = format!("sqlite://{}", fresh.join("fleet.db").display());
                let database = Database { engine: "sqlite", url };
                let place = Place { folder: &fresh, database: &database, ..place };
                let (other, client) = place.start().expect("starts from the copy");
                let content = format!("/v1/packages/{}/content", one.id());
                let content = client.call("GET", &content, &tenant.viewer, Value::Null).await;
                assert!(content.status.is_success() && content.body == one.bytes);
                other.kill();
            }
            server.kill();
        }
    });
}

#[test]
fn without_the_bucket_devices_are_answered_and_told_to_wait() {
    let Some(moto) = moto() else { return };
    once(|folder, database| async move {
        let s3 = S3::start(&moto).await;
        s3.bucket("models").await;
        let settings = s3.settings("k", "s");
        let artifacts = "s3://models";
        let place = Place { folder: &folder, database: &database, artifacts, settings: &settings };
        let system = program::token(place.command());
        let (server, client) = place.start().expect("starts");
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let (one, two) = (tenant.keys.package("m", 1, 300), tenant.keys.package("m", 2, 300));
        publish(&client, &tenant, &one).await.ok();
        publish(&client, &tenant, &two).await.ok();
        roll_out(&client, &tenant, &one, &two).await;
        let url = offered(&client, &tenant, 1, &one).await;
        let port = s3.port;
        drop(s3);
        let answer = part(&client, &url, "0-9").await;
        assert!(answer.refused(503).contains("did not answer"));
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(client.send("GET", &url, &[], "").await.expect("an answer").status.as_u16(), 503);
        // Reports and offers go on, in a server that starts without a bucket too.
        server.kill();
        let (server, client) = place.start().expect("starts without");
        assert_eq!(offered(&client, &tenant, 2, &one).await.split('?').next(), url.split('?').next());
        let three = tenant.keys.package("m", 3, 300);
        publish(&client, &tenant, &three).await.refused(503);
        let listed = client.call("GET", "/v1/packages", &tenant.viewer, Value::Null).await.ok();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "what was not stored is not published");
        // The bucket is there again, and empty: what is published once more is there again too.
        let s3 = S3::on(&moto, port).await;
        s3.bucket("models").await;
        assert!(part(&client, &url, "0-9").await.refused(503).contains("has lost it"));
        publish(&client, &tenant, &two).await.ok();
        assert_eq!(part(&client, &url, "0-9").await.body, two.bytes[..10]);
        publish(&client, &tenant, &three).await.ok();
        server.kill();
    });
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_before_anything_is_served() {
    let Some(moto) = moto() else { return };
    once(|folder, database| async move {
        let s3 = S3::start(&moto).await;
        s3.bucket("models").await;
        let (key, secret) = s3.user("models").await;
        let told = |artifacts: &str, settings: Vec<(&'static str, String)>| {
            let place = Place { folder: &folder, database: &database, artifacts, settings: &settings };
            place.start().expect_err("does not start")
        };
        let with = |name: &'static str, value: Option<&str>| {
            let mut settings = s3.settings(&key, &secret);
            settings.retain(|(k, _)| *k != name);
            settings.extend(value.map(|v| (name, v.to_owned())));
            settings
        };
        let said = told("s3://models", with("AWS_SECRET_ACCESS_KEY", Some("wrong")));
        assert!(said.contains("the bucket models cannot be used: the credentials are not accepted"), "{said}");
        assert!(said.contains("(SignatureDoesNotMatch: "), "{said}");
        assert!(!said.contains(&secret), "{said}");
        let said = told("s3://models", with("AWS_ACCESS_KEY_ID", Some("AKIAXXXXXXXXXXXXXXXX")));
        assert!(said.contains("the credentials are not accepted"), "{said}");
        // The key may not do anything with another bucket.
        let said = told("s3://others", with("", None));
        assert!(said.contains("the bucket others cannot be used"), "{said}");
        let said = told("s3://models", with("AWS_SECRET_ACCESS_KEY", None));
        assert!(said.contains("the bucket models cannot be used") && said.contains("SecretAccessKey"), "{said}");
        let said = told("s3:///prefix", with("", None));
        assert!(said.contains("names no bucket"), "{said}");
        let said = told("s3://models", with("AWS_ALLOW_HTTP", None));
        assert!(said.contains("AWS_ALLOW_HTTP"), "{said}");
        // Nobody listens where a role's credentials would come from.
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let mut none = with("AWS_SECRET_ACCESS_KEY", None);
        none.retain(|(k, _)| *k != "AWS_ACCESS_KEY_ID");
        none.push(("AWS_METADATA_ENDPOINT", nobody));
        let said = told("s3://models", none);
        assert!(said.contains("no credentials for the bucket models: set AWS_ACCESS_KEY_ID"), "{said}");
        s3.check_signatures(false).await;
        let said = told("s3://others", with("", None));
        assert!(said.contains("the bucket others cannot be used: there is none of this name"), "{said}");

        // A key that is taken away while the server runs.
        let settings = s3.settings(&key, &secret);
        let place = Place { folder: &folder, database: &database, artifacts: "s3://models", settings: &settings };
        let system = program::token(place.command());
        let (server, client) = place.start().expect("starts");
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let one = tenant.keys.package("m", 1, 300);
        s3.unsigned(
            "iam",
            "POST",
            "/",
            &format!("Action=DeleteAccessKey&Version=2010-05-08&UserName=fleet&AccessKeyId={key}"),
        )
        .await;
        s3.check_signatures(true).await;
        let said = publish(&client, &tenant, &one).await.refused(503);
        assert!(said.contains("does not accept the server's credentials"), "{said}");
        server.kill();
    });
}
