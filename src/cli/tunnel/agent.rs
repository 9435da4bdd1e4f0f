//! The tunnels that run, as their agents on this machine tell: ngrok by the API of its web interface, cloudflared by its metrics.
//!
//! What must hold: an agent that is silent, or something else in its place, keeps nobody for long and is told; and what an agent says is
//! only a guess: that a URL leads to our receiver is proven by asking it (`reach`).

use std::time::Duration;

use reqwest::header::HOST;
use serde_json::Value;
use url::Url;

use super::super::{Error, Exit, Result};
use crate::http;
use crate::public_url;
use crate::text::one_line;

/// How long an agent on this machine may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of its answer.
const MAX_ANSWER: usize = 1 << 20;
/// Where ngrok's agents listen: the first takes the first port that is free.
const NGROK: std::ops::RangeInclusive<u16> = 4040..=4044;
/// The same of cloudflared's metrics.
const CLOUDFLARED: std::ops::RangeInclusive<u16> = 20241..=20245;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ngrok,
    Cloudflared,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ngrok => "ngrok",
            Self::Cloudflared => "cloudflared",
        }
    }
}

/// An address that an agent may listen at.
#[derive(Clone, Debug)]
struct Place {
    /// Without a slash at its end.
    base: String,
    kinds: &'static [Kind],
    /// Whether the user named it.
    named: bool,
}

/// A tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tunnel {
    /// Its public URL, without a slash at its end: https, unless it is loopback.
    pub(super) url: String,
    /// Whose it is, such as `ngrok at 127.0.0.1:4040`.
    pub(super) agent: String,
    /// What it forwards to, where the agent tells.
    to: Option<String>,
}

/// What an address answers.
enum Told {
    Tunnels(Found),
    /// Nobody is there.
    Nobody,
    /// Somebody else is.
    Other,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    tunnels: Vec<Tunnel>,
    /// What is of no use, each in a sentence.
    odd: Vec<String>,
}

/// Where tunnels are looked for.
#[derive(Debug)]
pub(super) struct Search {
    client: reqwest::Client,
    places: Vec<Place>,
}

impl Search {
    /// At the addresses that the user named, or else where agents listen by default.
    pub(super) fn new(named: &[String]) -> Result<Self> {
        let mut places = Vec::new();
        for text in named {
            places.push(Place { base: address(text)?, kinds: &[Kind::Ngrok, Kind::Cloudflared], named: true });
        }
        if places.is_empty() {
            let usual = |ports: std::ops::RangeInclusive<u16>, kinds: &'static [Kind]| {
                ports.map(move |port| Place { base: format!("http://127.0.0.1:{port}"), kinds, named: false })
            };
            places.extend(usual(NGROK, &[Kind::Ngrok]).chain(usual(CLOUDFLARED, &[Kind::Cloudflared])));
        }
        Ok(Self { client: http::client(TIMEOUT), places })
    }

    /// Asks all of them at once.
    pub(super) async fn find(&self) -> Found {
        let asked = futures_util::future::join_all(self.places.iter().map(|place| self.ask(place))).await;
        let mut all = Found::default();
        for found in asked {
            all.tunnels.extend(found.tunnels);
            all.odd.extend(found.odd);
        }
        all
    }

    async fn ask(&self, place: &Place) -> Found {
        let at = place.base.split_once("://").map_or("", |(_, at)| at);
        let odd = |text: String| Found { odd: vec![text], ..Found::default() };
        for kind in place.kinds {
            let told = match kind {
                Kind::Ngrok => self.ngrok(&place.base, at).await,
                Kind::Cloudflared => self.cloudflared(&place.base, at).await,
            };
            match told {
                Ok(Told::Tunnels(found)) => return found,
                Ok(Told::Other) => {}
                Ok(Told::Nobody) if place.named => return odd(format!("nobody answers at {at}")),
                Ok(Told::Nobody) => return Found::default(),
                Err(reason) => return odd(format!("{at} is of no use: {}", one_line(&reason, 200))),
            }
        }
        let names = place.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ");
        odd(format!("{at} answers, but not as {names} does"))
    }

    /// The JSON at a path; `None` if it is none.
    async fn json(&self, url: String) -> std::result::Result<Option<Value>, http::Error> {
        // ngrok's agent answers nobody who calls it by a name that is not local, as one container calls another.
        let answer = http::send(self.client.get(url).header(HOST, "localhost"), TIMEOUT, MAX_ANSWER).await?;
        Ok(answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok()).flatten())
    }

    async fn ngrok(&self, base: &str, at: &str) -> std::result::Result<Told, String> {
        let mut known = None;
        // The second is what agents have that do not know the first, and what knows the tunnels of old configurations.
        for (path, list, url, to) in
            [("/api/endpoints", "endpoints", "/url", "/upstream/url"), ("/api/tunnels", "tunnels", "/public_url", "/config/addr")]
        {
            let value = match self.json(format!("{base}{path}")).await {
                Ok(value) => value,
                Err(http::Error::Connect(_)) => return Ok(Told::Nobody),
                Err(error) => return Err(error.to_string()),
            };
            let Some(rows) = value.as_ref().and_then(|value| value.get(list)?.as_array()) else { continue };
            let found = known.get_or_insert_with(Found::default);
            for row in rows {
                let text = |pointer: &str| row.pointer(pointer).and_then(Value::as_str);
                if let Some(url) = text(url) {
                    found.add(url, format!("ngrok at {at}"), text(to).map(str::to_owned));
                }
            }
            if !rows.is_empty() {
                break;
            }
        }
        Ok(known.map_or(Told::Other, Told::Tunnels))
    }

    async fn cloudflared(&self, base: &str, at: &str) -> std::result::Result<Told, String> {
        let value = match self.json(format!("{base}/quicktunnel")).await {
            Ok(value) => value,
            Err(http::Error::Connect(_)) => return Ok(Told::Nobody),
            Err(error) => return Err(error.to_string()),
        };
        let Some(host) = value.as_ref().and_then(|value| value.get("hostname")?.as_str()) else { return Ok(Told::Other) };
        let mut found = Found::default();
        if host.is_empty() {
            let what = "runs no quick tunnel: it does not tell the address of a named one, which is for `server.public_url`";
            found.odd.push(format!("cloudflared at {at} {what}"));
            return Ok(Told::Tunnels(found));
        }
        let url = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
        // Only newer ones tell; without it, asking the URL has to do.
        let config = self.json(format!("{base}/config")).await.ok().flatten();
        let service = config.as_ref().and_then(|config| config.pointer("/config/ingress/0/service")?.as_str());
        found.add(&url, format!("cloudflared at {at}"), service.map(str::to_owned));
        Ok(Told::Tunnels(found))
    }
}

impl Found {
    fn add(&mut self, url: &str, agent: String, to: Option<String>) {
        match public_url::check(url, true) {
            Ok(url) if self.tunnels.iter().any(|tunnel| tunnel.url == url) => {}
            Ok(url) => self.tunnels.push(Tunnel { url, agent, to }),
            Err(_) if url.starts_with("http://") => {
                self.odd.push(format!("{} ({agent}) is not https, which senders ask for", one_line(url, 200)));
            }
            Err(_) => {}
        }
    }

    /// Whether `url` is among them.
    pub(super) fn has(&self, url: &str) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.url == url)
    }

    /// Those that may lead to `port` (to any, if there is none): first those that say so, then those that do not tell.
    pub(super) fn candidates(&self, port: Option<u16>) -> Vec<&Tunnel> {
        let Some(port) = port else { return self.tunnels.iter().collect() };
        let sure = self.tunnels.iter().filter(|tunnel| tunnel.port() == Some(port));
        sure.chain(self.tunnels.iter().filter(|tunnel| tunnel.port().is_none())).collect()
    }

    /// Why there is no candidate, and what to do.
    pub(super) fn why_none(&self, port: Option<u16>) -> Error {
        let shown = port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
        let error = if self.tunnels.is_empty() {
            Error::failed("no tunnel runs that could be found")
        } else {
            Error::failed(format!("no tunnel leads to port {shown}, where senders are received"))
        };
        let elsewhere = self.tunnels.iter().map(|tunnel| {
            let to = tunnel.to.as_deref().unwrap_or("somewhere else");
            format!("{} ({}) leads to {}", tunnel.url, tunnel.agent, one_line(to, 100))
        });
        let start = format!("start one: `ngrok http {shown}` or `cloudflared tunnel --url http://localhost:{shown}`");
        let last = "if one runs, pass the address of its agent with `--agent`: ngrok prints it as `Web Interface`, cloudflared takes it \
                    with `--metrics`";
        elsewhere.chain(self.odd.iter().cloned()).chain([start, last.to_owned()]).fold(error, Error::hint)
    }
}

impl Tunnel {
    /// The port that it forwards to, where the agent tells.
    fn port(&self) -> Option<u16> {
        let to = self.to.as_deref()?;
        if to.contains("://") {
            return Url::parse(to).ok()?.port_or_known_default();
        }
        to.rsplit_once(':').map_or(to, |(_, port)| port).parse().ok()
    }
}

/// `--agent` without a slash at its end.
fn address(text: &str) -> Result<String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let good = Url::parse(&whole).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.username().is_empty() && url.password().is_none()
    });
    if !good {
        let error = Error::failed("`--agent` is not the address of an agent").with_exit(Exit::Usage);
        return Err(error.hint("write it like `--agent http://127.0.0.1:4040`").into());
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(url: &str, to: Option<&str>) -> Tunnel {
        Tunnel { url: url.to_owned(), agent: "ngrok at 127.0.0.1:4040".to_owned(), to: to.map(str::to_owned) }
    }

    #[test]
    fn the_port_is_read_in_every_form() {
        for (to, port) in [
            ("8080", Some(8080)),
            ("localhost:8080", Some(8080)),
            ("http://localhost:8080", Some(8080)),
            ("https://127.0.0.1:8443/", Some(8443)),
            ("http://[::1]:8080", Some(8080)),
            ("http://localhost", Some(80)),
            ("hello_world", None),
            ("unix:/run/taskhook.sock", None),
            ("", None),
        ] {
            assert_eq!(tunnel("https://a.example.com", Some(to)).port(), port, "{to}");
        }
        assert_eq!(tunnel("https://a.example.com", None).port(), None);
    }

    #[test]
    fn what_leads_to_the_port_comes_first_and_what_leads_elsewhere_not_at_all() {
        let [unknown, elsewhere, here] = [
            ("https://u.example.com", None),
            ("https://e.example.com", Some("3000")),
            ("https://h.example.com", Some("localhost:8080")),
        ];
        let found = Found { tunnels: [unknown, elsewhere, here].map(|(url, to)| tunnel(url, to)).into(), odd: Vec::new() };
        let urls = |port| found.candidates(port).into_iter().map(|tunnel| tunnel.url.as_str()).collect::<Vec<_>>();
        assert_eq!(urls(Some(8080)), ["https://h.example.com", "https://u.example.com"]);
        assert_eq!(urls(None), ["https://u.example.com", "https://e.example.com", "https://h.example.com"]);
    }

    #[test]
    fn an_address_is_a_url_or_almost() {
        assert_eq!(address("127.0.0.1:4041").unwrap(), "http://127.0.0.1:4041");
        assert_eq!(address("http://ngrok:4040/").unwrap(), "http://ngrok:4040");
        for wrong in ["", "ftp://a", "http://u:p@a", "a b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
