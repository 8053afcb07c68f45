//! Tunnels: the netdevs that make them in the guest, actions that use them, and what of an outer
//! header is not for us to compare.

/// The uplink's address in the guest, the one that tunnels come from.
const NEAR_MAC: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
/// The other end's.
const FAR_MAC: [u8; 6] = [2, 0xbb, 0, 0, 0, 1];
const NEAR_IP: &str = "192.0.2.1";
const FAR_IP: &str = "192.0.2.2";

/// Kinds of tunnel, as rules call them, and the netdev of each in the guest.
const KINDS: [(&str, &str); 4] = [
    ("vxlan", "tvxlan"),
    ("vxlan-gpe", "tgpe"),
    ("geneve", "tgeneve"),
    ("gre", "tgre"),
];

/// The netdev of a kind of tunnel.
pub fn netdev(kind: &str) -> Option<&'static str> {
    let mut found = KINDS.iter().filter(|(name, _)| *name == kind);
    found.next().map(|(_, netdev)| *netdev)
}

/// What the guest runs once it has its ports: the uplink becomes an IP interface that tunnels can
/// go out of.
pub fn script() -> String {
    let (near, far) = (mac(NEAR_MAC), mac(FAR_MAC));
    format!(
        "ip link set p0 address {near}\n\
         ip addr add {NEAR_IP}/24 dev p0\n\
         ip neigh replace {FAR_IP} lladdr {far} dev p0 nud permanent\n\
         ip link add tvxlan type vxlan external gbp dstport 4789 nolearning\n\
         ip link add tgpe type vxlan external gpe dstport 4790 nolearning\n\
         ip link add tgeneve type geneve external\n\
         ip link add tgre type gretap external\n\
         for t in tvxlan tgpe tgeneve tgre; do ip link set $t mtu 8000 arp off multicast off up; done\n"
    )
}

/// An action that sends what follows, frames with a tag or without, in a tunnel; `pick` says how.
pub fn set(tagged: bool, mut pick: impl FnMut(u64) -> u64) -> String {
    // VXLAN-GPE netdevs carry IP, not Ethernet. Those of GRE put the tag into the frame first and
    // take it for the header whose congestion mark goes on the outside.
    let kinds = if tagged { 2 } else { 3 };
    let kind = ["vxlan", "geneve", "gre"][pick(kinds) as usize];
    let mut text = format!(
        "tunnel_key set kind {kind} src_ip {NEAR_IP} dst_ip {FAR_IP} src_mac {} dst_mac {} id {}",
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

/// The same action for tc, which leaves Ethernet addresses to the neighbour table.
pub fn set_for_tc(words: &[&str]) -> String {
    let mut text = "tunnel_key set".to_owned();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "kind" | "src_mac" | "dst_mac" => {
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
/// outer IPv4 identification, the outer UDP source port, and the checksums that cover them. Frames
/// that are in no tunnel of ours stay as they are, and so do those with a wrong checksum.
pub fn settle(mut frame: Vec<u8>) -> Vec<u8> {
    let tunnel = frame.len() >= 34 && frame[6..12] == NEAR_MAC && frame[12..15] == [8, 0, 0x45];
    if !tunnel || ones_sum(&frame[14..34]) != 0xffff {
        return frame;
    }
    if frame[23] == 17 && frame.len() >= 42 {
        let mut summed = frame[26..34].to_vec();
        summed.extend([0, 17]);
        summed.extend(((frame.len() - 34) as u16).to_be_bytes());
        summed.extend(&frame[34..]);
        if frame[40..42] != [0, 0] {
            if ones_sum(&summed) != 0xffff {
                return frame;
            }
            frame[40..42].fill(0xff);
        }
        // The kernel's VXLAN and the switch choose from the range of local ports, the kernel's
        // Geneve from all.
        let geneve = frame[36..38] == [0x17, 0xc1];
        let source = u16::from_be_bytes([frame[34], frame[35]]);
        if geneve || (32_768..=60_999).contains(&source) {
            frame[34..36].fill(0);
        }
    }
    frame[18..20].fill(0);
    frame[24..26].fill(0);
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
