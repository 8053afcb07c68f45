//! Tunnels as others read them: scapy builds the packets that go in, tshark decodes what comes
//! out, every checksum validated.

use chanio_model::edit::tunnel::GeneveOption;
use chanio_model::edit::*;
use chanio_model::offload::{
    Csum, Gso, GsoKind, MAX_OUTER, Offload, Outer, Segmenter, finish_checksum,
};
use chanio_model::wire::{HEAD_LEN, Layout};
use chanio_model::{DropReason, Mac};
use chanio_testbed::process::run;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use std::collections::HashMap;
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Packets of many kinds, all well formed; the last is long enough to be cut into segments.
const SCRIPT: &str = r#"
import sys
from scapy.all import *
from scapy.layers.sctp import SCTPChunkData
e = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
v4 = IP(src="10.0.0.1", dst="10.0.0.2", tos=0x02)
v6 = IPv6(src="fd00::1", dst="fd00::2", tc=0xb8)
frames = [
    e / v4 / UDP(sport=40000, dport=40001) / Raw(b"x"),
    e / v4 / UDP(sport=40000, dport=40001, chksum=0) / Raw(b"no checksum"),
    e / v4 / TCP(sport=40000, dport=40001, options=[("MSS", 1460), ("SAckOK", b"")]) / Raw(bytes(range(256)) * 5),
    e / v6 / UDP(sport=40000, dport=40001) / Raw(bytes(range(251)) * 5),
    e / v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(sport=40000, dport=40001) / Raw(b"behind two headers"),
    e / IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_RR(length=11)]) / TCP(sport=1, dport=2),
    e / Dot1Q(vlan=7, prio=3) / v4 / ICMP() / Raw(b"ping" * 300),
    e / Dot1AD(vlan=7) / Dot1Q(vlan=8) / v6 / ICMPv6EchoRequest(data=b"ping"),
    e / v4 / SCTP(sport=40000, dport=40001) / SCTPChunkData(data=b"chunk" * 200),
    e / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
    fragment(e / IP(src="10.0.0.1", dst="10.0.0.2", id=3) / UDP(sport=40000, dport=40001) / Raw(b"z" * 1000), 400)[1],
    e / v4 / TCP(sport=40000, dport=40001, flags="PA", seq=4294967000) / Raw(bytes(range(256)) * 30),
    e / v6 / TCP(sport=40000, dport=40001, flags="PA", seq=4294967000) / Raw(bytes(range(256)) * 30),
]
wrpcap(sys.argv[1], frames)
"#;

fn tunnels() -> Vec<(&'static str, TunnelSet)> {
    let base = TunnelSet {
        eth_src: Mac([2, 0xaa, 0, 0, 0, 1]),
        eth_dst: Mac([2, 0xaa, 0, 0, 0, 2]),
        src: [172, 16, 0, 1].into(),
        dst: [172, 16, 0, 2].into(),
        key: Some(42),
        tos: None,
        ..TunnelSet::default()
    };
    let of = |kind: TunnelKind| TunnelSet {
        kind,
        dst_port: kind.default_port(),
        ..base.clone()
    };
    let over_ip6 = |set: TunnelSet| TunnelSet {
        src: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1).into(),
        dst: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2).into(),
        flow_label: 0x12345,
        ..set
    };
    let mut options = GeneveOptions::new();
    for (class, data) in [(0x102, &[7; 124][..]), (0x103, &[]), (0x104, &[1, 2, 3, 4])] {
        let option = GeneveOption {
            class,
            kind: 1,
            data,
        };
        assert!(option.append_to(&mut options));
    }
    let geneve = TunnelSet {
        options,
        ..of(TunnelKind::Geneve)
    };
    let gbp = TunnelSet {
        gbp: Some(0x99),
        df: true,
        ..of(TunnelKind::Vxlan)
    };
    let bare = TunnelSet {
        payload: Payload::Ip,
        ..of(TunnelKind::VxlanGpe)
    };
    let unsummed = TunnelSet {
        csum: false,
        ..of(TunnelKind::Vxlan)
    };
    vec![
        ("vxlan", of(TunnelKind::Vxlan)),
        ("vxlan", over_ip6(of(TunnelKind::Vxlan))),
        ("vxlan", gbp),
        ("vxlan", unsummed),
        ("vxlan", of(TunnelKind::VxlanGpe)),
        ("vxlan", over_ip6(of(TunnelKind::VxlanGpe))),
        ("vxlan", bare.clone()),
        ("vxlan", over_ip6(bare)),
        ("geneve", geneve.clone()),
        ("geneve", over_ip6(geneve)),
        ("gre", of(TunnelKind::Gre)),
        ("gre", over_ip6(of(TunnelKind::Gre))),
    ]
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}

/// The transport's checksum left to be finished, and a long TCP frame to be cut, as drivers do.
fn unfinished(frame: &mut [u8]) -> Offload {
    let none = Offload::default();
    let layout = Layout::of(frame).unwrap();
    let Some((6 | 17, l4)) = layout.transport() else {
        return none;
    };
    let ip = layout.ip.unwrap();
    let (tcp, v4) = (ip.proto == 6, frame[layout.l3] >> 4 == 4);
    let offset = if tcp { 16 } else { 6 };
    if ip.fragment || frame[l4 + offset..l4 + offset + 2] == [0, 0] {
        return none;
    }
    // The pseudo-header's sum, word by word.
    let addresses = if v4 { 12..20 } else { 8..40 };
    let mut sum = u32::from(ip.proto) + (ip.end - l4) as u32;
    for pair in frame[layout.l3..][addresses].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[l4 + offset..l4 + offset + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    let gso = (tcp && frame.len() > 2000).then(|| Gso {
        kind: if v4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 },
        size: 1301,
        hdr_len: (l4 + usize::from(frame[l4 + 12] >> 4) * 4) as u16,
        ecn: false,
    });
    Offload {
        csum: Some(Csum {
            start: l4 as u16,
            offset: offset as u16,
        }),
        gso,
        outer: [Outer::default(); MAX_OUTER],
        data_valid: false,
    }
}

/// The frames that reach the wire.
fn wrapped(source: &[u8], offload: Offload, set: &TunnelSet) -> Vec<Vec<u8>> {
    let mut packet = Packet::new(7);
    let head = &source[..source.len().min(HEAD_LEN)];
    packet.load(head, source.len() as u32, offload).unwrap();
    set.check().unwrap();
    packet.tunnel_set(set).unwrap();
    // Outer headers can be rewritten like any other.
    let ttl = FieldEdit::set(Field::Ipv4Ttl, 9);
    packet.edit(&ttl).unwrap();
    let dst = FieldEdit::set(Field::Ipv6Dst, 0xfd01 << 112 | 3);
    packet.edit(&dst).unwrap();
    packet
        .vlan_push(VlanTag {
            vid: 100,
            ..VlanTag::default()
        })
        .unwrap();
    let edited = packet.edited();
    let tail = &source[edited.taken as usize..][..edited.tail as usize];
    let mut flat = [edited.head, tail].concat();
    let offload = edited.offload;
    if offload.gso.is_some() {
        let cut = Segmenter::new(&flat, &offload).unwrap();
        let segment = |n| {
            let mut out = vec![0; cut.max_len()];
            let len = cut.write(n, &mut out).unwrap();
            out.truncate(len);
            out
        };
        return (0..cut.count()).map(segment).collect();
    }
    if let Some(csum) = offload.csum {
        assert!(finish_checksum(&mut flat, csum));
    }
    vec![flat]
}

/// What is inside a frame that [`wrapped`] has made.
fn unwrapped(tagged: &[u8]) -> Result<Vec<u8>, DropReason> {
    let frame = [&tagged[..12], &tagged[16..]].concat();
    let mut packet = Packet::new(7);
    let head = &frame[..frame.len().min(HEAD_LEN)];
    packet.load(head, frame.len() as u32, Offload::default())?;
    assert!(packet.tunnel_unset(&TunnelPorts::default())?, "a tunnel");
    let edited = packet.edited();
    let tail = &frame[edited.taken as usize..][..edited.tail as usize];
    Ok([edited.head, tail].concat())
}

fn tshark(file: &Path, filter: &str, fields: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file);
    for option in ["ip", "tcp", "udp"] {
        command
            .arg("-o")
            .arg(format!("{option}.check_checksum:TRUE"));
    }
    command.args(["-o", "sctp.checksum:CRC32c", "-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    run(&mut command)
}

#[test]
fn tshark_reads_every_encapsulation_and_finds_no_bad_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    run(Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT])
        .arg(&input));
    let frames = read(&input);
    assert_eq!(frames.len(), 13);
    let mut writer = PcapWriter::new(File::create(&output).unwrap()).unwrap();
    let mut want: HashMap<&str, usize> = HashMap::new();
    let mut total = 0;
    let mut inside = 0;
    for (name, set) in tunnels() {
        let bare = set.payload == Payload::Ip;
        for frame in &frames {
            if bare && !matches!(frame[12..14], [8, 0] | [0x86, 0xdd]) {
                // Only IP packets travel without Ethernet header.
                continue;
            }
            let mut driver = frame.clone();
            let offload = unfinished(&mut driver);
            let cases = [(frame, Offload::default()), (&driver, offload)];
            for (source, offload) in cases {
                for out in wrapped(source, offload, &set) {
                    total += 1;
                    if offload == Offload::default() {
                        let mut want = frame.clone();
                        if bare {
                            want[..12].fill(0);
                        }
                        // The longest options reach beyond what is looked at.
                        let far = !set.options.is_empty();
                        let want = if far {
                            Err(DropReason::RewriteDepth)
                        } else {
                            Ok(want)
                        };
                        assert_eq!(unwrapped(&out), want, "{set:?}");
                        inside += 1;
                    }
                    *want.entry(name).or_default() += 1;
                    let time = Duration::from_millis(total);
                    let packet = PcapPacket::new(time, out.len() as u32, &out);
                    writer.write_packet(&packet).unwrap();
                }
            }
        }
    }
    drop(writer);

    for (name, count) in &want {
        let found = tshark(
            &output,
            &format!("{name} && vlan.id == 100"),
            &["frame.number"],
        );
        assert_eq!(found.lines().count(), *count, "{name}");
    }
    let bad = "ip.checksum.status == 0 || udp.checksum.status == 0 || tcp.checksum.status == 0 \
               || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 \
               || gre.checksum.status == 0 || sctp.checksum.status == 0 \
               || _ws.malformed || _ws.expert.severity == \"Error\"";
    let fields = ["frame.number", "frame.protocols", "_ws.expert.message"];
    let found = tshark(&output, bad, &fields);
    assert_eq!(found, "", "of {total} frames");
    // Both layers were looked at: what has two has two good ones.
    let good = tshark(
        &output,
        "vxlan && tcp",
        &["udp.checksum.status", "tcp.checksum.status"],
    );
    let summed = good.lines().filter(|l| *l == "1\t1").count();
    assert!(summed > 50, "{summed} of {}", good.lines().count());
    let ids = tshark(&output, "vxlan.gbp", &["vxlan.vni", "vxlan.gbp"]);
    assert!(
        ids.lines().count() > 26 && ids.lines().all(|l| l.starts_with("42\t")),
        "{ids}"
    );
    let options = tshark(&output, "geneve", &["geneve.options", "geneve.vni"]);
    assert!(
        options.lines().all(|l| l.ends_with("0x00002a")),
        "{options}"
    );
    println!("{total} frames: {want:?}; {inside} taken out again");
}
