//! Sizes, rates and durations as people write and read them.
//!
//! Promise: what [`exact_size`], [`exact_rate`] and [`exact_duration`] write, the matching `parse_` reads back to the same
//! value. A number without a unit is accepted only where it can mean one thing (a size in bytes); "Mb" is refused where a
//! bit and a byte could be confused. Human spellings round and are for eyes only.

use std::time::Duration;

/// Why a word is not a quantity, with an example of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuantity(String);

fn bad(what: impl Into<String>) -> BadQuantity {
    BadQuantity(what.into())
}

/// Decimal units are powers of 1000, binary ones of 1024 (IEC 80000-13).
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1000_u64.pow(2)),
    ("GB", 1000_u64.pow(3)),
    ("TB", 1000_u64.pow(4)),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const BIT_UNITS: [(&str, u64); 4] = [
    ("bit", 1),
    ("kbit", 1000),
    ("Mbit", 1000_u64.pow(2)),
    ("Gbit", 1000_u64.pow(3)),
];

/// Milliseconds per unit.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Splits `12.5 MiB` into the number's text and the unit.
fn split(word: &str) -> (&str, &str) {
    let word = word.trim();
    let end = word
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(word.len());
    (&word[..end], word[end..].trim_start())
}

/// `number * factor / divisor`, exact for whole numbers; a fraction is rounded down. None on overflow or no number.
fn scale(number: &str, factor: u64, divisor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let shift = 10_u128.pow(fraction.len() as u32);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(u128::from(factor))?;
    u64::try_from(product / shift / u128::from(divisor)).ok()
}

fn factor_of(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .map(|&(_, factor)| factor)
}

/// A size in bytes: `256MiB`, `1.5 GB`, `4096`.
pub fn parse_size(word: &str) -> Result<u64, BadQuantity> {
    let (number, unit) = split(word);
    let factor = if unit.is_empty() {
        1
    } else {
        match factor_of(&SIZE_UNITS, unit) {
            Some(factor) => factor,
            None => return Err(unknown_size_unit(unit)),
        }
    };
    scale(number, factor, 1)
        .ok_or_else(|| bad("not a size: write a number and a unit, such as \"256MiB\" or \"1GB\""))
}

fn unknown_size_unit(unit: &str) -> BadQuantity {
    let letter = unit.to_ascii_uppercase();
    if matches!(letter.as_str(), "K" | "M" | "G" | "T") {
        return bad(format!(
            "{unit:?} can mean two sizes: write {letter}iB (powers of 1024) or {letter}B (powers of 1000)"
        ));
    }
    bad(format!(
        "unknown unit {unit:?}: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"
    ))
}

/// A rate in bytes per second: `2MB/s`, `500KiB/s`, `16Mbit/s`.
pub fn parse_rate(word: &str) -> Result<u64, BadQuantity> {
    const EXAMPLE: &str = "write a rate such as \"2MB/s\" or \"16Mbit/s\"";
    let (number, unit) = split(word);
    let Some(unit) = unit.strip_suffix("/s").map(str::trim_end) else {
        return Err(bad(format!("not a rate: {EXAMPLE}")));
    };
    let (factor, divisor) = if unit.ends_with('b') {
        return Err(bad(format!("{unit:?} can mean bits or bytes: {EXAMPLE}")));
    } else if let Some(bits) = factor_of(&BIT_UNITS, unit) {
        (bits, 8)
    } else if let Some(bytes) = factor_of(&SIZE_UNITS, unit) {
        (bytes, 1)
    } else {
        return Err(bad(format!("unknown unit {unit:?}: {EXAMPLE}")));
    };
    scale(number, factor, divisor).ok_or_else(|| bad(format!("not a rate: {EXAMPLE}")))
}

/// A duration: `90s`, `1h30m`, `2d`, `1w`, `500ms`; units in falling order, each at most once.
pub fn parse_duration(word: &str) -> Result<Duration, BadQuantity> {
    const EXAMPLE: &str = "write a duration such as \"30s\", \"5m\", \"1h30m\" or \"2d\"";
    let mut rest = word.trim();
    let mut units = DURATION_UNITS.iter();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(bad(format!("empty: {EXAMPLE}")));
    }
    while !rest.is_empty() {
        let (number, tail) = split(rest);
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() && !number.is_empty() {
            return Err(bad(format!("no unit after {number}: {EXAMPLE}")));
        }
        let Some(&(_, factor)) = units.find(|(name, _)| *name == unit) else {
            return Err(bad(format!("not a duration: {EXAMPLE}")));
        };
        total_ms = scale(number, factor, 1)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| bad(format!("not a duration: {EXAMPLE}")))?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Exact, in the largest unit that divides it: `256MiB`, `2MB`, `1000001B`.
pub fn exact_size(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes > 0 && bytes % factor == 0;
    let (name, factor) = SIZE_UNITS
        .iter()
        .filter(fits)
        .max_by_key(|(_, factor)| *factor)
        .copied()
        .unwrap_or(("B", 1));
    format!("{}{name}", bytes / factor)
}

/// Exact, in bytes per second.
pub fn exact_rate(bytes: u64) -> String {
    format!("{}/s", exact_size(bytes))
}

/// Exact to the millisecond: `1h30m`, `2d`, `500ms`. What is finer than a millisecond is dropped.
pub fn exact_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        if rest >= factor {
            text += &format!("{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    text
}

/// For people: `1.2 GiB`, `512 B`.
pub fn human_bytes(bytes: u64) -> String {
    human_scaled(bytes as f64)
}

/// For people, bytes per second: `3.4 MiB/s`.
pub fn human_rate(bytes_per_s: f64) -> String {
    format!("{}/s", human_scaled(bytes_per_s.max(0.0)))
}

fn human_scaled(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        // 1023.95 would print as 1024.0: it is one of the next unit.
        if value < 1023.95 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// For people, the two largest units: `3m 12s`, `2d 4h`, `0.4s`. Negative and not-a-number read as `0s`.
pub fn human_duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds <= 0.0 {
        return "0s".to_owned();
    }
    if seconds < 9.95 {
        let tenths = format!("{seconds:.1}");
        return format!("{}s", tenths.strip_suffix(".0").unwrap_or(&tenths));
    }
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large}{large_unit}")
        } else {
            format!("{large}{large_unit} {small}{small_unit}")
        }
    };
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "m")
    } else if minutes > 0 {
        two(minutes, "m", whole % 60, "s")
    } else {
        format!("{whole}s")
    }
}

/// For people, of an age in seconds: `3m 12s ago`, `now`, and `in 5s` for a negative one (a clock went back).
pub fn human_age(seconds: f64) -> String {
    if seconds.abs() < 1.0 || seconds.is_nan() {
        "now".to_owned()
    } else if seconds < 0.0 {
        format!("in {}", human_duration(-seconds))
    } else {
        format!("{} ago", human_duration(seconds.floor()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(word: &str, bytes: u64) {
        assert_eq!(parse_size(word), Ok(bytes), "{word:?}");
        assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes), "{word:?}");
    }

    fn rate(word: &str, bytes: u64) {
        assert_eq!(parse_rate(word), Ok(bytes), "{word:?}");
        assert_eq!(parse_rate(&exact_rate(bytes)), Ok(bytes), "{word:?}");
    }

    fn duration(word: &str, ms: u64) {
        let value = Duration::from_millis(ms);
        assert_eq!(parse_duration(word), Ok(value), "{word:?}");
        assert_eq!(parse_duration(&exact_duration(value)), Ok(value));
    }

    #[test]
    fn sizes() {
        size("0", 0);
        size("4096", 4096);
        size("256MiB", 256 << 20);
        size("1 GiB", 1 << 30);
        size("1.5GiB", 3 << 29);
        size("2mb", 2_000_000);
        size("1000001B", 1_000_001);
        size("18446744073709551615B", u64::MAX);
    }

    #[test]
    fn rates() {
        rate("2MB/s", 2_000_000);
        rate("16Mbit/s", 2_000_000);
        rate("16 mbit/s", 2_000_000);
        rate("512 KiB/s", 512 << 10);
        rate("100B/s", 100);
    }

    #[test]
    fn durations() {
        duration("30s", 30_000);
        duration("5m", 300_000);
        duration("1h30m", 5_400_000);
        duration("1h 30m", 5_400_000);
        duration("1.5h", 5_400_000);
        duration("2d", 172_800_000);
        duration("1w", 604_800_000);
        duration("500ms", 500);
        duration("0s", 0);
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, BadQuantity>, part: &str) {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }

    #[test]
    fn refusals_say_what_to_write() {
        refused(parse_size(""), "256MiB");
        refused(parse_size("-1MB"), "unknown unit");
        refused(parse_size("1G"), "GiB");
        refused(parse_size("1.2.3MB"), "not a size");
        refused(parse_size("1 apple"), "apple");
        refused(parse_size("99999999TiB"), "not a size");
        refused(parse_rate("2MB"), "2MB/s");
        refused(parse_rate("2Mb/s"), "bits or bytes");
        refused(parse_rate("2x/s"), "unknown unit");
        refused(parse_duration(""), "empty");
        refused(parse_duration("90"), "no unit");
        refused(parse_duration("5 minutes"), "not a duration");
        refused(parse_duration("30m1h"), "not a duration");
        refused(parse_duration("5m5m"), "not a duration");
        refused(parse_duration("99999999999999w"), "not a duration");
    }

    #[test]
    fn human_spellings() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1024), "1.0 KiB");
        assert_eq!(human_bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(human_bytes(1_288_490_189), "1.2 GiB");
        assert_eq!(human_rate(3.4 * 1048576.0), "3.4 MiB/s");
        assert_eq!(human_duration(0.0), "0s");
        assert_eq!(human_duration(0.42), "0.4s");
        assert_eq!(human_duration(59.6), "1m");
        assert_eq!(human_duration(192.0), "3m 12s");
        assert_eq!(human_duration(7200.0), "2h");
        assert_eq!(human_duration(187_200.0), "2d 4h");
        assert_eq!(human_duration(f64::NAN), "0s");
        assert_eq!(human_age(192.9), "3m 12s ago");
        assert_eq!(human_age(0.3), "now");
        assert_eq!(human_age(-5.0), "in 5s");
    }
}
