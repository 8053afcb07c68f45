//! Legacy mode: a learning bridge per VLAN.

use super::output::Tag;
use super::ports::Member;
use super::{Dest, Fdb, Meta, Outputs, Switch, VlanOp};
use crate::flow::FlowKey;
use crate::{DropReason, Mac, VportId};

impl Switch {
    #[inline]
    pub(super) fn bridge(
        &self,
        fdb: &Fdb,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let (in_port, vid) = (key.vport(), tag.vid());
        let from_wire = in_port.is_uplink();
        // A VEPA sees its own channels' frames come back from the neighbour, so what arrives from
        // the wire says nothing about where a source is, and must not go back to its sender.
        let reflected = if self.vepa() && from_wire {
            fdb.lookup(vid, key.eth_src, meta.now)
        } else {
            if fdb.needs_learning(vid, key.eth_src, in_port, meta.now) {
                out.learn = Some((vid, key.eth_src));
            }
            None
        };
        if self.vepa() && !from_wire {
            out.push(Dest::Vport(VportId::UPLINK), tag.keep);
            return Ok(());
        }
        // A bridge learns first and looks up then: who writes to itself is found at its own port.
        if out.learn.is_some() && key.eth_dst == key.eth_src {
            return Err(DropReason::SamePort);
        }
        if !key.eth_dst.is_multicast()
            && let Some(to) = fdb.lookup(vid, key.eth_dst, meta.now)
        {
            if to == in_port || Some(to) == reflected {
                return Err(DropReason::SamePort);
            }
            // An entry may outlive its vport for a moment: then the address is unknown.
            if self.deliver(to, key, tag, meta, out) {
                return Ok(());
            }
        }
        self.flood(in_port, reflected, key, tag, meta, out)
    }

    /// To every port in the VLAN but the one it came from. Ports that are down or whose driver
    /// filters it out are no members, so nothing is lost there.
    #[cold]
    #[inline(never)]
    fn flood(
        &self,
        in_port: VportId,
        reflected: Option<VportId>,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        let (dst, vid) = (key.eth_dst, tag.vid());
        if self.uplink_present() && !in_port.is_uplink() {
            out.push(Dest::Vport(VportId::UPLINK), tag.keep);
        }
        let mut to_each = |members: &[Member], seen_vid: u16, vlan: VlanOp| {
            for member in members {
                if member.id == in_port || Some(member.id) == reflected {
                    continue;
                }
                if member.filtered && !self.takes(member.id, dst, seen_vid) {
                    continue;
                }
                if meta.l3_len > u32::from(member.mtu) {
                    out.lost.push((member.id, DropReason::MtuExceeded));
                } else {
                    out.push(Dest::Vport(member.id), vlan);
                }
            }
        };
        to_each(self.ports.trunks(), vid, tag.keep);
        to_each(self.ports.in_vlan(vid), 0, tag.strip());
        if out.list.is_empty() && out.lost.is_empty() {
            return Err(DropReason::NoDestination);
        }
        Ok(())
    }

    fn takes(&self, id: VportId, dst: Mac, vid: u16) -> bool {
        self.ports
            .get(id)
            .is_some_and(|port| port.config.filter(dst, vid).is_ok())
    }
}
