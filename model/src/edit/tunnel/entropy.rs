//! The UDP source port of a tunnelled packet, which spreads its flows over whatever the outer
//! packet crosses (RFC 7348 §5, RFC 8926 §3.3).

use crate::wire::{IpVersion, Layout, Transport, ip_proto};

/// Ports given: Linux's default `net.ipv4.ip_local_port_range`, of which `udp_flow_src_port`
/// leaves out the last.
const PORTS: (u16, u16) = (32768, 60999);

/// The port for the frame that begins with `head`: a function of its flow and nothing else, so
/// the same in every worker and every run. A flow is what Linux takes it for (`skb_get_hash`, or
/// the Ethernet addresses where that finds nothing): addresses, protocol and ports of unfragmented
/// IP, no ports of fragments, Ethernet addresses and type of everything else. The kernel's own
/// number for it is drawn anew at each boot.
pub(super) fn source_port(head: &[u8]) -> u16 {
    let hash = flow_hash(head);
    let hash = hash ^ hash << 16;
    let (first, last) = PORTS;
    first + ((u64::from(hash) * u64::from(last - first)) >> 32) as u16
}

fn flow_hash(head: &[u8]) -> u32 {
    let Some(layout) = Layout::of(head) else {
        return 0;
    };
    let mut mix = Mix(0);
    let Some(ip) = layout.ip else {
        mix.bytes(&head[..12]);
        mix.word(u64::from(layout.eth_type));
        return mix.finish();
    };
    let addresses = match ip.version {
        IpVersion::V4 => layout.l3 + 12..layout.l3 + 20,
        IpVersion::V6 => layout.l3 + 8..layout.l3 + 40,
    };
    mix.bytes(&head[addresses]);
    mix.word(u64::from(ip.proto));
    let ports = match ip.l4 {
        Transport::At(l4) if !ip.fragment && ip_proto::has_ports(ip.proto) => head.get(l4..l4 + 4),
        _ => None,
    };
    mix.bytes(ports.unwrap_or_default());
    mix.finish()
}

/// Multiply and fold. Not keyed: a sender who makes flows collide only slows its own.
struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn finish(mut self) -> u32 {
        self.word(1);
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FrameSpec;
    use std::collections::HashSet;

    #[test]
    fn flows_spread_over_the_range_and_payload_does_not_count() {
        let spec = |port| FrameSpec {
            ports: (port, 80),
            ..FrameSpec::tcp4(10)
        };
        let port = |spec: FrameSpec| source_port(&spec.build());
        let ports: HashSet<u16> = (0..2000).map(|p| port(spec(p))).collect();
        assert!(ports.len() > 1800, "{}", ports.len());
        assert!(ports.iter().all(|p| (32768..60999).contains(p)));
        assert!(ports.iter().any(|p| *p < 34000) && ports.iter().any(|p| *p > 60000));
        let other = FrameSpec {
            payload: 99,
            ..spec(7)
        };
        assert_eq!(port(spec(7)), port(other.clone()));
        let tagged = FrameSpec {
            vlan: Some(5),
            ..other
        };
        assert_eq!(port(spec(7)), port(tagged));
        let first = FrameSpec {
            fragment: true,
            ..spec(7)
        };
        let second = FrameSpec {
            fragment: true,
            ..spec(8)
        };
        assert_eq!(port(first), port(second), "fragments stay together");
        assert_eq!(source_port(&[]), source_port(&[1]));
    }
}
