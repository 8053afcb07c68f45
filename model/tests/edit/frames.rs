//! Frames of all kinds, their checksums right.

use crate::naive;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Network {
    V4 {
        tos: u8,
        ttl: u8,
        options: usize,
        /// More fragments, and the offset in units of 8 bytes.
        fragment: (bool, u16),
    },
    V6 {
        class: u8,
        hops: u8,
        options: usize,
        fragment: Option<(bool, u16)>,
    },
    Other(u16),
}

#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Tcp {
        options: usize,
    },
    Udp {
        none: bool,
    },
    /// How many bytes the checksum covers.
    UdpLite(u16),
    Sctp,
    /// Type and identifier.
    Icmp(u8, u16),
    /// An ICMP error about a packet, of which so many bytes of transport are quoted.
    IcmpError(usize),
    Other(u8),
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub macs: [u8; 12],
    pub tags: Vec<(u16, u16)>,
    pub network: Network,
    pub addresses: [u8; 32],
    pub transport: Transport,
    pub ports: [u8; 4],
    pub payload: Vec<u8>,
    /// Zeros behind the IP packet.
    pub padding: usize,
}

fn be(value: u16) -> [u8; 2] {
    value.to_be_bytes()
}

impl Spec {
    pub fn v6(&self) -> bool {
        matches!(self.network, Network::V6 { .. })
    }

    fn transport_bytes(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let proto = match self.transport {
            Transport::Tcp { options } => {
                out.extend(self.ports);
                out.extend([1, 2, 3, 4, 5, 6, 7, 8, ((5 + options) << 4) as u8, 0x18]);
                out.extend([0xff, 0xf0, 0, 0, 0, 0]);
                out.extend(vec![1; options * 4]);
                6
            }
            Transport::Udp { .. } => {
                out.extend(self.ports);
                out.extend(be(8 + self.payload.len() as u16));
                out.extend([0, 0]);
                17
            }
            Transport::UdpLite(coverage) => {
                out.extend(self.ports);
                out.extend(be(coverage));
                out.extend([0, 0]);
                136
            }
            Transport::Sctp => {
                out.extend(self.ports);
                out.extend([9, 8, 7, 6, 0, 0, 0, 0]);
                132
            }
            Transport::Icmp(kind, id) => {
                // ICMPv6's types below 128 are errors.
                let kind = if self.v6() { kind | 128 } else { kind };
                out.extend([kind, 0, 0, 0]);
                out.extend(be(id));
                out.extend([0, 1]);
                if self.v6() { 58 } else { 1 }
            }
            Transport::IcmpError(quoted) => {
                let kind = if self.v6() { 1 } else { 3 };
                out.extend([kind, 1, 0, 0, 0, 0, 0, 0]);
                let inside = Spec {
                    tags: vec![],
                    network: match self.network {
                        Network::V6 { .. } => Network::V6 {
                            class: 0,
                            hops: 3,
                            options: 0,
                            fragment: None,
                        },
                        _ => Network::V4 {
                            tos: 0,
                            ttl: 3,
                            options: 0,
                            fragment: (false, 0),
                        },
                    },
                    transport: match self.ports[0] % 3 {
                        0 => Transport::Udp {
                            none: self.ports[1].is_multiple_of(2) && !self.v6(),
                        },
                        1 => Transport::Tcp { options: 0 },
                        _ => Transport::Icmp(if self.v6() { 128 } else { 8 }, 77),
                    },
                    padding: 0,
                    ..self.clone()
                };
                let packet = inside.build()[14..].to_vec();
                let header = if self.v6() { 40 } else { 20 };
                out.extend(&packet[..packet.len().min(header + quoted)]);
                return (if self.v6() { 58 } else { 1 }, out);
            }
            Transport::Other(proto) => proto,
        };
        out.extend(&self.payload);
        (proto, out)
    }

    pub fn build(&self) -> Vec<u8> {
        let mut out = self.macs.to_vec();
        for (proto, tci) in &self.tags {
            out.extend(be(*proto));
            out.extend(be(*tci));
        }
        let (proto, l4) = self.transport_bytes();
        match &self.network {
            Network::Other(eth_type) => {
                out.extend(be(*eth_type));
                out.extend(&self.payload);
            }
            Network::V4 {
                tos,
                ttl,
                options,
                fragment,
            } => {
                out.extend([8, 0, 0x45 + *options as u8, *tos]);
                out.extend(be((20 + options * 4 + l4.len()) as u16));
                out.extend([0x12, 0x34]);
                out.extend(be(u16::from(fragment.0) << 13 | fragment.1));
                out.extend([*ttl, proto, 0, 0]);
                out.extend(&self.addresses[..4]);
                out.extend(&self.addresses[16..20]);
                out.extend(vec![1; options * 4]);
                out.extend(l4);
            }
            Network::V6 {
                class,
                hops,
                options,
                fragment,
            } => {
                out.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0]);
                let extra = options * 8 + if fragment.is_some() { 8 } else { 0 };
                out.extend(be((extra + l4.len()) as u16));
                let behind = if fragment.is_some() { 44 } else { proto };
                out.push(if *options > 0 { 60 } else { behind });
                out.push(*hops);
                out.extend(self.addresses);
                if *options > 0 {
                    out.extend([behind, (*options - 1) as u8, 1, (options * 8 - 4) as u8]);
                    out.extend(vec![0; options * 8 - 4]);
                }
                if let Some((more, offset)) = fragment {
                    out.extend([proto, 0]);
                    out.extend(be(offset << 3 | u16::from(*more)));
                    out.extend([0, 0, 0, 9]);
                }
                out.extend(l4);
            }
        }
        let no_sum = matches!(self.transport, Transport::Udp { none: true });
        naive::checksums(&mut out, !no_sum);
        out.extend(vec![0; self.padding]);
        out
    }
}

fn network() -> impl Strategy<Value = Network> {
    let fragment = prop_oneof![
        6 => Just((false, 0u16)),
        1 => Just((true, 0)),
        1 => (any::<bool>(), 1u16..8000),
    ];
    let v4 = (any::<u8>(), any::<u8>(), 0usize..4, fragment.clone()).prop_map(
        |(tos, ttl, options, fragment)| Network::V4 {
            tos,
            ttl,
            options,
            fragment,
        },
    );
    let v6 = (
        any::<u8>(),
        any::<u8>(),
        0usize..3,
        proptest::option::weighted(0.3, fragment),
    )
        .prop_map(|(class, hops, options, fragment)| Network::V6 {
            class,
            hops,
            options,
            fragment,
        });
    let other = prop_oneof![Just(0x0806u16), Just(0x8847), Just(0x88cc), Just(0x0100)];
    prop_oneof![8 => v4, 5 => v6, 1 => other.prop_map(Network::Other)]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => (0usize..=10).prop_map(|options| Transport::Tcp { options }),
        4 => proptest::bool::weighted(0.2).prop_map(|none| Transport::Udp { none }),
        2 => Just(Transport::Sctp),
        1 => prop_oneof![Just(0u16), Just(8), Just(20), Just(3)].prop_map(Transport::UdpLite),
        2 => (prop_oneof![Just(0u8), Just(8), Just(13), Just(128), Just(129), Just(135)], any::<u16>())
            .prop_map(|(kind, id)| Transport::Icmp(kind, id)),
        2 => prop_oneof![Just(8usize), Just(20), 8usize..60].prop_map(Transport::IcmpError),
        1 => prop_oneof![Just(50u8), Just(2), Just(33)].prop_map(Transport::Other),
    ]
}

pub fn spec() -> impl Strategy<Value = Spec> {
    let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>());
    let tags = prop_oneof![4 => Just(0usize), 2 => Just(1), 1 => Just(2)]
        .prop_flat_map(move |n| proptest::collection::vec(tag.clone(), n));
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 24..60),
        proptest::collection::vec(any::<u8>(), 60..600),
    ];
    (
        any::<[u8; 12]>(),
        tags,
        network(),
        any::<[u8; 32]>(),
        transport(),
        any::<[u8; 4]>(),
        payload,
        prop_oneof![3 => Just(0usize), 1 => 1usize..30],
    )
        .prop_map(
            |(macs, tags, network, addresses, transport, ports, payload, padding)| Spec {
                macs,
                tags,
                network,
                addresses,
                transport,
                ports,
                payload,
                padding,
            },
        )
}
