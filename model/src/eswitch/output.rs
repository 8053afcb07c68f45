//! What the switch decided about one packet.

use crate::flow::FlowKey;
use crate::offload::Gso;
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
        let wire = gso.map_or(len, |g| len.min(u32::from(g.hdr_len) + u32::from(g.size)));
        Self {
            len,
            l3_len: wire.saturating_sub(u32::from(parsed.l3_offset)),
            now,
            shard,
        }
    }
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
    /// No rule matched in switchdev mode, so the packet goes to the representor.
    pub missed: bool,
}

impl Outputs {
    /// Forgets the last packet.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.lost.clear();
        self.learn = None;
        self.missed = false;
    }

    /// The packet itself is lost: an error if nothing else came of it, else a note.
    #[inline]
    pub(super) fn lose(&mut self, in_port: VportId, reason: DropReason) -> Result<(), DropReason> {
        if self.list.is_empty() && self.lost.is_empty() {
            return Err(reason);
        }
        self.lost.push((in_port, reason));
        Ok(())
    }

    #[inline]
    pub(super) fn push(&mut self, dest: Dest, vlan: VlanOp) {
        self.list.push(Output { dest, vlan });
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
