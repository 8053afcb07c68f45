//! Frames in tunnels that arrive at the uplink, and the keys that look at their outer headers.

use super::frame::{checksum, with_checksum};
use super::tunnel::{FAR_MAC, NEAR_MAC, far, near, to_near};
use super::wish::Wish;
use proptest::prelude::*;
use proptest::sample::select;

/// The headers around a frame.
#[derive(Clone, Debug)]
pub struct Outer {
    /// As rules call it.
    pub kind: &'static str,
    /// Over IPv6.
    pub v6: bool,
    /// Which of the other ends it comes from, 0 or 1.
    pub from: u8,
    /// VNI, or GRE's key.
    pub id: u32,
    /// Type of service, traffic class.
    pub tos: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// UDP source port.
    pub port: u16,
    /// Whether there is a checksum, where there need not be.
    pub summed: bool,
    /// Geneve: options as on the wire.
    pub options: Vec<u8>,
    /// VXLAN: group policy.
    pub gbp: Option<u16>,
}

impl Outer {
    /// Whether what is inside has no Ethernet header.
    pub fn is_bare(&self) -> bool {
        self.kind == "vxlan-gpe"
    }

    /// The frame, or the IP packet in it, with these headers in front.
    pub fn wrap(&self, frame: &[u8]) -> Vec<u8> {
        let frame = if self.is_bare() { &frame[14..] } else { frame };
        let (proto, mut upper) = match self.kind {
            "gre" => (47, self.gre()),
            _ => (17, self.udp(frame.len(), frame[0] >> 4 == 6)),
        };
        upper.extend(frame);
        let (src, dst) = (far(self.v6, self.from), near(self.v6));
        let mut pseudo = [src.clone(), dst.clone()].concat();
        pseudo.extend((upper.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, proto]);
        if proto == 17 && (self.summed || self.v6) {
            with_checksum(&pseudo, &mut upper, 6);
        }
        let mut out = [NEAR_MAC, FAR_MAC].concat();
        if self.v6 {
            out.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            out.extend((upper.len() as u16).to_be_bytes());
            out.extend([proto, self.ttl]);
            out.extend([src, dst].concat());
        } else {
            let len = 20 + upper.len() as u16;
            out.extend([8, 0, 0x45, self.tos]);
            out.extend(len.to_be_bytes());
            out.extend([0, 7, 0, 0, self.ttl, proto, 0, 0]);
            out.extend([src, dst].concat());
            let sum = checksum(&out[14..]);
            out[24..26].copy_from_slice(&sum);
        }
        out.extend(upper);
        out
    }

    fn gre(&self) -> Vec<u8> {
        // RFC 2890: a key; transparent Ethernet bridging.
        let mut out = vec![0x20, 0, 0x65, 0x58];
        out.extend(self.id.to_be_bytes());
        out
    }

    fn udp(&self, payload: usize, bare_v6: bool) -> Vec<u8> {
        let [_, id @ ..] = self.id.to_be_bytes();
        let (port, mut header) = match self.kind {
            "geneve" => {
                let words = (self.options.len() / 4) as u8;
                (6081, vec![words, 0, 0x65, 0x58])
            }
            // The policy's bit and its 16 bits (draft-smith-vxlan-group-policy).
            // IP by its version (draft-ietf-nvo3-vxlan-gpe).
            "vxlan-gpe" => (4790, vec![0x0c, 0, 0, 1 + u8::from(bare_v6)]),
            _ => match self.gbp {
                Some(gbp) => (4789u16, [&[0x88, 0][..], &gbp.to_be_bytes()].concat()),
                None => (4789, vec![8, 0, 0, 0]),
            },
        };
        header.extend(id);
        header.push(0);
        header.extend(&self.options);
        let mut out = [self.port.to_be_bytes(), port.to_be_bytes()].concat();
        out.extend(((8 + header.len() + payload) as u16).to_be_bytes());
        out.extend([0, 0]);
        out.extend(header);
        out
    }

    /// Keys that these headers have, those that `wish` wants. One of them is there in any case, so
    /// that what has lost its outer headers does not have it.
    pub fn keys(&self, wish: &mut Wish, more: &mut Wish) -> Vec<String> {
        let mut keys = vec![
            format!("enc_kind {}", self.kind),
            format!("enc_key_id {}", self.id),
        ];
        let src = address(&far(self.v6, self.from));
        let width = if self.v6 { 128 } else { 32 };
        if wish.seldom(3) {
            let len = [width, width, width - 1, width / 2][more.below(4) as usize];
            keys.push(format!("enc_src_ip {src}/{len}"));
        }
        // GRE's netdevs are of one family each.
        if self.kind == "gre" || wish.seldom(3) {
            keys.push(to_near(self.v6));
        }
        if wish.seldom(3) && self.kind != "gre" {
            let port = match self.kind {
                "geneve" => 6081,
                "vxlan-gpe" => 4790,
                _ => 4789,
            };
            keys.push(format!("enc_dst_port {port}"));
        }
        if wish.seldom(3) {
            let mask = ["", "/0xfc", "/0x3"][more.below(3) as usize];
            keys.push(format!("enc_tos 0x{:x}{mask}", self.tos));
        }
        if wish.seldom(3) {
            let mask = ["", "/0xc0"][more.below(2) as usize];
            keys.push(format!("enc_ttl 0x{:x}{mask}", self.ttl));
        }
        if wish.yes() && !self.options.is_empty() {
            let mask = ["", "/ffff:ff:00ff00ff"][more.below(2) as usize];
            let one = self.options.len() == 8;
            let mask = if one { mask } else { "" };
            keys.push(format!("geneve_opts {}{mask}", options(&self.options)));
        }
        if let Some(gbp) = self.gbp
            && wish.yes()
        {
            let mask = ["", "/0xff"][more.below(2) as usize];
            keys.push(format!("vxlan_opts {gbp}{mask}"));
        }
        keys
    }
}

fn address(bytes: &[u8]) -> String {
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => std::net::Ipv6Addr::from(v6).to_string(),
        Err(_) => bytes
            .iter()
            .map(u8::to_string)
            .collect::<Vec<_>>()
            .join("."),
    }
}

/// Options of one word each as rules have them.
fn options(bytes: &[u8]) -> String {
    let option = |o: &[u8]| {
        let hex = super::protocol::to_hex(o);
        format!("{}:{}:{}", &hex[..4], &hex[4..6], &hex[8..])
    };
    bytes.chunks(8).map(option).collect::<Vec<_>>().join(",")
}

/// Headers around a frame.
pub fn outer() -> impl Strategy<Value = Outer> {
    let kind = select(&["vxlan", "vxlan", "geneve", "geneve", "gre", "vxlan-gpe"][..]);
    let ids = select(&[1u32, 5, 0xff_ffff][..]);
    // Congestion marks among them.
    let tos = select(&[0u8, 0x10, 0xb8, 0x01, 0x02, 0x03][..]);
    let ttl = select(&[64u8, 1, 255][..]);
    let options = prop_oneof![
        2 => Just(Vec::new()),
        2 => Just(vec![1, 2, 0x80, 1, 10, 11, 12, 13]),
        1 => Just(vec![1, 2, 0, 1, 1, 2, 3, 4, 1, 3, 1, 1, 5, 6, 7, 8]),
    ];
    let gbp = prop_oneof![1 => Just(None), 1 => (1u16..).prop_map(Some)];
    let ends = (prop::bool::weighted(0.3), 0u8..2, 1024u16..);
    (kind, ends, ids, tos, ttl, any::<bool>(), options, gbp).prop_map(
        |(kind, (v6, from, port), id, tos, ttl, summed, options, gbp)| Outer {
            kind,
            v6,
            from,
            id,
            tos,
            ttl,
            port,
            // GRE's netdevs take all packets with a checksum, or all without.
            summed: summed && kind != "gre",
            options: if kind == "geneve" {
                options
            } else {
                Vec::new()
            },
            gbp: gbp.filter(|_| kind == "vxlan"),
        },
    )
}
