//! What the headers of a signed request claim, read strictly.

use jiff::Timestamp;
use reqwest::header::HeaderMap;

use super::{Refusal, RefusalKind};

/// What to say of a header that is not there, and of one that cannot be what it should.
pub(super) type Faults = (RefusalKind, RefusalKind);

/// Of a header with a signature.
pub(super) const SIGNATURE: Faults = (RefusalKind::SignatureMissing, RefusalKind::SignatureMalformed);
/// Of a header with a time.
pub(super) const TIMESTAMP: Faults = (RefusalKind::TimestampMissing, RefusalKind::TimestampMalformed);

/// The one value of a header: two may mean two different things to two readers.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str, (missing, malformed): Faults) -> Result<&'a str, RefusalKind> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(missing)?;
    if values.next().is_some() {
        return Err(malformed);
    }
    value.to_str().map_err(|_| malformed)
}

/// Decimal digits and nothing else: no sign, no blank, no leading zero, so that a time has one spelling.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain && text.len() <= 15 { text.parse().ok() } else { None }
}

/// Whether `seconds`, the time of a good signature, is at most `tolerance` seconds from now, either way.
pub(super) fn timely(now: Timestamp, seconds: i64, tolerance: i64) -> Result<(), Refusal> {
    if (now.as_second() - seconds).abs() > tolerance {
        return Err(Refusal { kind: RefusalKind::TimestampStale, genuine: true });
    }
    Ok(())
}

/// What a good signature with the time `seconds` means where that is too far from now; `None` where it is not.
pub(super) fn lateness(now: Timestamp, seconds: i64, tolerance: i64) -> Option<String> {
    let age = now.as_second() - seconds;
    let side = if age < 0 { "ahead of" } else { "behind" };
    (age.abs() > tolerance).then(|| {
        format!(
            "the signature is genuine, but its time is {} s {side} ours, and at most {tolerance} s are accepted: set this machine's \
             clock; if it is right, the request was held back, or sent again by somebody else",
            age.unsigned_abs()
        )
    })
}
