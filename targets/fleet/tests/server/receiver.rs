//! A place that webhooks and exports are posted to, which keeps what came and answers as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// 200.
    Takes,
    /// With this status.
    Refuses(u16),
    /// 302 to somewhere.
    Redirects(String),
    /// 200, but only after so long.
    Slow(Duration),
}

#[derive(Debug)]
struct Kept {
    manner: Manner,
    came: Vec<(String, HeaderMap, Bytes)>,
}

/// A receiver on a port of its own.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

async fn take(State(kept): State<Arc<Mutex<Kept>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let manner = {
        let mut kept = kept.lock().expect("not poisoned");
        kept.came.push((uri.path().to_owned(), headers, body));
        kept.manner.clone()
    };
    match manner {
        Manner::Takes => StatusCode::OK.into_response(),
        Manner::Refuses(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Manner::Redirects(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Manner::Slow(time) => {
            tokio::time::sleep(time).await;
            StatusCode::OK.into_response()
        }
    }
}

impl Receiver {
    pub(crate) async fn start(manner: Manner) -> Self {
        let kept = Arc::new(Mutex::new(Kept { manner, came: Vec::new() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(take).with_state(kept.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, kept }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn now(&self, manner: Manner) {
        self.kept.lock().expect("not poisoned").manner = manner;
    }

    /// What came so far: path, headers, body.
    pub(crate) fn came(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.kept.lock().expect("not poisoned").came.clone()
    }

    /// The bodies as JSON.
    pub(crate) fn bodies(&self) -> Vec<serde_json::Value> {
        self.came().iter().map(|(_, _, body)| serde_json::from_slice(body).expect("JSON")).collect()
    }
}
