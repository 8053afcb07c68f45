//! From text and wide numbers to the types of a request, once for the API, the config file and the
//! command line. Refusals name the field and what would be allowed.

use super::Refused;
use chanio_model::rss::{MAX_TABLE, RssChange};
use chanio_model::{ChannelName, Mac, Vlan};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Queue pairs of a channel; the upper end is a TAP's, with vhost-user there are fewer.
pub const QUEUES: RangeInclusive<u16> = 1..=256;
/// Bytes of a channel's largest L3 packet.
pub const MTU: RangeInclusive<u16> = 68..=9500;
/// Where nothing else is asked for, bytes.
pub const DEFAULT_MTU: u16 = 1500;
/// Seconds that a learned address lives without traffic.
pub const AGEING_SECS: RangeInclusive<u32> = 10..=1_000_000;
/// Where nothing else is asked for, seconds; Linux bridges have the same.
pub const DEFAULT_AGEING_SECS: u32 = 300;

fn invalid(field: &'static str, value: impl Display, allowed: impl Into<String>) -> Refused {
    let value = value.to_string();
    let allowed = allowed.into();
    Refused::Invalid {
        field,
        value,
        allowed,
    }
}

/// Hostile text, fit for one line of a message.
pub fn shown(text: &str) -> String {
    let start = text.chars().take(200);
    start.flat_map(char::escape_debug).collect()
}

/// A number within a range.
///
/// # Errors
/// [`Refused::Invalid`] outside it.
pub fn number<T>(field: &'static str, value: i64, range: RangeInclusive<T>) -> Result<T, Refused>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let fits = T::try_from(value).ok().filter(|v| range.contains(v));
    fits.ok_or_else(|| {
        let allowed = format!("{} to {}", range.start(), range.end());
        invalid(field, value, allowed)
    })
}

/// A channel's name. `uplink` is none, since that is what rules call the wire.
///
/// # Errors
/// [`Refused::Invalid`]
pub fn channel_name(text: &str) -> Result<ChannelName, Refused> {
    let name = text.parse().ok().filter(|_| text != "uplink");
    name.ok_or_else(|| {
        let allowed = "1 to 63 characters out of a-z A-Z 0-9 . _ -, the first a letter or digit, \
                       and not `uplink`";
        invalid("name", format_args!("`{}`", shown(text)), allowed)
    })
}

/// An address, group or not.
///
/// # Errors
/// [`Refused::Invalid`]
pub fn mac(text: &str) -> Result<Mac, Refused> {
    text.parse().map_err(|_| {
        let allowed = "six hex bytes separated by colons, as 02:00:00:00:00:01";
        invalid("mac", format_args!("`{}`", shown(text)), allowed)
    })
}

/// A channel's port VLAN; 0 is none.
///
/// # Errors
/// [`Refused::Invalid`] above 4094.
pub fn port_vlan(value: i64) -> Result<Option<Vlan>, Refused> {
    number("vlan", value, 0..=4094).map(Vlan::new)
}

/// A VLAN of the address table; 0 is untagged.
///
/// # Errors
/// [`Refused::Invalid`] above 4094.
pub fn vid(value: i64) -> Result<u16, Refused> {
    number("vid", value, 0..=4094)
}

/// RSS settings in words and wide numbers; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct RssText<'a> {
    /// Names with commas between them.
    pub types: Option<&'a str>,
    /// In hex.
    pub key: Option<&'a str>,
    /// Queue pairs, counted from 0.
    pub table: Option<Vec<i64>>,
    /// A queue pair, counted from 0.
    pub unclassified: Option<i64>,
}

/// What to change of RSS settings.
///
/// # Errors
/// [`Refused::Rss`], [`Refused::Invalid`]. Whether the channel has the queues is not checked.
pub fn rss(text: &RssText<'_>) -> Result<RssChange, Refused> {
    let queue = |field| move |value: &i64| number(field, *value, 0..=QUEUES.end() - 1);
    let table = text.table.as_ref().map(|table| {
        let queues = table.iter().take(MAX_TABLE + 1);
        queues.map(queue("rss table")).collect()
    });
    let unclassified = text.unclassified.as_ref();
    Ok(RssChange {
        off: false,
        types: text.types.map(str::parse).transpose()?,
        key: text.key.map(str::parse).transpose()?,
        table: table.transpose()?,
        unclassified: unclassified.map(queue("rss unclassified")).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_field_value_and_range() {
        let why = |refused: Refused| refused.to_string();
        assert_eq!(
            why(number("queues", 257, QUEUES).unwrap_err()),
            "queues: 257 is not allowed, must be 1 to 256"
        );
        assert_eq!(number("mtu", 68, MTU).unwrap(), 68);
        assert!(number("mtu", -1, MTU).is_err() && number("mtu", i64::MAX, MTU).is_err());
        assert_eq!(port_vlan(0).unwrap(), None);
        assert_eq!(port_vlan(4094).unwrap(), Vlan::new(4094));
        assert!(port_vlan(4095).is_err() && vid(4095).is_err() && vid(-1).is_err());
        for bad in ["uplink", "", "../x", "a\nb"] {
            assert!(why(channel_name(bad).unwrap_err()).starts_with("name: `"));
        }
        let table = Some(vec![0, 256]);
        let text = RssText {
            table,
            ..RssText::default()
        };
        assert_eq!(
            why(rss(&text).unwrap_err()),
            "rss table: 256 is not allowed, must be 0 to 255"
        );
        let key = Some("6d:5");
        let text = RssText {
            key,
            ..RssText::default()
        };
        assert!(why(rss(&text).unwrap_err()).starts_with("rss key: `6d:5` is not"));
        assert!(why(mac("02:00").unwrap_err()).starts_with("mac: `02:00` is not allowed"));
    }
}
