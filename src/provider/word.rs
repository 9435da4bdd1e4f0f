//! Words of an event, found where a configuration says: in a header, in the query, in the body.
//!
//! A place is written `header:NAME`, `query:NAME`, `/json/pointer` (RFC 6901), `text:WORD` or `hash` (of the body); several with `|`
//! between them are tried in turn.
//!
//! What must hold: any bytes can be read. A word that is empty, longer than [`LONGEST`] or holds control characters is not there:
//! words become names that people read, and keys.

use reqwest::header::HeaderName;
use serde_json::Value;

use super::Request;
use crate::event::body_id;

/// The most bytes of a word.
const LONGEST: usize = 512;

/// Where a word may be, in the order in which places are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word(Vec<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Header(HeaderName),
    Query(String),
    Pointer(String),
    Text(String),
    Hash,
}

/// A request and its body as JSON, read once if at all.
#[derive(Debug)]
pub(super) struct Document<'a> {
    request: &'a Request<'a>,
    json: std::cell::OnceCell<Option<Value>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(request: &'a Request<'a>) -> Self {
        Self { request, json: std::cell::OnceCell::new() }
    }

    /// The body; `None` if it is not JSON.
    pub(super) fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_slice(self.request.body).ok()).as_ref()
    }
}

impl Word {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind the name of the key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        text.split('|').map(|place| Place::parse(place.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// The word, if it is there.
    pub(super) fn find(&self, document: &Document<'_>) -> Option<String> {
        self.0.iter().find_map(|place| place.find(document).filter(|word| is_word(word)))
    }

    /// The header that it is always in, if it is in one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self.0.as_slice() {
            [Place::Header(name)] => Some(name),
            _ => None,
        }
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let named =
            |name: &str| if name.is_empty() { Err(format!("holds `{text}`, which names nothing")) } else { Ok(name.to_owned()) };
        match text.split_once(':') {
            _ if text.starts_with('/') => Ok(Self::Pointer(text.to_owned())),
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("holds `{text}`, which names no header"))
            }
            Some(("query", name)) => named(name).map(Self::Query),
            Some(("text", word)) => named(word).map(Self::Text),
            None if text == "hash" => Ok(Self::Hash),
            _ => Err(format!(
                "holds `{text}`; a place is `header:NAME`, `query:NAME`, a JSON pointer such as `/type`, `text:WORD` or `hash`"
            )),
        }
    }

    fn find(&self, document: &Document<'_>) -> Option<String> {
        let request = document.request;
        match self {
            Self::Header(name) => {
                let mut values = request.headers.get_all(name).iter();
                // Two may mean two different things to two readers.
                values.next().filter(|_| values.next().is_none())?.to_str().ok().map(ToOwned::to_owned)
            }
            Self::Query(name) => {
                let (_, query) = request.url_suffix.split_once('?')?;
                let mut values = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
                values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.into_owned())
            }
            Self::Pointer(pointer) => match document.json()?.pointer(pointer)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(yes) => Some(yes.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            },
            Self::Text(word) => Some(word.clone()),
            Self::Hash => Some(body_id(request.body)),
        }
    }
}

fn is_word(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderMap;

    fn find_in(word: &str, suffix: &str, body: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-event", "push".parse().unwrap());
        headers.append("x-two", "a".parse().unwrap());
        headers.append("x-two", "b".parse().unwrap());
        let request = Request { headers: &headers, body, url_suffix: suffix, now: jiff::Timestamp::UNIX_EPOCH };
        Word::parse(word).unwrap().find(&Document::new(&request))
    }

    fn find(word: &str) -> Option<String> {
        let body = br#"{"type":"t","n":196619188014358660,"yes":true,"no":null,"list":["x"],"a/b":{"~":"deep"},"empty":"","line":"a\nb"}"#;
        find_in(word, "/webhooks/x?ref=r%201&two=1&two=2&none", body)
    }

    #[test]
    fn words_are_found_where_they_are_said_to_be() {
        for (word, expected) in [
            ("/type", Some("t")),
            ("/n", Some("196619188014358660")),
            ("/yes", Some("true")),
            ("/list/0", Some("x")),
            ("/a~1b/~0", Some("deep")),
            ("header:X-Event", Some("push")),
            ("query:ref", Some("r 1")),
            ("text:a:b", Some("a:b")),
            ("/missing | /type", Some("t")),
            ("/empty|header:none|text:word", Some("word")),
            ("/missing", None),
            ("/no", None),
            ("/list", None),
            ("/empty", None),
            ("/line", None),
            ("header:x-two", None),
            ("query:two", None),
            ("query:none", None),
            ("query:type", None),
        ] {
            assert_eq!(find(word).as_deref(), expected, "{word}");
        }
        assert_eq!(find_in("hash", "/webhooks/x", b"a"), Some(body_id(b"a")));
        assert_eq!(find_in("/type", "/webhooks/x", b"not json"), None);
        assert_eq!(find_in("/type", "", format!(r#"{{"type":"{}"}}"#, "x".repeat(513)).as_bytes()), None);
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for (word, words) in [
            ("type", "a place is"),
            ("", "a place is"),
            ("/a|", "a place is"),
            ("header:", "names no header"),
            ("header:a b", "names no header"),
            ("query:", "names nothing"),
            ("text:", "names nothing"),
            ("body:x", "a place is"),
        ] {
            let reason = Word::parse(word).unwrap_err();
            assert!(reason.contains(words), "{word}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_searched(body in proptest::collection::vec(any::<u8>(), 0..100), suffix in "/[ -~]{0,40}") {
            for word in ["/a/0", "query:a", "hash", "header:x-event"] {
                prop_assert!(find_in(word, &suffix, &body).is_none_or(|word| is_word(&word)));
            }
        }
    }
}
