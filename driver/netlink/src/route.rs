//! What of rtnetlink's links the netlink-packet crates leave out: descriptors in requests.

use crate::message::Message;

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
/// IFLA_NET_NS_FD (linux/if_link.h).
const NET_NS_FD: u16 = 28;
/// struct ifinfomsg.
const HEADER_LEN: usize = 16;
/// NLA_TYPE_MASK (linux/netlink.h).
const TYPE_MASK: u16 = 0x3fff;

/// Replaces the descriptor in each IFLA_NET_NS_FD attribute of a datagram of rtnetlink requests,
/// in their order. Where there is none to replace it with, it becomes -1, which no kernel takes.
///
/// A descriptor means nothing in another process: see [`crate::played`].
pub fn replace_netns_fds(datagram: &mut [u8], mut with: impl FnMut(u32) -> Option<u32>) {
    let mut rest = datagram;
    while let Ok((message, length)) = Message::parse(rest) {
        let (this, next) = rest.split_at_mut(length.next_multiple_of(4).min(rest.len()));
        if [RTM_NEWLINK, RTM_SETLINK].contains(&message.kind) {
            let start = length - message.payload.len() + HEADER_LEN;
            if let Some(attributes) = this.get_mut(start..length) {
                replace(attributes, &mut with);
            }
        }
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
}

fn replace(mut attributes: &mut [u8], with: &mut impl FnMut(u32) -> Option<u32>) {
    while let [l0, l1, k0, k1, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if length < 4 || length > attributes.len() {
            return;
        }
        if u16::from_ne_bytes([k0, k1]) & TYPE_MASK == NET_NS_FD
            && let Some(value) = attributes[4..length].first_chunk_mut::<4>()
        {
            let new = with(u32::from_ne_bytes(*value)).unwrap_or(u32::MAX);
            *value = new.to_ne_bytes();
        }
        let padded = length.next_multiple_of(4).min(attributes.len());
        attributes = &mut attributes[padded..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set_link(attributes: &[(u16, u32)]) -> Message {
        Message::new(RTM_SETLINK, 5, |out| {
            out.bytes(&[0; HEADER_LEN]);
            for (kind, value) in attributes {
                out.put(*kind, value);
            }
        })
        .unwrap()
    }

    #[test]
    fn descriptors_are_replaced_wherever_they_are() {
        let mut datagram = set_link(&[(4, 1400), (NET_NS_FD, 7)]).to_bytes();
        set_link(&[(NET_NS_FD, 9)]).emit(&mut datagram);
        set_link(&[(NET_NS_FD, 11)]).emit(&mut datagram);
        let mut seen = Vec::new();
        replace_netns_fds(&mut datagram, |fd| {
            seen.push(fd);
            (fd != 11).then_some(fd * 100)
        });
        assert_eq!(seen, [7, 9, 11]);
        let mut want = set_link(&[(4, 1400), (NET_NS_FD, 700)]).to_bytes();
        set_link(&[(NET_NS_FD, 900)]).emit(&mut want);
        set_link(&[(NET_NS_FD, u32::MAX)]).emit(&mut want);
        assert_eq!(datagram, want);
    }

    #[test]
    fn other_messages_are_left_alone() {
        let mut message = set_link(&[(NET_NS_FD, 7)]);
        message.kind = 18;
        let mut datagram = message.to_bytes();
        replace_netns_fds(&mut datagram, |_| panic!("a request to change nothing"));
        assert_eq!(datagram, message.to_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let length = bytes.len();
            if length > 6 {
                bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                bytes[4..6].copy_from_slice(&RTM_SETLINK.to_ne_bytes());
            }
            replace_netns_fds(&mut bytes, |_| None);
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
