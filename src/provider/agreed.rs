//! Requests that carry a value that was agreed with their sender: a token, or a name and a password.

use reqwest::header::HeaderMap;

use super::{Refusal, RefusalKind};
use crate::setting::Secret;

/// The header, and the values any of which will do.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    header: String,
    values: Vec<Secret>,
}

impl Agreed {
    /// One that believes `values` in `header` (in lower case), and nobody if there are none. No value may be empty.
    pub(super) fn new(header: &str, values: impl IntoIterator<Item = Secret>) -> Self {
        let values = values.into_iter().filter(|value| !value.is_empty()).collect();
        Self { header: header.to_owned(), values }
    }

    /// Whether `headers` hold one of the values, and the header once. Takes the same time for every value of one length.
    ///
    /// # Errors
    /// [`RefusalKind::AuthorizationInvalid`].
    pub(super) fn verify(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut sent = headers.get_all(&self.header).iter();
        let value = sent.next().filter(|_| sent.next().is_none());
        let value = value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).map(Secret::new);
        // No early end: every value is compared.
        let good = value.is_some_and(|value| self.values.iter().fold(false, |good, ours| (*ours == value) | good));
        if good { Ok(()) } else { Err(Refusal::of(RefusalKind::AuthorizationInvalid)) }
    }

    /// Says what is wrong with what was sent, without repeating any of it.
    pub(super) fn explain(&self, headers: &HeaderMap) -> String {
        let header = &self.header;
        let values: Vec<_> = headers.get_all(header).iter().collect();
        let [value] = values.as_slice() else {
            let count = if values.is_empty() { "no" } else { "more than one" };
            return format!("there is {count} header `{header}`: let the sender send it once, with the value that is agreed");
        };
        let sent = String::from_utf8_lossy(value.as_bytes());
        let alike = |change: fn(&str) -> String| {
            let sent = Secret::new(change(&sent));
            self.values.iter().any(|ours| Secret::new(change(ours.expose())) == sent)
        };
        if alike(|text| text.split_whitespace().last().unwrap_or_default().to_owned()) {
            return format!(
                "the header `{header}` has the right value behind another word: the words before it, such as `Bearer`, are part of it"
            );
        }
        if alike(str::to_ascii_lowercase) {
            return format!("the header `{header}` has the right value in other capitals");
        }
        format!("the header `{header}` has another value than the one that is agreed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", reqwest::header::HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_of_the_values_once_is_believed_and_nothing_else() {
        let agreed = Agreed::new("authorization", [Secret::new("Bearer one"), Secret::new("Bearer two")]);
        assert_eq!(agreed.verify(&headers(&[b"Bearer one"])), Ok(()));
        assert_eq!(agreed.verify(&headers(&[b"Bearer two"])), Ok(()));
        for values in [
            &[][..],
            &[b"".as_slice()],
            &[b"Bearer on"],
            &[b"Bearer onee"],
            &[b"bearer one"],
            &[b"one"],
            &[b"Bearer one", b"Bearer one"],
            &[b"Bearer \xff"],
        ] {
            assert_eq!(agreed.verify(&headers(values)), Err(Refusal::of(RefusalKind::AuthorizationInvalid)), "{values:?}");
        }
        assert!(Agreed::new("authorization", []).verify(&headers(&[b""])).is_err());
        assert!(Agreed::new("authorization", [Secret::new("")]).verify(&headers(&[b""])).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_a_value() {
        let agreed = Agreed::new("authorization", [Secret::new("Bearer s3cret")]);
        for (values, words) in [
            (&[][..], "there is no header"),
            (&[b"Bearer s3cret".as_slice(), b"x"], "more than one"),
            (&[b"s3cret"], "behind another word"),
            (&[b"bearer S3CRET"], "in other capitals"),
            (&[b"Bearer other"], "another value"),
        ] {
            let said = agreed.explain(&headers(values));
            assert!(said.contains(words) && !said.to_lowercase().contains("s3cret") && !said.contains("other\""), "{said}");
        }
        assert!(!format!("{agreed:?}").contains("s3cret"));
    }
}
