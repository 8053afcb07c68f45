//! Many rules with several masks, and many flows.

use super::{Case, Contender, MPPS};
use crate::backend::chanio::{self, Switch};
use crate::backend::{Backend, mac, ovs};
use crate::bed::Bed;
use crate::client;
use crate::rig::{Rig, Trouble};
use chanio_model::wire::checksum::internet;
use chanio_testbed::testpmd::Testpmd;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

const RULES: u32 = 1000;
/// Ten to each rule.
const FLOWS: u32 = 10_000;
/// Bytes of a frame, without FCS.
const LENGTH: usize = 64;

/// What a rule leaves open of a five-tuple: these bits of a field. Each mask has room for the ten
/// flows of a rule.
#[derive(Clone, Copy)]
enum Open {
    SrcIp(u32),
    DstIp(u32),
    SrcPort(u16),
    DstPort(u16),
}

/// The masks, by turns.
const MASKS: [Open; 8] = [
    Open::SrcIp(4),
    Open::SrcIp(5),
    Open::DstIp(4),
    Open::DstIp(5),
    Open::SrcPort(4),
    Open::SrcPort(5),
    Open::DstPort(4),
    Open::DstPort(5),
];

/// A five-tuple of UDP.
struct Flow {
    src_ip: Ipv4Addr,
    dst_ip: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
}

/// The flow `variant` (0 to 9) of rule `rule`; 0 is the one that the rule is written with.
fn flow(rule: u32, variant: u32) -> (Flow, Open) {
    let open = MASKS[rule as usize % MASKS.len()];
    let mut src_ip = 0x0a01_0000 + (rule << 5);
    let mut dst_ip = 0x0a02_0000 + ((rule * 7 % RULES) << 5);
    let mut src_port = 1024 + ((rule * 11 % RULES) << 5) as u16;
    let mut dst_port = 2048 + ((rule % 20) << 5) as u16;
    match open {
        Open::SrcIp(_) => src_ip += variant,
        Open::DstIp(_) => dst_ip += variant,
        Open::SrcPort(_) => src_port += variant as u16,
        Open::DstPort(_) => dst_port += variant as u16,
    }
    let flow = Flow {
        src_ip: src_ip.into(),
        dst_ip: dst_ip.into(),
        src_port,
        dst_port,
    };
    (flow, open)
}

/// Prefixes of the addresses and masks of the ports.
fn masks(open: Open) -> (u32, u32, u16, u16) {
    let (mut src, mut dst, mut sport, mut dport) = (32, 32, u16::MAX, u16::MAX);
    match open {
        Open::SrcIp(bits) => src -= bits,
        Open::DstIp(bits) => dst -= bits,
        Open::SrcPort(bits) => sport <<= bits,
        Open::DstPort(bits) => dport <<= bits,
    }
    (src, dst, sport, dport)
}

/// From port 0 to port 1, in chanio's words.
fn chanio_rule(rule: u32) -> String {
    let (flow, open) = flow(rule, 0);
    let (src, dst, sport, dport) = masks(open);
    format!(
        "prio 10 in_port p0 src_ip {}/{src} dst_ip {}/{dst} ip_proto udp src_port {}/{sport:#x} \
         dst_port {}/{dport:#x} action redirect p1",
        flow.src_ip, flow.dst_ip, flow.src_port, flow.dst_port
    )
}

/// The same in Open vSwitch's.
fn ovs_rule(rule: u32) -> String {
    let (flow, open) = flow(rule, 0);
    let (src, dst, sport, dport) = masks(open);
    format!(
        "priority=10,udp,in_port=1,nw_src={}/{src},nw_dst={}/{dst},tp_src={}/{sport:#x},\
         tp_dst={}/{dport:#x},actions=output:2",
        flow.src_ip, flow.dst_ip, flow.src_port, flow.dst_port
    )
}

/// A UDP frame over IPv4 from port 0 to port 1, without UDP checksum.
fn frame(flow: &Flow) -> Vec<u8> {
    let address = |port| mac(port).parse::<chanio_model::Mac>().expect("an address");
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend(address(1).0);
    frame.extend(address(0).0);
    frame.extend([0x08, 0x00]);
    let ip_bytes = (LENGTH - 14) as u16;
    frame.extend([0x45, 0]);
    frame.extend(ip_bytes.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(flow.src_ip.octets());
    frame.extend(flow.dst_ip.octets());
    let sum = internet(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame.extend(flow.src_port.to_be_bytes());
    frame.extend(flow.dst_port.to_be_bytes());
    frame.extend((ip_bytes - 20).to_be_bytes());
    frame.resize(LENGTH, 0);
    frame
}

/// All flows, each once, those of a rule far apart.
fn write_pcap(path: &Path) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    // Classic pcap, version 2.4, Ethernet.
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    for n in 0..FLOWS {
        let frame = frame(&flow(n % RULES, n / RULES).0);
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame)?;
    }
    file.flush()
}

pub fn cases() -> Vec<Case> {
    let rules = |text: fn(u32) -> String| (0..RULES).map(text).collect::<Vec<_>>();
    vec![Case::new(
        "rules64",
        format!(
            "{FLOWS} UDP flows of 64 B through {RULES} five-tuple rules with {} masks, from port \
             to port, one way, as fast as the sender can: what arrives counts",
            MASKS.len()
        ),
        &[MPPS],
        vec![
            Contender::new("chanio", move |bed| {
                let rules = rules(chanio_rule);
                let backend = chanio::start(bed, 2, &Switch::Rules(&rules))?;
                OneWay::start(bed, backend, chanio::idle_rules)
            }),
            Contender::new("OVS-DPDK rules", move |bed| {
                let mut flows = rules(ovs_rule);
                flows.push("priority=1,actions=drop".into());
                let setup = ovs::Setup {
                    ports: 2,
                    flows: &flows,
                };
                OneWay::start(bed, ovs::start(bed, &setup)?, ovs::idle_rules)
            }),
        ],
    )]
}

/// Into port 0 goes what a file has, again and again; what comes out of port 1 is counted.
struct OneWay {
    client: Testpmd,
    backend: Backend,
    idle_rules: IdleRules,
}

/// How many rules of the backend nothing has matched.
type IdleRules = fn(&Backend) -> Result<usize, String>;

impl OneWay {
    fn start(bed: &Bed, backend: Backend, idle_rules: IdleRules) -> Result<Self, Trouble> {
        let pcap = bed.run_dir()?.join("flows.pcap");
        write_pcap(&pcap)?;
        // Ports 2 and 3.
        let source = format!("--vdev=net_pcap0,rx_pcap={},infinite_rx=1", pcap.display());
        let sink = "--vdev=net_null0,no-rx=1".to_owned();
        let mut client = client::connect(bed, &backend.sockets, false, &[source, sink])?;
        client.command("set fwd io\nset portlist 0,2,1,3\nstart");
        let mut rig = Self {
            client,
            backend,
            idle_rules,
        };
        rig.until_steady()?;
        Ok(rig)
    }

    /// Frames that arrive in a second.
    fn rate(&mut self, time: Duration) -> u64 {
        self.client.stats();
        std::thread::sleep(time);
        self.client.stats()[1].rx_rate
    }

    /// A switch with a cache is slow until it has seen all flows.
    fn until_steady(&mut self) -> Result<(), Trouble> {
        let mut last = 0;
        for _ in 0..40 {
            let rate = self.rate(Duration::from_millis(300));
            if rate > 0 && rate.abs_diff(last) * 10 < rate {
                return Ok(());
            }
            last = rate;
        }
        match last {
            0 => Err(Trouble::Failed("nothing arrives".into())),
            // A busy machine: the samples will say so.
            _ => Ok(()),
        }
    }
}

impl Rig for OneWay {
    fn processes(&self) -> Vec<u32> {
        vec![self.backend.pid(), self.client.pid()]
    }

    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        match self.rate(time) {
            0 => Err(Trouble::Failed("nothing arrives".into())),
            rate => Ok(vec![rate as f64 / 1e6]),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        match (self.idle_rules)(&self.backend)? {
            0 => Ok(()),
            idle => Err(format!("{idle} rules were never matched")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chanio_model::VportId;
    use chanio_model::flow::RuleSpec;
    use std::collections::HashSet;

    #[test]
    fn each_flow_is_another_and_fits_its_rule_alone() {
        let mut seen = HashSet::new();
        let names = |name: &str| Some(VportId(if name == "p0" { 1 } else { 2 }));
        for rule in 0..RULES {
            RuleSpec::parse(&chanio_rule(rule), &names).unwrap();
            let (base, open) = flow(rule, 0);
            let (src, dst, sport, dport) = masks(open);
            let net = |ip: Ipv4Addr, prefix: u32| u32::from(ip) >> (32 - prefix);
            for variant in 0..FLOWS / RULES {
                let (flow, _) = flow(rule, variant);
                assert_eq!(net(flow.src_ip, src), net(base.src_ip, src));
                assert_eq!(net(flow.dst_ip, dst), net(base.dst_ip, dst));
                assert_eq!(flow.src_port & sport, base.src_port);
                assert_eq!(flow.dst_port & dport, base.dst_port);
                assert!(seen.insert(frame(&flow)));
            }
        }
        assert_eq!(seen.len(), FLOWS as usize);
    }
}
