//! HTTPS, and devices that prove themselves by a certificate instead of a signature. `openssl` makes the certificates.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::body::Bytes;
use dunlin_fleet::{ManualClock, Role, Server, config::Tls, hex, wire};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::database;
use super::device::Device;
use super::site::{self, Client, config};

/// Keys and certificates in a folder.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new authority of this name; nothing without `openssl`.
    fn new(folder: &Path, name: &str) -> Option<Self> {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let authority = Self { folder };
        let extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"];
        let subject = format!("/CN={name}");
        let fixed = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let named = ["-subj", &subject, "-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl(&[&fixed[..], &named, &extensions].concat()).then_some(authority)
    }

    fn openssl(&self, arguments: &[&str]) -> bool {
        let run = Command::new("openssl").args(arguments).current_dir(&self.folder).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A certificate for a name, signed by the authority: `NAME.pem` and `NAME.key`.
    fn issue(&self, file: &str, alternative: &str) {
        let (key, request, certificate) = (format!("{file}.key"), format!("{file}.csr"), format!("{file}.pem"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let named = ["-subj", &format!("/CN={file}"), "-keyout", &key, "-out", &request];
        assert!(self.openssl(&[&new[..], &named].concat()));
        std::fs::write(self.path("extensions"), format!("subjectAltName={alternative}\n")).expect("written");
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let out = ["-days", "2", "-extfile", "extensions", "-out", &certificate];
        assert!(self.openssl(&[&sign[..], &out].concat()));
    }

    fn certificates(&self, file: &str) -> Vec<CertificateDer<'static>> {
        let all = CertificateDer::pem_file_iter(self.path(file)).expect("a file");
        all.collect::<Result<_, _>>().expect("certificates")
    }

    /// A client that believes this authority, and shows a certificate that it has of some authority.
    fn client(&self, own: Option<(&Self, &str)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificates("ca.pem").remove(0)).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        let client = match own {
            None => builder.with_no_client_auth(),
            Some((by, file)) => {
                let key = PrivateKeyDer::from_pem_file(by.path(&format!("{file}.key"))).expect("a key");
                builder.with_client_auth_cert(by.certificates(&format!("{file}.pem")), key).expect("a certificate")
            }
        };
        TlsConnector::from(Arc::new(client))
    }
}

/// One request on a connection of its own; nothing when there is no connection or no answer.
async fn send(
    connector: &TlsConnector,
    server: &Server,
    (method, path): (Method, &str),
    headers: &[(&str, String)],
    body: Vec<u8>,
) -> Option<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(server.address()).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, stream).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).expect("a request");
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    Some((parts.status, body.collect().await.ok()?.to_bytes()))
}

#[test]
fn https_and_certificates_in_the_place_of_signatures() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(ours) = Authority::new(folder.path(), "ours") else {
        eprintln!("SKIPPED: there is no openssl to make certificates");
        return;
    };
    let strangers = Authority::new(folder.path(), "strangers").expect("another");
    ours.issue("server", "DNS:localhost");
    let database = database::all(folder.path()).swap_remove(0);
    runtime.block_on(async {
        let clock = ManualClock::new();
        // What is enrolled over plain HTTP is the same device later.
        let plain = Server::start(config(folder.path(), &database, &clock)).await.expect("starts");
        let system = plain.token("system", "installer", Role::Admin).await.expect("a token");
        let client = Client::new(plain.address());
        let tenant = site::tenant(&client, &system, "a", 1, json!({})).await;
        let mut one = Device::enrol(&client, &tenant, 1, None, &clock).await;
        let mut two = Device::enrol(&client, &tenant, 2, None, &clock).await;
        plain.stop().await;
        for (n, device) in [(1, &one), (2, &two)] {
            ours.issue(&format!("device{n}"), &format!("DNS:{}.device", hex(&device.id)));
        }
        strangers.issue("device1", &format!("DNS:{}.device", hex(&one.id)));

        let mut wanted = config(folder.path(), &database, &clock);
        let tls =
            Tls { cert: ours.path("server.pem"), key: ours.path("server.key"), client_ca: Some(ours.path("ca.pem")) };
        wanted.tls = Some(tls);
        let server = Server::start(wanted.clone()).await.expect("starts");
        // Operators come without a certificate, with a token.
        let nobody = ours.client(None);
        let bearer = [("authorization", format!("Bearer {}", tenant.viewer))];
        let (status, _) =
            send(&nobody, &server, (Method::GET, "/v1/tenant"), &bearer, Vec::new()).await.expect("an answer");
        assert_eq!(status, StatusCode::OK);
        let (status, _) =
            send(&nobody, &server, (Method::GET, "/v1/tenant"), &[], Vec::new()).await.expect("an answer");
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        // Who does not know the server's authority does not speak to it, and without encryption nobody does.
        let answer = send(&strangers.client(None), &server, (Method::GET, "/healthz"), &[], Vec::new()).await;
        assert!(answer.is_none(), "{answer:?}");
        assert!(Client::new(server.address()).send("GET", "/healthz", &[], "").await.is_none());

        let first = ours.client(Some((&ours, "device1")));
        let poll = (Method::POST, "/d/v1/poll");
        let body = postcard::to_allocvec(&one.body()).expect("encodes");
        let unsigned = |device: &mut Device| {
            let mut headers = device.signed(&[]);
            headers.retain(|(name, _)| *name != wire::SIGNATURE);
            headers
        };
        let headers = unsigned(&mut one);
        let (status, answer) = send(&first, &server, poll.clone(), &headers, body.clone()).await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
        // The same once more is a replay, with a certificate too.
        let (status, _) = send(&first, &server, poll.clone(), &headers, body.clone()).await.expect("an answer");
        assert_eq!(status, StatusCode::CONFLICT);
        // A certificate speaks for its own device only.
        let headers = unsigned(&mut two);
        let (status, answer) = send(&first, &server, poll.clone(), &headers, body.clone()).await.expect("an answer");
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{}", String::from_utf8_lossy(&answer));
        // Without one the signature is needed, and enough.
        let headers = unsigned(&mut one);
        let (status, _) = send(&nobody, &server, poll.clone(), &headers, body.clone()).await.expect("an answer");
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let headers = one.signed(&body);
        let (status, _) = send(&nobody, &server, poll.clone(), &headers, body.clone()).await.expect("an answer");
        assert_eq!(status, StatusCode::OK);
        // One of another authority, with the right name, does not even connect.
        let stranger = ours.client(Some((&strangers, "device1")));
        let headers = unsigned(&mut one);
        let answer = send(&stranger, &server, poll, &headers, body).await;
        assert!(answer.is_none(), "{answer:?}");
        server.stop().await;

        // What is wrong with the files is said.
        if let Some(tls) = &mut wanted.tls {
            tls.key = ours.path("none.key");
        }
        let error = Server::start(wanted).await.expect_err("no key").to_string();
        assert!(error.contains("none.key"), "{error}");
    });
}
