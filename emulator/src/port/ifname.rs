//! Names of netdevs.

use std::fmt;
use std::str::FromStr;

/// A name that the kernel accepts for a netdev: 1 to 15 bytes, none of them `/`, `:`, white space
/// or a control character, and neither `.` nor `..` (`dev_valid_name`). `%` is refused as well,
/// because the kernel takes `%d` in the name of a new netdev for a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(Box<str>);

/// Text that cannot name a netdev.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "netdev: `{0}` must have 1 to 15 bytes without `/`, `:`, `%`, white space or control \
     characters, and not be `.` or `..`"
)]
pub struct IfNameError(pub String);

impl IfName {
    /// Longest name in bytes: `IFNAMSIZ` is 16 with the final NUL.
    pub const MAX_LEN: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
        let ok = (1..=Self::MAX_LEN).contains(&text.len())
            && !text.contains(bad)
            && text != "."
            && text != "..";
        if ok {
            Ok(Self(text.into()))
        } else {
            Err(IfNameError(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        for good in [
            "eth0",
            "c0pf0sf10000",
            "x",
            "...",
            "fifteen-chars-x",
            "br-0.100@x",
        ] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\tb",
            "a\0b",
            "a:1",
            "tap%d",
            "sixteen-chars-xx",
            "é\u{a0}",
        ] {
            assert_eq!(bad.parse::<IfName>(), Err(IfNameError(bad.into())));
        }
    }
}
