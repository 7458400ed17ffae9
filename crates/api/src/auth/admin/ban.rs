use crate::{Error, Result};
use std::time::Duration;

/// How long a ban lasts, as Go writes durations (<https://pkg.go.dev/time#ParseDuration>); `None` lifts it.
pub fn duration(text: &str) -> Result<Option<Duration>> {
    let problem = || Error::invalid("ban_duration", "has to be none, or like 24h or 1h30m");
    if text == "none" {
        return Ok(None);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = rest.split_at(digits.ok_or_else(problem)?);
        let number: f64 = number.parse().map_err(|_| problem())?;
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        total += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return Err(problem()),
            };
        rest = after;
    }
    let longest = 3600.0 * 10_000_000.0;
    if text.is_empty() || total > longest {
        return Err(problem());
    }
    Ok(Some(Duration::from_secs_f64(total)).filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_lasts_as_go_writes_durations() {
        let seconds = |text| duration(text).map(|d| d.map(|d| d.as_millis()));

        for (text, ms) in [
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("300ms", 300),
            ("876000h", 3_153_600_000_000),
        ] {
            assert_eq!(seconds(text).unwrap(), Some(ms), "{text}");
        }
        for text in ["none", "0s"] {
            assert_eq!(seconds(text).unwrap(), None, "{text}");
        }
        for text in [
            "",
            "24",
            "h",
            "-1h",
            "1d",
            "1e9h",
            "99999999999h",
            "1h x",
            "..h",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
