//! The fields that flower matches, in groups by header.

use super::attributes::{cfm, flower};
use super::mpls::MplsKey;
use crate::Result;
use crate::attr::{Be, Table, Writer, record};
use crate::tc::tunnel_options::TunnelOptions;
use std::net::{Ipv4Addr, Ipv6Addr};

record! {
    /// The Ethernet header and the device.
    pub struct EthKey of flower {
        /// The device that received the packet.
        indev: String = INDEV;
        /// Destination.
        dst: [u8; 6] = KEY_ETH_DST & KEY_ETH_DST_MASK;
        /// Source.
        src: [u8; 6] = KEY_ETH_SRC & KEY_ETH_SRC_MASK;
        /// The packet's type: with VLAN keys that of the outer tag.
        eth_type: u16 as Be<u16> = KEY_ETH_TYPE;
        /// How many VLAN tags there are.
        num_of_vlans: u8 = KEY_NUM_OF_VLANS;
    }
}

record! {
    /// The outer VLAN tag.
    pub struct VlanKey of flower {
        /// 12 bits.
        id: u16 = KEY_VLAN_ID;
        /// 3 bits.
        priority: u8 = KEY_VLAN_PRIO;
        /// The Ethernet type behind it.
        eth_type: u16 as Be<u16> = KEY_VLAN_ETH_TYPE;
    }
}
record! {
    /// The inner VLAN tag.
    pub struct CvlanKey of flower {
        /// 12 bits.
        id: u16 = KEY_CVLAN_ID;
        /// 3 bits.
        priority: u8 = KEY_CVLAN_PRIO;
        /// The Ethernet type behind it.
        eth_type: u16 as Be<u16> = KEY_CVLAN_ETH_TYPE;
    }
}

record! {
    /// The IPv4 or IPv6 header.
    pub struct IpKey of flower {
        /// The protocol, behind IPv6's extension headers.
        proto: u8 = KEY_IP_PROTO;
        /// Type of service or traffic class.
        tos: u8 = KEY_IP_TOS & KEY_IP_TOS_MASK;
        /// Time to live or hop limit.
        ttl: u8 = KEY_IP_TTL & KEY_IP_TTL_MASK;
        /// Source.
        v4_src: Ipv4Addr = KEY_IPV4_SRC & KEY_IPV4_SRC_MASK;
        /// Destination.
        v4_dst: Ipv4Addr = KEY_IPV4_DST & KEY_IPV4_DST_MASK;
        /// Source.
        v6_src: Ipv6Addr = KEY_IPV6_SRC & KEY_IPV6_SRC_MASK;
        /// Destination.
        v6_dst: Ipv6Addr = KEY_IPV6_DST & KEY_IPV6_DST_MASK;
        /// [`IpKey::FRAGMENT`] and [`IpKey::FIRST_FRAGMENT`].
        flags: u32 as Be<u32> = KEY_FLAGS & KEY_FLAGS_MASK;
    }
}

impl IpKey {
    /// TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT.
    pub const FRAGMENT: u32 = 1 << 0;
    /// TCA_FLOWER_KEY_FLAGS_FRAG_IS_FIRST.
    pub const FIRST_FRAGMENT: u32 = 1 << 1;
}

record! {
    /// TCP's ports and flags.
    pub struct TcpKey of flower {
        /// Source.
        src: u16 as Be<u16> = KEY_TCP_SRC & KEY_TCP_SRC_MASK unless whole;
        /// Destination.
        dst: u16 as Be<u16> = KEY_TCP_DST & KEY_TCP_DST_MASK unless whole;
        /// The header's twelve flags.
        flags: u16 as Be<u16> = KEY_TCP_FLAGS & KEY_TCP_FLAGS_MASK;
    }
}
record! {
    /// UDP's ports.
    pub struct UdpKey of flower {
        /// Source.
        src: u16 as Be<u16> = KEY_UDP_SRC & KEY_UDP_SRC_MASK unless whole;
        /// Destination.
        dst: u16 as Be<u16> = KEY_UDP_DST & KEY_UDP_DST_MASK unless whole;
    }
}
record! {
    /// SCTP's ports.
    pub struct SctpKey of flower {
        /// Source.
        src: u16 as Be<u16> = KEY_SCTP_SRC & KEY_SCTP_SRC_MASK unless whole;
        /// Destination.
        dst: u16 as Be<u16> = KEY_SCTP_DST & KEY_SCTP_DST_MASK unless whole;
    }
}
record! {
    /// Ranges of ports, their ends included. Exact ports and ranges exclude each other.
    pub struct PortRanges of flower {
        /// The lowest source.
        src_min: u16 as Be<u16> = KEY_PORT_SRC_MIN;
        /// The highest source.
        src_max: u16 as Be<u16> = KEY_PORT_SRC_MAX;
        /// The lowest destination.
        dst_min: u16 as Be<u16> = KEY_PORT_DST_MIN;
        /// The highest destination.
        dst_max: u16 as Be<u16> = KEY_PORT_DST_MAX;
    }
}
record! {
    /// ICMP's type and code.
    pub struct Icmpv4Key of flower {
        /// Type.
        kind: u8 = KEY_ICMPV4_TYPE & KEY_ICMPV4_TYPE_MASK;
        /// Code.
        code: u8 = KEY_ICMPV4_CODE & KEY_ICMPV4_CODE_MASK;
    }
}
record! {
    /// ICMPv6's type and code.
    pub struct Icmpv6Key of flower {
        /// Type.
        kind: u8 = KEY_ICMPV6_TYPE & KEY_ICMPV6_TYPE_MASK;
        /// Code.
        code: u8 = KEY_ICMPV6_CODE & KEY_ICMPV6_CODE_MASK;
    }
}
record! {
    /// ARP and RARP.
    pub struct ArpKey of flower {
        /// The sender's IPv4 address.
        sip: Ipv4Addr = KEY_ARP_SIP & KEY_ARP_SIP_MASK;
        /// The target's.
        tip: Ipv4Addr = KEY_ARP_TIP & KEY_ARP_TIP_MASK;
        /// 1 request, 2 reply.
        op: u8 = KEY_ARP_OP & KEY_ARP_OP_MASK;
        /// The sender's hardware address.
        sha: [u8; 6] = KEY_ARP_SHA & KEY_ARP_SHA_MASK;
        /// The target's.
        tha: [u8; 6] = KEY_ARP_THA & KEY_ARP_THA_MASK;
    }
}
record! {
    /// The header of a tunnel that the packet came through.
    pub struct EncKey of flower {
        /// VNI or GRE key.
        key_id: u32 as Be<u32> = KEY_ENC_KEY_ID;
        /// The outer source.
        v4_src: Ipv4Addr = KEY_ENC_IPV4_SRC & KEY_ENC_IPV4_SRC_MASK;
        /// The outer destination.
        v4_dst: Ipv4Addr = KEY_ENC_IPV4_DST & KEY_ENC_IPV4_DST_MASK;
        /// The outer source.
        v6_src: Ipv6Addr = KEY_ENC_IPV6_SRC & KEY_ENC_IPV6_SRC_MASK;
        /// The outer destination.
        v6_dst: Ipv6Addr = KEY_ENC_IPV6_DST & KEY_ENC_IPV6_DST_MASK;
        /// The outer UDP source.
        src_port: u16 as Be<u16> = KEY_ENC_UDP_SRC_PORT & KEY_ENC_UDP_SRC_PORT_MASK unless whole;
        /// The outer UDP destination.
        dst_port: u16 as Be<u16> = KEY_ENC_UDP_DST_PORT & KEY_ENC_UDP_DST_PORT_MASK unless whole;
        /// The outer type of service.
        tos: u8 = KEY_ENC_IP_TOS & KEY_ENC_IP_TOS_MASK;
        /// The outer time to live.
        ttl: u8 = KEY_ENC_IP_TTL & KEY_ENC_IP_TTL_MASK;
        /// Options of the tunnel header.
        options: TunnelOptions = KEY_ENC_OPTS & KEY_ENC_OPTS_MASK;
        /// TUNNEL_FLAGS_*: don't fragment, OAM, critical option, checksum.
        flags: u32 as Be<u32> = KEY_ENC_FLAGS & KEY_ENC_FLAGS_MASK;
    }
}
record! {
    /// What conntrack said of the packet.
    pub struct CtKey of flower {
        /// Of [`CtKey::NEW`] and its sisters.
        state: u16 = KEY_CT_STATE & KEY_CT_STATE_MASK;
        /// The zone it was tracked in.
        zone: u16 = KEY_CT_ZONE & KEY_CT_ZONE_MASK;
        /// The connection's mark.
        mark: u32 = KEY_CT_MARK & KEY_CT_MARK_MASK;
        /// The connection's labels.
        labels: [u8; 16] = KEY_CT_LABELS & KEY_CT_LABELS_MASK;
    }
}

impl CtKey {
    /// Begins a connection.
    pub const NEW: u16 = 1 << 0;
    /// Of a connection that both sides have used.
    pub const ESTABLISHED: u16 = 1 << 1;
    /// Belongs to another connection.
    pub const RELATED: u16 = 1 << 2;
    /// Conntrack has seen the packet.
    pub const TRACKED: u16 = 1 << 3;
    /// It makes no sense.
    pub const INVALID: u16 = 1 << 4;
    /// In the direction of the answers.
    pub const REPLY: u16 = 1 << 5;
}

record! {
    /// Fields that few devices know.
    pub struct OtherKey of flower {
        /// The packet's hash.
        hash: u32 = KEY_HASH & KEY_HASH_MASK;
        /// PPPoE's session.
        pppoe_sid: u16 as Be<u16> = KEY_PPPOE_SID;
        /// PPP's protocol.
        ppp_proto: u16 as Be<u16> = KEY_PPP_PROTO;
        /// L2TPv3's session.
        l2tpv3_sid: u32 as Be<u32> = KEY_L2TPV3_SID;
        /// 1: a bridge did not know the destination.
        l2_miss: u8 = L2_MISS;
        /// IPsec's security parameters index.
        spi: u32 as Be<u32> = KEY_SPI & KEY_SPI_MASK;
    }
}
record! {
    /// Connectivity fault management (IEEE 802.1ag).
    pub struct CfmKey of cfm {
        /// The maintenance domain's level.
        md_level: u8 = MD_LEVEL;
        /// The operation.
        opcode: u8 = OPCODE;
    }
}

/// All that a rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct FlowerKey {
    /// Ethernet.
    pub eth: EthKey,
    /// The outer tag.
    pub vlan: VlanKey,
    /// The inner tag.
    pub cvlan: CvlanKey,
    /// IPv4 or IPv6.
    pub ip: IpKey,
    /// TCP.
    pub tcp: TcpKey,
    /// UDP.
    pub udp: UdpKey,
    /// SCTP.
    pub sctp: SctpKey,
    /// Ranges of TCP's, UDP's or SCTP's ports.
    pub ranges: PortRanges,
    /// ICMP.
    pub icmpv4: Icmpv4Key,
    /// ICMPv6.
    pub icmpv6: Icmpv6Key,
    /// ARP.
    pub arp: ArpKey,
    /// MPLS.
    pub mpls: MplsKey,
    /// The tunnel.
    pub enc: EncKey,
    /// Conntrack.
    pub ct: CtKey,
    /// The rest.
    pub other: OtherKey,
    /// Connectivity fault management.
    pub cfm: Option<CfmKey>,
}

impl FlowerKey {
    /// Reads what is there of it.
    pub fn read(table: &Table<'_>) -> Result<Self> {
        let cfm = table.attr(flower::KEY_CFM);
        Ok(FlowerKey {
            eth: EthKey::read(table)?,
            vlan: VlanKey::read(table)?,
            cvlan: CvlanKey::read(table)?,
            ip: IpKey::read(table)?,
            tcp: TcpKey::read(table)?,
            udp: UdpKey::read(table)?,
            sctp: SctpKey::read(table)?,
            ranges: PortRanges::read(table)?,
            icmpv4: Icmpv4Key::read(table)?,
            icmpv6: Icmpv6Key::read(table)?,
            arp: ArpKey::read(table)?,
            mpls: MplsKey::read(table)?,
            enc: EncKey::read(table)?,
            ct: CtKey::read(table)?,
            other: OtherKey::read(table)?,
            cfm: cfm
                .map(|attr| CfmKey::read(&attr.nest(&cfm::ALL)?))
                .transpose()?,
        })
    }

    /// Appends the attributes that it has.
    pub fn write(&self, out: &mut Writer) {
        self.eth.write(out);
        self.vlan.write(out);
        self.cvlan.write(out);
        self.ip.write(out);
        self.tcp.write(out);
        self.udp.write(out);
        self.sctp.write(out);
        self.ranges.write(out);
        self.icmpv4.write(out);
        self.icmpv6.write(out);
        self.arp.write(out);
        self.mpls.write(out);
        self.enc.write(out);
        self.ct.write(out);
        self.other.write(out);
        if let Some(cfm) = &self.cfm {
            out.nest(flower::KEY_CFM, |out| cfm.write(out));
        }
    }
}
