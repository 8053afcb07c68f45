//! The decision: what becomes of one packet.

use super::output::Tag;
use super::ports::{Port, Ports};
use super::probe::{NoProbe, Probe};
use super::walk::Walk;
use super::{
    Arriving, Change, ChangeError, Dest, Fdb, MAX_VPORTS, Meta, Mode, Outputs, VlanOp, VportConfig,
};
use crate::ct::{Conntrack, CtConfig};
use crate::edit::TunnelPorts;
use crate::flow::{FlowKey, Tables};
use crate::{DropReason, Mac, VportId};
use std::sync::Arc;

/// The configuration of the whole switch, and its forwarding.
///
/// Deciding takes `&self`; the only thing it writes is the counters of the rules. A clone shares
/// configurations and rules (with their counters).
#[derive(Clone, Debug)]
pub struct Switch {
    mode: Mode,
    vepa: bool,
    uplink_present: bool,
    uplink_block: u16,
    pub(super) ports: Ports,
    tables: Tables,
    tunnel_ports: TunnelPorts,
    conntrack: Arc<Conntrack>,
    /// Counts changes, for [`FlowCache`](super::FlowCache).
    pub(super) epoch: u64,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new(Arc::new(Conntrack::new(CtConfig::default())))
    }
}

impl Switch {
    /// A switch in legacy mode without ports, that tracks connections here.
    pub fn new(conntrack: Arc<Conntrack>) -> Self {
        Self {
            mode: Mode::default(),
            vepa: false,
            uplink_present: false,
            uplink_block: 0,
            ports: Ports::default(),
            tables: Tables::default(),
            tunnel_ports: TunnelPorts::default(),
            conntrack,
            epoch: 0,
        }
    }

    /// Applies one change, or refuses it and changes nothing.
    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change {
            Change::AddVport(id, config) => {
                if id.is_uplink() || id.0 >= MAX_VPORTS {
                    return Err(ChangeError::VportRange(*id));
                }
                if self.ports.get(*id).is_some() {
                    return Err(ChangeError::VportExists(*id));
                }
                self.ports.set(*id, config.clone());
            }
            Change::SetVport(id, config) => {
                if self.ports.get(*id).is_none() {
                    return Err(ChangeError::NoVport(*id));
                }
                self.ports.set(*id, config.clone());
            }
            Change::RemoveVport(id) => {
                if !self.ports.remove(*id) {
                    return Err(ChangeError::NoVport(*id));
                }
            }
            Change::SetMode(mode) => self.mode = *mode,
            Change::SetVepa(vepa) => self.vepa = *vepa,
            Change::SetUplink(present) => self.uplink_present = *present,
            Change::SetUplinkBlock(block) => self.uplink_block = *block,
            Change::AddRule(rule) => {
                if !self.tables.insert(rule.clone()) {
                    return Err(ChangeError::RuleExists(rule.id()));
                }
            }
            Change::ReplaceRule(rule) => {
                let old = self.tables.remove(rule.id());
                old.ok_or(ChangeError::NoRule(rule.id()))?;
                self.tables.insert(rule.clone());
            }
            Change::RemoveRule(id) => {
                self.tables.remove(*id).ok_or(ChangeError::NoRule(*id))?;
            }
            Change::RemoveRulesOf(origin) => {
                self.tables.remove_all_of(*origin);
            }
            Change::SetTunnelPorts(ports) => self.tunnel_ports = ports.clone(),
        }
        self.epoch += 1;
        Ok(())
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether legacy mode leaves switching to the neighbour.
    pub fn vepa(&self) -> bool {
        self.vepa
    }

    /// Whether floods reach the wire.
    pub fn uplink_present(&self) -> bool {
        self.uplink_present
    }

    /// A channel's configuration.
    pub fn vport(&self, id: VportId) -> Option<&Arc<VportConfig>> {
        self.ports.get(id).map(|port| &port.config)
    }

    /// Number of channels.
    pub fn vport_count(&self) -> usize {
        self.ports.len()
    }

    /// All channels by number.
    pub fn vports(&self) -> impl Iterator<Item = (VportId, &Arc<VportConfig>)> {
        self.ports.iter()
    }

    /// The flow rules.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Which UDP ports are tunnels'.
    pub fn tunnel_ports(&self) -> &TunnelPorts {
        &self.tunnel_ports
    }

    /// Connections.
    pub fn conntrack(&self) -> &Arc<Conntrack> {
        &self.conntrack
    }

    /// The group of ports that a port shares its rules with; 0: none.
    #[inline]
    pub(super) fn block_of(&self, vport: VportId) -> u16 {
        match self.ports.get(vport) {
            Some(port) => port.block,
            None if vport.is_uplink() => self.uplink_block,
            None => 0,
        }
    }

    /// The same of the uplink.
    pub fn uplink_block(&self) -> u16 {
        self.uplink_block
    }

    /// What becomes of a packet that came in from a channel or the wire (`key.in_port`).
    ///
    /// `out` is cleared first. On an error the packet is lost, that reason is to be charged to the
    /// in-port, and there is nothing to deliver. On success at least one of `out.list` and
    /// `out.lost` holds something, and all of it counts. `out.learn` counts in either case.
    #[inline]
    pub fn from_vport(
        &self,
        fdb: &Fdb,
        packet: Arriving<'_>,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        self.from_vport_watched(fdb, packet, out, &mut NoProbe)
    }

    /// [`Switch::from_vport`] with somebody watching, who may want nothing to come of it.
    #[inline]
    pub fn from_vport_watched<P: Probe>(
        &self,
        fdb: &Fdb,
        packet: Arriving<'_>,
        out: &mut Outputs,
        probe: &mut P,
    ) -> Result<(), DropReason> {
        out.clear();
        let tag = self.admit(packet.key, packet.meta)?;
        match self.mode {
            Mode::Legacy => self.bridge(fdb, packet.key, tag, packet.meta, out),
            Mode::Switchdev => Walk::new(self, packet, tag, out, probe).run(None).result,
        }
    }

    /// A packet that the host sent on the representor of `vport`: it comes out of that vport.
    /// `out` as for [`Switch::from_vport`]; an error is to be charged to the representor.
    pub fn from_representor(
        &self,
        vport: VportId,
        key: &FlowKey,
        meta: Meta,
        out: &mut Outputs,
    ) -> Result<(), DropReason> {
        out.clear();
        if self.mode == Mode::Legacy {
            return Err(DropReason::RepresentorIgnored);
        }
        if self.deliver(vport, key, Tag::as_came(key), meta, out) {
            Ok(())
        } else {
            Err(DropReason::NoDestination)
        }
    }

    /// Whether a port may send this, and with which tag it enters the switch.
    #[inline]
    pub(super) fn admit(&self, key: &FlowKey, meta: Meta) -> Result<Tag, DropReason> {
        if key.vport().is_uplink() {
            return Ok(Tag::as_came(key));
        }
        let port = self.ports.get(key.vport()).ok_or(DropReason::VportDown)?;
        if !port.link_up {
            return Err(DropReason::VportDown);
        }
        if port.spoofchk {
            let src = key.eth_src.to_bits();
            if !port.config.macs.iter().any(|mac| mac.to_bits() == src) {
                return Err(DropReason::SpoofedMac);
            }
        }
        if meta.l3_len > u32::from(port.mtu) {
            return Err(DropReason::TooLong);
        }
        match port.port_vlan {
            0 => Ok(Tag::as_came(key)),
            // A priority tag names no VLAN, so the frame still belongs to the port's.
            vid if key.vid() == 0 => Ok(Tag::assigned(key, vid)),
            _ => Err(DropReason::VlanNotAllowed),
        }
    }

    /// Sends it as it came to one vport, or notes why that does not take it; false if there is no
    /// such vport.
    #[inline]
    pub(super) fn deliver(
        &self,
        to: VportId,
        key: &FlowKey,
        tag: Tag,
        meta: Meta,
        out: &mut Outputs,
    ) -> bool {
        match self.egress(to, key.eth_dst, tag, meta.l3_len) {
            Some(Ok(vlan)) => out.push(Dest::Vport(to), vlan),
            Some(Err(reason)) => out.lost.push((to, reason)),
            None => return false,
        }
        true
    }

    /// Whether a vport takes a packet that is meant for it, and what becomes of the tag; `None` if
    /// there is no such vport.
    #[inline]
    pub(super) fn egress(
        &self,
        to: VportId,
        dst: Mac,
        tag: Tag,
        l3_len: u32,
    ) -> Option<Result<VlanOp, DropReason>> {
        if to.is_uplink() {
            return Some(Ok(tag.keep));
        }
        let port = self.ports.get(to)?;
        Some(enter(port, dst, tag, l3_len))
    }
}

/// Whether a channel takes a packet that is meant for it, and what becomes of the tag.
#[inline]
fn enter(port: &Port, dst: Mac, tag: Tag, l3_len: u32) -> Result<VlanOp, DropReason> {
    if !port.link_up {
        return Err(DropReason::LinkDown);
    }
    let (vlan, seen_vid) = match port.port_vlan {
        0 => (tag.keep, tag.vid()),
        vid if tag.vid() == vid => (tag.strip(), 0),
        _ => return Err(DropReason::VlanFiltered),
    };
    if l3_len > u32::from(port.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    if port.filtered {
        port.config.filter(dst, seen_vid)?;
    }
    Ok(vlan)
}
