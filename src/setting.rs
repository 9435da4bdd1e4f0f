//! The value types of configuration, shared by every component's `Config` struct.
//!
//! An environment variable is a string; these types read a string as what the key means, so that `TASKHOOK__X__Y=00123` is never
//! guessed at. A [`Secret`] prints as `[redacted]`, whoever prints it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands where a secret would.
pub const REDACTED: &str = "[redacted]";

/// A secret: kept out of every log, error and page.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself; whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether it is empty, which is never a valid secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().trim().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose().as_bytes(), other.expose().as_bytes()).is_ok()
    }
}

impl Eq for Secret {}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(REDACTED)
    }
}

/// A list that may be written as one value, as a list, or (in the environment) as text with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> List<T> {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(to),
            many => many.serialize(to),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<List<T>, E> {
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| T::deserialize(de::value::StrDeserializer::new(item)))
                    .collect::<Result<_, _>>()
                    .map(List)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let mut out = Vec::new();
                while let Some(item) = items.next_element()? {
                    out.push(item);
                }
                Ok(List(out))
            }
        }

        from.deserialize_any(Items(std::marker::PhantomData))
    }
}

/// Secrets, any of which will do. Unlike in a [`List`], text is one of them, commas and all: cut in two, it would be two secrets that
/// are easier to guess. Several are written as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<Secret>);

impl std::ops::Deref for Secrets {
    type Target = [Secret];

    fn deref(&self) -> &[Secret] {
        &self.0
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(to),
            many => many.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Secrets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secrets, E> {
                Ok(Secrets(vec![Secret::new(text)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Secrets, A::Error> {
                let mut out = Vec::new();
                while let Some(item) = items.next_element()? {
                    out.push(item);
                }
                Ok(Secrets(out))
            }
        }

        from.deserialize_any(Items)
    }
}

/// A number of bytes, written as `"64MiB"`, `"2 MB"` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// As a length of something in memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole units only: what is printed must read back as the same number.
        let (mut count, mut units) = (self.0, ["B", "KiB", "MiB", "GiB", "TiB"].iter());
        let mut unit = units.next().unwrap_or(&"B");
        while count >= 1024 && count % 1024 == 0 {
            let Some(next) = units.next() else { break };
            (count, unit) = (count / 1024, next);
        }
        write!(f, "{count}{unit}")
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        bytesize::ByteSize::deserialize(from).map(|size| Self(size.as_u64()))
    }
}

/// A time zone by its IANA name, such as `Europe/Berlin`: where days begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The day that `at` is on.
    #[must_use]
    pub fn day(&self, at: Timestamp) -> Date {
        at.to_zoned(self.0.clone()).date()
    }

    /// When `day` begins.
    #[must_use]
    pub fn begin(&self, day: Date) -> Timestamp {
        day.to_zoned(self.0.clone()).map_or(Timestamp::UNIX_EPOCH, |begin| begin.timestamp())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let zone = TimeZone::get(&name);
        zone.map(Self).map_err(|_| de::Error::custom(format!("{name:?} is no time zone such as \"UTC\" or \"Europe/Berlin\"")))
    }
}

/// A range of addresses, such as `10.0.0.0/8`; one address is a range of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether `address` is in it. An IPv4 address that is written as IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let network: IpNet = text.parse().map_err(|_| format!("{text:?} is no address and no range such as \"10.0.0.0/8\""))?;
        if network.addr() != network.network() {
            return Err(format!("{text:?} is an address within a range: the range is \"{}\"", network.trunc()));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_range_holds_its_addresses_and_prints_as_it_is_read() {
        let holds = |range: &str, address: &str| range.parse::<Network>().unwrap().contains(address.parse().unwrap());
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "192.0.2.7", false),
        ] {
            assert_eq!(holds(range, address), expected, "{range} {address}");
        }
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for (text, words) in
            [("10.0.0.1/8", "10.0.0.0/8"), ("10.0.0.0/33", "no range"), ("", "no range"), ("localhost", "no range")]
        {
            let error = serde_json::from_value::<Network>(json!(text)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_list_may_be_one_value_many_or_text_with_commas() {
        let read = |value| serde_json::from_value::<List<String>>(value).unwrap().0;
        assert_eq!(read(json!("a")), ["a"]);
        assert_eq!(read(json!(["a", "b,c"])), ["a", "b,c"]);
        assert_eq!(read(json!("a, b,,")), ["a", "b"]);
    }

    #[test]
    fn a_secret_with_a_comma_is_one() {
        let read = |value| {
            serde_json::from_value::<Secrets>(value).unwrap().iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(json!(" a, b ")), [" a, b "]);
        assert_eq!(read(json!(["a", "b,c"])), ["a", "b,c"]);
        assert_eq!(json!(Secrets(vec![Secret::new("a")])), json!("[redacted]"));
    }

    #[test]
    fn sizes_print_as_they_are_read() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1025B", 1025), ("2KiB", 2048)] {
            let size: Size = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!(serde_json::from_value::<Size>(json!(512)).unwrap().0, 512);
        assert!(serde_json::from_value::<Size>(json!("many")).is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("sk-12345");
        assert_eq!(format!("{secret:?} {}", json!(secret)), r#"[redacted] "[redacted]""#);
    }
}
