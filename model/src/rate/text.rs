//! Rates in words, as `tc` and `devlink` take and print them.

use std::fmt;

/// Why a word is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rate: a number and bit, kbit, mbit, gbit, tbit, bps, kbps, mbps, gbps or tbps \
     (bytes), or with i behind the first letter (kibit), up to 2^63 bytes a second"
)]
pub struct RateTextError(pub String);

/// Bytes per second, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateText(pub u64);

/// Letter and the power of 1000 or 1024 that it stands for.
const PREFIXES: [(char, i32); 5] = [('k', 1), ('m', 2), ('g', 3), ('t', 4), ('p', 5)];

impl std::str::FromStr for RateText {
    type Err = RateTextError;

    /// A number alone is in bits per second.
    fn from_str(text: &str) -> Result<Self, RateTextError> {
        let wrong = || RateTextError(text.chars().take(100).collect());
        let lower = text.to_ascii_lowercase();
        let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = lower.split_at(end.unwrap_or(lower.len()));
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let (unit, bits) = match unit.strip_suffix("bps") {
            Some(prefix) => (prefix, 8.0),
            None => (unit.strip_suffix("bit").unwrap_or(unit), 1.0),
        };
        let (unit, base) = match unit.strip_suffix('i') {
            Some(prefix) if !prefix.is_empty() => (prefix, 1024f64),
            _ => (unit, 1000.0),
        };
        // A letter needs what it is a multiple of: `10m` could be bits or bytes.
        let scale = match unit {
            "" if base == 1000.0 => 1.0,
            unit if lower.ends_with("bit") || lower.ends_with("bps") => {
                let prefix = PREFIXES.iter().find(|(letter, _)| {
                    let mut letters = unit.chars();
                    letters.next() == Some(*letter) && letters.next().is_none()
                });
                base.powi(prefix.ok_or_else(wrong)?.1)
            }
            _ => return Err(wrong()),
        };
        let bytes = (number * scale * bits / 8.0).round();
        if bytes < (1u64 << 63) as f64 {
            Ok(Self(bytes as u64))
        } else {
            Err(wrong())
        }
    }
}

/// In the largest unit that it is a whole number of.
impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0) * 8;
        let whole = |power: &i32| bits != 0 && bits.is_multiple_of(1000u128.pow(*power as u32));
        let prefix = PREFIXES[..4].iter().rev().find(|(_, power)| whole(power));
        match prefix {
            Some((letter, power)) => {
                write!(f, "{}{letter}bit", bits / 1000u128.pow(*power as u32))
            }
            None => write!(f, "{bits}bit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_tc() {
        let cases = [
            ("8", 1),
            ("0", 0),
            ("10mbit", 1_250_000),
            ("1.5Mbit", 187_500),
            ("1gbit", 125_000_000),
            ("1kibit", 128),
            ("1kbps", 1000),
            ("2MiBps", 2 << 20),
            ("16bit", 2),
            ("3bps", 3),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(RateText(bytes)), "{text}");
        }
        for text in [
            "",
            "mbit",
            "10m",
            "10xbit",
            "-1mbit",
            "1e3",
            "10 mbit",
            "10ibit",
            "99999999pbit",
        ] {
            assert!(text.parse::<RateText>().is_err(), "{text}");
        }
        assert_eq!(RateText(1_250_000).to_string(), "10mbit");
        assert_eq!(RateText(1).to_string(), "8bit");
        assert_eq!(RateText(0).to_string(), "0bit");
    }

    proptest! {
        #[test]
        fn read_as_written(bytes in 0u64..1 << 48) {
            let rate = RateText(bytes);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
