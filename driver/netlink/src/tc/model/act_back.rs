//! What a rule does, as tc's actions.

use super::act::TICK_NS;
use super::{NotOffloaded, Surroundings, pedit};
use crate::attr::{Flag, Masked};
use crate::tc::action::{
    self, Action as Tc, Control, Csum, Ct, Gact, Kind, Mirred, MirredWhat, Mpls, MplsLabel,
    MplsWhat, Police, Sample, TunnelKey, TunnelKeyWhat, TunnelMetadata, Vlan, VlanTag, VlanWhat,
};
use crate::tc::tunnel_options::{GeneveOption, TunnelOptions, VxlanOption};
use chanio_model::VportId;
use chanio_model::ct::{CtAction, CtNat};
use chanio_model::edit::tunnel::geneve_options;
use chanio_model::edit::{Payload, TunnelKind, TunnelSet};
use chanio_model::flow::{Action, Control as Then};
use std::net::IpAddr;

/// The list, each action piping into the next but for the last one's verdict.
pub(super) fn write(list: &[Action], around: &dyn Surroundings) -> Result<Vec<Tc>, NotOffloaded> {
    let mut out = Vec::new();
    // After tunnel_key set packets leave through the tunnel's device.
    let mut through: Option<u32> = None;
    for action in list {
        let send = |vport: VportId, what, control, through: Option<u32>| {
            let ifindex = through
                .or(around.ifindex(vport))
                .ok_or(NotOffloaded::Device(vport.0))?;
            Ok::<_, NotOffloaded>(Tc::new(
                Mirred {
                    what,
                    ifindex,
                    block: None,
                },
                control,
            ))
        };
        let verdict = |control| Tc::new(Gact::default(), control);
        let pipe = |kind: Kind| Tc::new(kind, Control::Pipe);
        out.push(match action {
            Action::Drop => verdict(Control::Shot),
            Action::Pass => verdict(Control::Ok),
            Action::Trap => verdict(Control::Trap),
            Action::Goto(chain) => verdict(Control::GotoChain(*chain)),
            Action::Redirect(to) => send(
                *to,
                MirredWhat::EgressRedirect,
                Control::Stolen,
                through.take(),
            )?,
            Action::Mirror(to) => {
                send(*to, MirredWhat::EgressMirror, Control::Pipe, through.take())?
            }
            Action::VlanPush(tag) => {
                let tag = VlanTag {
                    id: Some(tag.vid),
                    protocol: Some(tag.proto.eth_type()),
                    priority: Some(tag.prio),
                    ..VlanTag::default()
                };
                pipe(
                    Vlan {
                        what: VlanWhat::Push,
                        tag,
                    }
                    .into(),
                )
            }
            Action::VlanPop => pipe(Vlan::default().into()),
            Action::VlanModify(to) => {
                let tag = VlanTag {
                    id: Some(to.vid),
                    protocol: Some(to.proto.eth_type()),
                    priority: to.prio,
                    ..VlanTag::default()
                };
                pipe(
                    Vlan {
                        what: VlanWhat::Modify,
                        tag,
                    }
                    .into(),
                )
            }
            Action::MplsPush(push) => {
                let label = MplsLabel {
                    protocol: Some(push.proto),
                    label: Some(push.label),
                    tc: Some(push.tc),
                    ttl: Some(push.ttl),
                    bos: push.bos.map(u8::from),
                };
                pipe(
                    Mpls {
                        what: MplsWhat::Push,
                        label,
                    }
                    .into(),
                )
            }
            Action::MplsPop(protocol) => {
                let label = MplsLabel {
                    protocol: Some(*protocol),
                    ..MplsLabel::default()
                };
                pipe(
                    Mpls {
                        what: MplsWhat::Pop,
                        label,
                    }
                    .into(),
                )
            }
            Action::MplsModify(to) => {
                let label = MplsLabel {
                    label: to.label,
                    tc: to.tc,
                    ttl: to.ttl,
                    bos: to.bos.map(u8::from),
                    ..MplsLabel::default()
                };
                pipe(
                    Mpls {
                        what: MplsWhat::Modify,
                        label,
                    }
                    .into(),
                )
            }
            Action::MplsDecTtl => pipe(
                Mpls {
                    what: MplsWhat::DecTtl,
                    ..Mpls::default()
                }
                .into(),
            ),
            Action::Pedit(edits) => pipe(pedit::write(edits)?.into()),
            Action::Csum(which) => pipe(
                Csum {
                    update: which.0.into(),
                }
                .into(),
            ),
            Action::TunnelSet(set) => {
                let device = around.tunnel_device(set.kind);
                through = Some(device.ok_or(NotOffloaded::NoTunnelDevice)?);
                pipe(tunnel_key(set)?.into())
            }
            Action::TunnelUnset => pipe(TunnelKey::default().into()),
            Action::Police(police) => write_police(police),
            Action::Ct(ct) => pipe(write_ct(ct).into()),
            Action::Sample(sample) => {
                // The kernel gives samples to a group; who forwards it is not the filter's.
                if around.sample_port(sample.group) != Some(sample.to) {
                    let what = format!("sample group {} to this port", sample.group);
                    return Err(NotOffloaded::Action(what));
                }
                let (rate, group) = (Some(sample.rate), Some(sample.group));
                pipe(
                    Sample {
                        rate,
                        group,
                        truncate: None,
                    }
                    .into(),
                )
            }
        });
    }
    Ok(out)
}

/// What a filter cannot say is the tunnel device's, the route's or the neighbour's to decide: the
/// MACs always are.
fn tunnel_key(set: &TunnelSet) -> Result<TunnelKey, NotOffloaded> {
    let beyond = [
        ("payload ip", set.payload != Payload::Ethernet),
        ("flow_label", set.flow_label != 0),
        ("tos inherit", set.tos.is_none()),
    ];
    if let Some((what, _)) = beyond.iter().find(|(_, asked)| *asked) {
        return Err(NotOffloaded::Action(format!("tunnel_key set with {what}")));
    }
    let (mut v4, mut v6) = ((None, None), (None, None));
    match (set.src, set.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => v4 = (Some(src), Some(dst)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => v6 = (Some(src), Some(dst)),
        // A rule of two families is not well formed.
        _ => {}
    }
    let geneve = geneve_options(&set.options)
        .flatten()
        .map(|option| GeneveOption {
            class: Some(option.class),
            kind: Some(option.kind),
            data: Some(option.data.to_vec()),
        });
    let options = TunnelOptions {
        geneve: geneve.collect(),
        vxlan: set.gbp.map(|gbp| VxlanOption { gbp: Some(gbp) }),
        ..TunnelOptions::default()
    };
    let metadata = TunnelMetadata {
        ipv4_src: v4.0,
        ipv4_dst: v4.1,
        ipv6_src: v6.0,
        ipv6_dst: v6.1,
        key_id: set.key,
        dst_port: (set.kind != TunnelKind::Gre).then_some(set.dst_port),
        no_csum: Some((!set.csum).into()),
        options: (options != TunnelOptions::default()).then_some(options),
        tos: set.tos.filter(|tos| *tos != 0),
        ttl: (set.ttl != 0).then_some(set.ttl),
        no_frag: set.df.then_some(Flag),
    };
    Ok(TunnelKey {
        what: TunnelKeyWhat::Set,
        metadata,
    })
}

/// The time in which so much comes at this rate, in ticks, rounded up: never less than asked.
fn ticks(amount: u32, rate: u64) -> u64 {
    let nanos = (u128::from(amount) * 1_000_000_000).div_ceil(rate.max(1).into());
    u64::try_from(nanos.div_ceil(TICK_NS.into())).unwrap_or(u64::MAX)
}

fn write_police(police: &chanio_model::flow::Police) -> Tc {
    let then = |control| match control {
        Then::Pipe => Control::Pipe,
        Then::Pass => Control::Ok,
        Then::Drop => Control::Shot,
        Then::Goto(chain) => Control::GotoChain(chain),
    };
    let mut kind = Police {
        mtu: police.meter.mtu.unwrap_or(0),
        ..Police::default()
    };
    if let Some(bytes) = &police.meter.bytes {
        kind.set_rate(bytes.rate, bytes.peak);
        kind.burst = u32::try_from(ticks(bytes.burst, bytes.rate)).unwrap_or(u32::MAX);
    }
    if let Some(packets) = &police.meter.packets {
        kind.more.packet_rate = Some(packets.rate);
        kind.more.packet_burst = Some(ticks(packets.burst, packets.rate));
    }
    kind.more.result = Some(then(police.conform).into());
    let mut tc = Tc::new(kind, then(police.exceed));
    tc.generic.index = police.index;
    tc
}

fn write_ct(ct: &CtAction) -> action::Ct {
    let spec = match ct {
        CtAction::Clear => {
            return Ct {
                action: Some(Ct::CLEAR),
                ..Ct::default()
            };
        }
        CtAction::Track(spec) => spec,
    };
    let flag = |on: bool, flag: u16| if on { flag } else { 0 };
    let mut out = Ct {
        zone: (spec.zone != 0).then_some(spec.zone),
        mark: (spec.mark_mask != 0).then_some(Masked {
            value: spec.mark,
            mask: spec.mark_mask,
        }),
        labels: (spec.label_mask != [0; 16]).then_some(Masked {
            value: spec.label,
            mask: spec.label_mask,
        }),
        ..Ct::default()
    };
    let (nat, range) = match &spec.nat {
        None => (0, None),
        Some(CtNat::Existing) => (Ct::NAT, None),
        Some(CtNat::Src(range)) => (Ct::NAT | Ct::NAT_SRC, Some(range)),
        Some(CtNat::Dst(range)) => (Ct::NAT | Ct::NAT_DST, Some(range)),
    };
    if let Some(range) = range {
        match range.addresses() {
            (IpAddr::V4(min), IpAddr::V4(max)) => {
                (out.nat_ipv4_min, out.nat_ipv4_max) = (Some(min), Some(max));
            }
            (IpAddr::V6(min), IpAddr::V6(max)) => {
                (out.nat_ipv6_min, out.nat_ipv6_max) = (Some(min), Some(max));
            }
            // NatRange::new refuses two families.
            _ => {}
        }
        (out.nat_port_min, out.nat_port_max) = range
            .ports()
            .map_or((None, None), |(min, max)| (Some(min), Some(max)));
    }
    out.action = Some(nat | flag(spec.commit, Ct::COMMIT) | flag(spec.force, Ct::FORCE));
    out
}
