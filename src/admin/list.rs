//! What all lists take: how many rows, from where on, and of which time.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::api::Refused;
use crate::store::view::Page;

/// The most rows of one page.
pub(super) const MOST: u16 = 500;
/// The rows of one page, where nobody says how many.
pub(super) const FEW: u16 = 50;
/// The most characters that are looked for.
pub(super) const MOST_TEXT: usize = 200;

/// Which way a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The newest first, from a cursor back.
    Back,
    /// The oldest first, from a cursor on.
    Forth,
}

/// A time of a query.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub(super) struct Time(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = String::deserialize(from)?;
        written.parse().map(Self).map_err(|_| serde::de::Error::custom("write a time like `2026-01-15T12:00:00Z`"))
    }
}

pub(super) fn bad(title: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "query_invalid", title)
}

/// The part of a list that is asked for.
pub(super) fn page(limit: Option<usize>, cursor: Option<&str>, after: Option<&str>) -> Result<(Page, Way), Refused> {
    let limit = limit.unwrap_or(FEW.into());
    if limit == 0 || limit > MOST.into() {
        return Err(bad(format!("`limit` is a number from 1 to {MOST}")));
    }
    let place = |name: &str, cursor: &str| {
        let place = cursor.parse().ok().filter(|place: &i64| *place >= 0);
        place.ok_or_else(|| bad(format!("`{name}` is not one of our cursors")))
    };
    match (cursor, after) {
        (Some(_), Some(_)) => Err(bad("`cursor` goes back and `after` goes on: use one of them")),
        (cursor, None) => Ok((Page { limit, cursor: cursor.map(|cursor| place("cursor", cursor)).transpose()? }, Way::Back)),
        (None, Some(after)) => Ok((Page { limit, cursor: Some(place("after", after)?) }, Way::Forth)),
    }
}

/// What is looked for.
pub(super) fn text(text: Option<String>) -> Result<Option<String>, Refused> {
    match &text {
        Some(text) if text.trim().is_empty() || text.chars().count() > MOST_TEXT => {
            Err(bad(format!("`text` is what is looked for: 1 to {MOST_TEXT} characters")))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_one_way() {
        let asked = |limit, cursor, after| {
            let told = page(limit, cursor, after).map(|(page, way)| (page.limit, page.cursor, way));
            told.map_err(|refused| refused.title().to_owned())
        };
        assert_eq!(asked(None, None, None), Ok((50, None, Way::Back)));
        assert_eq!(asked(Some(500), Some("7"), None), Ok((500, Some(7), Way::Back)));
        assert_eq!(asked(Some(1), None, Some("0")), Ok((1, Some(0), Way::Forth)));
        assert!(asked(None, Some("1"), Some("1")).is_err_and(|title| title.contains("use one of them")));
        for (cursor, after) in [(Some("x"), None), (Some("-1"), None), (None, Some("")), (None, Some("1.5"))] {
            assert!(
                asked(None, cursor, after).is_err_and(|title| title.contains("is not one of our cursors")),
                "{cursor:?} {after:?}"
            );
        }
        assert!(asked(Some(0), None, None).is_err() && asked(Some(501), None, None).is_err());
    }
}
