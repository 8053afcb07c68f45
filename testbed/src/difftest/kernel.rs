//! A booted guest that takes orders.

use super::protocol::{Order, Report};
use super::tunnel;
use crate::guest::{BOOT, Guest};
use crate::process::{Process, program};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A kernel with ports `p0`, `p1`, … whose rules are on shared block 1.
pub struct Kernel {
    guest: Process,
    orders: UnixStream,
    reports: BufReader<UnixStream>,
}

impl Kernel {
    /// Boot it; its files go to `dir`.
    pub fn boot(dir: &Path, ports: usize) -> Self {
        let socket = dir.join("port.sock");
        let listener = UnixListener::bind(&socket).expect("socket");
        let script = format!(
            "load virtio_console tun vxlan geneve ip_gre ip6_gre nft_fwd_netdev sch_ingress cls_flower \
             cls_matchall act_csum act_ct act_gact act_mirred act_mpls act_pedit act_police \
             act_sample act_tunnel_key act_vlan\n\
             chanio-tc-agent /dev/vport0p1 {ports} &\n\
             until nft list table netdev up > /dev/null 2>&1; do sleep 0.1; done\n\
             {}\
             echo 'guest: has its netdevs'\n\
             wait\n",
            tunnel::script()
        );
        let mut guest = Guest {
            port: Some(&socket),
            programs: &[program("chanio-tc-agent")],
            cpus: 1,
            ..Guest::new(dir, &script)
        }
        .boot();
        let ready = ["agent: ready", "guest: has its netdevs"];
        guest.wait_output("the agent", 0, BOOT, |t| {
            ready.iter().all(|r| t.contains(r))
        });
        let (orders, _) = listener.accept().expect("QEMU has connected");
        let reports = BufReader::new(orders.try_clone().expect("socket"));
        Self {
            guest,
            orders,
            reports,
        }
    }

    /// Have it do all of these; one report for each.
    ///
    /// # Panics
    /// With what the guest has said, if it ends.
    pub fn run(&mut self, orders: &[Order]) -> Vec<Report> {
        let mut text = String::new();
        for order in orders {
            text.push_str(&serde_json::to_string(order).expect("plain data"));
            text.push('\n');
        }
        let mut input = self.orders.try_clone().expect("socket");
        // Written beside reading, as the guest stops reading while it cannot write.
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let mut line = String::new();
        let reports = orders.iter().map(|_| {
            line.clear();
            let read = self.reports.read_line(&mut line);
            let report = serde_json::from_str(&line);
            report.unwrap_or_else(|e| panic!("{e}, {read:?}: `{line}`\n{}", self.guest.output()))
        });
        let reports = reports.collect();
        writer.join().expect("writer").expect("orders");
        reports
    }
}
