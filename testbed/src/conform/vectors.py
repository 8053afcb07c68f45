"""Makes vectors.json: rules, frames that are sent, and what must come out, by scapy.

A rule names ports as {a}, {b}, {c}, and a connection tracking zone of the run's own as {z}, {y}.
Each send is [port, frame, {where: [frames]}]; a place is a port, or rep_ and a port for the host's
side of it. Run `/usr/bin/python3 vectors.py > vectors.json`; a test holds the file against it.
"""
import json
import logging

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (ARP, Dot1AD, Dot1Q, Ether, GRE, ICMP, ICMPv6EchoRequest, IP, IPv6, Raw, TCP, UDP,
                       fragment, raw)
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN

A, B, C = ("02:c0:00:00:00:0a", "02:c0:00:00:00:0b", "02:c0:00:00:00:0c")
# The ends of a tunnel, as the comparison with tc has them.
NEAR, FAR = "02:aa:00:00:00:01", "02:bb:00:00:00:01"
PAY = Raw(b"chanio-conform:0123456789abcdef")
KEYS = "uapi linux/pkt_cls.h: TCA_FLOWER_KEY_"
vectors = []


def eth(**fields):
    return Ether(**{"dst": B, "src": A, **fields})


def v4(**fields):
    return IP(**{"src": "10.0.0.1", "dst": "10.0.0.2", **fields})


def v6(**fields):
    return IPv6(**{"src": "2001:db8::1", "dst": "2001:db8::2", **fields})


def udp(sport=1000, dport=2000, **fields):
    return UDP(sport=sport, dport=dport, **fields)


def tcp(sport=1000, dport=2000, **fields):
    return TCP(sport=sport, dport=dport, **fields)


def hexed(frame):
    return raw(frame).hex()


def vector(name, claims, about, source, rules, sends, counts=None):
    """counts: packets that each rule must have seen, in the order of the rules."""
    vectors.append({
        "name": name, "claims": claims, "about": about, "source": source, "rules": rules,
        "sends": [{"from": port, "frame": hexed(frame),
                   "out": {where: [hexed(f) for f in frames] for where, frames in out.items()}}
                  for port, frame, out in sends],
        "counts": counts or [],
    })


def untagged(match):
    """tc asks for the type of tagged or of untagged frames, not of both."""
    return match if "vlan" in match or "eth_type" not in match else "vlan_id none " + match


def key(claim, match, hit, miss, source, variant="", inner=None):
    """One frame that matches, one that does not, and the first again. The plain form of a key that
    tells of a tag names the tag's type, as a filter of tc is for one only."""
    match = untagged(match)
    hit, miss = [frame if frame.haslayer(Raw) else frame / PAY for frame in (hit, miss)]
    out = hit if inner is None else inner
    name = claim + ("." + variant if variant else "")
    needs = ["match " + other for other in ("vlan_tpid", "cvlan_tpid") if other in match and other != claim]
    vector("match." + name, ["match " + claim, *needs], f"`{match}` takes the frame that has it, and no other",
           source, [f"in_port {{a}} {match} action redirect {{b}}"],
           [("a", hit, {"b": [out]}), ("a", miss, {"rep_a": [miss]}), ("a", hit, {"b": [out]})], [2])


def action(claim, variant, about, source, text, sent, out, match="", counts=None):
    """What becomes of one frame; `out` says what comes out where."""
    match = untagged(match)
    name = claim + ("." + variant if variant else "")
    vector("action." + name, ["action " + claim], about, source,
           [f"in_port {{a}} {match}{' ' if match else ''}{text}"],
           [("a", sent, out)], counts or [1])


# ---- what is matched -------------------------------------------------------------------------
plain = eth() / v4() / udp() / PAY
vector("match.in_port", ["match in_port"], "`in_port` takes what its channel sends, and no other's",
       "Documentation/networking/representors.rst: a rule on a representor is for its function's packets",
       ["in_port {a} action redirect {b}"],
       [("a", plain, {"b": [plain]}),
        ("c", eth(src=C) / v4() / udp() / PAY, {"rep_c": [eth(src=C) / v4() / udp() / PAY]})], [1])

OTHER_A = "02:c0:00:00:00:1a"
key("src_mac", f"src_mac {A}", plain, eth(src=OTHER_A) / v4() / udp(), KEYS + "ETH_SRC")
key("src_mac", "src_mac 02:c0:00:00:00:00/ff:ff:ff:ff:ff:f0", plain, eth(src=OTHER_A) / v4() / udp(),
    KEYS + "ETH_SRC_MASK", "masked")
key("dst_mac", f"dst_mac {B}", plain, eth(dst=C) / v4() / udp(), KEYS + "ETH_DST")
key("dst_mac", "dst_mac 01:00:00:00:00:00/01:00:00:00:00:00", eth(dst="01:00:5e:00:00:01") / v4() / udp(),
    plain, KEYS + "ETH_DST_MASK", "group_bit")
key("eth_type", "eth_type 0x88b5", eth(type=0x88b5) / PAY, eth(type=0x88b6) / PAY, KEYS + "ETH_TYPE")
key("eth_type", "eth_type ipv6", eth() / v6() / udp(), plain, KEYS + "ETH_TYPE", "ipv6")

tag = lambda vid, prio=0: Dot1Q(vlan=vid, prio=prio)
ad = lambda vid, prio=0: Dot1AD(vlan=vid, prio=prio)
behind = v4() / udp() / PAY
key("vlan_id", "vlan_tpid 802.1q vlan_id 7", eth() / tag(7) / behind, eth() / tag(8) / behind, KEYS + "VLAN_ID")
key("vlan_id", "vlan_id 7", eth() / ad(7) / behind, eth() / tag(8) / behind, KEYS + "VLAN_ID", "any_tpid")
key("vlan_id", "vlan_id none eth_type ipv4", plain, eth() / tag(7) / behind, "tc-flower(8): protocol without a tag", "none")
key("vlan_prio", "vlan_tpid 802.1q vlan_id 7 vlan_prio 3", eth() / tag(7, 3) / behind, eth() / tag(7, 4) / behind,
    KEYS + "VLAN_PRIO")
key("vlan_tpid", "vlan_tpid 802.1ad vlan_id 7", eth() / ad(7) / behind, eth() / tag(7) / behind,
    "tc-flower(8): protocol 802.1ad")
key("cvlan_id", "vlan_tpid 802.1ad vlan_id 7 cvlan_tpid 802.1q cvlan_id 8", eth() / ad(7) / tag(8) / behind,
    eth() / ad(7) / tag(9) / behind,
    KEYS + "CVLAN_ID")
key("cvlan_id", "vlan_id 7 cvlan_id 8", eth() / ad(7) / tag(8) / behind, eth() / tag(7) / ad(9) / behind,
    KEYS + "CVLAN_ID", "any_tpid")
key("cvlan_prio", "vlan_tpid 802.1ad vlan_id 7 cvlan_tpid 802.1q cvlan_id 8 cvlan_prio 5", eth() / ad(7) / tag(8, 5) / behind,
    eth() / ad(7) / tag(8, 6) / behind, KEYS + "CVLAN_PRIO")
key("cvlan_tpid", "vlan_tpid 802.1ad cvlan_tpid 802.1q", eth() / ad(7) / tag(8) / behind,
    eth() / ad(7) / ad(8) / behind, KEYS + "VLAN_ETH_TYPE")

for end, field in (("src_ip", "src"), ("dst_ip", "dst")):
    upper = field.upper()
    key(end, f"eth_type ipv4 {end} 10.1.2.3", eth() / v4(**{field: "10.1.2.3"}) / udp(),
        eth() / v4(**{field: "10.1.2.4"}) / udp(), KEYS + f"IPV4_{upper}")
    key(end, f"eth_type ipv4 {end} 10.1.0.0/16", eth() / v4(**{field: "10.1.2.3"}) / udp(),
        eth() / v4(**{field: "10.2.2.3"}) / udp(), KEYS + f"IPV4_{upper}_MASK", "prefix")
    key(end, f"eth_type ipv6 {end} 2001:db8:1::7", eth() / v6(**{field: "2001:db8:1::7"}) / udp(),
        eth() / v6(**{field: "2001:db8:1::8"}) / udp(), KEYS + f"IPV6_{upper}", "ipv6")
    key(end, f"eth_type ipv6 {end} 2001:db8:1::/48", eth() / v6(**{field: "2001:db8:1::7"}) / udp(),
        eth() / v6(**{field: "2001:db8:2::7"}) / udp(), KEYS + f"IPV6_{upper}_MASK", "ipv6_prefix")
key("ip_proto", "eth_type ipv4 ip_proto udp", plain, eth() / v4() / tcp(), KEYS + "IP_PROTO")
key("ip_proto", "eth_type ipv6 ip_proto tcp", eth() / v6() / tcp(), eth() / v6() / udp(), KEYS + "IP_PROTO",
    "ipv6")
key("ip_tos", "eth_type ipv4 ip_tos 0x28", eth() / v4(tos=0x28) / udp(), plain, KEYS + "IP_TOS")
key("ip_tos", "eth_type ipv6 ip_tos 0xb8/0xfc", eth() / v6(tc=0xb9) / udp(), eth() / v6(tc=0x28) / udp(),
    KEYS + "IP_TOS_MASK", "dscp_ipv6")
key("ip_ttl", "eth_type ipv4 ip_ttl 9", eth() / v4(ttl=9) / udp(), eth() / v4(ttl=10) / udp(), KEYS + "IP_TTL")
key("ip_ttl", "eth_type ipv6 ip_ttl 255", eth() / v6(hlim=255) / udp(), eth() / v6(hlim=254) / udp(),
    KEYS + "IP_TTL", "ipv6")
pieces = fragment(eth() / v4(id=3) / udp() / Raw(raw(PAY) * 12), 200)
key("ip_flags", "eth_type ipv4 ip_flags frag", pieces[1], plain, KEYS + "FLAGS: IS_FRAGMENT")
key("ip_flags", "eth_type ipv4 ip_flags nofrag", plain, pieces[1], KEYS + "FLAGS: IS_FRAGMENT", "nofrag")
key("ip_flags", "eth_type ipv4 ip_flags frag/firstfrag", pieces[0], pieces[1], KEYS + "FLAGS: FRAG_IS_FIRST",
    "firstfrag")

arp = lambda **fields: eth() / ARP(**{"op": 1, "psrc": "10.0.0.1", "pdst": "10.0.0.2", "hwsrc": A,
                                      "hwdst": "00:00:00:00:00:00", **fields}) / PAY
key("arp_op", "eth_type arp arp_op request", arp(), arp(op=2), KEYS + "ARP_OP")
key("arp_sip", "eth_type arp arp_sip 10.0.0.7", arp(psrc="10.0.0.7"), arp(), KEYS + "ARP_SIP")
key("arp_tip", "eth_type arp arp_tip 10.0.0.7", arp(pdst="10.0.0.7"), arp(), KEYS + "ARP_TIP")
key("arp_sha", f"eth_type arp arp_sha {C}", arp(hwsrc=C), arp(), KEYS + "ARP_SHA")
key("arp_tha", f"eth_type arp arp_tha {C}", arp(hwdst=C), arp(), KEYS + "ARP_THA")

mpls = lambda label=16, tc=0, ttl=64: MPLS(label=label, cos=tc, ttl=ttl, s=1)
key("mpls_label", "eth_type mpls_uc mpls_label 1000", eth() / mpls(1000) / behind, eth() / mpls() / behind,
    KEYS + "MPLS_LABEL")
key("mpls_tc", "eth_type mpls_uc mpls_tc 5", eth() / mpls(tc=5) / behind, eth() / mpls() / behind,
    KEYS + "MPLS_TC")
key("mpls_bos", "eth_type mpls_uc mpls_bos 0", eth() / MPLS(label=16, s=0, ttl=64) / mpls() / behind,
    eth() / mpls() / behind, KEYS + "MPLS_BOS")
key("mpls_ttl", "eth_type mpls_uc mpls_ttl 9", eth() / mpls(ttl=9) / behind, eth() / mpls() / behind,
    KEYS + "MPLS_TTL")
key("mpls_label", "eth_type mpls_uc mpls_label@2 7", eth() / MPLS(label=16, s=0, ttl=64) / mpls(7) / behind,
    eth() / MPLS(label=16, s=0, ttl=64) / mpls(8) / behind, KEYS + "MPLS_OPTS", "second_entry")

for end, field in (("src_port", "sport"), ("dst_port", "dport")):
    upper = "SRC" if end == "src_port" else "DST"
    key(end, f"eth_type ipv4 ip_proto udp {end} 53", eth() / v4() / udp(**{field: 53}), plain,
        KEYS + f"UDP_{upper}")
    key(end, f"eth_type ipv6 ip_proto tcp {end} 443", eth() / v6() / tcp(**{field: 443}),
        eth() / v6() / tcp(**{field: 444}), KEYS + f"TCP_{upper}", "tcp_ipv6")
    key(end, f"eth_type ipv4 ip_proto tcp {end} 0x1000/0xf000", eth() / v4() / tcp(**{field: 0x1abc}),
        eth() / v4() / tcp(**{field: 0x2abc}), KEYS + f"TCP_{upper}_MASK", "masked")
    key(end, f"eth_type ipv4 ip_proto udp {end} 100-200", eth() / v4() / udp(**{field: 200}),
        eth() / v4() / udp(**{field: 201}), KEYS + f"PORT_{upper}_MIN", "range")
    sctp = lambda port: eth() / v4() / SCTP(**{"sport": 1, "dport": 1, field: port}) / SCTPChunkData(data=raw(PAY))
    key(end, f"eth_type ipv4 ip_proto sctp {end} 36412", sctp(36412) / PAY, sctp(36413) / PAY,
        KEYS + f"SCTP_{upper}", "sctp")
key("tcp_flags", "eth_type ipv4 ip_proto tcp tcp_flags 0x2/0x12", eth() / v4() / tcp(flags="S"),
    eth() / v4() / tcp(flags="SA"), KEYS + "TCP_FLAGS")
key("type", "eth_type ipv4 ip_proto icmp type 8", eth() / v4() / ICMP(type=8), eth() / v4() / ICMP(type=0),
    KEYS + "ICMPV4_TYPE")
key("type", "eth_type ipv6 ip_proto icmpv6 type 128", eth() / v6() / ICMPv6EchoRequest(data=raw(PAY)) / PAY,
    eth() / v6() / ICMPv6EchoRequest(type=129, data=raw(PAY)) / PAY, KEYS + "ICMPV6_TYPE", "icmpv6")
key("code", "eth_type ipv4 ip_proto icmp type 3 code 4", eth() / v4() / ICMP(type=3, code=4),
    eth() / v4() / ICMP(type=3, code=3), KEYS + "ICMPV4_CODE")

# ---- outer headers: a match of theirs takes the frame out of its tunnel -----------------------
within = eth() / v4(src="192.168.0.1", dst="192.168.0.2") / udp() / PAY


def outer(src="172.16.0.1", dst="172.16.0.2", sport=40000, dport=4789, **fields):
    return eth(src=FAR, dst=NEAR) / IP(src=src, dst=dst, **fields) / UDP(sport=sport, dport=dport)


def vxlan(vni=7, gbp=None, **fields):
    head = VXLAN(vni=vni, flags=0x08) if gbp is None else VXLAN(vni=vni, flags=0x88, gpflags=0, gpid=gbp)
    return outer(**fields) / head / within


def geneve(vni=7, options=(), critical=0, **fields):
    return outer(dport=6081, **fields) / GENEVE(vni=vni, proto=0x6558, critical=critical,
                                                options=list(options)) / within


def enc(claim, match, hit, miss, source, variant=""):
    key(claim, match, hit, miss, source, variant, inner=within)


ENC = KEYS + "ENC_"
enc("enc_kind", "enc_kind vxlan enc_dst_port 4789", vxlan(), outer(dport=4790) / Raw(raw(PAY)),
    "Documentation/networking/representors.rst: tunnels are told by the netdev that a rule is on")
enc("enc_key_id", "enc_key_id 7 enc_dst_port 4789", vxlan(), vxlan(8), ENC + "KEY_ID")
enc("enc_key_id", "enc_kind geneve enc_key_id 7 enc_dst_port 6081", geneve(), geneve(8), ENC + "KEY_ID", "geneve")
enc("enc_src_ip", "enc_src_ip 172.16.0.1 enc_dst_port 4789", vxlan(), vxlan(src="172.16.0.9"), ENC + "IPV4_SRC")
enc("enc_dst_ip", "enc_dst_ip 172.16.0.2 enc_dst_port 4789", vxlan(), vxlan(dst="172.16.0.9"), ENC + "IPV4_DST")
enc("enc_src_port", "enc_src_port 40000 enc_dst_port 4789", vxlan(), vxlan(sport=40001), ENC + "UDP_SRC_PORT")
enc("enc_dst_port", "enc_dst_port 4789", vxlan(), geneve(), ENC + "UDP_DST_PORT")
enc("enc_tos", "enc_tos 0x28 enc_dst_port 4789", vxlan(tos=0x28), vxlan(), ENC + "IP_TOS")
enc("enc_ttl", "enc_ttl 9 enc_dst_port 4789", vxlan(ttl=9), vxlan(), ENC + "IP_TTL")
enc("enc_flags", "enc_flags df enc_dst_port 4789", vxlan(flags="DF"), vxlan(),
    "tc-flower(8): enc_flags; uapi TCA_FLOWER_KEY_FLAGS_TUNNEL_DONT_FRAGMENT")
option = GeneveOptions(classid=0x102, type=0x80, length=1, data=b"\x0a\x0b\x0c\x0d")
plain_option = GeneveOptions(classid=0x102, type=0x01, length=1, data=b"\x0a\x0b\x0c\x0d")
unlike = GeneveOptions(classid=0x102, type=0x80, length=1, data=b"\x0a\x0b\x0c\x0e")
enc("geneve_opts", "enc_key_id 7 enc_dst_port 6081 geneve_opts 0102:80:0a0b0c0d",
    geneve(options=[option], critical=1), geneve(options=[unlike], critical=1), ENC + "OPTS_GENEVE")
enc("vxlan_opts", "enc_key_id 7 enc_dst_port 4789 vxlan_opts 5", vxlan(gbp=5), vxlan(gbp=6),
    ENC + "OPT_VXLAN_GBP")

# ---- the state of connections ----------------------------------------------------------------
ask = eth() / v4() / udp(1000, 2000) / PAY
answer = eth(src=B, dst=A) / v4(src="10.0.0.2", dst="10.0.0.1") / udp(2000, 1000) / PAY
track = "vlan_id none eth_type ipv4 ip_proto udp ct_state -trk action ct commit zone {z} action goto chain 1"
vector("match.ct_state", ["match ct_state", "action ct"],
       "a connection is established once both sides have sent", KEYS + "CT_STATE",
       ["in_port {a} " + track, "in_port {b} " + track,
        "chain 1 in_port {a} vlan_id none eth_type ipv4 ct_state +trk+est action redirect {b}",
        "chain 1 in_port {b} vlan_id none eth_type ipv4 ct_state +trk+est action redirect {a}"],
       [("a", ask, {"rep_a": [ask]}), ("b", answer, {"a": [answer]}), ("a", ask, {"b": [ask]})], [2, 1, 1, 1])
vector("match.ct_state.new", ["match ct_state", "action ct"], "the first packet is of a new connection",
       KEYS + "CT_STATE",
       ["in_port {a} vlan_id none eth_type ipv4 ip_proto udp dst_port 2000 ct_state -trk action ct zone {z} action goto chain 1",
        "chain 1 in_port {a} vlan_id none eth_type ipv4 ct_state +trk+new action redirect {b}"],
       [("a", ask, {"b": [ask]})], [1, 1])
other = eth() / v4() / udp(1000, 2001) / PAY
for claim, first, second, match in (
        ("ct_zone", "zone {z}", "zone {y}", "ct_zone {z}"),
        ("ct_mark", "commit zone {z} mark 9", "commit zone {z} mark 8", "ct_mark 9"),
        ("ct_label", "commit zone {z} label 0102", "commit zone {z} label 0103", "ct_label 0102/ffff")):
    base = "in_port {a} vlan_id none eth_type ipv4 ip_proto udp dst_port %d ct_state -trk action ct %s action goto chain 1"
    vector("match." + claim, ["match " + claim, "action ct"],
           f"`{claim}` takes what was tracked so, and no other", KEYS + claim.upper(),
           [base % (2000, first), base % (2001, second),
            f"chain 1 in_port {{a}} vlan_id none eth_type ipv4 ct_state +trk {match} action redirect {{b}}"],
           [("a", ask, {"b": [ask]}), ("a", other, {"rep_a": [other]}), ("a", ask, {"b": [ask]})], [2, 1, 2])

# ---- what is done ----------------------------------------------------------------------------
REP = "Documentation/networking/representors.rst: "
action("drop", "", "lost, and counted", "tc-gact(8)", "action drop", plain, {})
action("pass", "", "to the host, on the representor", "tc-gact(8)", "action pass", plain, {"rep_a": [plain]})
action("trap", "", "to the host, on the representor", "uapi linux/pkt_cls.h: TC_ACT_TRAP", "action trap", plain,
       {"rep_a": [plain]})
action("redirect", "", "out of another channel", "tc-mirred(8)", "action redirect {b}", plain, {"b": [plain]})
action("mirror", "", "a copy out of one, the frame out of another", "tc-mirred(8)",
       "action mirror {c} action redirect {b}", plain, {"c": [plain], "b": [plain]})
turned = eth(dst=C) / v4() / udp() / PAY
action("mirror", "rewrite_between", "the copy is made before the rewriting", "tc-mirred(8); tc-pedit(8)",
       "action mirror {c} action pedit ex munge eth dst set " + C + " action redirect {b}", plain,
       {"c": [plain], "b": [turned]}, "eth_type ipv4")
vector("action.goto", ["action goto"], "on in another chain, to the host if nothing there takes it",
       "tc-flower(8); Documentation/networking/representors.rst: the slow path is what a miss gets",
       ["in_port {a} action goto chain 3", "chain 3 in_port {a} vlan_id none eth_type ipv4 action redirect {b}"],
       [("a", plain, {"b": [plain]}), ("a", eth(type=0x88b5) / PAY, {"rep_a": [eth(type=0x88b5) / PAY]})], [2, 1])

action("vlan", "push", "a tag in front", "tc-vlan(8)", "action vlan push id 7 priority 3 action redirect {b}",
       plain, {"b": [eth() / tag(7, 3) / behind]})
action("vlan", "push_qinq", "a service tag in front of a tag", "tc-vlan(8)",
       "action vlan push id 9 protocol 802.1ad action redirect {b}", eth() / tag(7, 3) / behind,
       {"b": [eth() / ad(9) / tag(7, 3) / behind]}, "vlan_tpid 802.1q vlan_id 7")
action("vlan", "pop", "the tag off", "tc-vlan(8)", "action vlan pop action redirect {b}", eth() / tag(7) / behind,
       {"b": [plain]}, "vlan_tpid 802.1q vlan_id 7")
action("vlan", "modify", "another id, the same priority", "tc-vlan(8)",
       "action vlan modify id 9 priority 3 action redirect {b}", eth() / tag(7, 3) / behind,
       {"b": [eth() / tag(9, 3) / behind]}, "vlan_tpid 802.1q vlan_id 7 vlan_prio 3")

action("mpls", "push", "a label in front of the network header", "tc-mpls(8)",
       "action mpls push label 99 tc 2 ttl 33 action redirect {b}", plain,
       {"b": [eth() / mpls(99, 2, 33) / behind]}, "eth_type ipv4")
action("mpls", "pop", "the label off", "tc-mpls(8)", "action mpls pop protocol ipv4 action redirect {b}",
       eth() / mpls(99) / behind, {"b": [plain]}, "eth_type mpls_uc")
action("mpls", "modify", "another label", "tc-mpls(8)", "action mpls modify label 5 tc 1 action redirect {b}",
       eth() / mpls(99) / behind, {"b": [eth() / mpls(5, 1) / behind]}, "eth_type mpls_uc")
action("mpls", "dec_ttl", "one hop less", "tc-mpls(8)", "action mpls dec_ttl action redirect {b}",
       eth() / mpls(99) / behind, {"b": [eth() / mpls(99, ttl=63) / behind]}, "eth_type mpls_uc")

EDIT = "tc-pedit(8); checksums follow, as in hardware"
for variant, munge, sent, out, match in (
        ("eth", f"munge eth src set {B} munge eth dst set {C}", plain, eth(src=B, dst=C) / behind, "eth_type ipv4 ip_proto udp"),
        ("ip_src", "munge ip src set 10.9.9.9", plain, eth() / v4(src="10.9.9.9") / udp() / PAY, "eth_type ipv4 ip_proto udp"),
        ("ip_dst_tcp", "munge ip dst set 10.9.9.9", eth() / v4() / tcp() / PAY, eth() / v4(dst="10.9.9.9") / tcp() / PAY,
         "eth_type ipv4 ip_proto tcp"),
        ("ttl_dec", "munge ip ttl dec", plain, eth() / v4(ttl=63) / udp() / PAY, "eth_type ipv4 ip_proto udp"),
        ("tos", "munge ip tos set 0x28 retain 0xfc", eth() / v4(tos=1) / udp() / PAY, eth() / v4(tos=0x29) / udp() / PAY,
         "eth_type ipv4 ip_proto udp"),
        ("ip6_src", "munge ip6 src set 2001:db8:9::9", eth() / v6() / tcp() / PAY,
         eth() / v6(src="2001:db8:9::9") / tcp() / PAY, "eth_type ipv6 ip_proto tcp"),
        ("ip6_dst", "munge ip6 dst set 2001:db8:9::9", eth() / v6() / udp() / PAY,
         eth() / v6(dst="2001:db8:9::9") / udp() / PAY, "eth_type ipv6 ip_proto udp"),
        ("hoplimit", "munge ip6 hoplimit set 9", eth() / v6() / udp() / PAY, eth() / v6(hlim=9) / udp() / PAY,
         "eth_type ipv6 ip_proto udp"),
        ("tcp_dport", "munge tcp dport set 8080", eth() / v4() / tcp() / PAY, eth() / v4() / tcp(dport=8080) / PAY,
         "eth_type ipv4 ip_proto tcp"),
        ("udp_sport", "munge udp sport set 53", plain, eth() / v4() / udp(sport=53) / PAY, "eth_type ipv4 ip_proto udp"),
        ("udp_no_checksum", "munge ip src set 10.9.9.9", eth() / v4() / udp(chksum=0) / PAY,
         eth() / v4(src="10.9.9.9") / udp(chksum=0) / PAY, "eth_type ipv4 ip_proto udp"),
        ("many", f"munge eth dst set {C} munge ip ttl dec munge ip dst set 10.9.9.9 munge tcp dport set 8080",
         eth() / v4() / tcp() / PAY, eth(dst=C) / v4(dst="10.9.9.9", ttl=63) / tcp(dport=8080) / PAY,
         "eth_type ipv4 ip_proto tcp")):
    action("pedit", variant, "the fields, and every checksum over them", EDIT,
           f"action pedit ex {munge} action redirect {{b}}", sent, {"b": [out]}, match)
action("csum", "", "checksums over what was rewritten", "tc-csum(8)",
       "action pedit ex munge ip dst set 10.9.9.9 action csum ip4h/udp action redirect {b}", plain,
       {"b": [eth() / v4(dst="10.9.9.9") / udp() / PAY]}, "eth_type ipv4 ip_proto udp")
action("csum", "broken", "a wrong checksum is made right", "tc-csum(8)", "action csum ip4h/udp action redirect {b}",
       eth() / v4(chksum=1) / udp(chksum=1) / PAY, {"b": [plain]}, "eth_type ipv4 ip_proto udp")

TUNNEL = "tc-tunnel_key(8); "
near = lambda **fields: eth(src=NEAR, dst=FAR) / IP(src="172.16.0.1", dst="172.16.0.2", ttl=64, **fields)
ends = f"src_ip 172.16.0.1 dst_ip 172.16.0.2 src_mac {NEAR} dst_mac {FAR} id 42 tos 0 ttl 64"
for variant, text, out, source in (
        ("vxlan", f"kind vxlan {ends}", near() / UDP(sport=40000, dport=4789) / VXLAN(vni=42, flags=8) / plain, "RFC 7348"),
        ("vxlan_gbp", f"kind vxlan {ends} vxlan_opts 5",
         near() / UDP(sport=40000, dport=4789) / VXLAN(vni=42, flags=0x88, gpflags=0, gpid=5) / plain,
         "draft-smith-vxlan-group-policy"),
        ("geneve", f"kind geneve {ends} geneve_opts 0102:01:0a0b0c0d",
         near() / UDP(sport=40000, dport=6081) / GENEVE(vni=42, proto=0x6558, options=[plain_option]) / plain, "RFC 8926"),
        ("gre", f"kind gre {ends}", near(proto=47) / GRE(proto=0x6558, chksum_present=1, key_present=1, key=42) / plain, "RFC 2784, RFC 2890")):
    action("tunnel_key", "set_" + variant, "in a tunnel, outer checksums right; source port and IP id are free",
           TUNNEL + source, f"action tunnel_key set {text} action redirect {{b}}", plain, {"b": [out]})
vector("action.tunnel_key.unset", ["action tunnel_key", "match enc_key_id"],
       "out of its tunnel, and not back into one", "tc-tunnel_key(8)",
       ["in_port {a} enc_key_id 7 enc_dst_port 4789 action tunnel_key unset action redirect {b}"],
       [("a", vxlan(), {"b": [within]})], [1])

vector("action.police", ["action police"], "what conforms goes on, what exceeds is lost", "tc-police(8)",
       ["in_port {a} action police pkts_rate 1 pkts_burst 2 conform-exceed drop/pipe action redirect {b}"],
       [("a", plain, {"b": [plain]}), ("a", plain, {"b": [plain]}), ("a", plain, {}), ("a", plain, {})], [4])
big = eth() / v4() / udp() / Raw(raw(PAY) * 32)
vector("action.police.bytes", ["action police"], "bytes count, as the kernel's: burst first, then rate",
       "tc-police(8)",
       ["in_port {a} action police rate 8kbit burst 2500 conform-exceed drop/pipe action redirect {b}"],
       [("a", big, {"b": [big]}), ("a", big, {"b": [big]}), ("a", big, {})], [3])
vector("action.ct.nat", ["action ct"], "the source is translated, and checksums follow", "tc-ct(8)",
       ["in_port {a} vlan_id none eth_type ipv4 ip_proto udp ct_state -trk "
        "action ct commit zone {z} nat src addr 10.9.9.9 action redirect {b}"],
       [("a", ask, {"b": [eth() / v4(src="10.9.9.9") / udp(1000, 2000) / PAY]})], [1])
action("sample", "", "every frame of one in one is copied", "tc-sample(8)",
       "action sample rate 1 group 1 to {c} action redirect {b}", plain, {"c": [plain], "b": [plain]})

print(json.dumps(vectors, indent=1))
