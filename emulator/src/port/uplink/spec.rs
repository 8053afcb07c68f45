//! The text form of `--uplink`.

use crate::nic::spec::UplinkSpec;
use crate::port::{IfName, IfNameError};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Text that is not an uplink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UplinkSpecError {
    /// No such kind.
    #[error(
        "uplink: `{0}` is none of `none`, `tap:NETDEV`, `packet:NETDEV`, `xdp:NETDEV`, `pcap:IN`, \
         `pcap:IN,OUT`, `pcap:,OUT`"
    )]
    Kind(String),
    /// Not a netdev's name.
    #[error("uplink: {0}")]
    Netdev(#[from] IfNameError),
    /// `pcap:` with no file, or nothing behind the comma.
    #[error("uplink: `{0}` needs a file: `pcap:IN`, `pcap:IN,OUT` or `pcap:,OUT`")]
    NoFile(String),
}

/// `none`, `tap:NETDEV`, `packet:NETDEV`, `xdp:NETDEV`, `pcap:IN`, `pcap:IN,OUT` or `pcap:,OUT`. The
/// first comma separates the files, so the input's path cannot have one.
impl FromStr for UplinkSpec {
    type Err = UplinkSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let netdev = |name: &str| Ok::<_, IfNameError>(name.parse::<IfName>()?.to_string());
        match text.split_once(':') {
            None if text == "none" => Ok(UplinkSpec::None),
            Some(("tap", name)) => Ok(UplinkSpec::Tap(netdev(name)?)),
            Some(("packet", name)) => Ok(UplinkSpec::Packet(netdev(name)?)),
            Some(("xdp", name)) => Ok(UplinkSpec::Xdp(netdev(name)?)),
            Some(("pcap", files)) => {
                let (input, output) = match files.split_once(',') {
                    None => (files, None),
                    Some((input, output)) => (input, Some(output)),
                };
                let nothing_given = input.is_empty() && output.is_none();
                if nothing_given || output == Some("") {
                    return Err(UplinkSpecError::NoFile(text.to_owned()));
                }
                let input = (!input.is_empty()).then(|| PathBuf::from(input));
                Ok(UplinkSpec::Pcap {
                    input,
                    output: output.map(PathBuf::from),
                })
            }
            _ => Err(UplinkSpecError::Kind(text.to_owned())),
        }
    }
}

impl fmt::Display for UplinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UplinkSpec::None => f.write_str("none"),
            UplinkSpec::Tap(name) => write!(f, "tap:{name}"),
            UplinkSpec::Packet(name) => write!(f, "packet:{name}"),
            UplinkSpec::Xdp(name) => write!(f, "xdp:{name}"),
            UplinkSpec::Pcap { input, output } => {
                f.write_str("pcap:")?;
                if let Some(input) = input {
                    write!(f, "{}", input.display())?;
                }
                output
                    .as_ref()
                    .map_or(Ok(()), |output| write!(f, ",{}", output.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "none",
            "tap:wire0",
            "packet:eth1",
            "xdp:eth1",
            "pcap:/tmp/in.pcap",
            "pcap:in.pcap,out.pcapng",
            "pcap:,out,with,commas",
            "pcap:a:b",
        ] {
            assert_eq!(text.parse::<UplinkSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let why = |text: &str| text.parse::<UplinkSpec>().unwrap_err();
        for text in ["", "None", "eth0", "none:", "tun:x", "none "] {
            assert_eq!(why(text), UplinkSpecError::Kind(text.into()));
        }
        for (text, name) in [("tap:", ""), ("tap:a/b", "a/b"), ("packet:a b", "a b")] {
            assert_eq!(why(text), UplinkSpecError::Netdev(IfNameError(name.into())));
        }
        for text in ["pcap:", "pcap:,", "pcap:in,"] {
            assert_eq!(why(text), UplinkSpecError::NoFile(text.into()));
        }
    }
}
