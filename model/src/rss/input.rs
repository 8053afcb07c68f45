//! What of a packet is hashed.

use super::mobility;
use super::settings::HashTypes;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::{IPV6_HEADER_LEN, Ipv6};
use crate::wire::{Parsed, eth_type, ip_proto};

/// Bytes of the longest input: two IPv6 addresses and two ports.
pub const MAX_INPUT: usize = 36;

/// Over what a hash was computed, as the virtio-net header reports it (virtio 1.3 §5.1.6.4.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum HashReport {
    /// Nothing.
    #[default]
    None = 0,
    /// IPv4 addresses.
    IpV4 = 1,
    /// IPv4 addresses and TCP ports.
    TcpV4 = 2,
    /// IPv4 addresses and UDP ports.
    UdpV4 = 3,
    /// IPv6 addresses.
    IpV6 = 4,
    /// IPv6 addresses and TCP ports.
    TcpV6 = 5,
    /// IPv6 addresses and UDP ports.
    UdpV6 = 6,
    /// IPv6 addresses, home addresses where there are any.
    IpV6Ex = 7,
    /// The same and TCP ports.
    TcpV6Ex = 8,
    /// The same and UDP ports.
    UdpV6Ex = 9,
}

/// The bytes to hash, in the order of the wire: source address, destination address, ports.
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    bytes: [u8; MAX_INPUT],
    len: usize,
    report: HashReport,
}

/// The transport ports that count, and of which protocol.
#[derive(Clone, Copy)]
enum Ports<'a> {
    Tcp(&'a [u8; 4]),
    Udp(&'a [u8; 4]),
    None,
}

impl Tuple {
    /// What of a packet is hashed if `types` are asked for; `None`: nothing.
    ///
    /// Ports of a fragment do not count, not even of the first one, so that all fragments of a
    /// packet have the same hash.
    pub fn of(head: &[u8], parsed: &Parsed, types: HashTypes) -> Option<Self> {
        let l3 = head.get(usize::from(parsed.l3_offset)..)?;
        let l4 = match usize::from(parsed.l4_offset) {
            0 => None,
            _ if parsed.fragment => None,
            at => head.get(at..),
        };
        let ports = match (l4.and_then(|l4| l4.first_chunk()), parsed.key.ip_proto) {
            (Some(ports), ip_proto::TCP) => Ports::Tcp(ports),
            (Some(ports), ip_proto::UDP) => Ports::Udp(ports),
            _ => Ports::None,
        };
        match parsed.key.eth_type {
            eth_type::IPV4 => Self::of_ipv4(l3, ports, types),
            eth_type::IPV6 => Self::of_ipv6(l3, ports, types),
            _ => None,
        }
    }

    fn of_ipv4(l3: &[u8], ports: Ports<'_>, types: HashTypes) -> Option<Self> {
        use HashReport::{IpV4, TcpV4, UdpV4};
        let ip = Ipv4::parse(l3)?;
        let tuple = |report, ports: &[u8]| Self::new(report, &[ip.src(), ip.dst(), ports]);
        match ports {
            Ports::Tcp(ports) if types.has(HashTypes::TCP_V4) => Some(tuple(TcpV4, ports)),
            Ports::Udp(ports) if types.has(HashTypes::UDP_V4) => Some(tuple(UdpV4, ports)),
            _ => types.has(HashTypes::IP_V4).then(|| tuple(IpV4, &[])),
        }
    }

    /// virtio 1.3 §5.1.6.4.3.3 and §5.1.6.4.3.2: the types with home addresses come first, but
    /// only for packets with extension headers.
    fn of_ipv6(l3: &[u8], ports: Ports<'_>, types: HashTypes) -> Option<Self> {
        use HashReport::{IpV6, IpV6Ex, TcpV6, TcpV6Ex, UdpV6, UdpV6Ex};
        let ip = Ipv6::parse(l3)?;
        if ip.upper().offset > IPV6_HEADER_LEN {
            let home = mobility::home_addresses(l3);
            let src = home.src.unwrap_or(ip.src());
            let dst = home.dst.unwrap_or(ip.dst());
            let tuple = |report, ports: &[u8]| Some(Self::new(report, &[src, dst, ports]));
            match ports {
                Ports::Tcp(ports) if types.has(HashTypes::TCP_EX) => return tuple(TcpV6Ex, ports),
                Ports::Udp(ports) if types.has(HashTypes::UDP_EX) => return tuple(UdpV6Ex, ports),
                _ if types.has(HashTypes::IP_EX) => return tuple(IpV6Ex, &[]),
                _ => {}
            }
        }
        let tuple = |report, ports: &[u8]| Self::new(report, &[ip.src(), ip.dst(), ports]);
        match ports {
            Ports::Tcp(ports) if types.has(HashTypes::TCP_V6) => Some(tuple(TcpV6, ports)),
            Ports::Udp(ports) if types.has(HashTypes::UDP_V6) => Some(tuple(UdpV6, ports)),
            _ => types.has(HashTypes::IP_V6).then(|| tuple(IpV6, &[])),
        }
    }

    fn new(report: HashReport, parts: &[&[u8]]) -> Self {
        let mut tuple = Self {
            bytes: [0; MAX_INPUT],
            len: 0,
            report,
        };
        for part in parts {
            tuple.bytes[tuple.len..][..part.len()].copy_from_slice(part);
            tuple.len += part.len();
        }
        tuple
    }

    /// What is hashed.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Over what that is.
    #[inline]
    pub fn report(&self) -> HashReport {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VportId;
    use crate::rss::{RssKey, Toeplitz, bitwise};
    use crate::testing::FrameSpec;
    use crate::wire;

    fn hash(spec: &FrameSpec, types: HashTypes) -> Option<(HashReport, u32)> {
        let frame = spec.build();
        let parsed = wire::parse(&frame, frame.len() as u32, VportId(1)).unwrap();
        let tuple = Tuple::of(&frame, &parsed, types)?;
        let key = RssKey::MICROSOFT;
        let sum = Toeplitz::new(&key).hash(tuple.bytes());
        assert_eq!(sum, bitwise(&key, tuple.bytes()));
        Some((tuple.report(), sum))
    }

    /// "Verifying the RSS hash calculation" in Microsoft's driver documentation: source,
    /// destination, the hash over addresses alone and over addresses and ports.
    const V4: [(&str, &str, u32, u32); 5] = [
        (
            "66.9.149.187:2794",
            "161.142.100.80:1766",
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "199.92.111.2:14230",
            "65.69.140.83:4739",
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "24.19.198.95:12898",
            "12.22.207.184:38024",
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "38.27.205.30:48228",
            "209.142.163.6:2217",
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "153.39.163.191:44251",
            "202.188.127.2:1303",
            0x5d18_09c5,
            0x10e8_28a2,
        ),
    ];
    const V6: [(&str, &str, u32, u32); 3] = [
        (
            "[3ffe:2501:200:1fff::7]:2794",
            "[3ffe:2501:200:3::1]:1766",
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "[3ffe:501:8::260:97ff:fe40:efab]:14230",
            "[ff02::1]:4739",
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            "[fe80::200:f8ff:fe21:67cf]:38024",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn spec(src: &str, dst: &str, tcp: bool) -> FrameSpec {
        use std::net::{IpAddr, SocketAddr};
        let [src, dst] = [src, dst].map(|text| text.parse::<SocketAddr>().unwrap());
        let octets = |address: IpAddr| match address {
            IpAddr::V6(v6) => v6.octets(),
            IpAddr::V4(v4) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&v4.octets());
                octets
            }
        };
        FrameSpec {
            v6: src.is_ipv6(),
            tcp,
            ips: (octets(src.ip()), octets(dst.ip())),
            ports: (src.port(), dst.port()),
            ..FrameSpec::tcp4(20)
        }
    }

    #[test]
    fn microsofts_vectors() {
        use HashReport::*;
        for (src, dst, ip, ports) in V4 {
            let (tcp, udp) = (spec(src, dst, true), spec(src, dst, false));
            assert_eq!(hash(&tcp, HashTypes::IP_V4), Some((IpV4, ip)), "{src}");
            assert_eq!(hash(&tcp, HashTypes::ALL), Some((TcpV4, ports)), "{src}");
            assert_eq!(hash(&udp, HashTypes::ALL), Some((UdpV4, ports)), "{src}");
        }
        for (src, dst, ip, ports) in V6 {
            let (tcp, udp) = (spec(src, dst, true), spec(src, dst, false));
            assert_eq!(hash(&tcp, HashTypes::IP_V6), Some((IpV6, ip)), "{src}");
            assert_eq!(hash(&tcp, HashTypes::ALL), Some((TcpV6, ports)), "{src}");
            assert_eq!(hash(&udp, HashTypes::ALL), Some((UdpV6, ports)), "{src}");
        }
    }

    #[test]
    fn a_type_that_is_not_asked_for_falls_back_to_addresses_or_nothing() {
        let tcp = FrameSpec::tcp4(9);
        let udp_and_ip = HashTypes::UDP_V4 | HashTypes::IP_V4;
        let (report, _) = hash(&tcp, udp_and_ip).unwrap();
        assert_eq!(report, HashReport::IpV4);
        assert_eq!(hash(&tcp, HashTypes::UDP_V4 | HashTypes::TCP_V6), None);
    }

    #[test]
    fn fragments_are_hashed_by_address() {
        let whole = FrameSpec::udp4(100);
        let first = FrameSpec {
            fragment: true,
            ..whole.clone()
        };
        let addresses = hash(&whole, HashTypes::IP_V4);
        assert_eq!(hash(&first, HashTypes::ALL), addresses);
        assert_eq!(hash(&first, HashTypes::UDP_V4), None);
    }

    #[test]
    fn types_with_home_addresses_are_for_packets_with_extension_headers() {
        let plain = FrameSpec {
            v6: true,
            ..FrameSpec::tcp4(9)
        };
        let extended = FrameSpec {
            ip6_options: 16,
            ..plain.clone()
        };
        let ex = HashTypes::TCP_EX | HashTypes::IP_EX;
        assert_eq!(hash(&plain, ex), None);
        let (report, sum) = hash(&extended, HashTypes::ALL).unwrap();
        assert_eq!(report, HashReport::TcpV6Ex);
        // Without a home address in them it is the same sum.
        assert_eq!(hash(&plain, HashTypes::ALL), Some((HashReport::TcpV6, sum)));
        let udp = FrameSpec {
            tcp: false,
            ..extended
        };
        assert_eq!(hash(&udp, ex).unwrap().0, HashReport::IpV6Ex);
        let without = HashTypes::TCP_EX | HashTypes::UDP_V6;
        assert_eq!(hash(&udp, without).unwrap().0, HashReport::UdpV6);
    }
}
