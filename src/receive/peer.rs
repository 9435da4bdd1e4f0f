//! Where a request comes from.
//!
//! What must hold: only what a trusted proxy wrote is believed. Each proxy adds the address that it was called from at the end of
//! `X-Forwarded-For`, so the entries are read from the end, and the first that is no trusted proxy is the sender; what stands
//! before it, the sender may have made up.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::setting::Network;

/// The other end of the connection that a request came on, as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The header that proxies write.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that sent a request; `None` if it cannot be told.
pub(super) fn sender(peer: Option<Peer>, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut sender = peer?.0.to_canonical();
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    for line in lines.into_iter().rev() {
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            if !is_trusted(sender) {
                return Some(sender);
            }
            // A trusted proxy was called by somebody whose address cannot be read: nobody knows who it was.
            sender = address(std::str::from_utf8(entry).ok()?.trim())?;
        }
    }
    Some(sender)
}

/// An address, as proxies write it: some add the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

/// Why a request was refused that came from `sender`, for whoever set `allow_ips`.
pub(super) fn explain(source: &str, sender: Option<IpAddr>, peer: Option<Peer>, headers: &HeaderMap) -> String {
    let from = sender.map_or_else(|| "an address that cannot be told".to_owned(), |address| address.to_string());
    let mut text = format!("it came from {from}, which is not in `sources.{source}.allow_ips`");
    if let Some(Peer(peer)) = peer
        && headers.contains_key(FORWARDED_FOR)
        && sender == Some(peer.to_canonical())
    {
        text.push_str(
            "; it names others in `X-Forwarded-For`: if that address is your proxy's, add it to `server.trusted_proxies`",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, lines: &[&str], trusted: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|range| range.parse().unwrap()).collect();
        sender(Some(Peer(peer.parse().unwrap())), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_sender() {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"];
        for (peer, lines, trusted, expected) in [
            ("192.0.2.1", &[][..], &[][..], Some("192.0.2.1")),
            ("::ffff:192.0.2.1", &[], &[], Some("192.0.2.1")),
            // Nobody is trusted: what a request says of itself counts for nothing.
            ("192.0.2.1", &["198.51.100.1"], &[], Some("192.0.2.1")),
            ("192.0.2.1", &["198.51.100.1"], &proxies, Some("192.0.2.1")),
            ("10.0.0.1", &["198.51.100.1"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1 , 10.0.0.2"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1", "10.0.0.2"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["198.51.100.1:4711"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["[2001:db9::1]:4711"], &proxies, Some("2001:db9::1")),
            ("10.0.0.1", &["[2001:db9::1]"], &proxies, Some("2001:db9::1")),
            ("2001:db8::1", &["::ffff:198.51.100.1"], &proxies, Some("198.51.100.1")),
            ("10.0.0.1", &["unknown"], &proxies, None),
            ("10.0.0.1", &["198.51.100.1, _hidden"], &proxies, None),
            ("10.0.0.1", &[""], &proxies, None),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &proxies, Some("10.0.0.3")),
            ("10.0.0.1", &[], &proxies, Some("10.0.0.1")),
        ] {
            assert_eq!(told(peer, lines, trusted).as_deref(), expected, "{peer} {lines:?}");
        }
        assert_eq!(sender(None, &HeaderMap::new(), &[]), None);
    }
}
