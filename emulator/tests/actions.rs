//! Rules that rewrite, meter and end by themselves, through a running NIC.

mod common;

use chanio_emu::vhost::features::{CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF};
use chanio_model::edit::TunnelPorts;
use chanio_model::edit::tunnel::find;
use chanio_model::flow::RuleSpec;
use chanio_model::{DropReason, Mac, RuleId, VportId, wire};
use common::*;

fn rule(text: &str) -> RuleSpec {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn add(bed: &Bed, text: &str) -> RuleId {
    bed.nic.add_rules(vec![rule(text)]).unwrap().remove(0)
}

/// An IPv4/TCP frame of `payload` bytes whose checksum is to be finished and that is to be cut
/// into segments of 1000, and the header that says so.
fn tso(dst: Mac, src: Mac, payload: usize) -> ([u8; 12], Vec<u8>) {
    let mut ip = vec![0x45, 0];
    ip.extend((40 + payload as u16).to_be_bytes());
    ip.extend([0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = wire::checksum::internet(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = vec![
        0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ];
    let len = 20 + payload as u32;
    let pseudo = wire::checksum::pseudo_v4(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, len).partial();
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = [&dst.0[..], &src.0, &[8, 0], &ip, &tcp].concat();
    frame.extend((0..payload).map(|n| n as u8));
    let mut header = [0; 12];
    header[..2].copy_from_slice(&[1, 1]); // NEEDS_CSUM, TCPv4
    header[2..4].copy_from_slice(&54u16.to_le_bytes());
    header[4..6].copy_from_slice(&1000u16.to_le_bytes());
    header[6..8].copy_from_slice(&34u16.to_le_bytes());
    header[8..10].copy_from_slice(&16u16.to_le_bytes());
    (header, frame)
}

/// Whether a TCP segment's checksum is right, the address that it goes to being this.
fn tcp_verifies(packet: &[u8], dst: [u8; 4]) -> bool {
    let l4 = &packet[34..];
    let pseudo = wire::checksum::pseudo_v4(&[10, 0, 0, 1], &dst, 6, l4.len() as u32);
    wire::checksum::internet(&packet[14..34]) == 0 && pseudo.bytes(l4).finish() == 0
}

#[test]
fn a_frame_to_be_cut_is_rewritten_whole_or_cut_in_its_tunnel() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), CSUM | HOST_TSO4);
    let (b, mut able) = bed.attached(spec("able"), GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF);
    let (c, mut plain) = bed.attached(spec("plain"), 0);
    let text = format!(
        "in_port vport:{} action pedit ex munge ip dst set 10.0.0.77 munge ip ttl dec \
         action vlan push id 9 action mirror vport:{} action vlan pop \
         action tunnel_key set src_ip 192.0.2.1 dst_ip 192.0.2.2 id 5 action redirect vport:{}",
        a.vport.0, b.vport.0, c.vport.0
    );
    let id = add(&bed, &text);
    let (header, frame) = tso(b.mac, a.mac, 10_500);
    send_with(&mut a_driver, &header, &frame);

    let mut whole = receive_all(&mut able);
    assert_eq!(whole.len(), 1);
    let whole = whole.remove(0);
    assert_eq!(whole[12..18], [0x81, 0, 0, 9, 8, 0], "with its tag");
    assert_eq!((whole[26], &whole[34..38]), (63, &[10, 0, 0, 77][..]));
    assert_eq!(wire::checksum::internet(&whole[18..38]), 0);
    let header = able.last_header();
    assert_eq!(header[..2], [1, 1], "still to be cut and summed");
    assert_eq!(
        u16::from_le_bytes([header[6], header[7]]),
        38,
        "behind the tag"
    );
    assert_eq!(whole[58..], frame[54..]);

    let segments = receive_all(&mut plain);
    assert_eq!(segments.len(), 11);
    let (mut payload, mut idents) = (Vec::<u8>::new(), Vec::new());
    for segment in &segments {
        let found = find(segment, segment.len() as u32, &TunnelPorts::default());
        let found = found.unwrap().expect("a VXLAN packet");
        assert_eq!((found.key, found.end), (Some(5), segment.len()));
        assert_eq!(
            wire::checksum::internet(&segment[14..34]),
            0,
            "outer header"
        );
        let udp = &segment[34..];
        let len = udp.len() as u32;
        let pseudo = wire::checksum::pseudo_v4(&[192, 0, 2, 1], &[192, 0, 2, 2], 17, len);
        assert_eq!(pseudo.bytes(udp).finish(), 0, "outer UDP checksum");
        let inner = &segment[found.inner..];
        assert!(tcp_verifies(inner, [10, 0, 0, 77]));
        idents.push(u16::from_be_bytes([segment[18], segment[19]]));
        payload.extend(&inner[54..]);
    }
    assert_eq!(payload, frame[54..]);
    assert!(
        idents.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{idents:?}"
    );
    let rules = bed.nic.rules();
    assert_eq!((rules[0].id, rules[0].packets), (id, 1));
    assert!(
        rules[0]
            .actions
            .iter()
            .all(|a| a.packets == 1 && a.bytes == frame.len() as u64)
    );
}

#[test]
fn each_action_counts_what_gets_to_it_and_a_replaced_rule_keeps_its_id() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), 0);
    let (b, mut b_driver) = bed.attached(spec("b"), 0);
    let police = format!(
        "prio 5 in_port vport:{} action police pkts_rate 1 pkts_burst 5 conform-exceed drop/pipe \
         action redirect vport:{}",
        a.vport.0, b.vport.0
    );
    let id = add(&bed, &police);
    // A packet meter begins empty, as tc's does.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let frame = frame(b.mac, a.mac, &[0; 46]);
    for _ in 0..20 {
        send(&mut a_driver, &frame);
    }
    let passed = receive_all(&mut b_driver).len() as u64;
    assert!((1..20).contains(&passed), "{passed}");
    let info = bed.nic.rules().remove(0);
    let counted: Vec<_> = info.actions.iter().map(|action| action.packets).collect();
    assert_eq!((info.packets, counted), (20, vec![20, passed]));
    assert_eq!(bed.drops(a.vport, DropReason::Policed), 20 - passed);

    let plain = format!(
        "prio 5 in_port vport:{} action redirect vport:{}",
        a.vport.0, b.vport.0
    );
    let other = format!("prio 6 in_port vport:{} action drop", a.vport.0);
    let ids = bed
        .nic
        .replace_rules(vec![rule(&plain), rule(&other)])
        .unwrap();
    assert_eq!(ids[0], id);
    assert_ne!(ids[1], id);
    send(&mut a_driver, &frame);
    assert_eq!(receive_all(&mut b_driver), [frame]);
    let rules = bed.nic.rules();
    assert_eq!((rules.len(), rules[0].packets, rules[1].packets), (2, 1, 0));
    let nowhere = rule("prio 5 action redirect vport:999");
    assert!(bed.nic.replace_rules(vec![nowhere]).is_err());
    assert_eq!(bed.nic.rules().len(), 2);
}

#[test]
fn a_rule_that_is_not_used_goes_when_it_asks_for_that() {
    let bed = Bed::switchdev(1);
    let (a, mut driver) = bed.attached(spec("a"), 0);
    let used = add(
        &bed,
        &format!(
            "prio 1 in_port vport:{} idle_timeout 3 action drop",
            a.vport.0
        ),
    );
    let stays = add(&bed, "prio 3 action drop");
    add(
        &bed,
        "prio 2 src_mac 02:00:00:00:00:99 idle_timeout 1 action drop",
    );
    let ids = || {
        bed.nic
            .rules()
            .iter()
            .map(|rule| rule.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids().len(), 3);
    let frame = frame(Mac::BROADCAST, a.mac, &[0; 46]);
    wait_for("the unused rule to go", || {
        send(&mut driver, &frame);
        ids() == [used, stays]
    });
    assert!(bed.drops(VportId(a.vport.0), DropReason::RuleDrop) > 0);
    let begun = std::time::Instant::now();
    wait_for("the other one, now unused, to go", || ids() == [stays]);
    assert!(begun.elapsed() > std::time::Duration::from_millis(1500));
}

#[test]
fn rules_that_name_a_police_index_share_its_bucket() {
    let bed = Bed::switchdev(1);
    let (a, mut a_driver) = bed.attached(spec("a"), 0);
    let (b, mut b_driver) = bed.attached(spec("b"), 0);
    let from = |(from, to): (u32, u32), police: &str| {
        rule(&format!(
            "prio {from} in_port vport:{from} action police {police} action redirect vport:{to}"
        ))
    };
    let (from_a, from_b) = ((a.vport.0, b.vport.0), (b.vport.0, a.vport.0));
    let reference = || from(from_b, "index 7");
    let refused = bed.nic.add_rules(vec![reference()]).unwrap_err();
    let why = "police index: no rule has 7, so its rates have to be given";
    assert_eq!(refused.to_string(), why);
    // 300 bytes are there for frames of 60, and no more come while this runs.
    let full = || from(from_a, "index 7 rate 1bps burst 300");
    let ids = bed.nic.add_rules(vec![full(), reference()]).unwrap();
    let (to_b, to_a) = (frame(b.mac, a.mac, &[0; 46]), frame(a.mac, b.mac, &[0; 46]));
    for _ in 0..4 {
        send(&mut a_driver, &to_b);
        send(&mut b_driver, &to_a);
    }
    let passed = receive_all(&mut a_driver).len() + receive_all(&mut b_driver).len();
    assert_eq!(passed, 5);
    // Another rate for an index in use changes nothing, whatever else is asked for.
    let other = from(from_a, "index 7 rate 2bps burst 300");
    let plain = from(from_b, "index 8 rate 1bps burst 300");
    for replace in [true, false] {
        let both = vec![plain.clone(), other.clone()];
        let refused = match replace {
            true => bed.nic.replace_rules(both),
            false => bed.nic.add_rules(both),
        };
        let why = "police index: rules have 7 with other parameters; without any it is shared";
        assert_eq!(refused.unwrap_err().to_string(), why);
    }
    assert_eq!(bed.nic.rules().len(), 2);
    // The bucket goes with the last rule that has it.
    bed.nic.del_rules(&ids).unwrap();
    assert!(bed.nic.add_rules(vec![reference()]).is_err());
    bed.nic.add_rules(vec![other]).unwrap();
}
