//! What rewriting a packet costs: taking it in, one operation, and back.
#![allow(
    missing_docs,
    reason = "criterion's macros generate undocumented items"
)]

use chanio_model::ct::{NatEnd, NatRewrite};
use chanio_model::edit::tunnel::{GeneveOption, find};
use chanio_model::edit::*;
use chanio_model::offload::{Csum, Offload};
use chanio_model::{DropReason, Mac};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

/// Length of the frames: what is not in the head is not looked at.
const FRAME_LEN: u32 = 1514;
const HEAD_LEN: usize = 192;
/// Where TCP begins in them.
const L4: u16 = 34;

/// The head of a TCP frame over IPv4.
fn head() -> Vec<u8> {
    let mut head = [
        &[2; 12][..],
        &[8, 0, 0x45, 0, 5, 220, 0, 7, 0, 0, 64, 6, 0, 0],
    ]
    .concat();
    head.extend([
        10, 0, 0, 1, 10, 0, 0, 2, 4, 210, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0,
    ]);
    head.extend([0x50, 0x18, 0xff, 0xff, 0x12, 0x34, 0, 0]);
    head.resize(HEAD_LEN, 0x5a);
    head
}

fn unfinished() -> Offload {
    Offload {
        csum: Some(Csum {
            start: L4,
            offset: 16,
        }),
        ..Offload::default()
    }
}

fn tunnel(kind: TunnelKind) -> TunnelSet {
    let mut set = TunnelSet {
        kind,
        eth_dst: Mac([2, 0, 0, 0, 0, 9]),
        eth_src: Mac([2, 0, 0, 0, 0, 8]),
        src: [172, 16, 0, 1].into(),
        dst: [172, 16, 0, 2].into(),
        key: Some(42),
        dst_port: kind.default_port(),
        ..TunnelSet::default()
    };
    if kind == TunnelKind::Geneve {
        let option = GeneveOption {
            class: 0x102,
            kind: 1,
            data: &[7; 8],
        };
        assert!(option.append_to(&mut set.options));
    }
    set.check().expect("a good tunnel");
    set
}

type Step = Box<dyn Fn(&mut Packet) -> Result<(), DropReason>>;

fn steps() -> Vec<(&'static str, Step)> {
    let edit = |edit: FieldEdit| -> Step { Box::new(move |p| p.edit(&edit).map(|_| ())) };
    let set = |field, value| edit(FieldEdit::set(field, value));
    let encap = |kind| -> Step {
        let set = tunnel(kind);
        Box::new(move |p| p.tunnel_set(&set))
    };
    let end = |last, port| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[198, 51, 100, last]);
        Some(NatEnd { address, port })
    };
    let nat = NatRewrite {
        src: end(1, 4000),
        dst: end(2, 80),
    };
    let ttl = FieldEdit {
        field: Field::Ipv4Ttl,
        change: FieldChange::Add(255),
    };
    vec![
        ("nothing", Box::new(|_| Ok(()))),
        ("vlan_push", Box::new(|p| p.vlan_push(VlanTag::default()))),
        ("eth_dst", set(Field::EthDst, 0x0200_0000_0005)),
        ("ip_dst", set(Field::Ipv4Dst, 0x0a00_0063)),
        ("ttl_dec", edit(ttl)),
        ("tcp_dport", set(Field::TcpDst, 8080)),
        ("nat_both_ends", Box::new(move |p| p.nat(&nat))),
        (
            "csum",
            Box::new(|p| p.csum(Csums::IPV4_HEADER | Csums::TCP)),
        ),
        ("vxlan", encap(TunnelKind::Vxlan)),
        ("geneve", encap(TunnelKind::Geneve)),
        ("gre", encap(TunnelKind::Gre)),
    ]
}

fn bench_steps(c: &mut Criterion) {
    let head = head();
    let mut group = c.benchmark_group("edit");
    group.throughput(Throughput::Elements(1));
    for (name, step) in steps() {
        let mut packet = Packet::new(0);
        group.bench_function(name, |b| {
            b.iter(|| {
                packet.load(black_box(&head), FRAME_LEN, unfinished())?;
                step(&mut packet)?;
                black_box(packet.edited());
                Ok::<(), DropReason>(())
            });
        });
    }
    group.finish();
}

/// Looking for a tunnel, and taking it off.
fn bench_unwrap(c: &mut Criterion) {
    let mut group = c.benchmark_group("unwrap");
    group.throughput(Throughput::Elements(1));
    let ports = TunnelPorts::default();
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre] {
        let mut packet = Packet::new(0);
        packet
            .load(&head(), FRAME_LEN, unfinished())
            .expect("a good frame");
        packet.tunnel_set(&tunnel(kind)).expect("room for one");
        let (wrapped, len) = (packet.head()[..HEAD_LEN].to_vec(), packet.frame_len());
        let found = find(&wrapped, len, &ports);
        assert!(found.is_ok_and(|found| found.is_some()));
        group.bench_function(format!("find/{}", kind.name()), |b| {
            b.iter(|| find(black_box(&wrapped), len, &ports).is_ok());
        });
        group.bench_function(format!("take_off/{}", kind.name()), |b| {
            b.iter(|| {
                packet.load(black_box(&wrapped), len, Offload::default())?;
                packet.tunnel_unset(&ports)?;
                black_box(packet.edited());
                Ok::<(), DropReason>(())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_steps, bench_unwrap);
criterion_main!(benches);
