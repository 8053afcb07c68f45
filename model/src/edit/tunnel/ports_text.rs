//! Tunnels' UDP ports as text: `vxlan:4789,geneve:6081`, or `none`.

use super::{TunnelKind, TunnelPorts};
use std::fmt;
use std::str::FromStr;

/// Why a text does not say which UDP ports are tunnels'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelPortsError {
    /// Not a kind and a port.
    #[error(
        "`{0}` is not a tunnel's port, allowed are vxlan:PORT, vxlan-gpe:PORT and geneve:PORT with \
         PORT 1 to 65535, or none"
    )]
    Entry(String),
    /// A port that is there twice.
    #[error("port {0} is there twice")]
    Twice(u16),
    /// More than there is room for.
    #[error("more than 16 ports")]
    TooMany,
}

impl FromStr for TunnelPorts {
    type Err = TunnelPortsError;

    fn from_str(text: &str) -> Result<Self, TunnelPortsError> {
        let mut ports = TunnelPorts::none();
        if text == "none" {
            return Ok(ports);
        }
        for part in text.split(',') {
            let entry = part.split_once(':').and_then(|(kind, port)| {
                let kinds = [TunnelKind::Vxlan, TunnelKind::VxlanGpe, TunnelKind::Geneve];
                let kind = kinds.into_iter().find(|known| known.name() == kind)?;
                Some((port.parse().ok().filter(|port| *port != 0)?, kind))
            });
            let Some((port, kind)) = entry else {
                let shown = part.chars().take(40).flat_map(char::escape_debug);
                return Err(TunnelPortsError::Entry(shown.collect()));
            };
            if ports.get(port).is_some() {
                return Err(TunnelPortsError::Twice(port));
            }
            if !ports.set(port, kind) {
                return Err(TunnelPortsError::TooMany);
            }
        }
        Ok(ports)
    }
}

impl fmt::Display for TunnelPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<_> = self
            .iter()
            .map(|(port, kind)| format!("{}:{port}", kind.name()))
            .collect();
        match entries.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&entries.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let default = TunnelPorts::default().to_string();
        assert_eq!(default, "vxlan:4789,vxlan-gpe:4790,geneve:6081");
        for text in [&*default, "none", "vxlan:4789,vxlan:8472"] {
            assert_eq!(text.parse::<TunnelPorts>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "vxlan",
            "vxlan:0",
            "vxlan:65536",
            "gre:1",
            "vxlan:1,",
            "vxlan:1,geneve:1",
        ] {
            assert!(bad.parse::<TunnelPorts>().is_err(), "{bad}");
        }
        let many: Vec<_> = (1..=17).map(|port| format!("vxlan:{port}")).collect();
        assert_eq!(
            many.join(",").parse::<TunnelPorts>(),
            Err(TunnelPortsError::TooMany)
        );
    }
}
