//! pedit's words as header fields, and back (linux/tc_act/tc_pedit.h).

use super::NotOffloaded;
use crate::tc::action::{Pedit, PeditCommand, PeditHeader, PeditKey};
use chanio_model::edit::{Field, FieldChange, FieldEdit};

/// Where a field is: its header, the bits before it there, and how many it has.
struct Place {
    field: Field,
    header: PeditHeader,
    first_bit: usize,
}

const fn place(field: Field, header: PeditHeader, first_bit: usize) -> Place {
    Place {
        field,
        header,
        first_bit,
    }
}

/// All that have a header type; SCTP has none.
const PLACES: [Place; 15] = [
    place(Field::EthDst, PeditHeader::Eth, 0),
    place(Field::EthSrc, PeditHeader::Eth, 48),
    place(Field::Ipv4Tos, PeditHeader::Ip4, 8),
    place(Field::Ipv4Ttl, PeditHeader::Ip4, 64),
    place(Field::Ipv4Src, PeditHeader::Ip4, 96),
    place(Field::Ipv4Dst, PeditHeader::Ip4, 128),
    place(Field::Ipv6TrafficClass, PeditHeader::Ip6, 4),
    place(Field::Ipv6FlowLabel, PeditHeader::Ip6, 12),
    place(Field::Ipv6HopLimit, PeditHeader::Ip6, 56),
    place(Field::Ipv6Src, PeditHeader::Ip6, 64),
    place(Field::Ipv6Dst, PeditHeader::Ip6, 192),
    place(Field::TcpSrc, PeditHeader::Tcp, 0),
    place(Field::TcpDst, PeditHeader::Tcp, 16),
    place(Field::UdpSrc, PeditHeader::Udp, 0),
    place(Field::UdpDst, PeditHeader::Udp, 16),
];

impl Place {
    fn bits(&self) -> usize {
        self.field.bits() as usize
    }

    fn end(&self) -> usize {
        self.first_bit + self.bits()
    }
}

/// The fields that the words change, in order; words of one field become one change.
pub(super) fn read(pedit: &Pedit) -> Result<Vec<FieldEdit>, NotOffloaded> {
    let mut edits: Vec<FieldEdit> = Vec::new();
    for key in &pedit.keys {
        let word = Word::of(key)?;
        match key.command {
            PeditCommand::Set => word.set(&mut edits)?,
            PeditCommand::Add => edits.push(word.add()?),
        }
    }
    Ok(edits)
}

struct Word<'a> {
    key: &'a PeditKey,
    /// Bits of the header before the word.
    first_bit: usize,
    /// Which of its bits change.
    changes: u32,
}

impl<'a> Word<'a> {
    fn of(key: &'a PeditKey) -> Result<Self, NotOffloaded> {
        let odd = |what: &str| Err(NotOffloaded::Action(format!("pedit {what}")));
        if key.offset_mask != 0 {
            return odd("with an offset out of the packet");
        }
        if key.header == PeditHeader::Network {
            return odd("without a header (munge without ex)");
        }
        // Headers end long before; before them there is nothing of theirs.
        let Ok(offset @ 0..=60) = usize::try_from(key.offset.cast_signed()) else {
            return odd("outside the header");
        };
        Ok(Word {
            key,
            first_bit: offset * 8,
            changes: !u32::from_be_bytes(key.keep),
        })
    }

    /// The part of a field that is in the word: the word's bits, shifted to where the field's
    /// number has them.
    fn part(&self, place: &Place, bits: u32) -> u128 {
        let wide = u128::from(bits);
        let word_end = self.first_bit + 32;
        let shifted = match place.end() >= word_end {
            true if place.end() - word_end < 128 => wide << (place.end() - word_end),
            true => 0,
            false => wide >> (word_end - place.end()).min(127),
        };
        shifted & (u128::MAX >> (128 - place.bits()))
    }

    fn places(&self) -> impl Iterator<Item = &'static Place> {
        let (header, start) = (self.key.header, self.first_bit);
        let within = move |place: &&Place| {
            place.header == header && place.first_bit < start + 32 && start < place.end()
        };
        PLACES.iter().filter(within)
    }

    fn set(&self, edits: &mut Vec<FieldEdit>) -> Result<(), NotOffloaded> {
        let value = u32::from_be_bytes(self.key.value) & self.changes;
        let mut covered = 0u32;
        for place in self.places() {
            let (value, mask) = (self.part(place, value), self.part(place, self.changes));
            let inside = (0..32)
                .filter(|bit| (place.first_bit..place.end()).contains(&(self.first_bit + bit)));
            covered |= inside.fold(0, |bits, bit| bits | 1 << (31 - bit));
            if mask == 0 {
                continue;
            }
            match edits.last_mut() {
                Some(FieldEdit {
                    field,
                    change: FieldChange::Set { value: v, mask: m },
                }) if *field == place.field && *m & mask == 0 => {
                    *v |= value;
                    *m |= mask;
                }
                _ => {
                    let change = FieldChange::Set { value, mask };
                    edits.push(FieldEdit {
                        field: place.field,
                        change,
                    });
                }
            }
        }
        if self.changes & !covered != 0 {
            return Err(NotOffloaded::Action(format!(
                "pedit of {:?} bytes {}.. beside the fields that can be changed",
                self.key.header, self.key.offset
            )));
        }
        Ok(())
    }

    fn add(&self) -> Result<FieldEdit, NotOffloaded> {
        let of_word = self.places().find(|place| {
            place.bits() == 8
                && self.part(place, self.changes) == 0xff
                && self.changes.count_ones() == 8
        });
        let place = of_word.ok_or_else(|| {
            NotOffloaded::Action("pedit add to anything but a field of one byte".to_owned())
        })?;
        let value = self.part(place, u32::from_be_bytes(self.key.value)) as u8;
        Ok(FieldEdit {
            field: place.field,
            change: FieldChange::Add(value),
        })
    }
}

/// The words that change these fields, as tc makes them.
pub(super) fn write(edits: &[FieldEdit]) -> Result<Pedit, NotOffloaded> {
    let mut keys = Vec::new();
    for edit in edits {
        let place = PLACES
            .iter()
            .find(|place| place.field == edit.field)
            .ok_or_else(|| {
                NotOffloaded::Action(format!(
                    "pedit {}: tc has no such header",
                    edit.field.name()
                ))
            })?;
        let (command, value, mask) = match edit.change {
            FieldChange::Set { value, mask } => (PeditCommand::Set, value, mask),
            FieldChange::Add(value) => (PeditCommand::Add, value.into(), 0xff),
        };
        let first_word = place.first_bit / 32;
        let last_word = (place.end() - 1) / 32;
        for word in first_word..=last_word {
            let probe = Word {
                key: &PeditKey {
                    header: place.header,
                    ..PeditKey::default()
                },
                first_bit: word * 32,
                changes: 0,
            };
            let (value, bits) = (probe.spread(place, value), probe.spread(place, mask));
            if bits == 0 {
                continue;
            }
            keys.push(PeditKey {
                header: place.header,
                command,
                offset: word as u32 * 4,
                keep: (!bits).to_be_bytes(),
                value: value.to_be_bytes(),
                ..PeditKey::default()
            });
        }
    }
    Ok(Pedit {
        keys,
        ..Pedit::default()
    })
}

impl Word<'_> {
    /// The opposite of [`Word::part`]: what the word has of a field's number.
    fn spread(&self, place: &Place, number: u128) -> u32 {
        let word_end = self.first_bit + 32;
        match place.end() >= word_end {
            true => (number >> (place.end() - word_end).min(127)) as u32,
            false => (number << (word_end - place.end())) as u32,
        }
    }
}
