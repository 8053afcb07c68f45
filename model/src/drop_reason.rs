//! One entry per way to lose a packet. Every lost packet is counted under exactly one of them, at
//! the vport that the table below names.

macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $doc:literal;)*) => {
        /// Why a packet was lost. *From*: charged to the vport that the packet came from; *to*:
        /// to the vport that it could not enter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $doc] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name that counters and `--json` use.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One line for people.
            pub fn explain(self) -> &'static str {
                match self { $(DropReason::$variant => $doc,)* }
            }
        }
    };
}

drop_reasons! {
    Runt, "runt", "From: shorter than an Ethernet header (14 bytes).";
    TooLong, "too_long", "From: longer than the vport's MTU allows, or than any frame may be.";
    BadOffload, "bad_offload", "From: the virtio-net header asks for a checksum or segmentation that does not fit the frame.";
    RewriteRoom, "rewrite_room", "From: a rewrite would put more headers in front of the frame than there is room for.";
    RewriteDepth, "rewrite_depth", "From: a rewrite needs header bytes behind those that were looked at.";
    RewriteLength, "rewrite_length", "From: a rewrite would make the packet longer than its headers can say (65,535 bytes).";
    CsumCutOff, "csum_cut_off", "From: a csum action on a packet that is shorter than its headers say.";
    TunnelPayload, "tunnel_payload", "From: a tunnel that carries IP packets got another frame.";
    TunnelMalformed, "tunnel_malformed", "From: the outer headers of a tunnelled packet are not valid.";
    TunnelGso, "tunnel_gso", "From: a tunnelled packet to be unwrapped is to be cut into segments first.";
    TunnelEcn, "tunnel_ecn", "From: congestion was met in a tunnel by a packet whose own header cannot say so (RFC 6040).";
    NatInner, "nat_inner", "From: the packet that an ICMP error is about is cut off, so its addresses cannot be translated.";
    MplsInvalid, "mpls_invalid", "From: an MPLS action on a frame without a label, whose TTL ran out, or that is still to be cut into segments.";
    VportDown, "vport_down", "From: the sending channel's link is administratively down.";
    SpoofedMac, "spoofed_mac", "From: spoof checking is on and the source address is not the channel's.";
    VlanNotAllowed, "vlan_not_allowed", "From: the channel has a port VLAN and sent a tagged frame.";
    RuleDrop, "rule_drop", "From: a flow rule's action is drop.";
    RuleTarget, "rule_target", "From: a flow rule sends to a vport that no longer exists.";
    Policed, "policed", "From: a flow rule's police action dropped it: more came than may pass.";
    TooManyJumps, "too_many_jumps", "From: flow rules sent the packet from chain to chain more often than 16 times.";
    SamePort, "same_port", "From: the destination is the port the frame came from.";
    NoDestination, "no_destination", "From: no port to send to.";
    RepresentorIgnored, "representor_ignored", "From the representor: the host sent on it in legacy mode, where representors only count.";
    NoRepresentor, "no_representor", "From: no rule matched and the vport has no representor.";
    RepresentorDown, "representor_down", "From: no rule matched and the representor is down.";
    RepresentorFull, "representor_full", "From: no rule matched and the representor's queue is full.";
    NotConnected, "not_connected", "To: no driver is attached to the channel, or its ring is stopped.";
    NoBuffers, "no_buffers", "To: the receive ring has no buffers left.";
    BufferTooSmall, "buffer_too_small", "To: the frame does not fit the buffers and mergeable buffers are off.";
    LinkDown, "link_down", "To: the receiving channel's link is administratively down.";
    VlanFiltered, "vlan_filtered", "To: the frame's VLAN is not one the channel receives.";
    MacFiltered, "mac_filtered", "To: the driver's receive mode does not take this address.";
    MtuExceeded, "mtu_exceeded", "To: longer than the receiving channel's MTU.";
    UplinkOverrun, "uplink_overrun", "From the wire: more arrived than its socket had room for.";
    UplinkUnsupported, "uplink_unsupported", "From the wire: merged by the netdev in a way that a virtio-net header cannot say (`ethtool -K NETDEV gro off`).";
    UplinkAbsent, "uplink_absent", "To: the NIC has no uplink.";
    PortFull, "port_full", "To: the netdev behind the port has no room.";
    CtNotIp, "ct_not_ip", "From: a rule's action is ct, and the packet is neither IPv4 nor IPv6.";
    CtFull, "ct_full", "From: the packet begins a connection and the connection table is full.";
    CtClash, "ct_clash", "From: the packet's connection cannot be committed, another one has its addresses and ports.";
    CtNatExhausted, "ct_nat_exhausted", "From: no free address and port is left in the range that the packet's connection is to be translated to.";
    CtRedirect, "ct_redirect", "From: the packet is an ICMP redirect about a connection that is translated.";
    QueueRule, "queue_rule", "To: a rule of the receiving netdev's that chooses queues (ethtool -N) drops it.";
    PortDown, "port_down", "To: the netdev behind the port is down or gone.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_positions_are_the_counters() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
