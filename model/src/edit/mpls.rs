//! MPLS labels, as act_mpls of tc handles them (net/sched/act_mpls.c, skb_mpls_push and others).

use super::Packet;
use crate::DropReason;
use crate::wire::eth_type;

/// One label stack entry (RFC 3032 §2.1).
const ENTRY_LEN: usize = 4;

/// A label to put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MplsPush {
    /// EtherType: 0x8847, or 0x8848 (multicast).
    pub proto: u16,
    /// 20 bits.
    pub label: u32,
    /// Traffic class, 3 bits.
    pub tc: u8,
    /// Time to live; tc's default is 255.
    pub ttl: u8,
    /// Bottom of the stack; `None`: if there is no label behind it.
    pub bos: Option<bool>,
}

/// What the outer label becomes; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MplsModify {
    /// 20 bits.
    pub label: Option<u32>,
    /// Traffic class, 3 bits.
    pub tc: Option<u8>,
    /// Time to live.
    pub ttl: Option<u8>,
    /// Bottom of the stack.
    pub bos: Option<bool>,
}

fn is_mpls(eth_type: u16) -> bool {
    matches!(eth_type, eth_type::MPLS_UC | eth_type::MPLS_MC)
}

impl Packet {
    /// Puts a label in front of the network header, behind all VLAN tags. `MplsInvalid` for a
    /// frame still to be cut: what cuts it does not look behind labels.
    pub fn mpls_push(&mut self, push: &MplsPush) -> Result<(), DropReason> {
        if self.offload().gso.is_some() {
            return Err(DropReason::MplsInvalid);
        }
        let layout = self.layout()?;
        let bos = push.bos.unwrap_or(!is_mpls(layout.eth_type));
        let entry = push.label << 12
            | u32::from(push.tc & 7) << 9
            | u32::from(bos) << 8
            | u32::from(push.ttl);
        let room = self.insert(layout.l3, ENTRY_LEN)?;
        room.copy_from_slice(&entry.to_be_bytes());
        self.change_word(layout.l3 - 2, |_| push.proto);
        Ok(())
    }

    /// Takes the outer label off and announces what follows as `proto`. False for a frame without
    /// one, which stays as it is (as in tc).
    pub fn mpls_pop(&mut self, proto: u16) -> Result<bool, DropReason> {
        let layout = self.layout()?;
        if !is_mpls(layout.eth_type) {
            return Ok(false);
        }
        self.mpls_entry()?;
        self.remove(layout.l3, ENTRY_LEN);
        self.change_word(layout.l3 - 2, |_| proto);
        Ok(true)
    }

    /// Changes the outer label. `MplsInvalid` for a frame without one, which tc drops.
    pub fn mpls_modify(&mut self, to: &MplsModify) -> Result<(), DropReason> {
        let (at, mut entry) = self.mpls_entry()?;
        let mut set = |mask: u32, value: Option<u32>, shift: u32| {
            if let Some(value) = value {
                entry = entry & !(mask << shift) | (value & mask) << shift;
            }
        };
        set(0xf_ffff, to.label, 12);
        set(7, to.tc.map(u32::from), 9);
        set(1, to.bos.map(u32::from), 8);
        set(0xff, to.ttl.map(u32::from), 0);
        self.head_mut()[at..at + ENTRY_LEN].copy_from_slice(&entry.to_be_bytes());
        Ok(())
    }

    /// Takes one off the outer label's TTL. `MplsInvalid`, and the packet is lost, if it was the
    /// last, or there is no label.
    pub fn mpls_dec_ttl(&mut self) -> Result<(), DropReason> {
        let (at, entry) = self.mpls_entry()?;
        let ttl = (entry as u8).wrapping_sub(1);
        if ttl == 0 {
            return Err(DropReason::MplsInvalid);
        }
        self.head_mut()[at + 3] = ttl;
        Ok(())
    }

    /// The outer entry and where it is.
    fn mpls_entry(&self) -> Result<(usize, u32), DropReason> {
        let layout = self.layout()?;
        let bytes = self.head().get(layout.l3..).and_then(|b| b.first_chunk());
        match bytes {
            Some(bytes) if is_mpls(layout.eth_type) => Ok((layout.l3, u32::from_be_bytes(*bytes))),
            _ => Err(DropReason::MplsInvalid),
        }
    }
}
