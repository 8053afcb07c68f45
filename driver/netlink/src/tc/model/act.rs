//! What a filter does, as the switch's actions.

use super::{NotOffloaded, Surroundings, TunnelDevice, pedit};
use crate::tc::action::{
    self, Action as Tc, Control, Ct, Kind, MirredWhat, MplsWhat, TunnelKeyWhat, TunnelMetadata,
    VlanWhat,
};
use chanio_model::ct::{CtAction, CtNat, CtSpec, NatRange};
use chanio_model::edit::tunnel::{GeneveOption, GeneveOptions};
use chanio_model::edit::{
    Csums, MplsModify, MplsPush, TunnelKind, TunnelSet, VlanModify, VlanProto, VlanTag,
};
use chanio_model::flow::{Action, Actions, Control as Then, Police, Sample};
use chanio_model::meter::{ByteRate, MeterSpec, PacketRate};
use std::net::IpAddr;

fn unsupported(what: impl Into<String>) -> NotOffloaded {
    NotOffloaded::Action(what.into())
}

/// Reads the list as tcf_action_exec carries it out: an action's verdict tells whether the next
/// one has its turn.
pub(super) fn read(list: &[Tc], around: &dyn Surroundings) -> Result<Actions, NotOffloaded> {
    let mut out = Vec::new();
    // What tunnel_key set has attached, until a tunnel device makes a header of it.
    let mut attached: Option<&TunnelMetadata> = None;
    let mut ended = false;
    for tc in list {
        if ended {
            break;
        }
        let mut verdict = tc.generic.control;
        match &tc.kind {
            Kind::Gact(gact) if gact.random.is_some() => return Err(unsupported("gact random")),
            Kind::Gact(_) => {}
            Kind::Mirred(mirred) => {
                let vport = match around.vport(mirred.ifindex) {
                    _ if mirred.block.is_some() => return Err(unsupported("mirred blockid")),
                    Some(vport) => vport,
                    None => {
                        let device = around
                            .tunnel(mirred.ifindex)
                            .ok_or(NotOffloaded::Device(mirred.ifindex))?;
                        let metadata = attached.take().ok_or(NotOffloaded::NoTunnelDevice)?;
                        let (set, vport) = encapsulate(metadata, device, around)?;
                        out.push(Action::TunnelSet(Box::new(set)));
                        vport
                    }
                };
                match mirred.what {
                    MirredWhat::EgressRedirect => {
                        out.push(Action::Redirect(vport));
                        ended = true;
                        verdict = Control::Pipe;
                    }
                    MirredWhat::EgressMirror => out.push(Action::Mirror(vport)),
                    MirredWhat::IngressRedirect | MirredWhat::IngressMirror => {
                        return Err(unsupported("mirred ingress"));
                    }
                }
            }
            Kind::Vlan(vlan) => out.push(read_vlan(vlan)?),
            Kind::Mpls(mpls) => out.push(read_mpls(mpls)?),
            Kind::TunnelKey(tunnel) => match tunnel.what {
                TunnelKeyWhat::Set => attached = Some(&tunnel.metadata),
                TunnelKeyWhat::Unset => out.push(Action::TunnelUnset),
            },
            Kind::Police(police) => {
                out.push(read_police(police, tc)?);
                verdict = Control::Pipe;
            }
            Kind::Pedit(words) => out.push(Action::Pedit(pedit::read(words)?.into())),
            Kind::Csum(csum) => {
                let update = u8::try_from(csum.update)
                    .map_err(|_| unsupported(format!("csum {:#x}", csum.update)))?;
                out.push(Action::Csum(Csums(update)));
            }
            Kind::Ct(ct) => out.push(Action::Ct(Box::new(read_ct(ct)?))),
            Kind::Sample(sample) => {
                let group = sample.group.unwrap_or_default();
                let to = around.sample_port(group).ok_or_else(|| {
                    unsupported(format!("sample group {group}: nobody listens, so it"))
                })?;
                let rate = sample.rate.unwrap_or_default();
                out.push(Action::Sample(Sample { rate, group, to }));
            }
            Kind::Skbedit(_) | Kind::Other { .. } => return Err(unsupported(tc.kind.name())),
        }
        if !ended {
            ended = end(verdict, &mut out)?;
        }
    }
    if attached.is_some() {
        return Err(NotOffloaded::NoTunnelDevice);
    }
    // A filter without a verdict lets the packet pass, as does the switch; the switch wants to be
    // told something.
    if out.is_empty() {
        out.push(Action::Pass);
    }
    Ok(out.into())
}

/// Whether the list ends with this verdict.
fn end(verdict: Control, out: &mut Vec<Action>) -> Result<bool, NotOffloaded> {
    let last = match verdict {
        Control::Pipe => return Ok(false),
        Control::Ok => Action::Pass,
        Control::Shot => Action::Drop,
        Control::Trap => Action::Trap,
        Control::GotoChain(chain) => Action::Goto(chain),
        other => return Err(unsupported(format!("verdict {other:?}"))),
    };
    out.push(last);
    Ok(true)
}

fn read_vlan(vlan: &action::Vlan) -> Result<Action, NotOffloaded> {
    let tag = &vlan.tag;
    let proto = match tag.protocol {
        None | Some(0x8100) => VlanProto::Dot1Q,
        Some(0x88a8) => VlanProto::Dot1Ad,
        Some(other) => return Err(unsupported(format!("vlan protocol {other:#06x}"))),
    };
    let vid = tag.id.unwrap_or_default();
    Ok(match vlan.what {
        VlanWhat::Pop => Action::VlanPop,
        VlanWhat::Push => Action::VlanPush(VlanTag {
            proto,
            vid,
            prio: tag.priority.unwrap_or_default(),
        }),
        VlanWhat::Modify => Action::VlanModify(VlanModify {
            proto,
            vid,
            prio: tag.priority,
        }),
        VlanWhat::PopEth => return Err(unsupported("vlan pop_eth")),
        VlanWhat::PushEth => return Err(unsupported("vlan push_eth")),
    })
}

fn read_mpls(mpls: &action::Mpls) -> Result<Action, NotOffloaded> {
    let label = &mpls.label;
    let bos = label.bos.map(|bos| bos != 0);
    Ok(match mpls.what {
        MplsWhat::Push => Action::MplsPush(MplsPush {
            proto: label.protocol.unwrap_or(0x8847),
            label: label.label.unwrap_or_default(),
            tc: label.tc.unwrap_or_default(),
            ttl: label.ttl.unwrap_or(255),
            bos,
        }),
        MplsWhat::Pop => {
            let protocol = label
                .protocol
                .ok_or_else(|| unsupported("mpls pop without protocol"));
            Action::MplsPop(protocol?)
        }
        MplsWhat::Modify => {
            let (tc, ttl) = (label.tc, label.ttl);
            Action::MplsModify(MplsModify {
                label: label.label,
                tc,
                ttl,
                bos,
            })
        }
        MplsWhat::DecTtl => Action::MplsDecTtl,
        MplsWhat::MacPush => return Err(unsupported("mpls mac_push")),
    })
}

/// What the tunnel device, the route and the neighbour make of the metadata.
fn encapsulate(
    metadata: &TunnelMetadata,
    device: TunnelDevice,
    around: &dyn Surroundings,
) -> Result<(TunnelSet, chanio_model::VportId), NotOffloaded> {
    let v4 = metadata
        .ipv4_src
        .zip(metadata.ipv4_dst)
        .map(|(s, d)| (s.into(), d.into()));
    let v6 = metadata
        .ipv6_src
        .zip(metadata.ipv6_dst)
        .map(|(s, d)| (s.into(), d.into()));
    let (src, dst): (IpAddr, IpAddr) = v4
        .or(v6)
        .ok_or_else(|| unsupported("tunnel_key set without addresses"))?;
    let hop = around
        .next_hop(src, dst)
        .ok_or(NotOffloaded::Unreachable(dst))?;
    let mut options = GeneveOptions::new();
    let mut gbp = None;
    if let Some(given) = &metadata.options {
        let fits = given.geneve.iter().all(|option| {
            let data = option.data.as_deref().unwrap_or_default();
            let (class, kind) = (option.class.unwrap_or(0), option.kind.unwrap_or(0));
            GeneveOption { class, kind, data }.append_to(&mut options)
        });
        gbp = given.vxlan.as_ref().and_then(|vxlan| vxlan.gbp);
        let right = match device.kind {
            TunnelKind::Geneve => gbp.is_none(),
            TunnelKind::Vxlan => options.is_empty(),
            _ => false,
        };
        let rare = given.erspan.is_some() || given.gtp.is_some() || given.pfcp.is_some();
        if !fits || !right || rare || !given.unknown.is_empty() {
            return Err(unsupported(format!(
                "tunnel_key set: options for {}",
                device.kind.name()
            )));
        }
    }
    let set = TunnelSet {
        kind: device.kind,
        eth_dst: hop.eth_dst,
        eth_src: hop.eth_src,
        src,
        dst,
        key: metadata.key_id,
        dst_port: metadata.dst_port.unwrap_or(device.dst_port),
        tos: Some(metadata.tos.unwrap_or(0)),
        ttl: metadata.ttl.unwrap_or(0),
        df: metadata.no_frag.is_some(),
        csum: metadata.no_csum.unwrap_or(0) == 0,
        gbp,
        options,
        ..TunnelSet::default()
    };
    Ok((set, hop.vport))
}

/// Nanoseconds of a scheduler tick (PSCHED_SHIFT).
pub(super) const TICK_NS: u64 = 64;
const SECOND_NS: u128 = 1_000_000_000;

/// How much comes in so many ticks at this rate, rounded as tc rounded the ticks up.
fn in_ticks(ticks: u64, rate: u64) -> u32 {
    let nanos = u128::from(ticks) * u128::from(TICK_NS);
    u32::try_from(nanos * u128::from(rate) / SECOND_NS).unwrap_or(u32::MAX)
}

fn read_police(police: &action::Police, tc: &Tc) -> Result<Action, NotOffloaded> {
    if police.more.average_rate.is_some() {
        return Err(unsupported("police avrate"));
    }
    let rate = police.bytes_per_second();
    let peak = police
        .more
        .peak_rate64
        .unwrap_or(police.peak_rate.rate.into());
    let bytes = (rate != 0).then(|| ByteRate {
        rate,
        burst: in_ticks(police.burst.into(), rate),
        peak: (peak != 0).then_some(peak),
    });
    let packets = police.more.packet_rate.map(|rate| PacketRate {
        rate,
        burst: in_ticks(police.more.packet_burst.unwrap_or_default(), rate),
    });
    let mtu = (police.mtu != 0).then_some(police.mtu);
    let then = |control| {
        Ok(match control {
            Control::Pipe => Then::Pipe,
            Control::Ok => Then::Pass,
            Control::Shot => Then::Drop,
            Control::GotoChain(chain) => Then::Goto(chain),
            other => return Err(unsupported(format!("police verdict {other:?}"))),
        })
    };
    let mut out = Police {
        // The kernel gives each an index; filters that are told it share the action.
        index: tc.generic.index,
        meter: MeterSpec {
            bytes,
            packets,
            mtu,
        },
        exceed: Then::Drop,
        conform: Then::Pipe,
    };
    // Where only the index is given, the verdicts are those of the action that has it.
    if !out.is_reference() {
        out.exceed = then(tc.generic.control)?;
        out.conform = then(police.conform())?;
    }
    Ok(Action::Police(Box::new(out)))
}

fn read_ct(ct: &Ct) -> Result<CtAction, NotOffloaded> {
    if ct.helper_name.is_some() {
        return Err(unsupported("ct helper"));
    }
    let flags = ct.action.unwrap_or_default();
    let has = |flag: u16| flags & flag != 0;
    if has(Ct::CLEAR) {
        return Ok(CtAction::Clear);
    }
    let range = || {
        let v4 = ct
            .nat_ipv4_min
            .map(|min| (min.into(), ct.nat_ipv4_max.unwrap_or(min).into()));
        let v6 = ct
            .nat_ipv6_min
            .map(|min| (min.into(), ct.nat_ipv6_max.unwrap_or(min).into()));
        let (min, max) = v4
            .or(v6)
            .ok_or_else(|| unsupported("ct nat without addresses"))?;
        let ports = ct
            .nat_port_min
            .map(|min| (min, ct.nat_port_max.unwrap_or(min)));
        NatRange::new(min, max, ports).map_err(|error| unsupported(format!("ct nat: {error}")))
    };
    let nat = match (has(Ct::NAT), has(Ct::NAT_SRC), has(Ct::NAT_DST)) {
        (false, ..) => None,
        (true, true, _) => Some(CtNat::Src(range()?)),
        (true, _, true) => Some(CtNat::Dst(range()?)),
        (true, false, false) => Some(CtNat::Existing),
    };
    let mark = ct
        .mark
        .map_or((0, 0), |mark| (mark.value & mark.mask, mark.mask));
    let label = ct.labels.map_or(([0; 16], [0; 16]), |l| {
        (std::array::from_fn(|i| l.value[i] & l.mask[i]), l.mask)
    });
    Ok(CtAction::Track(CtSpec {
        zone: ct.zone.unwrap_or_default(),
        commit: has(Ct::COMMIT),
        force: has(Ct::FORCE),
        mark: mark.0,
        mark_mask: mark.1,
        label: label.0,
        label_mask: label.1,
        nat,
    }))
}
