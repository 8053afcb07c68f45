//! Tunnels: the netdevs that make them in the guest, actions that use them, and what of an outer
//! header is not for us to compare.

/// The uplink's address in the guest, the one that tunnels come from and end at.
pub const NEAR_MAC: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
/// The other end's.
pub const FAR_MAC: [u8; 6] = [2, 0xbb, 0, 0, 0, 1];
/// The network that both are in, by the last number of an address.
const NETS: [&str; 2] = ["192.0.2.", "2001:db8:99::"];

/// The uplink's IP address, in wire order.
pub fn near(v6: bool) -> Vec<u8> {
    host(v6, 1)
}

/// That of one of two others.
pub fn far(v6: bool, which: u8) -> Vec<u8> {
    host(v6, 2 + which)
}

fn host(v6: bool, last: u8) -> Vec<u8> {
    if v6 {
        let mut address = vec![0x20, 1, 0x0d, 0xb8, 0, 0x99];
        address.resize(15, 0);
        address.push(last);
        address
    } else {
        vec![192, 0, 2, last]
    }
}

/// The key that is true for tunnels of this family.
pub fn to_near(v6: bool) -> String {
    let width = if v6 { 128 } else { 32 };
    format!("enc_dst_ip {}1/{width}", NETS[usize::from(v6)])
}

/// Kinds of tunnel, as rules call them, and the netdev of each in the guest.
const KINDS: [(&str, &str); 4] = [
    ("vxlan", "tvxlan"),
    ("vxlan-gpe", "tgpe"),
    ("geneve", "tgeneve"),
    ("gre", "tgre"),
];

/// The netdev of a kind of tunnel over IPv6 or IPv4.
pub fn netdev(kind: &str, v6: bool) -> Option<&'static str> {
    if (kind, v6) == ("gre", true) {
        return Some("tgre6");
    }
    let mut found = KINDS.iter().filter(|(name, _)| *name == kind);
    found.next().map(|(_, netdev)| *netdev)
}

/// What the guest runs once it has its ports: the uplink becomes an IP interface that tunnels can
/// go out of, and come in by. Rules for what is inside are on block 2; what they let pass goes on
/// to the uplink's representor.
pub fn script() -> String {
    let (near, far) = (mac(NEAR_MAC), mac(FAR_MAC));
    let [net4, net6] = NETS;
    format!(
        "ip link set p0 address {near}\n\
         ip addr add {net4}1/24 dev p0\n\
         cd /proc/sys/net/ipv6/conf/p0\n\
         echo 1 > addr_gen_mode\n\
         echo 0 > accept_ra\n\
         echo 0 > disable_ipv6\n\
         cd /\n\
         ip -6 addr add {net6}1/64 dev p0 nodad\n\
         for end in {net4}2 {net4}3 {net6}2 {net6}3; do\n\
           ip neigh replace $end lladdr {far} dev p0 nud permanent\n\
         done\n\
         ip link add tvxlan type vxlan external gbp dstport 4789 nolearning\n\
         ip link add tgpe type vxlan external gpe dstport 4790 nolearning\n\
         ip link add tgeneve type geneve external\n\
         ip link add tgre type gretap external\n\
         ip link add tgre6 type ip6gretap external\n\
         for t in tvxlan tgpe tgeneve tgre tgre6; do\n\
           ip link set $t mtu 8000 arp off multicast off up\n\
           ethtool -K $t gro off > /dev/null\n\
           tc qdisc add dev $t ingress_block 2 clsact\n\
           nft \"add chain netdev up $t {{ type filter hook ingress device $t priority 0; }}\"\n\
           nft add rule netdev up $t fwd to r0\n\
         done\n\
         for to in \"ip daddr {net4}1\" \"ip6 daddr {net6}1\"; do\n\
           for port in 4789 4790 6081; do\n\
             nft insert rule netdev up p0 $to udp dport $port accept\n\
           done\n\
         done\n\
         nft insert rule netdev up p0 ip daddr {net4}1 ip protocol 47 accept\n\
         nft insert rule netdev up p0 ip6 daddr {net6}1 ip6 nexthdr 47 accept\n"
    )
}

/// An action that sends what follows, frames with a tag or without, in a tunnel; `pick` says how.
pub fn set(tagged: bool, mut pick: impl FnMut(u64) -> u64) -> String {
    // Those of GRE put the tag into the frame first and take it for the header whose congestion
    // mark goes on the outside.
    let kinds = if tagged { 2 } else { 3 };
    let kind = ["vxlan", "geneve", "gre"][pick(kinds) as usize];
    let mut text = set_kind(kind, &mut pick);
    match kind {
        "geneve" if pick(2) == 0 => {
            text.push_str(" geneve_opts 0102:80:0a0b0c0d");
            if pick(2) == 0 {
                text.push_str(",0103:01:0102030405060708");
            }
        }
        "vxlan" if pick(3) == 0 => text.push_str(&format!(" vxlan_opts {}", 1 + pick(0xffff))),
        _ => {}
    }
    text
}

/// The same with the IP packet of an untagged frame alone, as VXLAN-GPE's netdevs have it.
pub fn set_bare(mut pick: impl FnMut(u64) -> u64) -> String {
    format!("{} payload ip", set_kind("vxlan-gpe", &mut pick))
}

fn set_kind(kind: &str, pick: &mut impl FnMut(u64) -> u64) -> String {
    let v6 = pick(3) == 0;
    let net = NETS[usize::from(v6)];
    let mut text = format!(
        "tunnel_key set kind {kind} src_ip {net}1 dst_ip {net}{} src_mac {} dst_mac {} id {}",
        2 + pick(2),
        mac(NEAR_MAC),
        mac(FAR_MAC),
        [1, 5, 0xff_ffff][pick(3) as usize]
    );
    text.push_str(&format!(
        " tos {} ttl {}",
        [0, 0x10, 0xb8][pick(3) as usize],
        1 + pick(255)
    ));
    if pick(3) == 0 {
        text.push_str(" nocsum");
    }
    text
}

/// The same action for tc, which leaves Ethernet addresses to the neighbour table.
pub fn set_for_tc(words: &[&str]) -> String {
    let mut text = "tunnel_key set".to_owned();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "kind" | "src_mac" | "dst_mac" | "payload" => {
                words.next();
            }
            word => text.push_str(&format!(" {word}")),
        }
    }
    // The port of the netdev counts.
    text.push_str(" pipe");
    text
}

/// A frame with what each side may choose on its own blanked, once it was found to be right: the
/// outer IPv4 identification or IPv6 flow label, the outer UDP source port, and the checksums that
/// cover them. Frames that are in no tunnel of ours stay as they are, and so do those with a wrong
/// checksum.
pub fn settle(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() < 34 || frame[6..12] != NEAR_MAC {
        return frame;
    }
    let (l4, proto) = match frame[12..15] {
        [8, 0, 0x45] if ones_sum(&frame[14..34]) == 0xffff => (34, frame[23]),
        [0x86, 0xdd, version] if version >> 4 == 6 && frame.len() >= 54 => (54, frame[20]),
        _ => return frame,
    };
    if proto == 17 && frame.len() >= l4 + 8 {
        let addresses = if l4 == 34 { 26..34 } else { 22..54 };
        let mut summed = frame[addresses].to_vec();
        summed.extend([0, 17]);
        summed.extend(((frame.len() - l4) as u16).to_be_bytes());
        summed.extend(&frame[l4..]);
        if frame[l4 + 6..l4 + 8] != [0, 0] {
            if ones_sum(&summed) != 0xffff {
                return frame;
            }
            frame[l4 + 6..l4 + 8].fill(0xff);
        }
        // The kernel's VXLAN and the switch choose from the range of local ports, the kernel's
        // Geneve from all.
        let geneve = frame[l4 + 2..l4 + 4] == [0x17, 0xc1];
        let source = u16::from_be_bytes([frame[l4], frame[l4 + 1]]);
        if geneve || (32_768..=60_999).contains(&source) {
            frame[l4..l4 + 2].fill(0);
        }
    }
    if l4 == 34 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    } else {
        frame[15] &= 0xf0;
        frame[16..18].fill(0);
    }
    frame
}

/// A frame that is sent in GRE over IPv6, with outer headers that cannot be marked.
pub fn without_gre6_ecn(mut frame: Vec<u8>) -> Vec<u8> {
    let ours = frame.len() >= 54 && frame[6..12] == NEAR_MAC && frame[12..14] == [0x86, 0xdd];
    if ours && frame[20] == 47 {
        frame[15] &= !0x30;
    }
    frame
}

fn ones_sum(bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
