//! Times of day and ages, as they are shown.

use chrono::{DateTime, SecondsFormat};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-24T16:29:23Z` (RFC 3339, in UTC), of milliseconds since 1970.
pub fn rfc3339(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(
        || "?".to_owned(),
        |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}

/// The seconds since a time in milliseconds since 1970; 0 if it is to come.
pub fn seconds_since(millis: u64) -> f64 {
    let then = UNIX_EPOCH + Duration::from_millis(millis);
    SystemTime::now().duration_since(then).unwrap_or_default().as_secs_f64()
}

/// `45s`, `12m`, `5h`, `30d`: the largest unit of which there is at least one, rounded down.
pub fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m", whole / 60),
        3600..86_400 => format!("{}h", whole / 3600),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        assert_eq!(rfc3339(1_764_001_763_999), "2025-11-24T16:29:23Z");
        assert_eq!(rfc3339(u64::MAX), "?");
        assert_eq!(
            [0.9, 59.0, 60.0, 7200.0, 172_800.0].map(age).join(" "),
            "0s 59s 1m 2h 2d"
        );
    }
}
