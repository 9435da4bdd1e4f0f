//! Our public URLs: those of the configuration, and those that are lent for a while by whoever has a tunnel.
//!
//! What must hold: signatures cover the URL, and a provider such as Manus signs for all its customers with one key, so whoever may
//! add a URL may replay what was signed for somebody else. So one is added by the admin API alone, is https with a host (or
//! loopback), and is told in the log; there are at most [`MOST`]; and none outlives its lease by itself, so that a program that is killed
//! leaves nothing behind. They are this process's own: no other replica knows of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use url::{Host, Url};
use uuid::Uuid;

use crate::clock::{self, Clock};

/// How long a URL is accepted after it was last lent.
pub const LEASE: Duration = Duration::from_secs(45);
/// The most URLs that are lent at one time.
pub const MOST: usize = 8;

/// Why a URL is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It can be none.
    #[error("the URL {0}")]
    Unfit(String),
    /// Too many are lent.
    #[error("{MOST} public URLs are lent already; one has to be taken back, or to run out")]
    Full,
}

/// All public URLs; clones share them.
#[derive(Clone, Debug)]
pub struct PublicUrls {
    clock: Clock,
    configured: Arc<[String]>,
    lent: Arc<RwLock<Lent>>,
}

#[derive(Debug)]
struct Lent {
    leases: BTreeMap<Uuid, Lease>,
    /// Those of the configuration, then those that are lent.
    all: Arc<[String]>,
    /// When the first lease runs out, by running time.
    next: Option<Duration>,
}

/// A URL that is lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The URL.
    pub url: String,
    /// When it runs out, as people read it.
    pub expires_at: Timestamp,
    /// The same by running time, which decides.
    until: Duration,
}

impl PublicUrls {
    /// With those of the configuration, which are in their one form.
    #[must_use]
    pub fn new(configured: Vec<String>, clock: Clock) -> Self {
        let configured: Arc<[String]> = configured.into();
        let lent = Lent { leases: BTreeMap::new(), all: Arc::clone(&configured), next: None };
        Self { clock, configured, lent: Arc::new(RwLock::new(lent)) }
    }

    /// Those of the configuration.
    #[must_use]
    pub fn configured(&self) -> &[String] {
        &self.configured
    }

    /// All that are accepted now, without a slash at their end.
    #[must_use]
    pub fn current(&self) -> Arc<[String]> {
        let now = self.clock.elapsed();
        {
            let lent = self.lent.read().unwrap_or_else(PoisonError::into_inner);
            if lent.next.is_none_or(|next| now < next) {
                return Arc::clone(&lent.all);
            }
        }
        self.change(|_| ()).1
    }

    /// What is lent now.
    #[must_use]
    pub fn lent(&self) -> BTreeMap<Uuid, Lease> {
        self.change(|lent| lent.leases.clone()).0
    }

    /// Accepts `url` for [`LEASE`] from now on, as the lease `id`: a new one, or one that goes on, with this URL or another.
    ///
    /// # Errors
    /// If it is no public URL, or too many are lent.
    pub fn lend(&self, id: Uuid, url: &str) -> Result<Lease, Error> {
        let url = check(url, true).map_err(|(reason, _)| Error::Unfit(reason))?;
        let (until, expires_at) = (self.clock.elapsed().saturating_add(LEASE), clock::after(self.clock.now(), LEASE));
        let lease = Lease { url, expires_at, until };
        let put = |lent: &mut Lent| {
            let known = lent.leases.get(&id);
            if known.is_none() && lent.leases.len() >= MOST {
                return Err(Error::Full);
            }
            if known.is_none_or(|known| known.url != lease.url) {
                tracing::warn!(
                    url = lease.url,
                    lease = %id,
                    "webhooks that are signed for {} are accepted as well, until it is taken back or not renewed for {} s",
                    lease.url,
                    LEASE.as_secs()
                );
            }
            lent.leases.insert(id, lease.clone());
            Ok(())
        };
        self.change(put).0.map(|()| lease)
    }

    /// Ends the lease `id`; whether there was one.
    pub fn take_back(&self, id: Uuid) -> bool {
        let ended = self.change(|lent| lent.leases.remove(&id)).0;
        if let Some(lease) = &ended {
            tracing::info!(url = lease.url, lease = %id, "{} was taken back: webhooks for it are refused from now on", lease.url);
        }
        ended.is_some()
    }

    /// Lets leases run out that have, changes them, and puts the list together anew.
    fn change<T>(&self, change: impl FnOnce(&mut Lent) -> T) -> (T, Arc<[String]>) {
        let now = self.clock.elapsed();
        let mut lent = self.lent.write().unwrap_or_else(PoisonError::into_inner);
        lent.leases.retain(|id, lease| {
            let lives = now < lease.until;
            if !lives {
                tracing::warn!(url = lease.url, lease = %id, "{} was not renewed: webhooks for it are refused from now on", lease.url);
            }
            lives
        });
        let changed = change(&mut lent);
        lent.next = lent.leases.values().map(|lease| lease.until).min();
        lent.all = self.configured.iter().chain(lent.leases.values().map(|lease| &lease.url)).cloned().collect();
        (changed, Arc::clone(&lent.all))
    }
}

/// The URL as senders sign it, without a slash at the end; or why it cannot be one, and what would help. Where signatures are
/// `verified`, it is https, unless its host is loopback.
///
/// # Errors
/// The reason, to be read after the name of what it is; and advice.
pub fn check(text: &str, verified: bool) -> Result<String, (String, Option<String>)> {
    let refuse = |reason: &str| Err((reason.to_owned(), None));
    let Ok(url) = Url::parse(text) else {
        let hint = (!text.contains("://")).then(|| format!("did you mean `https://{text}`?"));
        return Err(("is not a URL".to_owned(), hint));
    };
    let Some(host) = url.host() else { return refuse("is not a URL with a host") };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user or a password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must not have a query (`?`) or a fragment (`#`)");
    }
    if text.chars().any(char::is_whitespace) {
        return refuse("must not hold spaces");
    }
    let clean = text.trim_end_matches('/').to_owned();
    match url.scheme() {
        "https" => Ok(clean),
        "http" if !verified || is_loopback(&host) => Ok(clean),
        "http" => {
            let https = clean.replacen("http", "https", 1);
            Err(("must be https, unless its host is loopback".to_owned(), Some(format!("did you mean `{https}`?"))))
        }
        _ => refuse("must begin with `https://`"),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::SignedDuration;

    fn urls() -> (PublicUrls, Clock) {
        let clock = Clock::manual("2026-01-15T12:00:00Z".parse().unwrap());
        (PublicUrls::new(vec!["https://hooks.example.com".to_owned()], clock.clone()), clock)
    }

    const TUNNEL: &str = "https://abcd.ngrok-free.app";

    #[test]
    fn a_lease_runs_out_by_itself_and_goes_on_when_renewed() {
        let (urls, clock) = urls();
        let id = Uuid::now_v7();
        let lease = urls.lend(id, &format!("{TUNNEL}/")).unwrap();
        assert_eq!((lease.url.as_str(), lease.expires_at.to_string().as_str()), (TUNNEL, "2026-01-15T12:00:45Z"));
        assert_eq!(*urls.current(), ["https://hooks.example.com", TUNNEL]);
        clock.advance(SignedDuration::from_secs(44));
        assert_eq!(urls.lend(id, TUNNEL).unwrap().expires_at.to_string(), "2026-01-15T12:01:29Z");
        clock.advance(SignedDuration::from_secs(44));
        assert_eq!(urls.current().len(), 2);
        // Wall time that jumps back makes no lease longer.
        clock.advance(SignedDuration::from_hours(-1));
        clock.advance(SignedDuration::from_secs(1));
        assert_eq!((urls.current().len(), urls.lent().len()), (1, 0));
    }

    #[test]
    fn a_lease_takes_another_url_and_is_taken_back() {
        let (urls, _) = urls();
        let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
        urls.lend(id, TUNNEL).unwrap();
        urls.lend(id, "https://efgh.ngrok-free.app").unwrap();
        assert_eq!(*urls.current(), ["https://hooks.example.com", "https://efgh.ngrok-free.app"]);
        // Two that lend the same do not end each other's.
        urls.lend(other, "https://efgh.ngrok-free.app").unwrap();
        assert!(urls.take_back(id) && !urls.take_back(id));
        assert_eq!(urls.current().len(), 2);
        assert!(urls.take_back(other));
        assert_eq!(*urls.current(), *urls.configured());
    }

    #[test]
    fn there_are_not_many_and_none_that_anyone_could_read() {
        let (urls, clock) = urls();
        for unfit in
            ["http://abcd.ngrok-free.app", "https://", "ftp://a.example.com", "https://u:p@a.example.com", "https://a.b/?c"]
        {
            assert!(matches!(urls.lend(Uuid::now_v7(), unfit), Err(Error::Unfit(_))), "{unfit}");
        }
        for loopback in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80"] {
            urls.lend(Uuid::now_v7(), loopback).unwrap();
        }
        let ids: Vec<_> = (3..MOST).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            urls.lend(*id, TUNNEL).unwrap();
        }
        assert_eq!(urls.lend(Uuid::now_v7(), TUNNEL), Err(Error::Full));
        // One that is there goes on all the same, and what has run out makes room.
        urls.lend(ids[0], TUNNEL).unwrap();
        clock.advance(SignedDuration::from_secs(45));
        urls.lend(Uuid::now_v7(), TUNNEL).unwrap();
    }
}
