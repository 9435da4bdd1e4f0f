//! What a signature covers: a template such as `{ts}.{body}`, filled from a request.
//!
//! What must hold: every part is taken as it was received, byte for byte, never read and printed again; the URL comes from our
//! configuration; and a template without the body is none, since whoever saw one such signature could sign any body with it.

use aws_lc_rs::digest::{SHA256, digest};
use reqwest::header::{HeaderMap, HeaderName};

use crate::event::hex;

/// A template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Body,
    BodyDigest,
    Url,
    Timestamp,
    Header(HeaderName),
}

/// What a template is filled from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// The hexadecimal SHA-256 of the body, where [`Content::needs_digest`].
    pub(super) body_digest: &'a str,
    pub(super) url: &'a str,
    pub(super) timestamp: &'a str,
}

impl Content {
    /// Reads `text`: words as they are, and `{body}`, `{body_sha256_hex}`, `{ts}`, `{url}`, `{id}`, `{header:NAME}`; a brace is
    /// written twice. `id` is the header that holds the event's id, if one does.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind the name of the key.
    pub(super) fn parse(text: &str, id: Option<&HeaderName>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") else {
                return Err(format!("has a `{brace}` without its other half; a brace that is signed is written twice"));
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece(name, id)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Body | Piece::BodyDigest)) {
            return Err("holds neither `{body}` nor `{body_sha256_hex}`, so one signature would be good for any body".to_owned());
        }
        Ok(Self(pieces))
    }

    pub(super) fn covers_url(&self) -> bool {
        self.0.contains(&Piece::Url)
    }

    pub(super) fn covers_timestamp(&self) -> bool {
        self.0.contains(&Piece::Timestamp)
    }

    pub(super) fn needs_digest(&self) -> bool {
        self.0.contains(&Piece::BodyDigest)
    }

    /// The bytes that are signed, in parts. `None` if a header is not there, or there more than once.
    pub(super) fn fill<'a>(&'a self, parts: &Parts<'a>) -> Option<Vec<&'a [u8]>> {
        let fill = |piece: &'a Piece| {
            Some(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Body => parts.body,
                Piece::BodyDigest => parts.body_digest.as_bytes(),
                Piece::Url => parts.url.as_bytes(),
                Piece::Timestamp => parts.timestamp.as_bytes(),
                Piece::Header(name) => {
                    let mut values = parts.headers.get_all(name).iter();
                    let value = values.next()?;
                    if values.next().is_some() {
                        return None;
                    }
                    value.as_bytes()
                }
            })
        };
        self.0.iter().map(fill).collect()
    }
}

fn piece(name: &str, id: Option<&HeaderName>) -> Result<Piece, String> {
    Ok(match name {
        "body" => Piece::Body,
        "body_sha256_hex" => Piece::BodyDigest,
        "url" => Piece::Url,
        "ts" => Piece::Timestamp,
        "id" => {
            let reason =
                "holds `{id}`, but `event_id` is not one header: write `{header:NAME}`, or set `event_id = \"header:NAME\"`";
            Piece::Header(id.ok_or(reason)?.clone())
        }
        _ => match name.strip_prefix("header:").map(str::parse) {
            Some(Ok(name)) => Piece::Header(name),
            Some(Err(_)) => return Err(format!("holds `{{{name}}}`, which names no header")),
            None => {
                return Err(format!(
                    "holds `{{{name}}}`; it may hold `{{body}}`, `{{body_sha256_hex}}`, `{{ts}}`, `{{url}}`, `{{id}}` and \
                     `{{header:NAME}}`"
                ));
            }
        },
    })
}

/// The hexadecimal SHA-256 of `body`.
pub(super) fn body_digest(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let id = HeaderName::from_static("webhook-id");
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "m1".parse().unwrap());
        headers.insert("x-one", "1".parse().unwrap());
        headers.append("x-two", "1".parse().unwrap());
        headers.append("x-two", "2".parse().unwrap());
        let body_digest = body_digest(b"{}");
        let parts =
            Parts { headers: &headers, body: b"{}", body_digest: &body_digest, url: "https://h.example/w?q", timestamp: "0123" };
        let content = match Content::parse(template, Some(&id)) {
            Ok(content) => content,
            Err(reason) => return reason,
        };
        content.fill(&parts).map_or_else(|| "nothing".to_owned(), |parts| String::from_utf8(parts.concat()).unwrap())
    }

    #[test]
    fn templates_are_filled() {
        assert_eq!(filled("{body}"), "{}");
        assert_eq!(filled("v0:{ts}:{body}"), "v0:0123:{}");
        assert_eq!(filled("{id}.{ts}.{body}"), "m1.0123.{}");
        assert_eq!(filled("{ts}\n{url}\n{header:X-One}{body}"), "0123\nhttps://h.example/w?q\n1{}");
        assert_eq!(filled("{{{ts}}}{body_sha256_hex}"), format!("{{0123}}{}", body_digest(b"{}")));
        assert_eq!(filled("{header:x-two}{body}"), "nothing");
        assert_eq!(filled("{header:x-three}{body}"), "nothing");
    }

    #[test]
    fn what_covers_nothing_or_cannot_be_read_is_refused() {
        for (template, words) in [
            ("", "neither `{body}`"),
            ("{ts}.{id}", "neither `{body}`"),
            ("{{body}}", "neither `{body}`"),
            ("{body", "without its other half"),
            ("body}", "without its other half"),
            ("{bdy}", "it may hold `{body}`"),
            ("{header:}{body}", "names no header"),
            ("{header:a b}{body}", "names no header"),
        ] {
            let said = filled(template);
            assert!(said.contains(words), "{template}: {said}");
        }
        assert!(Content::parse("{id}{body}", None).unwrap_err().contains("`event_id`"));
    }
}
