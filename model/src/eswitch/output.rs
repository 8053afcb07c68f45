//! What the switch decided about one packet.

use super::{HeadId, Heads};
use crate::ct::Tracked;
use crate::edit::Packet;
use crate::flow::FlowKey;
use crate::offload::{self, Gso, Offload};
use crate::wire::{self, Parsed};
use crate::{DropReason, Mac, Nanos, VportId};

/// What the switch needs to know of a packet beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length of the frame as it came in, Ethernet header included, in bytes.
    pub len: u32,
    /// Bytes behind the Ethernet header and its tags in the largest frame that this becomes on
    /// the wire: what an MTU limits. Of a frame still to be segmented, one segment's.
    pub l3_len: u32,
    /// Now.
    pub now: Nanos,
    /// Which of a rule's counters to use: the number of the worker.
    pub shard: usize,
}

impl Meta {
    /// For a frame of `len` bytes that still has to be segmented if `gso` says so.
    #[inline]
    pub fn new(len: u32, parsed: &Parsed, gso: Option<&Gso>, now: Nanos, shard: usize) -> Self {
        Self {
            len,
            l3_len: offload::l3_len(gso, len, parsed.l3_offset.into()),
            now,
            shard,
        }
    }
}

/// A packet that comes in.
#[derive(Clone, Copy, Debug)]
pub struct Arriving<'a> {
    /// Its headers.
    pub key: &'a FlowKey,
    /// What else is known.
    pub meta: Meta,
    /// Its first bytes.
    pub head: &'a [u8],
    /// What is still to be done to it; `None`: nothing.
    pub offload: Option<&'a Offload>,
}

/// Where a copy of the packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dest {
    /// Out of this vport: into the channel, or onto the wire.
    Vport(VportId),
    /// To the host, on this vport's representor.
    Representor(VportId),
}

/// What becomes of the outer VLAN tag: the net effect relative to the frame as it came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VlanOp {
    /// Nothing.
    #[default]
    None,
    /// A new 802.1Q tag with this tag control information (host order).
    Push(u16),
    /// The outer tag goes away.
    Pop,
    /// The outer tag gets this VLAN id and keeps priority and drop eligibility.
    SetVid(u16),
}

impl VlanOp {
    /// By how many bytes the frame grows.
    #[inline]
    pub fn delta(self) -> i16 {
        match self {
            VlanOp::Push(_) => wire::VLAN_TAG_LEN as i16,
            VlanOp::Pop => -(wire::VLAN_TAG_LEN as i16),
            VlanOp::None | VlanOp::SetVid(_) => 0,
        }
    }

    /// Does it to the frame that begins at `start` in `buf` and returns where it begins now.
    /// `None` (and nothing touched) if there is no tag to pop or set, or, for a push, not
    /// [`wire::VLAN_TAG_LEN`] bytes of room before `start`.
    #[inline]
    pub fn apply(self, buf: &mut [u8], start: usize) -> Option<usize> {
        match self {
            VlanOp::None => Some(start),
            VlanOp::Push(tci) => wire::vlan_push(buf, start, tci),
            VlanOp::Pop => wire::vlan_pop(buf, start),
            VlanOp::SetVid(vid) => wire::vlan_set_vid(buf, start, vid),
        }
    }
}

/// One copy of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    /// Where to.
    pub dest: Dest,
    /// With what done to its tag.
    pub vlan: VlanOp,
    /// With which first bytes; `vlan` is done to these.
    pub head: HeadId,
}

/// Everything the switch decided about one packet; kept by the worker and used again for the
/// next, so that nothing is allocated per packet.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The copies to deliver, in order. Empty if the call returned an error.
    pub list: Vec<Output>,
    /// Copies that nobody gets: the vport to charge and the reason. The packet's own in-port is
    /// charged here when some copies were made before it was lost (mirror, then drop).
    pub lost: Vec<(VportId, DropReason)>,
    /// A (vid, source) that the FDB should learn on the in-port.
    pub learn: Option<(u16, Mac)>,
    /// In switchdev mode: the chain in which no rule matched, so that the packet goes to the
    /// representor.
    pub missed: Option<u32>,
    /// The rewritten first bytes that `list` refers to, of all packets since
    /// [`Outputs::begin_burst`].
    pub heads: Heads,
    pub(super) work: Box<Work>,
}

/// Where one packet at a time is worked on.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub(super) packet: Packet,
    /// A copy that travels in a tunnel while the packet itself goes on.
    pub(super) copy: Packet,
    pub(super) tracked: Tracked,
    pub(super) chance: Chance,
}

/// Numbers for samples: as random as a sample has to be, and the same in each run.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Default for Chance {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Chance {
    /// True about once in `n` times; always for 0 and 1.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        if n <= 1 {
            return true;
        }
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32).is_multiple_of(u64::from(n))
    }
}

impl Outputs {
    /// For worker `number`: the outer headers that it makes are numbered far from others'.
    pub fn for_worker(number: usize) -> Self {
        let ident = (number as u16).wrapping_mul(0x2000);
        Self {
            work: Box::new(Work {
                packet: Packet::new(ident),
                copy: Packet::new(ident.wrapping_add(0x1000)),
                ..Work::default()
            }),
            ..Self::default()
        }
    }

    /// A new burst: what [`Outputs::heads`] holds was delivered.
    #[inline]
    pub fn begin_burst(&mut self) {
        self.heads.clear();
    }

    /// Forgets the last packet.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.lost.clear();
        self.learn = None;
        self.missed = None;
    }

    #[inline]
    pub(super) fn push(&mut self, dest: Dest, vlan: VlanOp) {
        let head = HeadId::AS_IT_CAME;
        self.list.push(Output { dest, vlan, head });
    }
}

/// The packet's outer tag inside the switch, after the in-port's VLAN was put on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    /// As [`FlowKey::vlan`].
    pub(super) vlan: u16,
    /// What leaving it on means relative to the frame as it came in.
    pub(super) keep: VlanOp,
}

impl Tag {
    /// A frame whose tag, if any, is its own.
    #[inline]
    pub(super) fn as_came(key: &FlowKey) -> Self {
        Self {
            vlan: key.vlan,
            keep: VlanOp::None,
        }
    }

    /// A frame with VLAN id 0 (untagged or priority-tagged) from a port in VLAN `vid`.
    #[inline]
    pub(super) fn assigned(key: &FlowKey, vid: u16) -> Self {
        let tagged = key.vlan & FlowKey::VLAN_PRESENT != 0;
        Self {
            vlan: FlowKey::VLAN_PRESENT | key.vlan & FlowKey::VLAN_PRIO | vid,
            keep: if tagged {
                VlanOp::SetVid(vid)
            } else {
                VlanOp::Push(vid)
            },
        }
    }

    #[inline]
    pub(super) fn vid(self) -> u16 {
        self.vlan & 0xfff
    }

    /// What taking the tag off means relative to the frame as it came in.
    #[inline]
    pub(super) fn strip(self) -> VlanOp {
        match self.keep {
            VlanOp::Push(_) => VlanOp::None,
            _ => VlanOp::Pop,
        }
    }
}
