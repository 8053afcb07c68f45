//! The suite inside a Debian guest, on devices that are a kernel's own: `veth:NAME` with tc flower
//! and bridges that look at tags, and netdevsim.

use super::report::Report;
use crate::guest::{Guest, Kernel};
use crate::process::program;
use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// Whose device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Column {
    /// veth pairs, a bridge and tc of Debian's kernel, with a wire.
    Veth,
    /// netdevsim, with as many virtual functions as the suite makes channels.
    Netdevsim,
}

/// How many virtual functions netdevsim is given: more than any case makes channels, and few
/// enough for the case that makes all of them.
pub const FUNCTIONS: u32 = 64;

impl Column {
    /// The device, as `--device` has it.
    pub fn device(self) -> &'static str {
        match self {
            Column::Veth => "veth:br0",
            Column::Netdevsim => "netdevsim/netdevsim10",
        }
    }

    /// The kernel that has it.
    pub fn kernel(self) -> Kernel {
        match self {
            Column::Veth => Kernel::Cloud,
            Column::Netdevsim => Kernel::Netdevsim,
        }
    }

    /// What makes it, as a shell script.
    pub fn script(self) -> String {
        match self {
            // The bridge's one port that is no channel's is the uplink, whose VLANs are its
            // owner's affair.
            Column::Veth => "load tun veth bridge nft_dup_netdev sch_ingress sch_tbf cls_flower \
                 cls_matchall act_csum act_ct act_gact act_mirred act_mpls act_pedit act_police \
                 act_sample act_tunnel_key act_vlan\n\
                 ip link add wire0 type veth peer name wire1\n\
                 ip link add br0 type bridge vlan_filtering 1 mcast_snooping 0\n\
                 ip link set wire1 master br0\n\
                 bridge vlan add dev wire1 vid 2-4094\n\
                 for netdev in wire0 wire1 br0; do ip link set $netdev up; done\n"
                .into(),
            Column::Netdevsim => format!(
                "mount -t debugfs debug /sys/kernel/debug\n\
                 load netdevsim bridge\n\
                 echo '10 1' > /sys/bus/netdevsim/new_device\n\
                 echo {FUNCTIONS} > /sys/kernel/debug/netdevsim/netdevsim10/max_vfs\n\
                 echo {FUNCTIONS} > /sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs\n"
            ),
        }
    }

    fn wire(self) -> Option<&'static str> {
        match self {
            Column::Veth => Some("wire0"),
            Column::Netdevsim => None,
        }
    }
}

/// Lines of a script that makes so many channels at once on a device of netdevsim's without any, for
/// each of these numbers, and says how long that took: `netdevsim: N channels in S s`.
pub fn allocation(counts: &[u32]) -> String {
    let mut script = String::from(
        "now() { read up rest < /proc/uptime; echo $up; }\n\
         many() {\n\
         echo '11 1' > /sys/bus/netdevsim/new_device\n\
         echo $1 > /sys/kernel/debug/netdevsim/netdevsim11/max_vfs\n\
         devlink dev eswitch set netdevsim/netdevsim11 mode switchdev\n\
         from=$(now)\n\
         if chanio --device netdevsim/netdevsim11 channel add many --attach none --count $1 > /dev/null\n\
         then echo \"netdevsim: $1 channels in $(echo $from $(now) | awk '{ print $2 - $1 }') s\"\n\
         else echo \"netdevsim: $1 channels are refused\"; fi\n\
         echo 11 > /sys/bus/netdevsim/del_device\n\
         }\n",
    );
    for count in counts {
        let _ = writeln!(script, "many {count}");
    }
    script
}

/// What is to be run in the guest.
#[derive(Clone, Debug)]
pub struct Order {
    /// On what.
    pub column: Column,
    /// As `--case`; all if there is none.
    pub cases: Vec<String>,
    /// What random choices are made from.
    pub seed: u64,
    /// How long it may take, boot and all. The guest's processor is emulated.
    pub patience: Duration,
    /// Further lines of the script, behind the suite.
    pub then: String,
}

/// Boots a guest, has it run the suite, and gives its report and what the guest has said.
///
/// # Errors
/// There is no image for it, or no report came; with all that the guest has said.
///
/// # Panics
/// If QEMU or this workspace's programs are missing.
pub fn run(dir: &Path, order: &Order) -> Result<(Report, String), String> {
    // What it says is better than a panic.
    order.column.kernel().image()?;
    let socket = dir.join("report.sock");
    let listener = UnixListener::bind(&socket).map_err(|e| format!("{}: {e}", socket.display()))?;
    let mut options = format!("--seed {} --verbose", order.seed);
    if let Some(wire) = order.column.wire() {
        let _ = write!(options, " --wire {wire}");
    }
    for case in &order.cases {
        let _ = write!(options, " --case {case}");
    }
    let script = format!(
        "load virtio_console\n{}code=0\n\
         chanio --device {} --json conform {options} > /dev/vport0p1 || code=$?\n\
         echo \"suite: exit $code\"\n{}",
        order.column.script(),
        order.column.device(),
        order.then
    );
    let mut guest = Guest {
        port: Some(&socket),
        programs: &[program("chanio"), program("chanio-conform")],
        // What a frame does is then over by the time that it is sent.
        cpus: 1,
        memory: 512,
        kernel: order.column.kernel(),
        ..Guest::new(dir, &script)
    }
    .boot();
    // Read beside waiting, as the guest stops while nobody takes what it writes. It ends with QEMU.
    let reading = std::thread::spawn(move || -> std::io::Result<String> {
        let mut text = String::new();
        listener.accept()?.0.read_to_string(&mut text)?;
        Ok(text)
    });
    let ended = |text: &str| text.contains("guest: done") || text.contains("guest: failed");
    let said = guest.wait_output("the suite's end", 0, order.patience, ended);
    let status = guest.wait(Duration::from_secs(20));
    let text = reading.join().map_err(|_| "reading the report panicked")?;
    let text = text.map_err(|e| format!("reading the report: {e}"))?;
    if !said.contains("guest: done") {
        return Err(format!("the script failed ({status}):\n{said}"));
    }
    let report = serde_json::from_str(&text);
    let report = report.map_err(|e| format!("no report: {e}\n{text}\n{said}"))?;
    Ok((report, said))
}
