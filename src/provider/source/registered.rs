//! What is registered with a provider, held against the URLs that lead to a source.

use super::Source;
use crate::provider::Webhook;
use crate::setting::REDACTED;
use crate::text::one_line;

/// The most characters of a URL that are shown.
const SHOWN: usize = 200;

/// How the webhooks that a provider knows stand to a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// One leads here.
    Active,
    /// None is registered that looks like ours.
    Missing,
    /// The one that leads here was switched off by the provider.
    Inactive {
        /// Its id.
        id: String,
    },
    /// Several lead here: every event comes so often.
    Repeated {
        /// Their ids; the first is the oldest that the provider lists.
        ids: Vec<String>,
    },
    /// One looks like ours and does not lead here: its host, its path or its path token is another.
    Elsewhere {
        /// Its id.
        id: String,
        /// Its URL, as it may be shown.
        url: String,
    },
}

impl Source {
    /// The URL of this source's webhook under a public URL, with the first path token.
    #[must_use]
    pub fn webhook_url(&self, public_url: &str) -> String {
        let token = self.path_tokens().first().map(|token| format!("/{}", token.expose())).unwrap_or_default();
        format!("{public_url}/webhooks/{}{token}", self.name())
    }

    /// Whether a registered URL leads to this source, by any of `public_urls` and any path token.
    #[must_use]
    pub fn is_reached_by(&self, public_urls: &[String], url: &str) -> bool {
        let rest = |base: &String| url.strip_prefix(base)?.strip_prefix("/webhooks/")?.strip_prefix(self.name());
        let opens = |rest: &str| match rest.strip_prefix('/') {
            Some(token) => self.opens(Some(token)),
            None => rest.is_empty() && self.opens(None),
        };
        public_urls.iter().filter_map(rest).any(opens)
    }

    /// `text` without any path token: a provider may repeat the URL in an error.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.path_tokens().iter().fold(text.to_owned(), |text, token| text.replace(token.expose(), REDACTED))
    }

    /// A registered URL as it may be shown: what stands where a token may stand, is not.
    #[must_use]
    pub fn shown(&self, url: &str) -> String {
        let Ok(url) = url::Url::parse(url) else { return one_line(&self.hide(url), SHOWN) };
        let mut path = url.path().to_owned();
        if let Some((before, after)) = path.split_once("/webhooks/")
            && let Some((name, token)) = after.split_once('/')
            && !token.is_empty()
        {
            path = format!("{before}/webhooks/{name}/{REDACTED}");
        }
        let query = if url.query().is_some() { "?…" } else { "" };
        one_line(&self.hide(&format!("{}{path}{query}", url.origin().ascii_serialization())), SHOWN)
    }

    /// How `webhooks`, all that the provider knows, stand to this source under `public_urls`.
    #[must_use]
    pub fn registration(&self, public_urls: &[String], webhooks: &[Webhook]) -> Registration {
        let leads_here = |webhook: &&Webhook| webhook.url.as_deref().is_some_and(|url| self.is_reached_by(public_urls, url));
        let (active, inactive): (Vec<_>, Vec<_>) =
            webhooks.iter().filter(leads_here).partition(|webhook| webhook.status.as_deref() != Some("inactive"));
        match (active.as_slice(), inactive.first()) {
            ([_], _) => return Registration::Active,
            ([_, _, ..], _) => {
                return Registration::Repeated { ids: active.into_iter().map(|webhook| webhook.id.clone()).collect() };
            }
            ([], Some(webhook)) => return Registration::Inactive { id: webhook.id.clone() },
            ([], None) => {}
        }
        let like_ours = |url: &str| {
            let Ok(url) = url::Url::parse(url) else { return false };
            let named = url.path().split_once("/webhooks/").is_some_and(|(_, rest)| rest.split('/').next() == Some(self.name()));
            let host = |base: &String| url::Url::parse(base).is_ok_and(|base| base.origin() == url.origin());
            named || public_urls.iter().any(host)
        };
        let elsewhere = webhooks.iter().find_map(|webhook| Some((webhook, webhook.url.as_deref().filter(|url| like_ours(url))?)));
        elsewhere.map_or(Registration::Missing, |(webhook, url)| Registration::Elsewhere {
            id: webhook.id.clone(),
            url: self.shown(url),
        })
    }

    /// What is wrong with a registration, and what to run, the first thing first; `None` if all is well. Shows no path token.
    #[must_use]
    pub fn unregistered(&self, public_urls: &[String], is: &Registration) -> Option<(String, Vec<String>)> {
        let (name, first) = (self.name(), public_urls.first()?);
        let ours = self.shown(&self.webhook_url(first));
        let register = format!("taskhook webhooks register --source {name}");
        let delete = |id: &str| format!("taskhook webhooks delete --source {name} {}", one_line(id, 80));
        match is {
            Registration::Active => None,
            Registration::Missing => Some((format!("no webhook is registered for {ours}: no event comes"), vec![register])),
            Registration::Inactive { id } => {
                let problem = format!("the provider has switched the webhook for {ours} off: no event comes");
                Some((problem, vec![delete(id), register]))
            }
            Registration::Repeated { ids } => {
                let problem = format!("{} webhooks are registered that lead to {ours}: every event comes so often", ids.len());
                Some((problem, ids.iter().skip(1).map(|id| delete(id)).collect()))
            }
            Registration::Elsewhere { id, url } => {
                let other = if *url == ours { ", with another path token" } else { "" };
                let problem =
                    format!("no webhook is registered for {ours}, but one for {url}{other}: its events do not come here");
                Some((problem, vec![register, delete(id)]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::provider::{Budgets, Config};

    fn source(keys: &str) -> Source {
        let toml = format!("[source]\napi_key = 'k'\n{keys}");
        let file = config::File::from_str(&toml, config::FileFormat::Toml);
        let section: config::Value = config::Config::builder().add_source(file).build().unwrap().get("source").unwrap();
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let config = Config::parse("manus", section).unwrap();
        Source::new("manus", &config, &clock, &Budgets::new(clock.clone())).unwrap()
    }

    fn webhooks(of: &[(&str, &str, &str)]) -> Vec<Webhook> {
        let webhook = |(id, url, status): &(&str, &str, &str)| Webhook {
            id: (*id).to_owned(),
            url: Some((*url).to_owned()),
            status: Some((*status).to_owned()),
            created_at: None,
        };
        of.iter().map(webhook).collect()
    }

    #[test]
    fn each_way_to_be_registered_wrongly_is_told_with_what_to_run() {
        let urls = ["https://a.example/in".to_owned(), "https://b.example".to_owned()];
        let plain = source("");
        let told = |source: &Source, of: &[(&str, &str, &str)]| {
            let (problem, run) = source.unregistered(&urls, &source.registration(&urls, &webhooks(of)))?;
            assert!(!problem.contains("t0ken") && !run.concat().contains("t0ken"), "{problem}");
            Some((problem, run))
        };
        let (ours, second) = ("https://a.example/in/webhooks/manus", "https://b.example/webhooks/manus");
        assert_eq!(told(&plain, &[("w1", ours, "active")]), None);
        assert_eq!(told(&plain, &[("w0", "https://else.example/x", "active"), ("w1", second, "active")]), None);
        // What is switched off beside one that works does no harm.
        assert_eq!(told(&plain, &[("w1", ours, "active"), ("w2", second, "inactive")]), None);
        let register = "taskhook webhooks register --source manus".to_owned();
        let delete = |id: &str| format!("taskhook webhooks delete --source manus {id}");
        for (of, words, run) in [
            (vec![], "no webhook is registered for https://a.example/in/webhooks/manus", vec![register.clone()]),
            (vec![("w1", "https://else.example/x", "active")], "no webhook is registered", vec![register.clone()]),
            (vec![("w1", ours, "inactive")], "switched the webhook", vec![delete("w1"), register.clone()]),
            (vec![("w1", ours, "active"), ("w2", second, "active")], "2 webhooks are registered", vec![delete("w2")]),
            (
                vec![("w1", "https://old.example/webhooks/manus", "active")],
                "one for https://old.example/webhooks/manus:",
                vec![register.clone(), delete("w1")],
            ),
            (
                vec![("w1", "https://a.example/webhooks/manus", "active")],
                "one for https://a.example/webhooks/manus:",
                vec![register.clone(), delete("w1")],
            ),
        ] {
            let (problem, told) = told(&plain, &of).unwrap();
            assert!(problem.contains(words), "{problem}");
            assert_eq!(told, run, "{problem}");
        }
        let secret = source("path_token = 't0ken'");
        let with = |token: &str| format!("{ours}/{token}");
        assert_eq!(told(&secret, &[("w1", &with("t0ken"), "active")]), None);
        let (problem, _) = told(&secret, &[("w1", &with("0ld"), "active")]).unwrap();
        assert!(problem.contains("with another path token") && !problem.contains("0ld"), "{problem}");
        assert!(plain.unregistered(&[], &Registration::Missing).is_none(), "nothing is expected without a public URL");
    }
}
