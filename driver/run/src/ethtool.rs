//! How long the structs of ethtool's commands are (linux/ethtool.h): all that the program has
//! given room for, and no more.

/// What is looked at to tell: the longest fixed part in front of what varies in length.
pub const HEAD: usize = 16;

/// struct ethtool_rxnfc with nothing behind.
const RXNFC: usize = 192;
/// ETH_GSTRING_LEN.
const STRING: usize = 32;
/// As the kernel bounds what it copies.
const MOST: usize = 1 << 16;

/// The size of the struct of which this is the beginning; none of commands that no emulator
/// answers.
pub fn size(head: &[u8]) -> Option<usize> {
    let word = |at: usize| head.get(4 * at..).and_then(<[u8]>::first_chunk);
    let word = |at: usize| word(at).map(|bytes| u32::from_ne_bytes(*bytes) as usize);
    let size = match word(0)? {
        // GDRVINFO
        0x03 => 196,
        // GSTRINGS: set and length
        0x1b => word(2)?.checked_mul(STRING)?.checked_add(12)?,
        // GSTATS: length
        0x1d => word(1)?.checked_mul(8)?.checked_add(8)?,
        // GRXFH, SRXFH, GRXRINGS, GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, SRXCLSRLDEL, SRXCLSRLINS;
        // for what is behind see `whole`
        0x29 | 0x2a | 0x2d..=0x32 => RXNFC,
        // GSSET_INFO: a bit for each set
        0x37 => 16 + 4 * (word(2)?.count_ones() + word(3)?.count_ones()) as usize,
        // GRXFHINDIR, SRXFHINDIR: length
        0x38 | 0x39 => word(1)?.checked_mul(4)?.checked_add(8)?,
        // GCHANNELS, SCHANNELS
        0x3c | 0x3d => 36,
        // GRSSH, SRSSH: lengths of table, which may say "no change", and key
        0x46 | 0x47 => {
            let table = match word(2)? {
                0xffff_ffff => 0,
                entries => entries.checked_mul(4)?,
            };
            table.checked_add(word(3)?)?.checked_add(24)?
        }
        _ => return None,
    };
    (size <= MOST).then_some(size)
}

/// The size of a struct with what is behind it, if that is more: of ETHTOOL_GRXCLSRLALL the
/// places of rules, as many as it says.
pub fn whole(command: &[u8]) -> Option<usize> {
    const GRXCLSRLALL: u32 = 0x30;
    /// rule_cnt and rule_locs.
    const COUNT: usize = 184;
    const LOCATIONS: usize = 188;
    let word = |at: usize| command.get(at..).and_then(<[u8]>::first_chunk);
    let word = |at: usize| word(at).map(|bytes| u32::from_ne_bytes(*bytes));
    if word(0)? != GRXCLSRLALL {
        return Some(command.len());
    }
    let places = (word(COUNT)? as usize).checked_mul(4)?;
    let size = places.checked_add(LOCATIONS)?.max(RXNFC);
    (size <= MOST).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: [u32; 4]) -> Option<usize> {
        size(&words.map(u32::to_ne_bytes).concat())
    }

    #[test]
    fn structs_are_as_long_as_they_say() {
        assert_eq!(of([0x03, 0, 0, 0]), Some(196));
        assert_eq!(of([0x1b, 1, 3, 0]), Some(12 + 96));
        assert_eq!(of([0x37, 0, 1 << 1 | 1 << 4, 0]), Some(24));
        assert_eq!(of([0x46, 0, 0, 0]), Some(24));
        assert_eq!(of([0x46, 0, 128, 40]), Some(24 + 512 + 40));
        assert_eq!(of([0x47, 0, u32::MAX, 40]), Some(64));
        let mut all = [0; RXNFC];
        all[0] = 0x30;
        assert_eq!(whole(&all), Some(RXNFC));
        all[184] = 5;
        assert_eq!(whole(&all), Some(188 + 20));
        all[187] = 0x70;
        assert_eq!(whole(&all), None);
        assert_eq!(whole(&[0; 36]), Some(36));
        assert_eq!(of([0x05, 0, 0, 0]), None);
        assert_eq!(of([0x1d, u32::MAX, 0, 0]), None);
        assert_eq!(size(&[0; 3]), None);
    }
}
