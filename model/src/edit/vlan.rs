//! VLAN tags, as act_vlan of tc handles them (net/sched/act_vlan.c, skb_vlan_push, skb_vlan_pop).

use super::Packet;
use crate::DropReason;
use crate::wire::{self, VLAN_TAG_LEN, eth_type, is_vlan};

/// What a tag announces itself as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VlanProto {
    /// 802.1Q, 0x8100.
    #[default]
    Dot1Q,
    /// 802.1ad, 0x88a8.
    Dot1Ad,
}

impl VlanProto {
    /// The EtherType.
    pub fn eth_type(self) -> u16 {
        match self {
            VlanProto::Dot1Q => eth_type::VLAN,
            VlanProto::Dot1Ad => eth_type::QINQ,
        }
    }
}

/// A tag to put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanTag {
    /// Its protocol.
    pub proto: VlanProto,
    /// VLAN id, 0 to 4094; only 12 bits are used.
    pub vid: u16,
    /// Priority, 0 to 7; only 3 bits are used.
    pub prio: u8,
}

/// What the outer tag becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanModify {
    /// Its protocol; tc's modify always sets one, 802.1Q if not told.
    pub proto: VlanProto,
    /// VLAN id, 0 to 4094; only 12 bits are used.
    pub vid: u16,
    /// Priority; `None` leaves it as it is. Drop eligibility is never changed.
    pub prio: Option<u8>,
}

impl Packet {
    /// Puts a tag in front of those that the frame has.
    pub fn vlan_push(&mut self, tag: VlanTag) -> Result<(), DropReason> {
        let tci = u16::from(tag.prio & 7) << 13 | tag.vid & 0xfff;
        let bytes = self.insert(12, VLAN_TAG_LEN)?;
        bytes[..2].copy_from_slice(&tag.proto.eth_type().to_be_bytes());
        bytes[2..].copy_from_slice(&tci.to_be_bytes());
        Ok(())
    }

    /// Takes the outer tag off. False for a frame without one, which stays as it is (as in tc).
    pub fn vlan_pop(&mut self) -> bool {
        if !self.is_tagged() {
            return false;
        }
        self.remove(12, VLAN_TAG_LEN);
        true
    }

    /// Changes the outer tag. False for a frame without one, which stays as it is (as in tc).
    pub fn vlan_modify(&mut self, to: VlanModify) -> bool {
        if !self.is_tagged() {
            return false;
        }
        let head = self.head_mut();
        if let Some(prio) = to.prio {
            head[14] = head[14] & 0x1f | prio << 5;
        }
        head[12..14].copy_from_slice(&to.proto.eth_type().to_be_bytes());
        wire::vlan_set_vid(head, 0, to.vid).is_some()
    }

    fn is_tagged(&self) -> bool {
        // A loaded frame has its tags whole, and an EtherType behind them.
        wire::be16(self.head(), 12).is_some_and(is_vlan)
    }
}
