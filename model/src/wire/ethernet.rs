//! Ethernet II and 802.1Q headers.

use super::eth_type;

/// Destination, source, EtherType: 14 bytes.
pub const ETH_HEADER_LEN: usize = 14;
/// One VLAN tag: protocol id and tag control information, 4 bytes.
pub const VLAN_TAG_LEN: usize = 4;
/// Both addresses: what stays in front of a tag.
const ADDRESSES_LEN: usize = 12;

/// Whether an EtherType announces a VLAN tag (802.1Q or 802.1ad).
#[inline]
pub fn is_vlan(eth_type: u16) -> bool {
    eth_type == eth_type::VLAN || eth_type == eth_type::QINQ
}

/// The big-endian number at `at`.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

/// Puts an 802.1Q tag with this control information (host order) on the frame that begins at
/// `start` in `buf`, using 4 bytes of room before it; returns where the frame begins now. `None`,
/// and nothing changed, if there is no such room or no whole Ethernet header.
#[inline]
pub fn vlan_push(buf: &mut [u8], start: usize, tci: u16) -> Option<usize> {
    let new = start.checked_sub(VLAN_TAG_LEN)?;
    let area = buf
        .get_mut(new..)?
        .first_chunk_mut::<{ VLAN_TAG_LEN + ETH_HEADER_LEN }>()?;
    area.copy_within(VLAN_TAG_LEN..VLAN_TAG_LEN + ADDRESSES_LEN, 0);
    area[12..14].copy_from_slice(&eth_type::VLAN.to_be_bytes());
    area[14..16].copy_from_slice(&tci.to_be_bytes());
    Some(new)
}

/// Takes the outer tag off the frame that begins at `start` in `buf`; returns where the frame
/// begins now. `None`, and nothing changed, if it has no whole tag.
#[inline]
pub fn vlan_pop(buf: &mut [u8], start: usize) -> Option<usize> {
    let area = tagged(buf, start)?;
    area.copy_within(..ADDRESSES_LEN, VLAN_TAG_LEN);
    Some(start + VLAN_TAG_LEN)
}

/// Gives the outer tag of the frame that begins at `start` in `buf` another VLAN id (its low 12
/// bits); priority and drop eligibility stay. Returns `start`, or `None` if it has no whole tag.
#[inline]
pub fn vlan_set_vid(buf: &mut [u8], start: usize, vid: u16) -> Option<usize> {
    let area = tagged(buf, start)?;
    let tci = u16::from_be_bytes([area[14], area[15]]);
    let tci = tci & 0xf000 | vid & 0x0fff;
    area[14..16].copy_from_slice(&tci.to_be_bytes());
    Some(start)
}

fn tagged(buf: &mut [u8], start: usize) -> Option<&mut [u8; ETH_HEADER_LEN + VLAN_TAG_LEN]> {
    let area = buf.get_mut(start..)?.first_chunk_mut()?;
    let area: &mut [u8; ETH_HEADER_LEN + VLAN_TAG_LEN] = area;
    is_vlan(u16::from_be_bytes([area[12], area[13]])).then_some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut frame: Vec<u8> = (0..12).collect();
        frame.extend([0x08, 0x00, 0xaa, 0xbb]);
        frame
    }

    #[test]
    fn push_set_pop() {
        let mut buf = vec![0; 4];
        buf.extend(frame());
        let start = vlan_push(&mut buf, 4, 0xa00a).unwrap();
        assert_eq!(start, 0);
        assert_eq!(buf[..12], frame()[..12]);
        assert_eq!(buf[12..], [0x81, 0, 0xa0, 0x0a, 0x08, 0, 0xaa, 0xbb]);
        assert_eq!(vlan_set_vid(&mut buf, 0, 0xffff), Some(0));
        assert_eq!(buf[14..16], [0xaf, 0xff]);
        assert_eq!(vlan_set_vid(&mut buf, 0, 1), Some(0));
        assert_eq!(buf[14..16], [0xa0, 0x01]);
        assert_eq!(vlan_pop(&mut buf, 0), Some(4));
        assert_eq!(buf[4..], frame());
    }

    #[test]
    fn refuses_without_room_or_tag() {
        let mut buf = frame();
        assert_eq!(vlan_push(&mut buf, 3, 1), None);
        assert_eq!(vlan_push(&mut buf, 4, 1), None, "12 bytes are no header");
        assert_eq!(vlan_pop(&mut buf, 0), None, "untagged");
        assert_eq!(vlan_set_vid(&mut buf, 0, 1), None);
        assert_eq!(vlan_pop(&mut buf, 100), None);
        buf[12] = 0x81;
        assert_eq!(vlan_pop(&mut buf, 0), None, "no EtherType behind the tag");
        assert_eq!(buf[..12], frame()[..12]);
    }
}
