//! One TCP segment's header.

use crate::wire::l4::{TCP_HEADER_LEN, tcp_header_len};

/// Flags in byte 13 of the header (RFC 9293 §3.1).
pub(in crate::ct) mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// What a segment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ct) struct Segment {
    pub seq: u32,
    /// Behind its last byte; SYN and FIN count as one each.
    pub end: u32,
    pub ack: u32,
    /// The end of what it acknowledges selectively, if that is more than `ack`.
    pub sack: u32,
    pub window: u16,
    pub flags: u8,
    /// The header is whole and its flags make sense together.
    pub valid: bool,
    /// There are options at all.
    pub options: bool,
    pub sack_permitted: bool,
    /// Of the window scale option (RFC 7323 §2), 14 at most.
    pub scale: Option<u8>,
}

/// What kind of segment decides the next state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ct) enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    /// None of the flags, or no segment yet.
    #[default]
    Bare,
}

impl Segment {
    /// The header at the start of `l4`; `on_wire` is the length of the whole segment.
    pub fn parse(l4: &[u8], on_wire: usize) -> Self {
        let Some(fixed) = l4.first_chunk::<TCP_HEADER_LEN>() else {
            return Self::default();
        };
        let be32 = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let flags = fixed[13];
        let mut segment = Self {
            seq: be32(4),
            end: be32(4),
            ack: be32(8),
            sack: be32(8),
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            flags,
            ..Self::default()
        };
        // The header is in `l4` as a whole, so it is also within the segment.
        let Some(header_len) = tcp_header_len(l4) else {
            return segment;
        };
        let counted = (flags & flag::SYN != 0) as u32 + (flags & flag::FIN != 0) as u32;
        segment.end = segment
            .seq
            .wrapping_add((on_wire - header_len) as u32 + counted);
        segment.valid = sensible(flags);
        segment.take_options(&l4[TCP_HEADER_LEN..header_len]);
        segment
    }

    pub fn kind(&self) -> Kind {
        let has = |flag| self.flags & flag != 0;
        if has(flag::RST) {
            Kind::Rst
        } else if has(flag::SYN) {
            if has(flag::ACK) {
                Kind::SynAck
            } else {
                Kind::Syn
            }
        } else if has(flag::FIN) {
            Kind::Fin
        } else if has(flag::ACK) {
            Kind::Ack
        } else {
            Kind::Bare
        }
    }

    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// A FIN or a RST.
    pub fn ends_something(&self) -> bool {
        self.has(flag::FIN | flag::RST)
    }

    fn take_options(&mut self, mut options: &[u8]) {
        self.options = !options.is_empty();
        // Nothing but a time stamp: nearly every segment (RFC 7323 appendix A).
        if options.len() == 12 && options[..4] == [1, 1, 8, 10] {
            return;
        }
        let mut seen_sack = false;
        while let Some((&kind, rest)) = options.split_first() {
            match kind {
                0 => return,
                1 => {
                    options = rest;
                    continue;
                }
                _ => {}
            }
            let Some(len) = rest.first().map(|len| usize::from(*len)) else {
                return;
            };
            let Some(body) = options.get(2..len) else {
                return;
            };
            match (kind, body) {
                (3, &[scale]) => self.scale = Some(scale.min(14)),
                (4, &[]) => self.sack_permitted = true,
                (5, blocks) if !seen_sack && !blocks.is_empty() && blocks.len() % 8 == 0 => {
                    seen_sack = true;
                    for block in blocks.as_chunks::<8>().0 {
                        let end = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                        if after(end, self.sack) {
                            self.sack = end;
                        }
                    }
                }
                _ => {}
            }
            options = &options[len..];
        }
    }
}

/// Whether the flags make sense together; PSH, ECE and CWR go with anything.
fn sensible(flags: u8) -> bool {
    use flag::*;
    let with_urg = flags & !(PSH | ECE | CWR);
    let without = with_urg & !URG;
    match without {
        SYN | ACK => true,
        _ if without == FIN | ACK => true,
        // These carry nothing that could be urgent.
        RST => with_urg == without,
        _ if without == SYN | ACK || without == RST | ACK => with_urg == without,
        _ => false,
    }
}

/// `a` is before `b` in sequence space.
#[inline]
pub(super) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a` is after `b` in sequence space.
#[inline]
pub(super) fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flag::*;

    fn header(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 20];
        bytes[4..8].copy_from_slice(&100u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
        bytes[12] = (5 + options.len() / 4) as u8 * 16;
        bytes[13] = flags;
        bytes.extend(options);
        bytes
    }

    #[test]
    fn flags_that_go_together() {
        let good = [
            SYN,
            SYN | URG,
            SYN | ACK,
            RST,
            RST | ACK,
            FIN | ACK,
            FIN | ACK | URG,
            ACK,
            ACK | URG,
        ];
        for flags in 0..=255u8 {
            let core = flags & !(PSH | ECE | CWR);
            assert_eq!(sensible(flags), good.contains(&core), "{flags:#x}");
        }
    }

    #[test]
    fn lengths_and_options() {
        let syn = header(SYN, &[2, 4, 5, 180, 4, 2, 3, 3, 20, 0, 3, 3]);
        let seen = Segment::parse(&syn, 32);
        assert!(seen.valid && seen.sack_permitted);
        assert_eq!((seen.seq, seen.end, seen.scale), (100, 101, Some(14)));
        let mut acks = vec![1, 1, 5, 18];
        for block in [[5u32, 7], [0xffff_fff8, 0xffff_fffa]] {
            acks.extend(block.iter().flat_map(|edge| edge.to_be_bytes()));
        }
        let ack = Segment::parse(&header(ACK | FIN, &acks), 40 + 1000);
        assert_eq!((ack.end, ack.sack), (1101, 7), "beyond the wrap");
        // Cut off, silly, too short: nothing is taken from it.
        assert!(!Segment::parse(&syn[..31], 31).valid);
        assert!(!Segment::parse(&syn[..19], 19).valid);
        for options in [
            [3, 1, 7, 0],
            [3, 5, 7, 0],
            [3, 4, 7, 0],
            [0, 3, 3, 7],
            [1, 1, 1, 3],
        ] {
            assert_eq!(Segment::parse(&header(SYN, &options), 24).scale, None);
        }
    }
}
