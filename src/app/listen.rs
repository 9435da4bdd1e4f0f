//! Taking the addresses that are listened on.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::Error;

/// Connections that may wait to be accepted, if the system lets so many (`net.core.somaxconn`): what comes beyond them comes again after
/// seconds, and whoever floods us comes more often than a good sender.
const BACKLOG: u32 = 4096;

/// Listens on `address`, which `key` sets.
pub(super) fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, Error> {
    listen_at(address).map_err(|problem| Error::Listen { address, key, problem })
}

fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has just ended are no obstacle.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
