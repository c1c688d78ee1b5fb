//! Connections. Who sends the head of a request too slowly is not waited for, so that a few who never end one do not take
//! the place of a fleet.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;

/// Answers on every connection of a listener, until it is told to stop; then requests that are under way end. `peer` says
/// who is at the other end, for handlers that ask. A connection on which no request begins or ends its head within
/// `patience` is closed.
pub(crate) async fn serve<L: Listener, P: Clone + Send + Sync + 'static>(
    mut listener: L,
    router: Router,
    peer: impl Fn(&L::Io) -> P,
    patience: Duration,
    until: impl Future<Output = ()>,
) {
    let under_way = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience);
    let mut until = pin!(until);
    loop {
        let (stream, _) = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut until => break,
        };
        let peer = ConnectInfo(peer(&stream));
        let inner = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            inner.call(request)
        });
        let connection = under_way.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    under_way.shutdown().await;
}
