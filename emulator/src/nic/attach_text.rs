//! The text form of [`Attach`]: `vhost-user`, `vhost-user-client:PATH`, `tap:NETNS[:IF]`, `none`; and the
//! checks that every way to ask for one goes through.

use super::edge::shown;
use super::spec::Attach;
use crate::port::IfName;
use ipnet::IpNet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Addresses that one channel may ask for.
pub const MAX_ADDRESSES: usize = 64;

/// Longest path of a unix socket in bytes: `sun_path` has 108 with the final NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A request for an attachment that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No such kind.
    #[error(
        "attach: `{0}` is none of `vhost-user`, `vhost-user-client:PATH`, `tap:NETNS[:IF]`, `none`"
    )]
    Kind(String),
    /// Not a socket's path.
    #[error("attach: `{0}` is not an absolute path of at most 107 bytes")]
    Path(String),
    /// Not a network namespace.
    #[error(
        "attach: netns `{0}` must be a name as in `ip netns`, or an absolute path such as \
         /proc/PID/ns/net"
    )]
    Netns(String),
    /// Not a netdev's name.
    #[error("attach: {0}")]
    IfName(String),
    /// More than [`MAX_ADDRESSES`].
    #[error("addresses: {0} of them, allowed are at most {MAX_ADDRESSES}")]
    TooManyAddresses(usize),
    /// Only a TAP has addresses.
    #[error("addresses: only `tap:NETNS[:IF]` takes them; with vhost-user the guest sets its own")]
    NoAddresses,
}

impl Attach {
    /// A socket of somebody else's.
    ///
    /// # Errors
    /// [`AttachError::Path`]
    pub fn vhost_user_client(path: &str) -> Result<Self, AttachError> {
        let fits = path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0');

        let path = fits
            .then(|| PathBuf::from(path))
            .ok_or_else(|| AttachError::Path(shown(path)))?;
        Ok(Attach::VhostUserClient { path })
    }

    /// A netdev in a network namespace; an empty `ifname` means the usual one.
    ///
    /// # Errors
    /// What is wrong with a part.
    pub fn tap(netns: &str, ifname: &str, addresses: Vec<IpNet>) -> Result<Self, AttachError> {
        if !is_netns(netns) {
            return Err(AttachError::Netns(shown(netns)));
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(AttachError::TooManyAddresses(addresses.len()));
        }
        if !ifname.is_empty() {
            let checked = ifname.parse::<IfName>();
            checked.map_err(|e| AttachError::IfName(e.to_string()))?;
        }
        let netns = netns.to_owned();
        let ifname = (!ifname.is_empty()).then(|| ifname.to_owned());
        Ok(Attach::Tap {
            netns,
            ifname,
            addresses,
        })
    }

    /// The same with these addresses.
    ///
    /// # Errors
    /// If there are any and this is not a TAP, or if there are too many.
    pub fn with_addresses(self, addresses: Vec<IpNet>) -> Result<Self, AttachError> {
        match self {
            Attach::Tap { netns, ifname, .. } => {
                Attach::tap(&netns, ifname.as_deref().unwrap_or(""), addresses)
            }
            other if addresses.is_empty() => Ok(other),
            _ => Err(AttachError::NoAddresses),
        }
    }
}

/// A plain file name, or a whole path.
fn is_netns(text: &str) -> bool {
    let printable = !text.contains(|c: char| c.is_control());
    let mut parts = Path::new(text).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) && !text.contains('/');
    printable && text.len() <= 4095 && (plain || (text.starts_with('/') && text.len() > 1))
}

impl FromStr for Attach {
    type Err = AttachError;

    /// An interface name cannot have a colon, so the last one separates it from the namespace.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "vhost-user" => Ok(Attach::VhostUser),
            None if text == "none" => Ok(Attach::Nothing),
            Some(("vhost-user-client", path)) => Attach::vhost_user_client(path),
            Some(("tap", rest)) => match rest.rsplit_once(':') {
                None => Attach::tap(rest, "", Vec::new()),
                Some((_, "")) => Err(AttachError::Kind(shown(text))),
                Some((netns, ifname)) => Attach::tap(netns, ifname, Vec::new()),
            },
            _ => Err(AttachError::Kind(shown(text))),
        }
    }
}

impl fmt::Display for Attach {
    /// Without a TAP's addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attach::VhostUser => f.write_str("vhost-user"),
            Attach::Nothing => f.write_str("none"),
            Attach::VhostUserClient { path } => {
                write!(f, "vhost-user-client:{}", path.display())
            }
            Attach::Tap { netns, ifname, .. } => {
                write!(f, "tap:{netns}")?;
                ifname.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
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
            "vhost-user",
            "vhost-user-client:/run/vm.sock",
            "tap:blue",
            "tap:blue:eth1",
            "tap:/proc/42/ns/net",
            "tap:/proc/42/ns/net:eth1",
        ] {
            assert_eq!(text.parse::<Attach>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        let why = |text: &str| text.parse::<Attach>().unwrap_err();
        for text in ["", "vhost", "vhost-user:", "tap", "tap:blue:"] {
            assert_eq!(why(text), AttachError::Kind(text.into()));
        }
        for path in ["", "vm.sock", "/\0", &format!("/{}", "x".repeat(107))] {
            let text = format!("vhost-user-client:{path}");
            assert!(matches!(why(&text), AttachError::Path(_)), "{path:?}");
        }
        for netns in ["", ".", "..", "/", "a/b", "../x", "a\nb"] {
            let text = format!("tap:{netns}");
            assert!(matches!(why(&text), AttachError::Netns(_)), "{netns:?}");
        }
        assert!(matches!(why("tap:blue:a/b"), AttachError::IfName(_)));
        assert!(matches!(
            why("tap:blue:sixteen-letters-"),
            AttachError::IfName(_)
        ));
    }

    #[test]
    fn only_a_tap_has_addresses() {
        let some: Vec<IpNet> = vec!["10.0.0.1/24".parse().unwrap()];
        let tap = "tap:blue".parse::<Attach>().unwrap();
        assert!(tap.clone().with_addresses(some.clone()).is_ok());
        assert_eq!(
            Attach::VhostUser.with_addresses(some.clone()),
            Err(AttachError::NoAddresses)
        );
        let many = some.repeat(MAX_ADDRESSES + 1);
        let refused = tap.with_addresses(many);
        assert_eq!(refused, Err(AttachError::TooManyAddresses(65)));
    }
}
