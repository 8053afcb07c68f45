//! Operations drawn at random, done to a packet and to the reference.

use crate::naive;
use chanio_model::ct::{NatEnd, NatRewrite};
use chanio_model::edit::tunnel::GeneveOption;
use chanio_model::edit::*;
use chanio_model::{DropReason, Mac};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Op {
    VlanPush(VlanTag),
    VlanPop,
    VlanModify(VlanModify),
    Edit(FieldEdit),
    Csum,
    TunnelSet(Box<TunnelSet>),
    TunnelUnset,
    Nat(NatRewrite),
    MplsPush(MplsPush),
    MplsPop,
}

const ALL_CSUMS: Csums = Csums(0x7f);

/// The usual ports, and one more.
pub fn ports() -> TunnelPorts {
    let mut ports = TunnelPorts::default();
    assert!(ports.set(4444, TunnelKind::Geneve));
    ports
}

impl Op {
    /// Does it.
    pub fn on(&self, packet: &mut Packet) -> Result<(), DropReason> {
        match self {
            Op::VlanPush(tag) => packet.vlan_push(*tag),
            Op::VlanPop => {
                packet.vlan_pop();
                Ok(())
            }
            Op::VlanModify(to) => {
                packet.vlan_modify(*to);
                Ok(())
            }
            Op::Edit(edit) => packet.edit(edit).map(|_| ()),
            Op::Csum => packet.csum(ALL_CSUMS),
            Op::TunnelSet(set) => packet.tunnel_set(set),
            Op::TunnelUnset => packet.tunnel_unset(&ports()).map(|_| ()),
            Op::Nat(rewrite) => packet.nat(rewrite),
            Op::MplsPush(push) => packet.mpls_push(push),
            Op::MplsPop => packet.mpls_pop(0x0800).map(|_| ()),
        }
    }
}

/// Whether the frame is still recognized as in this tunnel: edits may have changed that.
pub fn is_inside(frame: &[u8], set: &TunnelSet) -> bool {
    let at = naive::find(frame);
    match set.kind {
        TunnelKind::Gre => at.proto == 47,
        _ => at.proto == 17 && naive::be16(frame, at.l4 + 2) == set.dst_port,
    }
}

/// What was put around the packet: its tunnels, and what its labels hide.
#[derive(Default)]
pub struct Around {
    tunnels: Vec<TunnelSet>,
    labelled: Vec<u16>,
}

/// Does it to both; false if the packet is lost, as it must be.
pub fn apply(op: &Op, packet: &mut Packet, want: &mut Vec<u8>, around: &mut Around) -> bool {
    let at = naive::find(want);
    let got = match op {
        Op::MplsPop => match around.labelled.last() {
            Some(hidden) if matches!(at.eth_type, 0x8847 | 0x8848) => {
                packet.mpls_pop(*hidden).map(|_| ())
            }
            _ => return true,
        },
        op => op.on(packet),
    };
    match op {
        Op::TunnelSet(set) => {
            if set.payload == Payload::Ip && !at.v4 && !at.v6 {
                assert_eq!(got, Err(DropReason::TunnelPayload));
                return false;
            }
            if got == Err(DropReason::RewriteRoom) {
                // 384 bytes of room; two tunnels with all the options a packet can have are more.
                let options: usize = around.tunnels.iter().map(|t| t.options.len()).sum();
                assert!(around.tunnels.len() + 1 > 2 || options + set.options.len() > 100);
                return false;
            }
            got.unwrap();
            let head = packet.head();
            let outer = naive::find(head);
            let port = naive::be16(head, outer.l4);
            let ident = naive::be16(head, outer.l3 + 4);
            if set.kind != TunnelKind::Gre {
                assert!((32768..60999).contains(&port));
            }
            naive::tunnel_set(want, set, port, ident);
            around.tunnels.push((**set).clone());
        }
        Op::TunnelUnset => {
            // The reference takes off only what was put on.
            if !around
                .tunnels
                .last()
                .is_some_and(|set| is_inside(want, set))
            {
                return got.is_ok() && around.tunnels.is_empty();
            }
            let set = around.tunnels.pop().unwrap();
            let lived = naive::tunnel_unset(want, &set);
            if got == Err(DropReason::RewriteDepth) {
                return false;
            }
            assert_eq!(
                got,
                if lived {
                    Ok(())
                } else {
                    Err(DropReason::TunnelEcn)
                }
            );
            return lived;
        }
        Op::Csum => {
            got.unwrap();
            naive::csum(want, packet.head().len());
        }
        Op::Edit(edit) => {
            got.unwrap();
            naive::edit(want, edit);
        }
        Op::Nat(rewrite) => {
            got.unwrap();
            naive::nat(want, rewrite);
        }
        Op::VlanPush(tag) => {
            if got.is_err() {
                return false;
            }
            naive::vlan_push(want, *tag);
        }
        Op::VlanPop => {
            naive::vlan_pop(want);
        }
        Op::VlanModify(to) => naive::vlan_modify(want, *to),
        Op::MplsPush(push) => {
            if got.is_err() {
                return false;
            }
            let bos = push.bos.unwrap_or(!matches!(at.eth_type, 0x8847 | 0x8848));
            let entry = push.label << 12
                | u32::from(push.tc) << 9
                | u32::from(bos) << 8
                | u32::from(push.ttl);
            around.labelled.push(at.eth_type);
            want.splice(at.l3..at.l3, entry.to_be_bytes());
            want[at.l3 - 2..at.l3].copy_from_slice(&push.proto.to_be_bytes());
        }
        Op::MplsPop => {
            got.unwrap();
            let hidden = around.labelled.pop().unwrap();
            want.drain(at.l3..at.l3 + 4);
            want[at.l3 - 2..at.l3].copy_from_slice(&hidden.to_be_bytes());
        }
    }
    true
}

fn field_edit() -> impl Strategy<Value = FieldEdit> {
    let field = proptest::sample::select(Field::ALL);
    (field, any::<u128>(), any::<u128>(), 0u8..4).prop_map(|(field, value, mask, how)| {
        let full = u128::MAX >> (128 - field.bits());
        let edit = match how {
            0 => FieldEdit {
                field,
                change: FieldChange::Set {
                    value: value & mask & full,
                    mask: mask & full,
                },
            },
            1 if field.bits() == 8 => FieldEdit {
                field,
                change: FieldChange::Add(value as u8),
            },
            _ => FieldEdit::set(field, value & full),
        };
        edit.check().unwrap();
        edit
    })
}

fn options() -> impl Strategy<Value = GeneveOptions> {
    let data =
        prop_oneof![4 => 0usize..4, 1 => 20usize..30].prop_map(|words| vec![0xab; words * 4]);
    proptest::collection::vec((any::<u16>(), any::<u8>(), data), 0..4).prop_map(|list| {
        let mut out = GeneveOptions::new();
        for (class, kind, data) in list {
            GeneveOption {
                class,
                kind,
                data: &data,
            }
            .append_to(&mut out);
        }
        out
    })
}

pub fn tunnel() -> impl Strategy<Value = TunnelSet> {
    let kind = prop_oneof![
        Just(TunnelKind::Vxlan),
        Just(TunnelKind::VxlanGpe),
        Just(TunnelKind::Geneve),
        Just(TunnelKind::Gre)
    ];
    let addresses = prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(mut a, mut b)| {
            (a[0], b[0]) = (10, 10);
            (a.into(), b.into())
        }),
        (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(mut a, mut b)| {
            (a[0], b[0]) = (0xfd, 0xfd);
            (a.into(), b.into())
        }),
    ];
    let bits = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.3));
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<u8>(),
    );
    let given = (any::<bool>(), any::<bool>(), any::<bool>());
    let macs = any::<([u8; 6], [u8; 6])>();
    (kind, addresses, bits, numbers, given, macs, options()).prop_map(
        |(
            kind,
            (src, dst),
            (df, csum, bare),
            (key, label, gbp, tos, ttl),
            given,
            macs,
            options,
        )| {
            let payload = if bare && kind != TunnelKind::Vxlan {
                Payload::Ip
            } else {
                Payload::Ethernet
            };
            let set = TunnelSet {
                kind,
                payload,
                eth_dst: Mac(macs.0),
                eth_src: Mac(macs.1),
                src,
                dst,
                key: given.0.then_some(if kind == TunnelKind::Gre {
                    key
                } else {
                    key & 0xff_ffff
                }),
                dst_port: if kind == TunnelKind::Geneve && given.1 {
                    4444
                } else {
                    kind.default_port()
                },
                tos: given.1.then_some(tos),
                ttl: if given.2 { ttl } else { 0 },
                df,
                csum,
                flow_label: label & 0xf_ffff,
                gbp: (kind == TunnelKind::Vxlan && given.2).then_some(gbp & 0x0048_ffff),
                options: if kind == TunnelKind::Geneve {
                    options
                } else {
                    GeneveOptions::new()
                },
            };
            set.check().unwrap();
            set
        },
    )
}

fn nat() -> impl Strategy<Value = NatRewrite> {
    let end =
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(address, port)| NatEnd { address, port });
    let end = proptest::option::of(end);
    (end.clone(), end).prop_map(|(src, dst)| NatRewrite { src, dst })
}

pub fn op() -> impl Strategy<Value = Op> {
    let proto = prop_oneof![Just(VlanProto::Dot1Q), Just(VlanProto::Dot1Ad)];
    let push = (proto.clone(), 0u16..4095, 0u8..8)
        .prop_map(|(proto, vid, prio)| Op::VlanPush(VlanTag { proto, vid, prio }));
    let modify = (proto, 0u16..4095, proptest::option::of(0u8..8))
        .prop_map(|(proto, vid, prio)| Op::VlanModify(VlanModify { proto, vid, prio }));
    let mpls = (
        any::<bool>(),
        0u32..1 << 20,
        0u8..8,
        any::<u8>(),
        any::<Option<bool>>(),
    )
        .prop_map(|(multicast, label, tc, ttl, bos)| {
            let proto = if multicast { 0x8848 } else { 0x8847 };
            Op::MplsPush(MplsPush {
                proto,
                label,
                tc,
                ttl,
                bos,
            })
        });
    prop_oneof![
        1 => push,
        1 => Just(Op::VlanPop),
        1 => modify,
        6 => field_edit().prop_map(Op::Edit),
        1 => Just(Op::Csum),
        2 => tunnel().prop_map(|set| Op::TunnelSet(Box::new(set))),
        1 => Just(Op::TunnelUnset),
        2 => nat().prop_map(Op::Nat),
        1 => mpls,
        1 => Just(Op::MplsPop),
    ]
}

pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..7)
}
