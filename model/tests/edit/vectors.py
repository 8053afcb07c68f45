#!/usr/bin/python3
"""Writes vectors.txt: what scapy makes of each case that vectors.rs names.

A line is: name, the frame before, the frame after. Run it where python3-scapy is installed:
    model/tests/edit/vectors.py > model/tests/edit/vectors.txt
"""
from scapy.all import (
    GRE, ICMP, IP, IPv6, SCTP, TCP, UDP, VXLAN, Dot1AD, Dot1Q, Ether, ICMPv6EchoRequest,
    ICMPv6DestUnreach, IPv6ExtHdrDestOpt, Raw,
)
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.layers.sctp import SCTPChunkData
from scapy.layers.vxlan import VXLAN

# The source ports that these flows hash to.
PORTS = {"tcp4": 0xD0C2, "udp6": 0x8FA8}
A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"
IDENT = 0x1234


def ether(payload, dst=B, src=A):
    return Ether(dst=dst, src=src) / payload


def tcp4(src="10.0.0.1", dst="10.0.0.2", sport=1000, dport=80, ttl=64, tos=0):
    return IP(src=src, dst=dst, ttl=ttl, id=7, tos=tos) / TCP(sport=sport, dport=dport, seq=1, flags="PA") / Raw(b"a tcp payload")


def udp4(src="10.0.0.1", dst="10.0.0.2", sport=53, dport=5353, **udp):
    return IP(src=src, dst=dst, id=8) / UDP(sport=sport, dport=dport, **udp) / Raw(b"odd")


def udp6(src="fd00::1", dst="fd00::2", sport=53, dport=5353, tc=0, hlim=64):
    return IPv6(src=src, dst=dst, tc=tc, hlim=hlim) / UDP(sport=sport, dport=dport) / Raw(b"a udp payload")


def options6(src="fd00::1"):
    return IPv6(src=src, dst="fd00::2") / IPv6ExtHdrDestOpt() / TCP(sport=1, dport=2) / Raw(b"behind options")


def sctp(sport=1, dport=2):
    return IP(src="10.0.0.1", dst="10.0.0.2", id=9) / SCTP(sport=sport, dport=dport, tag=77) / SCTPChunkData(data=b"some data", tsn=5)


def ping(src="10.0.0.1", dst="10.0.0.2", ident=5):
    return IP(src=src, dst=dst, id=10) / ICMP(type=8, id=ident, seq=1) / Raw(b"ping")


def ping6(src="fd00::1", ident=5):
    return IPv6(src=src, dst="fd00::2") / ICMPv6EchoRequest(id=ident, seq=1, data=b"ping")


def unreachable(to, inside):
    return IP(src="192.0.2.1", dst=to, id=11) / ICMP(type=3, code=1) / inside


def unreachable6(to, inside):
    return IPv6(src="fd00::99", dst=to) / ICMPv6DestUnreach(code=1) / inside


def outer4(tos=0, ttl=64, df=True):
    flags = "DF" if df else 0
    return Ether(dst="02:aa:00:00:00:02", src="02:aa:00:00:00:01") / IP(
        src="172.16.0.1", dst="172.16.0.2", tos=tos, ttl=ttl, id=IDENT, flags=flags)


def outer6(tc=0, fl=0):
    return Ether(dst="02:aa:00:00:00:02", src="02:aa:00:00:00:01") / IPv6(
        src="fd01::1", dst="fd01::2", tc=tc, hlim=64, fl=fl)


def geneve():
    options = [
        GeneveOptions(classid=0x102, type=0x80, data=bytes.fromhex("0102030405060708")),
        GeneveOptions(classid=0xFFFF, type=1, data=b""),
    ]
    return GENEVE(vni=5, proto=0x6558, options=options)


def main():
    tcp, udp = ether(tcp4()), ether(udp6())
    port4, port6 = PORTS["tcp4"], PORTS["udp6"]
    error = ether(unreachable("198.51.100.1", tcp4(src="198.51.100.1", sport=4000)))
    error6 = ether(unreachable6("fd00::77", udp6(src="fd00::77", sport=4000)))
    ecn = ether(tcp4(tos=0xB9))
    cases = {
        "vlan_push": (tcp, ether(Dot1Q(vlan=100, prio=5) / tcp4())),
        "vlan_push_ad": (ether(Dot1Q(vlan=5) / tcp4()), ether(Dot1AD(vlan=100, prio=5) / Dot1Q(vlan=5) / tcp4())),
        "vlan_pop": (ether(Dot1Q(vlan=100, prio=5) / tcp4()), tcp),
        "vlan_modify": (ether(Dot1Q(vlan=100, prio=5) / tcp4()), ether(Dot1Q(vlan=7, prio=5) / tcp4())),
        "ip_dst": (tcp, ether(tcp4(dst="192.168.77.88"))),
        "ip_dst_behind_tags": (ether(Dot1AD(vlan=1) / Dot1Q(vlan=2) / tcp4()), ether(Dot1AD(vlan=1) / Dot1Q(vlan=2) / tcp4(dst="192.168.77.88"))),
        "ttl_dec": (tcp, ether(tcp4(ttl=63))),
        "ip6_src": (udp, ether(udp6(src="2001:db8::1:2"))),
        "ip6_src_behind_options": (ether(options6()), ether(options6(src="2001:db8::1:2"))),
        "ip6_traffic_class": (udp, ether(udp6(tc=0xB8))),
        "tcp_dport": (tcp, ether(tcp4(dport=8080))),
        "udp_sport": (ether(udp4()), ether(udp4(sport=1053))),
        "udp_sport_no_checksum": (ether(udp4(chksum=0)), ether(udp4(sport=1053, chksum=0))),
        "sctp_sport": (ether(sctp()), ether(sctp(sport=3868))),
        "nat_src": (tcp, ether(tcp4(src="198.51.100.1", sport=4000))),
        "nat_ping": (ether(ping()), ether(ping(src="198.51.100.1", ident=4000))),
        "nat_ping6": (ether(ping6()), ether(ping6(src="fd00::77", ident=4000))),
        "nat_error": (error, ether(unreachable("10.0.0.1", tcp4(sport=1000)))),
        "nat_error6": (error6, ether(unreachable6("fd00::1", udp6(sport=1000)))),
        "mpls_push": (tcp, ether(MPLS(label=0x12345, cos=3, s=1, ttl=9) / tcp4())),
        "vxlan": (tcp, outer4() / UDP(sport=port4, dport=4789) / VXLAN(flags=0x08, vni=42) / tcp),
        "vxlan_no_checksum": (tcp, outer4(df=False) / UDP(sport=port4, dport=4789, chksum=0) / VXLAN(flags=0x08, vni=42) / tcp),
        "vxlan_gbp": (tcp, outer4() / UDP(sport=port4, dport=4789) / VXLAN(flags=0x88, gpflags=0x08, gpid=0x99, vni=42) / tcp),
        "vxlan_over_ip6": (udp, outer6(fl=0x12345) / UDP(sport=port6, dport=4789) / VXLAN(flags=0x08, vni=42) / udp),
        "vxlan_gpe": (tcp, outer4() / UDP(sport=port4, dport=4790) / VXLAN(flags=0x0C, NextProtocol=3, vni=42) / tcp),
        "vxlan_gpe_ip": (tcp, outer4() / UDP(sport=port4, dport=4790) / VXLAN(flags=0x0C, NextProtocol=1, vni=42) / tcp4()),
        "vxlan_ecn": (ecn, outer4(tos=0x49) / UDP(sport=port4, dport=4789) / VXLAN(flags=0x08, vni=42) / ecn),
        "geneve": (tcp, outer4() / UDP(sport=port4, dport=6081) / geneve() / tcp),
        "gretap": (tcp, outer4() / GRE(proto=0x6558, key_present=1, key=0xDEADBEEF) / tcp),
        "gretap_checksum": (udp, outer6() / GRE(proto=0x6558, chksum_present=1) / udp),
        "gre_ip": (tcp, outer4() / GRE(proto=0x0800, key_present=1, key=7) / tcp4()),
    }
    for name, (before, after) in cases.items():
        print(name, bytes(before).hex(), bytes(after).hex())


main()
