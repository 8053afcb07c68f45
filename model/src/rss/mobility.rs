//! Mobile IPv6 (RFC 6275): a packet's home addresses are in its extension headers, while its IPv6
//! header has those of the network that the node visits.

use crate::wire::ipv6::{IPV6_HEADER_LEN, Ipv6};

/// Home addresses found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Home<'a> {
    /// In a destination option (RFC 6275 §6.3).
    pub(super) src: Option<&'a [u8; 16]>,
    /// In a type 2 routing header (RFC 6275 §6.4).
    pub(super) dst: Option<&'a [u8; 16]>,
}

const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// Option type of the home address.
const HOME_ADDRESS: u8 = 0xc9;

/// Walks the extension headers behind the IPv6 header at the start of `l3`, as far as the parser
/// does.
pub(super) fn home_addresses(l3: &[u8]) -> Home<'_> {
    let mut home = Home::default();
    let Some(ip) = Ipv6::parse(l3) else {
        return home;
    };
    let end = ip.upper().offset;
    let mut proto = l3[6];
    let mut at = IPV6_HEADER_LEN;
    while at < end {
        let Some(header) = l3.get(at..end).filter(|header| header.len() >= 8) else {
            return home;
        };
        // The parser has walked here, so that each header lies wholly before `end`.
        let len = match proto {
            44 => 8,
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        match proto {
            // Type 2 with one address in it and one segment to go.
            ROUTING if header[1] == 2 && header[2] == 2 && header[3] == 1 => {
                home.dst = header.get(8..24).and_then(|a| a.first_chunk());
            }
            DESTINATION_OPTIONS => {
                let options = header.get(2..len.min(header.len())).unwrap_or_default();
                home.src = home_option(options).or(home.src);
            }
            _ => {}
        }
        proto = header[0];
        at += len;
    }
    home
}

/// Options are a type, a length and so many bytes; type 0 is one byte of padding.
fn home_option(mut options: &[u8]) -> Option<&[u8; 16]> {
    loop {
        options = match *options {
            [0, ref rest @ ..] => rest,
            [HOME_ADDRESS, 16, ref rest @ ..] => return rest.first_chunk(),
            [_, len, ref rest @ ..] => rest.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SRC: [u8; 16] = [0xaa; 16];
    const DST: [u8; 16] = [0xbb; 16];

    fn packet(first: u8, behind: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; IPV6_HEADER_LEN];
        bytes[0] = 0x60;
        bytes[6] = first;
        bytes.extend(behind);
        bytes
    }

    /// A routing header of this type, then destination options with a home address.
    fn mobile(kind: u8) -> Vec<u8> {
        let mut headers = vec![DESTINATION_OPTIONS, 2, kind, 1, 0, 0, 0, 0];
        headers.extend(DST);
        // Padding of one byte, PadN of two, then the option at 8n + 6 as the RFC wants it.
        headers.extend([6, 2, 0, 1, 1, 0, HOME_ADDRESS, 16]);
        headers.extend(SRC);
        headers.extend([0; 20]);
        packet(ROUTING, &headers)
    }

    #[test]
    fn both_addresses_are_found() {
        let bytes = mobile(2);
        let home = home_addresses(&bytes);
        assert_eq!((home.src, home.dst), (Some(&SRC), Some(&DST)));
        let other_routing = mobile(0);
        let home = home_addresses(&other_routing);
        assert_eq!((home.src, home.dst), (Some(&SRC), None));
    }

    #[test]
    fn plain_packets_have_none() {
        assert_eq!(home_addresses(&packet(6, &[0; 20])), Home::default());
        let padding = packet(DESTINATION_OPTIONS, &[6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(home_addresses(&padding), Home::default());
    }

    proptest! {
        #[test]
        fn any_bytes(cut in 0usize..112, at in 0usize..112, byte: u8) {
            let mut bytes = mobile(2);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut);
            home_addresses(&bytes);
        }
    }
}
