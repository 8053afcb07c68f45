//! ARP (RFC 826) for IPv4 over Ethernet.

use super::eth_type;
use crate::Mac;
use crate::flow::FlowKey;

/// Header and the four addresses.
const ARP_LEN: usize = 28;

/// Operation and addresses into the key. Only requests and replies for IPv4 over Ethernet, the
/// only ones that the kernel's dissector reads, too; others leave the key as it is.
pub(super) fn fill(l3: &[u8], key: &mut FlowKey) {
    let Some(arp) = l3.first_chunk::<ARP_LEN>() else {
        return;
    };
    let [
        hw0,
        hw1,
        proto0,
        proto1,
        hw_len,
        proto_len,
        op0,
        op1,
        rest @ ..,
    ] = arp;
    let proto = u16::from_be_bytes([*proto0, *proto1]);
    let known =
        [*hw0, *hw1] == [0, 1] && proto == eth_type::IPV4 && (*hw_len, *proto_len) == (6, 4);
    let op = u16::from_be_bytes([*op0, *op1]);
    if !known || !matches!(op, 1 | 2) {
        return;
    }
    let address = |at: usize| {
        let mac = rest[at..].first_chunk().copied().unwrap_or_default();
        let ip = rest[at + 6..].first_chunk().copied().unwrap_or_default();
        (ip, Mac(mac))
    };
    let ((sip, sha), (tip, tha)) = (address(0), address(10));
    key.set_arp_sender(sip, sha);
    key.set_arp_target(tip, tha);
    key.ip_proto = op as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_only() {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 2];
        packet.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
        let read = |packet: &[u8]| {
            let mut key = FlowKey::default();
            fill(packet, &mut key);
            key
        };
        let key = read(&packet);
        assert_eq!(key.ip_proto, 2);
        assert_eq!(key.arp_sender(), ([10, 0, 0, 1], Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(key.arp_target(), ([10, 0, 0, 2], Mac([2, 0, 0, 0, 0, 2])));
        assert_eq!(read(&packet[..27]), FlowKey::default());
        for (at, wrong) in [(1, 6), (2, 9), (4, 8), (5, 16), (7, 3), (6, 1)] {
            let mut odd = packet.clone();
            odd[at] = wrong;
            assert_eq!(read(&odd), FlowKey::default(), "{at}");
        }
    }
}
