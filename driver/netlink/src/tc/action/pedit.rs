//! pedit: rewrite bytes of a header (linux/tc_act/tc_pedit.h).

use super::Generic;
use super::kind::Options;
use crate::attr::{Attr, AttrSet, Table, Writer, attributes};
use crate::{Error, Result};

attributes! {
    /// TCA_PEDIT_*
    pub mod pedit = "TCA_PEDIT_" { UNSPEC, TM, PARMS, PAD, PARMS_EX, KEYS_EX, KEY_EX }
}
attributes! {
    /// TCA_PEDIT_KEY_EX_*
    pub mod key_ex = "TCA_PEDIT_KEY_EX_" { UNSPEC, HTYPE, CMD }
}

/// What an offset counts from (enum pedit_header_type).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum PeditHeader {
    /// The network header, whatever it is.
    #[default]
    Network = 0,
    /// The Ethernet header.
    Eth = 1,
    /// The IPv4 header.
    Ip4 = 2,
    /// The IPv6 header.
    Ip6 = 3,
    /// The TCP header.
    Tcp = 4,
    /// The UDP header.
    Udp = 5,
}

/// How the value is used (enum pedit_cmd).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum PeditCommand {
    /// The bits outside the mask become the value's.
    #[default]
    Set = 0,
    /// It is added to them.
    Add = 1,
}

/// One word that is rewritten (struct tc_pedit_key).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct PeditKey {
    /// What the offset counts from.
    pub header: PeditHeader,
    /// Set or add.
    pub command: PeditCommand,
    /// The bits that stay, as bytes of the packet.
    pub keep: [u8; 4],
    /// The value, as bytes of the packet.
    pub value: [u8; 4],
    /// Of the word in the header; two's complement.
    pub offset: u32,
    /// Where a byte stands that moves the offset.
    pub at: u32,
    /// Which of its bits.
    pub offset_mask: u32,
    /// Shifted by how much.
    pub shift: u32,
}

/// Which words are rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pedit {
    /// Given in the older form, in which all offsets count from the network header.
    pub plain: bool,
    /// Unused.
    pub flags: u8,
    /// The words, at most 255.
    pub keys: Vec<PeditKey>,
}

const KEY_SIZE: usize = 24;

impl PeditKey {
    fn parse(bytes: &[u8; KEY_SIZE]) -> Self {
        let (words, _) = bytes.as_chunks();
        let word = |i: usize| u32::from_ne_bytes(words[i]);
        PeditKey {
            keep: words[0],
            value: words[1],
            offset: word(2),
            at: word(3),
            offset_mask: word(4),
            shift: word(5),
            ..Self::default()
        }
    }

    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.keep);
        out.bytes(&self.value);
        for word in [self.offset, self.at, self.offset_mask, self.shift] {
            out.bytes(&word.to_ne_bytes());
        }
    }

    fn read_extension(&mut self, attr: &Attr<'_>) -> Result<()> {
        let table = attr.nest(&key_ex::ALL)?;
        self.header = match table.need::<u16>(key_ex::HTYPE)? {
            0 => PeditHeader::Network,
            1 => PeditHeader::Eth,
            2 => PeditHeader::Ip4,
            3 => PeditHeader::Ip6,
            4 => PeditHeader::Tcp,
            5 => PeditHeader::Udp,
            other => {
                return Err(Error::Value {
                    what: "TCA_PEDIT_KEY_EX_HTYPE",
                    got: other.into(),
                    allowed: "0 to 5",
                });
            }
        };
        self.command = match table.need::<u16>(key_ex::CMD)? {
            0 => PeditCommand::Set,
            1 => PeditCommand::Add,
            other => {
                return Err(Error::Value {
                    what: "TCA_PEDIT_KEY_EX_CMD",
                    got: other.into(),
                    allowed: "0 and 1",
                });
            }
        };
        Ok(())
    }
}

impl Options for Pedit {
    const NAME: &'static str = "pedit";
    const SET: &'static AttrSet = &pedit::ALL;
    const PARMS: u16 = pedit::PARMS_EX;
    const TM: u16 = pedit::TM;

    /// As in the kernel, the extended form goes before the plain one.
    fn parms(table: &Table<'_>) -> Result<Vec<u8>> {
        match table.get(pedit::PARMS_EX)? {
            Some(extended) => Ok(extended),
            None => table.need(pedit::PARMS),
        }
    }

    fn read_options(table: &Table<'_>, parms: &Attr<'_>, tail: &[u8]) -> Result<Self> {
        let plain = table.attr(pedit::PARMS_EX).is_none();
        let &[count, flags, _, _, ref keys @ ..] = tail else {
            return Err(parms.size(Generic::SIZE + 4));
        };
        let (keys, _) = keys.as_chunks::<KEY_SIZE>();
        let keys = keys
            .get(..usize::from(count))
            .ok_or_else(|| parms.size(Generic::SIZE + 4 + usize::from(count) * KEY_SIZE))?;
        let mut keys: Vec<PeditKey> = keys.iter().map(PeditKey::parse).collect();
        if let (false, Some(extensions)) = (plain, table.attr(pedit::KEYS_EX)) {
            let extensions = extensions.nest(&pedit::ALL)?;
            for (key, extension) in keys.iter_mut().zip(extensions.all(pedit::KEY_EX)) {
                key.read_extension(&extension)?;
            }
        }
        Ok(Pedit { plain, flags, keys })
    }

    fn write_options(&self, generic: &Generic, out: &mut Writer) {
        // The count has 8 bits; the kernel takes no more keys either.
        let count = u8::try_from(self.keys.len()).unwrap_or(u8::MAX);
        let keys = &self.keys[..usize::from(count)];
        let kind = if self.plain {
            pedit::PARMS
        } else {
            pedit::PARMS_EX
        };
        out.attr(kind, |out| {
            generic.emit(out);
            out.bytes(&[count, self.flags, 0, 0]);
            keys.iter().for_each(|key| key.emit(out));
        });
        if self.plain {
            return;
        }
        out.nest(pedit::KEYS_EX, |out| {
            for key in keys {
                out.nest(pedit::KEY_EX, |out| {
                    out.put(key_ex::HTYPE, &(key.header as u16));
                    out.put(key_ex::CMD, &(key.command as u16));
                });
            }
        });
    }
}

/// The plain form knows neither header nor command.
#[cfg(any(test, feature = "arbitrary"))]
impl<'a> arbitrary::Arbitrary<'a> for Pedit {
    fn arbitrary(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut pedit = Pedit {
            plain: bytes.arbitrary()?,
            flags: bytes.arbitrary()?,
            keys: bytes.arbitrary()?,
        };
        if pedit.plain {
            for key in &mut pedit.keys {
                (key.header, key.command) = Default::default();
            }
        }
        pedit.keys.truncate(usize::from(u8::MAX));
        Ok(pedit)
    }
}
