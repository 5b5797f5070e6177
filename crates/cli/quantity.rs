//! Sizes and ages as people write them on the command line.

use std::time::Duration;

/// A number and its unit that cannot be understood, or is more than can be held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a number and a unit, one of {}, such as {example}", units.join(", "))]
pub struct BadQuantity {
    units: Vec<&'static str>,
    example: &'static str,
}

const SIZES: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
    ("TiB", 1024.0 * 1024.0 * 1024.0 * 1024.0),
];

const AGES: [(&str, f64); 5] = [
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 24.0 * 3600.0),
    ("w", 7.0 * 24.0 * 3600.0),
];

/// Bytes: `500MB`, `1.5 GiB`; upper and lower case are the same.
///
/// # Errors
/// [`BadQuantity`].
pub fn bytes(text: &str) -> Result<u64, BadQuantity> {
    let value = parse(text, &SIZES, "500MB or 10GiB")?;
    // Exact where it matters: no cache has more than the 2^53 bytes that a float counts.
    Ok(value.round() as u64)
}

/// How large something may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// So many bytes.
    Bytes(u64),
    /// As it likes.
    None,
}

/// A size as [`bytes`] reads it; `none` and 0 set no bound.
///
/// # Errors
/// [`BadQuantity`].
pub fn cap(text: &str) -> Result<Cap, BadQuantity> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(Cap::None);
    }
    Ok(match bytes(text)? {
        0 => Cap::None,
        size => Cap::Bytes(size),
    })
}

/// A time span: `12h`, `30d`.
///
/// # Errors
/// [`BadQuantity`].
pub fn age(text: &str) -> Result<Duration, BadQuantity> {
    let seconds = parse(text, &AGES, "12h or 30d")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| bad(&AGES, "12h or 30d"))
}

/// How often something is done, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

/// A time span, or `never`.
///
/// # Errors
/// [`BadQuantity`].
pub fn interval(text: &str) -> Result<Interval, BadQuantity> {
    if text.trim().eq_ignore_ascii_case("never") {
        return Ok(Interval(None));
    }
    age(text).map(Some).map(Interval)
}

fn parse(text: &str, units: &[(&'static str, f64)], example: &'static str) -> Result<f64, BadQuantity> {
    let text = text.trim();
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    let (number, unit) = text.split_at(text.find(|c| !is_of_number(c)).unwrap_or(text.len()));
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
    match (number.parse::<f64>(), factor) {
        (Ok(number), Some((_, factor))) => Ok(number * factor),
        (Ok(0.0), None) if unit.is_empty() => Ok(0.0),
        (Ok(_) | Err(_), _) => Err(bad(units, example)),
    }
}

fn bad(units: &[(&'static str, f64)], example: &'static str) -> BadQuantity {
    BadQuantity {
        units: units.iter().map(|(name, _)| *name).collect(),
        example,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_anything_else_is_told_apart() {
        let read = ["0", "7B", "500MB", "10gb", "1GiB", "1.5 kB", " 2TiB "].map(|text| bytes(text).unwrap());
        assert_eq!(read, [0, 7, 500_000_000, 10_000_000_000, 1 << 30, 1500, 2 << 40]);
        for text in [
            "", "10", "GB", "-1GB", "1e3B", "10 G B", "10d", "1.2.3MB", "NaN", "infGB", "１GB",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        let told = bytes("10").unwrap_err().to_string();
        assert!(
            told.starts_with("write a number and a unit, one of B, kB, MB,") && told.ends_with("500MB or 10GiB"),
            "{told}"
        );
    }

    #[test]
    fn a_cap_may_be_none() {
        let read = ["0", "none", "None", "0GB", "1kB"].map(|text| cap(text).unwrap());
        assert_eq!(read, [Cap::None, Cap::None, Cap::None, Cap::None, Cap::Bytes(1000)]);
        assert!(cap("unlimited").is_err());
    }

    #[test]
    fn ages_are_read_and_anything_else_is_told_apart() {
        let read = ["0", "90s", "5m", "12h", "30d", "2W", "0.5h"].map(|text| age(text).unwrap().as_secs());
        assert_eq!(read, [0, 90, 300, 43_200, 2_592_000, 1_209_600, 1800]);
        for text in ["", "30", "d", "-1d", "1y", "1GB", "1d12h"] {
            assert!(age(text).is_err(), "{text}");
        }
        assert!(
            age(&format!("{}w", "9".repeat(300))).is_err(),
            "more than a clock counts"
        );
        let intervals = ["never", "0", "2m"].map(|text| interval(text).unwrap().0);
        assert_eq!(intervals, [None, Some(Duration::ZERO), Some(Duration::from_secs(120))]);
        assert!(interval("sometimes").is_err());
    }
}
