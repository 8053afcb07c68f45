//! What rules make of packets, judged by others: scapy builds them and reads them back, tshark
//! decodes every header with checksum validation on. Frames go in and out of the uplink as
//! capture files.

use chanio_emu::nic::spec::*;
use chanio_model::VportId;
use chanio_model::eswitch::Mode;
use chanio_testbed::nic::Bed;
use chanio_testbed::process::run;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Ethernet, IPv4 and IPv6, TCP, UDP, SCTP and ICMP, a fragment, tags, odd lengths.
const FRAMES: &str = r#"
from scapy.all import *
e = Ether(dst='02:00:00:00:00:02', src='02:00:00:00:00:01')
v4, v6 = IP(src='10.0.0.1', dst='10.0.0.2', tos=0xb8, ttl=9), IPv6(src='fd00::1', dst='fd00::2', hlim=9)
frames = []
for ip in (v4, v6):
    for n in (1, 7, 300, 1201):
        frames += [e/ip/UDP(sport=40000+n, dport=7007)/Raw(b'x'*n),
                   e/ip/TCP(sport=40000+n, dport=80, flags='PA', seq=n)/Raw(b'y'*n),
                   e/ip/SCTP(sport=40000+n, dport=9)/SCTPChunkData(data=b'z'*n)]
frames += [e/v4/ICMP(type=8, id=7, seq=1)/Raw(b'ping'), e/v6/ICMPv6EchoRequest(id=7)]
frames += [e/IP(src='10.0.0.1', dst='10.0.0.2', flags='MF')/UDP(sport=40001, dport=7007)/Raw(b'f'*64)]
frames += [e/Dot1Q(vlan=7, prio=3)/v4/UDP(sport=40001, dport=7007)/Raw(b'tagged')]
"#;

fn python(script: &str) -> String {
    run(Command::new("/usr/bin/python3").args(["-c", script]))
}

/// Makes the frames; how many.
fn make_frames(path: &Path) -> u64 {
    let script = format!(
        "{FRAMES}\nwrpcap('{}', frames)\nprint(len(frames))",
        path.display()
    );
    python(&script).trim().parse().expect("a number")
}

/// Plays a capture through the rules, until `count` frames have come out of the uplink, and gives
/// the capture of them.
fn play(dir: &Path, name: &str, input: &Path, count: u64, rules: &[&str]) -> PathBuf {
    let output = dir.join(format!("{name}.pcap"));
    let run_dir = dir.join(name);
    std::fs::create_dir(&run_dir).unwrap();
    let uplink = UplinkSpec::Pcap {
        input: Some(input.to_owned()),
        output: Some(output.clone()),
    };
    let bed = Bed::with_uplink(&run_dir, RepresentorMode::Off, uplink);
    let change = EswitchChange {
        mode: Some(Mode::Switchdev),
        ..Default::default()
    };
    bed.nic.set_eswitch(change).unwrap();
    rules.iter().for_each(|rule| bed.rule(rule));
    bed.nic.play();
    let until = Instant::now() + Duration::from_secs(20);
    while bed.stats(VportId::UPLINK).rx.packets < count {
        assert!(Instant::now() < until, "{:?}", bed.stats(VportId::UPLINK));
        std::thread::sleep(Duration::from_millis(10));
    }
    for rule in bed.nic.rules() {
        println!(
            "{name}: {} packets, {} bytes: {}",
            rule.packets, rule.bytes, rule.spec
        );
    }
    println!("{name}: {:?}", bed.stats(VportId::UPLINK));
    bed.nic.shutdown();
    output
}

fn tshark(capture: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(capture)
        .args(["-T", "fields", "-Y", filter]);
    for protocol in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // Fragments are looked at one by one.
    command.args(["-o", "ip.defragment:FALSE", "-o", "sctp.checksum:CRC32C"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    run(&mut command).lines().map(str::to_owned).collect()
}

/// tshark finds nothing wrong with it.
fn is_sound(capture: &Path) {
    let bad = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || \
               tcp.checksum.status == 0 || sctp.checksum.status == 0 || icmp.checksum.status == 0 || \
               icmpv6.checksum.status == 0";
    let found = tshark(capture, bad, &["frame.number", "frame.protocols"]);
    assert!(found.is_empty(), "{}: {found:?}", capture.display());
}

fn same_frames(a: &Path, b: &Path) {
    let (a, b) = (a.display(), b.display());
    let script = format!(
        "from scapy.all import *\na = [bytes(p) for p in rdpcap('{a}')]\nb = [bytes(p) for p in rdpcap('{b}')]\n\
         assert len(a) == len(b), (len(a), len(b))\n\
         for n, (x, y) in enumerate(zip(a, b)): assert x == y, (n, x.hex(), y.hex())"
    );
    python(&script);
}

#[test]
fn tunnels_put_on_and_taken_off_give_the_same_frames() {
    if !chanio_testbed::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let input = dir.join("in.pcap");
    let count = make_frames(&input);
    let macs = "src_mac 02:00:00:00:01:01 dst_mac 02:00:00:00:01:02";
    let v4 = "src_ip 192.0.2.1 dst_ip 192.0.2.2";
    let v6 = "src_ip 2001:db8::1 dst_ip 2001:db8::2";
    let tunnels = [
        (
            "vxlan",
            format!("kind vxlan {v4} {macs} id 7001"),
            "enc_kind vxlan enc_key_id 7001 enc_dst_ip 192.0.2.2",
            "vxlan.vni == 7001",
        ),
        (
            "vxlan6",
            format!("kind vxlan {v6} {macs} id 7001 nocsum"),
            "enc_kind vxlan enc_key_id 7001 enc_src_ip 2001:db8::/32",
            "vxlan.vni == 7001 && ipv6",
        ),
        (
            "gbp",
            format!("kind vxlan {v4} {macs} id 1 vxlan_opts 4660"),
            "vxlan_opts 4660",
            "vxlan.gbp == 4660",
        ),
        (
            "geneve",
            format!(
                "kind geneve {v4} {macs} id 9 ttl 33 tos 8 geneve_opts 0102:80:00000001,0103:02:0011223344556677"
            ),
            "enc_key_id 9 enc_ttl 33 geneve_opts 0102:80:00000001,0103:02:0011223344556677",
            "geneve.vni == 9 && ip.ttl == 33 && geneve.option.class == 0x0103",
        ),
        (
            "gre",
            format!("kind gre {v4} {macs} id 77"),
            "enc_kind gre enc_key_id 77 enc_flags csum/key",
            "gre.key == 77",
        ),
    ];
    for (name, set, matches, filter) in tunnels {
        let on = format!("in_port uplink action tunnel_key set {set} action redirect uplink");
        let outside = play(dir, &format!("{name}-on"), &input, count, &[&on]);
        is_sound(&outside);
        let decoded = tshark(&outside, filter, &["frame.protocols"]);
        assert_eq!(decoded.len() as u64, count, "{name}: {decoded:?}");
        // A rule for the outer headers that is worse, and one for another key that is better.
        let off = [
            &*format!("prio 2 in_port uplink {matches} action redirect uplink"),
            "prio 1 enc_key_id 99 action drop",
            "prio 3 in_port uplink action drop",
        ];
        let inside = play(dir, &format!("{name}-off"), &outside, count, &off);
        same_frames(&input, &inside);
    }
}

#[test]
fn tags_and_fields_are_changed_and_checksums_follow() {
    if !chanio_testbed::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let input = dir.join("in.pcap");
    let count = make_frames(&input);
    // Two tags on, the copy in between with one, the outer one changed.
    let tags = "in_port uplink action vlan push id 100 priority 2 action mirror uplink \
                action vlan push id 200 protocol 802.1ad action vlan modify id 201 protocol 802.1ad \
                action redirect uplink";
    let tagged = play(dir, "tags", &input, 2 * count, &[tags]);
    is_sound(&tagged);
    assert_eq!(
        tshark(
            &tagged,
            "ieee8021ad.id == 201 && vlan.id == 100",
            &["vlan.id"]
        )
        .len() as u64,
        count
    );
    assert_eq!(
        tshark(
            &tagged,
            "vlan.id == 100 && vlan.priority == 2 && !ieee8021ad",
            &["vlan.id"]
        )
        .len() as u64,
        count
    );
    let off = [
        "prio 1 vlan_tpid 802.1ad vlan_id 201 cvlan_id 100 action vlan pop action vlan pop action redirect uplink",
        "prio 2 vlan_id 100 action drop",
    ];
    let untagged = play(dir, "untagged", &tagged, count, &off);
    same_frames(&input, &untagged);

    // Chains: chain 0 counts the hop, chain 1 sees the new values.
    let fields = [
        "eth_type ipv4 action pedit ex munge ip ttl dec munge ip dst set 198.51.100.7 munge ip tos set 0 retain 0xfc action goto chain 1",
        "eth_type ipv6 action pedit ex munge ip6 hoplimit dec munge ip6 dst set 2001:db8::7 action goto chain 1",
        "chain 1 eth_type ipv4 ip_ttl 8 dst_ip 198.51.100.7 ip_proto udp dst_port 7000-7010 action pedit ex munge udp dport set 7353 action redirect uplink",
        "chain 1 eth_type ipv4 ip_proto tcp tcp_flags 0x8/0x8 action pedit ex munge tcp dport set 8080 munge eth src set 02:00:00:00:00:09 action redirect uplink",
        "chain 1 prio 60000 action redirect uplink",
    ];
    let changed = play(dir, "fields", &input, count, &fields);
    is_sound(&changed);
    let seen = |filter: &str| tshark(&changed, filter, &["frame.number"]).len() as u64;
    assert_eq!(
        seen("ip.dst == 198.51.100.7 || ipv6.dst == 2001:db8::7"),
        count
    );
    assert_eq!(seen("udp.dstport == 7353 && ip.ttl == 8"), 5);
    assert_eq!(
        seen("tcp.dstport == 8080 && eth.src == 02:00:00:00:00:09 && ip"),
        4
    );
    assert_eq!(seen("ipv6.hlim == 8"), 13);
}

#[test]
fn a_connection_is_translated_both_ways() {
    if !chanio_testbed::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let input = dir.join("in.pcap");
    // Ten clients behind one address; the server answers what it sees.
    let script = format!(
        "from scapy.all import *\n\
         there, back = Ether(src='02:00:00:00:00:01'), Ether(src='02:00:00:00:00:02')\n\
         out = []\n\
         for n in range(10):\n\
         \x20   port = 45000 + n\n\
         \x20   out.append(there/IP(src=f'10.0.0.{{n+1}}', dst='203.0.113.1')/UDP(sport=port, dport=7007)/Raw(b'q'))\n\
         \x20   out.append(back/IP(src='203.0.113.1', dst='198.51.100.9')/UDP(sport=7007, dport=port)/Raw(b'a'))\n\
         wrpcap('{}', out)",
        input.display()
    );
    python(&script);
    let rules = [
        "eth_type ipv4 src_mac 02:00:00:00:00:01 ct_state -trk action ct commit zone 3 nat src addr 198.51.100.9 action goto chain 1",
        "eth_type ipv4 src_mac 02:00:00:00:00:02 ct_state -trk action ct zone 3 nat action goto chain 2",
        "chain 1 ct_state +trk+new ct_zone 3 action redirect uplink",
        "chain 2 ct_state +trk+est+rpl action redirect uplink",
    ];
    let output = play(dir, "nat", &input, 20, &rules);
    is_sound(&output);
    let there = tshark(
        &output,
        "ip.src == 198.51.100.9 && udp.dstport == 7007",
        &["udp.srcport"],
    );
    assert_eq!(there.len(), 10);
    let back = tshark(&output, "ip.src == 203.0.113.1", &["ip.dst", "udp.dstport"]);
    let want: Vec<_> = (0..10)
        .map(|n| format!("10.0.0.{}\t{}", n + 1, 45000 + n))
        .collect();
    assert_eq!(back, want);
}
