//! IPv6 headers and the chain of extension headers (RFC 8200).

/// The fixed header: 40 bytes.
pub const IPV6_HEADER_LEN: usize = 40;
/// How many extension headers are walked; legitimate packets have one or two.
const MAX_EXTENSIONS: usize = 8;

/// A view of a fixed header that lies wholly in its slice.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    fixed: &'a [u8; IPV6_HEADER_LEN],
    behind: &'a [u8],
}

/// Where the walk along the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The protocol found there; the number of an extension header if the walk could not get past
    /// it (cut off, or one too many).
    pub proto: u8,
    /// Its offset from the start of the IPv6 header, in bytes.
    pub offset: usize,
    /// There is a transport header at `offset`: not a later fragment, and the walk got there.
    pub reached: bool,
    /// The packet is a fragment.
    pub fragment: bool,
    /// It is not the first one.
    pub later: bool,
}

impl<'a> Ipv6<'a> {
    /// The header at the start of `bytes`, if the version is right and 40 bytes are there.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, behind) = bytes.split_first_chunk()?;
        let view = Self { fixed, behind };
        (fixed[0] >> 4 == 6).then_some(view)
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> &'a [u8; 16] {
        self.fixed[8..].first_chunk().unwrap_or(&[0; 16])
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> &'a [u8; 16] {
        self.fixed[24..].first_chunk().unwrap_or(&[0; 16])
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.fixed[0] << 4 | self.fixed[1] >> 4
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Walks the extension headers.
    #[inline]
    pub fn upper(&self) -> Upper {
        let first = self.fixed[6];
        if is_extension(first) {
            return walk(first, self.behind);
        }
        Upper {
            proto: first,
            offset: IPV6_HEADER_LEN,
            reached: true,
            fragment: false,
            later: false,
        }
    }
}

/// Hop-by-hop 0, routing 43, fragment 44, authentication 51, destination options 60.
#[inline]
fn is_extension(proto: u8) -> bool {
    matches!(proto, 0 | 43 | 44 | 51 | 60)
}

fn walk(first: u8, behind: &[u8]) -> Upper {
    let mut at = Upper {
        proto: first,
        offset: IPV6_HEADER_LEN,
        reached: false,
        fragment: false,
        later: false,
    };
    let mut rest = behind;
    for _ in 0..MAX_EXTENSIONS {
        let Some(header) = rest.first_chunk::<8>() else {
            return at;
        };
        let len = match at.proto {
            44 => 8,
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        let Some(next) = rest.get(len..) else {
            return at;
        };
        if at.proto == 44 {
            let field = u16::from_be_bytes([header[2], header[3]]);
            at.fragment |= field & 0xfff9 != 0;
            at.later = field & 0xfff8 != 0;
        }
        rest = next;
        at.offset += len;
        at.proto = header[0];
        if at.later {
            return at;
        }
        if !is_extension(at.proto) {
            at.reached = true;
            return at;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(first: u8, behind: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; IPV6_HEADER_LEN];
        bytes[0] = 0x60;
        bytes[6] = first;
        bytes.extend(behind);
        bytes
    }

    fn upper(first: u8, behind: &[u8]) -> Upper {
        Ipv6::parse(&packet(first, behind)).unwrap().upper()
    }

    #[test]
    fn walks_each_kind() {
        let mut chain = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, 8 bytes
        chain.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // routing, 16
        chain.extend([51, 0, 0, 0, 0, 0, 0, 0]); // destination options, 8
        chain.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication, 12
        chain.extend([6, 0, 0, 1, 0, 0, 0, 9]); // first fragment, 8
        let end = upper(0, &chain);
        let want = Upper {
            proto: 6,
            offset: 40 + 52,
            reached: true,
            fragment: true,
            later: false,
        };
        assert_eq!(end, want);
        // Cut anywhere inside, the walk stops at a header and says so.
        for cut in 0..chain.len() {
            assert!(!upper(0, &chain[..cut]).reached, "{cut}");
        }
    }

    #[test]
    fn later_fragments_have_no_transport_header() {
        let end = upper(44, &[17, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(
            end,
            Upper {
                proto: 17,
                offset: 48,
                reached: false,
                fragment: true,
                later: true,
            }
        );
        // An atomic fragment (RFC 6946) is a whole packet.
        let end = upper(44, &[17, 0, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(
            end,
            Upper {
                proto: 17,
                offset: 48,
                reached: true,
                fragment: false,
                later: false,
            }
        );
    }

    #[test]
    fn endless_chain_is_given_up() {
        let chain = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1);
        let end = upper(60, &chain);
        assert_eq!((end.proto, end.reached), (60, false));
        assert!(Ipv6::parse(&packet(6, &[])[..39]).is_none());
        assert!(Ipv6::parse(&[0x45; 40]).is_none());
    }
}
