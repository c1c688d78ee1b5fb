//! HTTPS by rustls, and devices that prove themselves by a certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Tls;

/// Seconds in which a client has to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What the certificates' files say.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, String> {
    let wrong = |path: &std::path::Path, e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", path.display());
    let read = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let all = CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, &e))?;
        all.collect::<Result<_, _>>().map_err(|e| wrong(path, &e))
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| wrong(&tls.key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read(path)? {
                roots.add(certificate).map_err(|e| wrong(path, &e))?;
            }
            // Operators come without a certificate, with a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| wrong(path, &e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(read(&tls.cert)?, key).map_err(|e| wrong(&tls.cert, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The client's certificate, whose chain was verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

impl Peer {
    /// Who is at the other end of a connection whose handshake is done.
    pub(crate) fn of(stream: &TlsStream<TcpStream>) -> Self {
        let (_, connection) = stream.get_ref();
        let first = connection.peer_certificates().and_then(|c| c.first());
        Self { certificate: first.map(|c| c.clone().into_owned()) }
    }

    /// Whether the certificate is for the DNS name `ID.device`.
    pub(crate) fn is(&self, device: &str) -> bool {
        let Some(certificate) = &self.certificate else { return false };
        let Ok(end) = webpki::EndEntityCert::try_from(certificate) else { return false };
        let Ok(name) = rustls::pki_types::ServerName::try_from(format!("{device}.device")) else { return false };
        end.verify_is_valid_for_subject_name(&name).is_ok()
    }
}

/// Connections whose handshake is done; a slow one keeps no other waiting.
pub(crate) struct Listener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl Listener {
    pub(crate) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let address = listener.local_addr();
        let (sender, ready) = mpsc::channel(64);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, address)) = listener.accept().await else {
                    // Out of file descriptors, perhaps: some will be free again.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        let _ = sender.send((stream, address)).await;
                    }
                });
            }
        });
        Self { ready, address, accepting }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The acceptor runs as long as this does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
