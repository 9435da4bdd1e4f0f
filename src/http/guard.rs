//! The address guard: requests to addresses that a payload names.
//!
//! Whoever can put a link into a result could otherwise make us fetch from machines that only we reach. What must hold:
//! - Only public addresses are connected to, unless `outbound.allow_private_addresses` is set. Names are looked up here, and the
//!   connection is made to the very addresses that were checked, so that a name cannot lead elsewhere a moment later.
//! - Redirects are followed by hand, a bounded number of them, and each target passes the same checks.
//! - Only `http` and `https`, never from `https` down to `http`. No key, no cookie, no proxy, no referrer, no user and password.
//! - No error shows the address: a link may hold a signature.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Response};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{classify, transfer_client};

/// The most redirects that are followed, one after the other.
const REDIRECTS: usize = 5;
/// How long nothing may come before a transfer counts as broken.
const STALL: Duration = Duration::from_secs(30);

/// `[outbound]`: requests to addresses that payloads name. What is configured may be anywhere.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether they may go to addresses that are not public: this machine, private networks, link-local addresses.
    pub allow_private_addresses: bool,
}

/// Why a link was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link, or where it leads, is one that we do not go to. Trying again cannot help.
    #[error("the link is refused: {0}")]
    Refused(&'static str),
    /// No answer.
    #[error(transparent)]
    Http(super::Error),
}

/// Who says which addresses a name has.
#[derive(Clone, Debug, Default)]
pub enum Names {
    /// The system.
    #[default]
    System,
    /// A table, for tests: by name, the address that is checked and the one that is connected to in its place.
    Table(Arc<BTreeMap<String, (IpAddr, IpAddr)>>),
}

/// Opens links from payloads; clones share connections.
#[derive(Clone, Debug)]
pub struct Guard {
    client: Client,
    allow_private: bool,
}

impl Guard {
    /// A guard that obeys `config` and asks `names`.
    #[must_use]
    pub fn new(config: Config, names: Names) -> Self {
        let resolver = Resolver { allow_private: config.allow_private_addresses, names };
        Self { client: transfer_client(STALL, Some(Arc::new(resolver))), allow_private: config.allow_private_addresses }
    }

    /// Sends a GET for `link` with `headers`, and follows where it leads. The answer may have any status but a redirect, and its
    /// body is still to be read.
    ///
    /// # Errors
    /// [`Error::Refused`], and [`Error::Http`] where nobody answered.
    pub async fn open(&self, link: &str, headers: &HeaderMap) -> Result<Response, Error> {
        let mut url = Url::parse(link).map_err(|_| Error::Refused("it is no URL"))?;
        for _ in 0..=REDIRECTS {
            self.check(&url)?;
            let request = self.client.get(url.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|error| match refusal(&error) {
                Some(kind) => Error::Refused(kind),
                None => Error::Http(classify(&error, STALL)),
            })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|location| url.join(location.to_str().ok()?).ok());
            let next = next.ok_or(Error::Refused("it is redirected to what is no URL"))?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(Error::Refused("it is redirected from https to http"));
            }
            url = next;
        }
        Err(Error::Refused("it is redirected too often"))
    }

    /// What can be told without asking for the name.
    fn check(&self, url: &Url) -> Result<(), Error> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Refused("it is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Refused("it holds a user or a password"));
        }
        let address: Option<IpAddr> = match url.host() {
            None => return Err(Error::Refused("it has no host")),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
        };
        match address.and_then(not_public).filter(|_| !self.allow_private) {
            Some(kind) => Err(Error::Refused(kind)),
            None => Ok(()),
        }
    }
}

/// Looks names up, and gives out the addresses that may be connected to.
struct Resolver {
    allow_private: bool,
    names: Names,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, allow_private) = (self.names.clone(), self.allow_private);
        Box::pin(async move {
            // Each with the address that is checked.
            let found: Vec<(IpAddr, SocketAddr)> = match names {
                Names::System => {
                    // The port is the URL's, whatever stands here.
                    tokio::net::lookup_host((name.as_str(), 0)).await?.map(|at| (at.ip(), at)).collect()
                }
                Names::Table(table) => {
                    table.get(name.as_str()).map(|(told, at)| (*told, SocketAddr::new(*at, 0))).into_iter().collect()
                }
            };
            let refused = found.iter().find_map(|(address, _)| not_public(*address));
            let allowed: Vec<_> =
                found.into_iter().filter(|(told, _)| allow_private || not_public(*told).is_none()).map(|(_, at)| at).collect();
            match refused {
                Some(kind) if allowed.is_empty() => Err(Box::new(NotPublic(kind)) as Box<dyn StdError + Send + Sync>),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// A name leads only to addresses that we do not connect to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotPublic(&'static str);

/// Why the resolver refused, if that is why a request failed.
fn refusal(error: &reqwest::Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(NotPublic(kind)) = error.downcast_ref() {
            return Some(kind);
        }
        cause = error.source();
    }
    None
}

const LOOPBACK: &str = "it leads to this machine itself (a loopback address)";
const PRIVATE: &str = "it leads into a private network";
const LINK_LOCAL: &str = "it leads to a link-local address, as that of a cloud's metadata service";
const METADATA: &str = "it leads to a cloud's metadata service";
const SPECIAL: &str = "it leads to an address that no public server has";

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

/// By its first two groups; the others are zero.
const fn v6(first: u16, second: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix))
}

/// What is not public, of the special-purpose registries of IANA (RFC 6890 and its successors), with what some clouds add.
const NOT_PUBLIC: &[(IpNet, &str)] = &[
    (v4(0, 0, 0, 0, 8), LOOPBACK),
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(10, 0, 0, 0, 8), PRIVATE),
    (v4(172, 16, 0, 0, 12), PRIVATE),
    (v4(192, 168, 0, 0, 16), PRIVATE),
    // Shared by a carrier's customers; one cloud has its metadata there.
    (v4(100, 64, 0, 0, 10), PRIVATE),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    // A public address that means the host of a virtual machine (Azure).
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(192, 0, 0, 0, 24), SPECIAL),
    (v4(192, 0, 2, 0, 24), SPECIAL),
    (v4(192, 88, 99, 0, 24), SPECIAL),
    (v4(198, 18, 0, 0, 15), SPECIAL),
    (v4(198, 51, 100, 0, 24), SPECIAL),
    (v4(203, 0, 113, 0, 24), SPECIAL),
    // Multicast, reserved, broadcast.
    (v4(224, 0, 0, 0, 3), SPECIAL),
    (v6(0, 0, 127), LOOPBACK),
    (v6(0xfc00, 0, 7), PRIVATE),
    (v6(0xfe80, 0, 10), LINK_LOCAL),
    // Protocol assignments, Teredo among them; documentation.
    (v6(0x2001, 0, 23), SPECIAL),
    (v6(0x2001, 0xdb8, 32), SPECIAL),
    (v6(0x3fff, 0, 20), SPECIAL),
];
/// The only part of IPv6 where public servers are.
const GLOBAL: IpNet = v6(0x2000, 0, 3);

/// Why `address` is not one that the public reaches; `None` if it is. An address of version 4 inside one of version 6 counts as
/// what it is: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn not_public(address: IpAddr) -> Option<&'static str> {
    if let IpAddr::V6(six) = address {
        let s = six.segments();
        let last = Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
        let inside = match s {
            [0, 0, 0, 0, 0, 0 | 0xffff, ..] if !six.is_loopback() && !six.is_unspecified() => Some(last),
            [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
            [0x2002, ..] => Some(Ipv4Addr::from((u32::from(s[1]) << 16) | u32::from(s[2]))),
            _ => None,
        };
        if let Some(inside) = inside {
            return not_public(inside.into());
        }
    }
    let listed = NOT_PUBLIC.iter().find(|(net, _)| net.contains(&address)).map(|(_, kind)| *kind);
    listed.or((address.is_ipv6() && !GLOBAL.contains(&address)).then_some(SPECIAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert_eq!(not_public(address.parse().unwrap()), None, "{address}");
        }
        for (address, kind) in [
            ("0.0.0.0", LOOPBACK),
            ("0.1.2.3", LOOPBACK),
            ("127.0.0.1", LOOPBACK),
            ("127.255.255.254", LOOPBACK),
            ("10.0.0.1", PRIVATE),
            ("172.16.0.1", PRIVATE),
            ("172.31.255.255", PRIVATE),
            ("192.168.1.1", PRIVATE),
            ("100.64.0.1", PRIVATE),
            ("100.100.100.200", PRIVATE),
            ("169.254.169.254", LINK_LOCAL),
            ("168.63.129.16", METADATA),
            ("192.0.0.192", SPECIAL),
            ("198.19.0.1", SPECIAL),
            ("224.0.0.1", SPECIAL),
            ("240.0.0.1", SPECIAL),
            ("255.255.255.255", SPECIAL),
            ("::", LOOPBACK),
            ("::1", LOOPBACK),
            ("::ffff:127.0.0.1", LOOPBACK),
            ("::ffff:169.254.169.254", LINK_LOCAL),
            ("::127.0.0.1", LOOPBACK),
            ("::10.0.0.1", PRIVATE),
            ("64:ff9b::a9fe:a9fe", LINK_LOCAL),
            ("64:ff9b:1::1", SPECIAL),
            ("2002:7f00:1::", LOOPBACK),
            ("2002:c0a8:101::1", PRIVATE),
            ("2001:0:1:2:3:4:5:6", SPECIAL),
            ("2001:db8::1", SPECIAL),
            ("fc00::1", PRIVATE),
            ("fd00:ec2::254", PRIVATE),
            ("fe80::1", LINK_LOCAL),
            ("fec0::1", SPECIAL),
            ("ff02::1", SPECIAL),
        ] {
            assert_eq!(not_public(address.parse().unwrap()), Some(kind), "{address}");
        }
    }

    fn guard(names: &[(&str, &str)]) -> Guard {
        let table = names.iter().map(|(name, at)| ((*name).to_owned(), (at.parse().unwrap(), at.parse().unwrap()))).collect();
        Guard::new(Config { allow_private_addresses: false }, Names::Table(Arc::new(table)))
    }

    /// What opening `link` is refused with.
    async fn refused(guard: &Guard, link: &str) -> String {
        match guard.open(link, &HeaderMap::new()).await {
            Err(error @ Error::Refused(_)) => error.to_string(),
            other => panic!("{link}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn links_to_addresses_that_are_not_public_are_refused_in_every_spelling() {
        let guard = guard(&[("inside.example", "10.1.2.3"), ("localhost", "127.0.0.1")]);
        for link in [
            "http://127.0.0.1:9/x",
            "http://2130706433/x",
            "http://0x7f.1/x",
            "http://0177.0.0.1/",
            "http://[::1]/x",
            "http://[::ffff:127.0.0.1]/x",
            "http://localhost/x",
            "http://LOCALHOST/x",
        ] {
            assert_eq!(refused(&guard, link).await, format!("the link is refused: {LOOPBACK}"), "{link}");
        }
        assert_eq!(refused(&guard, "https://inside.example/x").await, format!("the link is refused: {PRIVATE}"));
        assert_eq!(
            refused(&guard, "http://169.254.169.254/latest/meta-data").await,
            format!("the link is refused: {LINK_LOCAL}")
        );
    }

    #[tokio::test]
    async fn links_that_are_no_plain_web_links_are_refused() {
        let guard = guard(&[]);
        for (link, why) in [
            ("ftp://files.example/x", "it is neither http nor https"),
            ("file:///etc/passwd", "it is neither http nor https"),
            ("data:text/plain,x", "it is neither http nor https"),
            ("not a link", "it is no URL"),
            ("https://user:secret@files.example/x", "it holds a user or a password"),
        ] {
            let text = refused(&guard, link).await;
            assert!(text.ends_with(why) && !text.contains("secret"), "{link}: {text}");
        }
    }
}
