//! A frame as a driver hands it over, then operations on it, as rules may ask for in any order:
//! whatever both say, it is rewritten or refused, and what comes out can be delivered.
//!
//! Input: a byte of operations, each a kind and what it is about, ended by the kind 0; then 12
//! bytes of virtio-net header and the frame.

#![no_main]

use chanio_model::ct::{NatEnd, NatRewrite};
use chanio_model::edit::*;
use chanio_model::offload::{RxOffloads, Segmenter, VNET_HDR_LEN, VnetHdr, finish_checksum};
use chanio_model::{DropReason, Mac, VportId, wire};
use libfuzzer_sys::fuzz_target;

/// What a worker copies before it looks.
const HEAD: usize = 192;

/// Takes the input apart; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }
}

fn field(input: &mut Input<'_>) -> Option<FieldEdit> {
    let field = Field::ALL[usize::from(input.byte()) % Field::ALL.len()];
    let change = match input.byte() {
        how @ 0..64 => FieldChange::Add(how),
        how => {
            let full = u128::MAX >> (128 - field.bits());
            let mask = if how < 128 { u128::from_be_bytes(input.array()) & full } else { full };
            let value = u128::from_be_bytes(input.array()) & mask;
            FieldChange::Set { value, mask }
        }
    };
    let edit = FieldEdit { field, change };
    edit.check().ok().map(|()| edit)
}

fn tunnel(input: &mut Input<'_>) -> Option<TunnelSet> {
    let flags = input.byte();
    let kind = match flags & 3 {
        0 => TunnelKind::Vxlan,
        1 => TunnelKind::VxlanGpe,
        2 => TunnelKind::Geneve,
        _ => TunnelKind::Gre,
    };
    let v6 = flags & 4 != 0;
    let (src, dst) = if v6 {
        (input.array::<16>().into(), input.array::<16>().into())
    } else {
        (input.array::<4>().into(), input.array::<4>().into())
    };
    let mut options = GeneveOptions::new();
    if kind == TunnelKind::Geneve {
        let len = usize::from(input.byte()).min(252);
        options.extend((0..len).map(|_| input.byte()));
    }
    let set = TunnelSet {
        kind,
        payload: if flags & 8 != 0 { Payload::Ip } else { Payload::Ethernet },
        eth_dst: Mac(input.array()),
        eth_src: Mac(input.array()),
        src,
        dst,
        key: (flags & 16 != 0).then(|| u32::from_be_bytes(input.array())),
        dst_port: if input.byte() < 128 { kind.default_port() } else { input.short() },
        tos: (flags & 32 != 0).then(|| input.byte()),
        ttl: input.byte(),
        df: flags & 64 != 0,
        csum: flags & 128 != 0,
        flow_label: u32::from(input.short()),
        gbp: (kind == TunnelKind::Vxlan && input.byte() < 64).then(|| u32::from(input.short())),
        options,
    };
    set.check().ok().map(|()| set)
}

fn nat(input: &mut Input<'_>) -> NatRewrite {
    let flags = input.byte();
    let mut end = |wanted: bool| {
        wanted.then(|| NatEnd { address: input.array(), port: input.short() })
    };
    NatRewrite { src: end(flags & 1 != 0), dst: end(flags & 2 != 0) }
}

/// One operation; `None` at the end of them.
fn step(input: &mut Input<'_>, packet: &mut Packet) -> Option<Result<(), DropReason>> {
    let proto = |byte: u8| if byte & 128 == 0 { VlanProto::Dot1Q } else { VlanProto::Dot1Ad };
    let result = match input.byte() % 13 {
        0 => return None,
        1 => {
            let tag = VlanTag { proto: proto(input.byte()), vid: input.short(), prio: input.byte() };
            packet.vlan_push(tag)
        }
        2 => {
            packet.vlan_pop();
            Ok(())
        }
        3 => {
            let prio = input.byte();
            let prio = (prio < 8).then_some(prio);
            packet.vlan_modify(VlanModify { proto: proto(input.byte()), vid: input.short(), prio });
            Ok(())
        }
        4 | 5 => field(input).map_or(Ok(()), |edit| packet.edit(&edit).map(|_| ())),
        6 => packet.csum(Csums(input.byte())),
        7 => tunnel(input).map_or(Ok(()), |set| packet.tunnel_set(&set)),
        8 => packet.tunnel_unset(&TunnelPorts::default()).map(|_| ()),
        9 => packet.nat(&nat(input)),
        10 => packet.mpls_push(&MplsPush {
            proto: wire::eth_type::MPLS_UC,
            label: u32::from(input.short()),
            tc: input.byte() & 7,
            ttl: input.byte(),
            bos: None,
        }),
        11 => packet.mpls_pop(input.short()).map(|_| ()),
        _ => {
            let label = Some(u32::from(input.short()));
            let modified = packet.mpls_modify(&MplsModify { label, ..MplsModify::default() });
            modified.and_then(|()| packet.mpls_dec_ttl())
        }
    };
    Some(result)
}

fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first() else { return };
    let Some((steps, rest)) = rest.split_at_checked(usize::from(*len)) else { return };
    let Some((header, frame)) = rest.split_first_chunk::<VNET_HDR_LEN>() else { return };
    let len = frame.len() as u32;
    let head = &frame[..frame.len().min(HEAD)];
    let Ok(parsed) = wire::parse(head, len, VportId(1)) else { return };
    let Ok(offload) = VnetHdr::read(header).check(&parsed, head, len) else { return };
    let mut packet = Packet::new(0);
    if packet.load(head, len, offload).is_err() {
        return;
    }
    let mut input = Input(steps);
    while let Some(result) = step(&mut input, &mut packet) {
        if result.is_err() {
            // Dropped; never delivered as well.
            return;
        }
    }

    let edited = packet.edited();
    let (from, tail) = (edited.taken as usize, edited.tail as usize);
    let mut flat = [edited.head, &frame[from..from + tail]].concat();
    assert_eq!(flat.len(), edited.len() as usize);
    assert!(flat.len() <= frame.len() + ROOM);
    let offload = edited.offload;
    if offload.gso.is_some() {
        // Whether it can be cut is for the frame to say: rewritten bits may have made it another.
        if let Ok(segments) = Segmenter::new(&flat, &offload) {
            let mut out = vec![0; segments.max_len()];
            for n in 0..segments.count() {
                assert!(segments.write(n, &mut out).is_some());
            }
        }
        assert_eq!(offload.outer_len() != 0, !offload.fits(RxOffloads::ALL));
    } else if let Some(csum) = offload.csum {
        assert!(finish_checksum(&mut flat, csum), "{csum:?} of {} bytes", flat.len());
    }
});
