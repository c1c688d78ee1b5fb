//! `dunlin-fleet health`: asks the server on this machine whether it is ready, as a container's health check does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Time that connecting and each part of the answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the server that listens on `listen` whether it is ready; over HTTPS only whether it accepts connections, because its
/// certificate is not for this address.
///
/// # Errors
/// When it does not answer, or answers that it is not ready.
pub(crate) fn check(listen: SocketAddr, is_https: bool) -> Result<(), String> {
    let address = local(listen);
    let failed = |e: std::io::Error| format!("no answer from {address}: {e}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    if is_https {
        println!("accepts connections");
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(failed)?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).map_err(failed)?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        println!("ready");
        return Ok(());
    }
    Err(format!("{address} is not ready: {}", text.lines().next().unwrap_or("empty answer")))
}

/// Returns the address at which this machine reaches what listens there.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
