//! The first bytes of packets that were rewritten, kept until they are delivered.

use super::Output;
use crate::edit::Edited;
use crate::offload::{Offload, finish_checksum};
use crate::wire::VLAN_TAG_LEN;

/// Which first bytes a copy of a packet has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadId(u32);

impl HeadId {
    /// Those that it came with.
    pub const AS_IT_CAME: Self = Self(0);

    /// Whether they are those that it came with.
    #[inline]
    pub fn is_as_it_came(self) -> bool {
        self == Self::AS_IT_CAME
    }
}

/// Rewritten heads of a burst. Its memory grows to what a burst needs and is then used again.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    bytes: Vec<u8>,
    list: Vec<Head>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    from: u32,
    to: u32,
    taken: u32,
    tail: u32,
    offload: Offload,
}

impl Heads {
    /// The packet with this head; `None` for one as it came.
    #[inline]
    pub fn get(&self, id: HeadId) -> Option<Edited<'_>> {
        let head = self.list.get(id.0.checked_sub(1)? as usize)?;
        Some(Edited {
            head: self.bytes.get(head.from as usize..head.to as usize)?,
            taken: head.taken,
            tail: head.tail,
            offload: head.offload,
        })
    }

    /// All bytes of a copy of `frame`, with a checksum that was left to be finished done. `None` if
    /// the copy is not one of this frame. For whoever shows packets; delivery copies no more than
    /// it must.
    pub fn whole(&self, output: &Output, frame: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = vec![0; VLAN_TAG_LEN];
        match self.get(output.head) {
            None => bytes.extend(frame),
            Some(edited) => {
                let from = edited.taken as usize;
                bytes.extend(edited.head);
                bytes.extend(frame.get(from..from + edited.tail as usize)?);
                if let Some(csum) = edited.offload.csum {
                    finish_checksum(&mut bytes[VLAN_TAG_LEN..], csum);
                }
            }
        }
        let start = output.vlan.apply(&mut bytes, VLAN_TAG_LEN)?;
        Some(bytes.split_off(start))
    }

    /// Keeps one.
    pub(super) fn push(&mut self, edited: Edited<'_>) -> HeadId {
        let from = self.bytes.len() as u32;
        self.bytes.extend_from_slice(edited.head);
        self.list.push(Head {
            from,
            to: self.bytes.len() as u32,
            taken: edited.taken,
            tail: edited.tail,
            offload: edited.offload,
        });
        HeadId(self.list.len() as u32)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }
}
