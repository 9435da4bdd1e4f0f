//! `[trace]`: where spans are sent.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::setting::{List, Secret};

/// The keys that hold secrets.
pub const SECRETS: &[&str] = &["headers"];

/// What OTLP adds to the address of a collector.
const PATH: &str = "/v1/traces";

/// `[trace]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The collector's address for OTLP over HTTP; without it, nothing is traced.
    pub endpoint: Option<String>,
    /// Headers for the collector, each `NAME=VALUE`; in a file also one a line.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub headers: List<Secret>,
    /// How this program is called in the traces.
    pub service_name: String,
    /// The share of events that are traced, from 0 to 1.
    pub sample: f64,
}

/// Where spans are sent.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
}

impl Config {
    /// What the types do not check: each key that is wrong, and how.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        wrong.extend(self.url().err().map(|reason| ("endpoint", reason)));
        wrong.extend(self.header_map().err().map(|reason| ("headers", reason)));
        if self.service_name.trim().is_empty() {
            wrong.push(("service_name", "is empty".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.sample) {
            wrong.push(("sample", format!("is {}, which is no share: 0 is none, 1 is all", self.sample)));
        }
        wrong
    }

    /// Where to; `None` if nothing is traced.
    pub(super) fn target(&self) -> Result<Option<Target>, String> {
        match self.check().into_iter().next() {
            Some((key, reason)) => Err(format!("`trace.{key}` {reason}")),
            None => Ok(self.url()?.map(|url| Target { url, headers: self.header_map().unwrap_or_default() })),
        }
    }

    fn url(&self) -> Result<Option<Url>, String> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let mut url = Url::parse(endpoint).map_err(|error| format!("is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("must begin with https:// or http://, such as \"http://localhost:4318\"".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err("has more than an address and a path; what the collector asks for goes into `trace.headers`".to_owned());
        }
        let path = url.path().trim_end_matches('/');
        let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
        url.set_path(&path);
        Ok(Some(url))
    }

    fn header_map(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let lines = self.headers.iter().flat_map(|header| header.expose().lines()).filter(|line| !line.trim().is_empty());
        for (number, line) in (1..).zip(lines) {
            // No header is shown: it may be a secret in the wrong form.
            let refused = |why: &str| format!("(number {number}) {why}");
            let (name, value) = line.split_once('=').ok_or_else(|| refused("is not of the form `NAME=VALUE`"))?;
            let name =
                HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refused("has a name that is none of a header"))?;
            if matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection" | "host") || name == CONTENT_TYPE {
                return Err(refused("is set by taskhook itself"));
            }
            let mut value = HeaderValue::from_str(value.trim()).map_err(|_| refused("has a value that no header may have"))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: &str, headers: &[&str]) -> Config {
        let headers = List(headers.iter().copied().map(Secret::new).collect());
        Config { endpoint: Some(endpoint.to_owned()), headers, service_name: "taskhook".to_owned(), sample: 1.0 }
    }

    #[test]
    fn the_path_of_otlp_is_added_where_it_is_not_there() {
        for (endpoint, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://otlp.example.com/otlp", "https://otlp.example.com/otlp/v1/traces"),
            ("https://otlp.example.com/v1/traces/", "https://otlp.example.com/v1/traces"),
        ] {
            assert_eq!(with(endpoint, &[]).target().unwrap().unwrap().url.as_str(), url);
        }
        assert!(Config { endpoint: None, ..with("", &[]) }.target().unwrap().is_none());
    }

    #[test]
    fn headers_are_pairs_one_a_value_or_a_line() {
        let config = with("http://localhost:4318", &["authorization=Basic YTpi=", "x-scope = a\n\nx-other=b=c\n"]);
        let headers = config.target().unwrap().unwrap().headers;
        let value = |name: &str| headers[name].to_str().unwrap();
        assert_eq!([value("authorization"), value("x-scope"), value("x-other")], ["Basic YTpi=", "a", "b=c"]);
    }

    #[test]
    fn mistakes_are_told_and_no_header_is_shown() {
        let check = |config: Config| config.check().into_iter().map(|(key, reason)| format!("{key} {reason}"));
        let mut told: Vec<_> = ["localhost:4318", "grpc://x:4317", "http://a:b@c", "http://c/?key=x", "no url"]
            .into_iter()
            .flat_map(|endpoint| check(with(endpoint, &[])))
            .collect();
        for header in ["secret-token", "a b=secret", "a=b\u{7}secret", "host=x"] {
            told.extend(check(with("http://localhost:4318", &["x-fine=1", header])));
        }
        told.extend(check(Config { service_name: " ".to_owned(), sample: f64::NAN, ..with("http://localhost:4318", &[]) }));
        assert!(!told.iter().any(|text| text.contains("secret")), "{told:?}");
        insta::assert_snapshot!(told.join("\n"), @r#"
        endpoint must begin with https:// or http://, such as "http://localhost:4318"
        endpoint must begin with https:// or http://, such as "http://localhost:4318"
        endpoint has more than an address and a path; what the collector asks for goes into `trace.headers`
        endpoint has more than an address and a path; what the collector asks for goes into `trace.headers`
        endpoint is no URL: relative URL without a base
        headers (number 2) is not of the form `NAME=VALUE`
        headers (number 2) has a name that is none of a header
        headers (number 2) has a value that no header may have
        headers (number 2) is set by taskhook itself
        service_name is empty
        sample is NaN, which is no share: 0 is none, 1 is all
        "#);
    }
}
