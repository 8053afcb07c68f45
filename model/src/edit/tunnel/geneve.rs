//! Geneve options (RFC 8926 §3.5).

use arrayvec::ArrayVec;

/// How many bytes of options a packet can have: 63 words of 4.
pub const GENEVE_OPTIONS_MAX: usize = 252;

/// Options as on the wire.
pub type GeneveOptions = ArrayVec<u8, GENEVE_OPTIONS_MAX>;

/// An option's class, type and length: 4 bytes.
const OPTION_HEADER_LEN: usize = 4;
/// The bit of a type that says that whoever does not know the option must drop the packet.
const CRITICAL: u8 = 0x80;

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneveOption<'a> {
    /// Who says what the type means.
    pub class: u16,
    /// What it is; its highest bit makes it critical.
    pub kind: u8,
    /// A multiple of 4 bytes, at most 124.
    pub data: &'a [u8],
}

impl GeneveOption<'_> {
    /// Appends it to options. False, and nothing appended, if there is no room or its data has
    /// not a length that it can have.
    pub fn append_to(&self, options: &mut GeneveOptions) -> bool {
        let words = self.data.len() / 4;
        let fits = options.remaining_capacity() >= OPTION_HEADER_LEN + self.data.len();
        if !self.data.len().is_multiple_of(4) || words > 31 || !fits {
            return false;
        }
        let [high, low] = self.class.to_be_bytes();
        let header = [high, low, self.kind, words as u8];
        let both = options.try_extend_from_slice(&header);
        both.and_then(|()| options.try_extend_from_slice(self.data))
            .is_ok()
    }

    /// Whoever does not know it must drop the packet.
    pub fn is_critical(&self) -> bool {
        self.kind & CRITICAL != 0
    }
}

/// Walks options; ends with `None` if the last one is cut off.
pub fn geneve_options(bytes: &[u8]) -> impl Iterator<Item = Option<GeneveOption<'_>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let one = split(rest);
        rest = one.map_or(&[], |(_, rest)| rest);
        Some(one.map(|(option, _)| option))
    })
}

fn split(bytes: &[u8]) -> Option<(GeneveOption<'_>, &[u8])> {
    let ([high, low, kind, len], behind) = bytes.split_first_chunk()?;
    // The upper 3 bits of the length's byte are reserved, to be ignored.
    let (data, rest) = behind.split_at_checked(usize::from(len & 0x1f) * 4)?;
    let class = u16::from_be_bytes([*high, *low]);
    let option = GeneveOption {
        class,
        kind: *kind,
        data,
    };
    Some((option, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_round_trip_and_cut_ones_are_told() {
        let mut bytes = GeneveOptions::new();
        let options = [
            GeneveOption {
                class: 0x102,
                kind: 0x80,
                data: &[1, 2, 3, 4, 5, 6, 7, 8],
            },
            GeneveOption {
                class: 0xffff,
                kind: 1,
                data: &[],
            },
        ];
        assert!(options.iter().all(|o| o.append_to(&mut bytes)));
        assert_eq!(bytes[..4], [1, 2, 0x80, 2]);
        let walked: Vec<_> = geneve_options(&bytes).collect();
        assert_eq!(walked, options.map(Some));
        assert!(options[0].is_critical() && !options[1].is_critical());
        let walked: Vec<_> = geneve_options(&bytes[..11]).collect();
        assert_eq!(walked, [None]);
        assert!(
            !GeneveOption {
                data: &[0; 3],
                ..options[0]
            }
            .append_to(&mut bytes)
        );
        assert!(
            !GeneveOption {
                data: &[0; 128],
                ..options[0]
            }
            .append_to(&mut bytes)
        );
        let long = GeneveOption {
            data: &[0; 124],
            ..options[0]
        };
        assert!(long.append_to(&mut bytes) && !long.append_to(&mut bytes));
    }
}
