//! The emulator in the kernel's place: unmodified devlink, ip, tc, bridge and shells, run by
//! `chanio run`, see the NIC that the profile's vendor driver would show.

use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::process::{program, wait_for};
use std::process::{Command, Output};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

struct Played {
    emu: Emulator,
    dir: tempfile::TempDir,
}

impl Played {
    /// An emulator that plays the kernel, with these options more.
    fn start(options: &str) -> Self {
        isolate();
        let dir = tempfile::tempdir().unwrap();
        let options = format!("--queues 64 --workers 1 --netlink {options}");
        let emu = Emulator::start(dir.path(), &options);
        Self { emu, dir }
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program("chanio"));
        command.arg("run").arg("--via").arg(self.emu.run_dir());
        let output = command.arg("--").args(words).output();
        output.expect("chanio run")
    }

    /// What a command line prints that must succeed.
    fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.done(line, &words)
    }

    /// The same of a shell's.
    fn shell(&self, line: &str) -> String {
        self.done(line, &["sh", "-c", line])
    }

    fn done(&self, line: &str, words: &[&str]) -> String {
        let output = self.output(words);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{line}: {told}{}",
            self.emu.output()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why a command line fails.
    fn refused(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.output(&words);
        assert!(!output.status.success(), "{line}: it was done");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Adds a subfunction and waits until it is there; its port's index.
    fn subfunction(&self, number: u32, mac: &str) -> u32 {
        let add = "devlink port add pci/0000:03:00.0 flavour pcisf pfnum 0 sfnum";
        let told = self.run(&format!("{add} {number}"));
        let index = told.split(['/', ':']).nth(4).and_then(|n| n.parse().ok());
        let index = index.unwrap_or_else(|| panic!("{told}"));
        let port = format!("pci/0000:03:00.0/{index}");
        self.run(&format!(
            "devlink port function set {port} hw_addr {mac} state active"
        ));
        wait_for("the driver of the subfunction", PATIENCE, || {
            self.run(&format!("devlink port show {port}"))
                .contains("opstate attached")
        });
        index
    }

    /// The netdev of a port.
    fn netdev(&self, port: u32) -> String {
        let told = self.run(&format!("devlink port show pci/0000:03:00.0/{port}"));
        let mut words = told.split_whitespace().skip_while(|word| *word != "netdev");
        words.nth(1).unwrap_or_else(|| panic!("{told}")).to_owned()
    }

    fn stop(self) {
        self.emu.stop();
        drop(self.dir);
    }
}

/// What Documentation/networking/device_drivers/ethernet/mellanox/mlx5/switchdev.rst and
/// devlink/devlink-port.rst show, but for the netdev's name, which is whoever's who names it.
#[test]
fn devlink_shows_a_subfunction_as_the_kernels_documentation_does() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx --pci 0000:06:00.0");
    let shown = |line: &str| played.run(line).replace("c0pf0sf1", "ens2f0npf0sf88");
    let port = "pci/0000:06:00.0/32768: type eth netdev ens2f0npf0sf88 flavour pcisf \
                controller 0 pfnum 0 sfnum 88 external false splittable false\n  function:\n";
    assert_eq!(
        played.run("devlink dev eswitch show pci/0000:06:00.0"),
        "pci/0000:06:00.0: mode legacy inline-mode none encap-mode basic\n"
    );
    played.run("devlink dev eswitch set pci/0000:06:00.0 mode switchdev");
    assert_eq!(
        shown("devlink port add pci/0000:06:00.0 flavour pcisf pfnum 0 sfnum 88"),
        format!("{port}    hw_addr 00:00:00:00:00:00 state inactive opstate detached\n")
    );
    played.run("devlink port function set c0pf0sf1 hw_addr 00:00:00:00:88:88");
    assert_eq!(
        shown("devlink port show c0pf0sf1"),
        format!("{port}    hw_addr 00:00:00:00:88:88 state inactive opstate detached\n")
    );
    played.run("devlink port function set c0pf0sf1 state active");
    let attached = format!("{port}    hw_addr 00:00:00:00:88:88 state active opstate attached\n");
    wait_for("the driver", PATIENCE, || {
        shown("devlink port show c0pf0sf1") == attached
    });
    assert_eq!(
        played.run("devlink dev show"),
        "pci/0000:06:00.0\nauxiliary/mlx5_core.sf.2\n"
    );
    assert_eq!(
        played.run("devlink port show auxiliary/mlx5_core.sf.2/1"),
        "auxiliary/mlx5_core.sf.2/1: type eth netdev enp6s0f0s88 flavour virtual port 0 \
         splittable false\n"
    );
    let link = played.run("ip -d link show enp6s0f0s88");
    assert!(link.contains("link/ether 00:00:00:00:88:88"), "{link}");
    assert!(
        link.contains("parentbus auxiliary parentdev mlx5_core.sf.2"),
        "{link}"
    );
    assert!(!link.contains("tun"), "{link}");
    let link = played.run("ip -d link show c0pf0sf1");
    assert!(
        link.contains("portname pf0sf88") && link.contains("switchid "),
        "{link}"
    );
    assert_eq!(
        played.shell("cat /sys/bus/auxiliary/devices/mlx5_core.sf.2/sfnum"),
        "88\n"
    );
    assert_eq!(
        played.shell("ls /sys/bus/auxiliary/devices/mlx5_core.sf.2/net"),
        "enp6s0f0s88\n"
    );
    // Without its driver the function has no netdev.
    played.run("devlink port function set c0pf0sf1 state inactive");
    assert!(
        played
            .refused("ip link show enp6s0f0s88")
            .contains("does not exist")
    );
    played.run("devlink port del c0pf0sf1");
    assert_eq!(
        played.run("devlink port show"),
        "pci/0000:06:00.0/65535: type eth netdev c0p0 flavour physical port 0 splittable false\n"
    );
    played.stop();
}

#[test]
fn virtual_functions_come_and_go_through_sysfs() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx");
    let device = "/sys/bus/pci/devices/0000:03:00.0";
    assert_eq!(
        played.shell(&format!("cat {device}/vendor {device}/device")),
        "0x15b3\n0x101d\n"
    );
    assert_eq!(
        played.shell("readlink /sys/class/net/c0p0/device/driver"),
        "../../../bus/pci/drivers/mlx5_core\n"
    );
    played.shell(&format!("echo 2 > {device}/sriov_numvfs"));
    assert_eq!(played.shell(&format!("cat {device}/sriov_numvfs")), "2\n");
    assert_eq!(
        played.shell(&format!("ls {device}/virtfn1/net")),
        "enp3s0f0v1\n"
    );
    assert_eq!(
        played.shell(&format!("readlink {device}/virtfn0")),
        "../0000:03:10.0\n"
    );
    // Another number while there are some, and more than there can be.
    let write = |count: &str| {
        format!(
            "import os\ntry: os.write(os.open('{device}/sriov_numvfs', os.O_WRONLY), b'{count}')\n\
             except OSError as e: print(e.errno)"
        )
    };
    for (count, errno) in [
        ("3", libc::EBUSY),
        ("500", libc::ERANGE),
        ("x", libc::EINVAL),
    ] {
        let told = played.done(count, &["python3", "-c", &write(count)]);
        assert_eq!(told.trim(), errno.to_string(), "{count}");
    }
    // Legacy mode: ports of the switch have no netdevs, virtual functions are the uplink's.
    // ip(8) finds the kernel's index of it, and then nothing.
    let told = played.refused("ip link show c0pf0sf1");
    assert!(told.contains("No such device"), "{told}");
    played.run("ip link set c0p0 vf 0 mac 02:00:00:00:00:aa vlan 5 spoofchk on trust on");
    played.run("ip link set c0p0 vf 1 max_tx_rate 1000 min_tx_rate 100 state disable");
    let link = played.run("ip link show c0p0");
    let vf = |number: u32, rest: &str| format!("vf {number}     link/ether {rest}");
    let wanted = [
        vf(
            0,
            "02:00:00:00:00:aa brd ff:ff:ff:ff:ff:ff, vlan 5, spoof checking on, link-state auto, \
             trust on",
        ),
        vf(
            1,
            "00:00:00:00:00:00 brd ff:ff:ff:ff:ff:ff, tx rate 1000 (Mbps), max_tx_rate 1000Mbps, \
             min_tx_rate 100Mbps, spoof checking off, link-state disable, trust off",
        ),
    ];
    for wanted in wanted {
        assert!(link.contains(&wanted), "{wanted}\n{link}");
    }
    assert!(
        played
            .run("ip link show enp3s0f0v0")
            .contains("02:00:00:00:00:aa")
    );
    // In switchdev mode representors appear, and what they do is not done in two ways.
    played.run("devlink dev eswitch set pci/0000:03:00.0 mode switchdev");
    let port = "pci/0000:03:00.0/1: type eth netdev c0pf0sf1 flavour pcivf controller 0 pfnum 0 \
                vfnum 0 external false splittable false\n  function:\n    hw_addr \
                02:00:00:00:00:aa\n";
    assert_eq!(played.run("devlink port show pci/0000:03:00.0/1"), port);
    assert!(
        played
            .run("ip -d link show c0pf0sf1")
            .contains("portname pf0vf0")
    );
    let told = played.refused("ip link set c0p0 vf 0 spoofchk off");
    assert!(told.contains("Operation not supported"), "{told}");
    played.shell(&format!("echo 0 > {device}/sriov_numvfs"));
    assert!(!played.run("devlink port show").contains("pcivf"));
    assert!(
        played
            .refused("ip link show enp3s0f0v0")
            .contains("does not exist")
    );
    played.stop();
}

#[test]
fn tc_puts_rules_into_the_switch_that_carry_a_containers_traffic() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx");
    played.run("devlink dev eswitch set pci/0000:03:00.0 mode switchdev");
    let pods = [Netns::new("pod1"), Netns::new("pod2")];
    let mut representors = Vec::new();
    for (number, pod) in (1..).zip(&pods) {
        let port = played.subfunction(number, &format!("02:00:00:00:00:0{number}"));
        representors.push(played.netdev(port));
        let netdev = format!("enp3s0f0s{number}");
        played.run(&format!("ip link set {netdev} netns pod{number}"));
        pod.run(&[
            "ip",
            "addr",
            "add",
            &format!("10.9.0.{number}/24"),
            "dev",
            &netdev,
        ]);
        pod.run(&["ip", "link", "set", &netdev, "up"]);
    }
    let [a, b] = [&representors[0], &representors[1]];
    for (from, to) in [(a, b), (b, a)] {
        let told = played.refused(&format!(
            "tc filter add dev {from} ingress flower skip_sw action mirred egress redirect dev {to}"
        ));
        assert!(told.contains("Parent Qdisc doesn't exists"), "{told}");
        played.run(&format!("tc qdisc add dev {from} clsact"));
        for proto in ["arp", "ip"] {
            let pref = if proto == "arp" { 1 } else { 2 };
            played.run(&format!(
                "tc filter add dev {from} ingress protocol {proto} pref {pref} flower skip_sw \
                 action mirred egress redirect dev {to}"
            ));
        }
    }
    pods[0].run(&["ping", "-c", "3", "-i", "0.2", "-W", "3", "10.9.0.2"]);
    let told = played.run(&format!("tc -s filter show dev {a} ingress"));
    assert!(told.contains("skip_sw\n  in_hw in_hw_count 1"), "{told}");
    assert!(told.contains("Sent 294 bytes 3 pkt"), "{told}");
    assert!(told.contains("used_hw_stats delayed"), "{told}");
    // The same filter again, one that cannot be, one that is gone.
    let same =
        format!("tc filter add dev {a} ingress protocol ip pref 2 flower skip_sw action drop");
    assert!(played.refused(&same).contains("File exists"));
    let no = format!(
        "tc filter add dev {a} ingress protocol ip pref 9 flower skip_sw ip_proto tcp \
         action ct commit pipe action ct commit"
    );
    let told = played.refused(&no);
    assert!(told.contains("mlx5_core: "), "{told}");
    played.run(&format!("tc filter del dev {a} ingress pref 2"));
    assert!(
        !played
            .run(&format!("tc filter show dev {a} ingress"))
            .contains("pref 2")
    );
    played.run(&format!("tc qdisc del dev {b} clsact"));
    let rules = played.emu.json("flow show");
    assert_eq!(rules.as_array().unwrap().len(), 1, "{rules}");
    played.stop();
}

#[test]
fn addresses_are_a_ports_or_a_bridges() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx");
    played.shell("echo 1 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs");
    played.run("bridge fdb add 02:00:00:00:00:77 dev enp3s0f0v0 self permanent");
    let told = played.run("bridge fdb show dev enp3s0f0v0");
    assert!(told.contains("02:00:00:00:00:77 self permanent"), "{told}");
    let told = played.emu.chanio("fdb show");
    assert!(told.contains("02:00:00:00:00:77"), "{told}");
    let again = played.refused("bridge fdb add 02:00:00:00:00:77 dev enp3s0f0v0 self permanent");
    assert!(again.contains("File exists"), "{again}");
    played.run("bridge fdb del 02:00:00:00:00:77 dev enp3s0f0v0 self");
    assert!(!played.emu.chanio("fdb show").contains("02:00:00:00:00:77"));
    // A bridge's is the kernel's.
    played.run("ip link add br0 type bridge");
    played.run("ip link set c0p0 master br0");
    played.run("bridge fdb add 02:00:00:00:00:78 dev c0p0 master static");
    let told = played.run("bridge fdb show br br0");
    assert!(
        told.contains("02:00:00:00:00:78 dev c0p0 master br0 static"),
        "{told}"
    );
    played.stop();
}

#[test]
fn each_driver_refuses_in_its_words() {
    if !chanio_testbed::can_run() {
        return;
    }
    let device = "pci/0000:03:00.0";
    let add = format!("devlink port add {device} flavour pcisf pfnum 0 sfnum");
    let played = Played::start("--profile intel-e810");
    let told = played.refused(&format!("{add} 1"));
    assert!(
        told.contains("ice: SF ports are only supported in eswitch switchdev mode"),
        "{told}"
    );
    assert!(
        played
            .run(&format!("devlink dev info {device}"))
            .contains("driver ice")
    );
    assert_eq!(
        played.run(&format!("devlink dev eswitch show {device}")),
        format!("{device}: mode legacy\n")
    );
    played.shell("echo 1 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs");
    let told = played.refused(&format!("devlink dev eswitch set {device} mode switchdev"));
    let words = "ice: Changing eswitch mode is allowed only if there is no VFs created";
    assert!(told.contains(words), "{told}");
    played.shell("echo 0 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs");
    played.run(&format!("devlink dev eswitch set {device} mode switchdev"));
    let port = played.subfunction(7, "02:00:00:00:00:07");
    let told = played.refused(&format!(
        "devlink port function set {device}/{port} hw_addr 02:00:00:00:00:08"
    ));
    assert!(
        told.contains("ice: Ethernet address can be change only in detached state"),
        "{told}"
    );
    assert!(
        played
            .run("devlink dev show")
            .contains("auxiliary/ice.sf.2")
    );
    played.stop();
}

#[test]
fn ethtool_sees_the_driver() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx --function-queues 4");
    played.run("devlink dev eswitch set pci/0000:03:00.0 mode switchdev");
    let port = played.subfunction(1, "02:00:00:00:00:01");
    let netdev = "enp3s0f0s1";
    let told = played.run(&format!("ethtool -i {netdev}"));
    for line in [
        "driver: mlx5_core\n",
        "firmware-version: 22.43.1014\n",
        "bus-info: mlx5_core.sf.2\n",
        "supports-statistics: yes\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    let told = played.run(&format!("ethtool -i {}", played.netdev(port)));
    assert!(told.contains("driver: mlx5e_rep\n"), "{told}");
    let told = played.run(&format!("ethtool -l {netdev}"));
    assert_eq!(told.matches("Combined:\t4").count(), 2, "{told}");
    played.run(&format!("ethtool -L {netdev} combined 2"));
    let told = played.run(&format!("ethtool -l {netdev}"));
    assert!(told.contains("Combined:\t2"), "{told}");
    let told = played.refused(&format!("ethtool -L {netdev} combined 5"));
    assert!(
        told.contains("requested channel count exceeds maximum"),
        "{told}"
    );
    let told = played.run(&format!("ethtool -x {netdev}"));
    assert!(told.contains("with 2 RX ring(s)"), "{told}");
    assert!(told.contains("toeplitz: on"), "{told}");
    assert!(told.contains("6d:5a:56:da:25:5b:0e:c2"), "{told}");
    played.run(&format!("ethtool -X {netdev} weight 1 0"));
    let rss = played.emu.json("channel show pf0sf1");
    let table = rss[0]["rss"]["table"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert!(
        !table.is_empty() && table.iter().all(|queue| queue == 0),
        "{rss}"
    );
    played.run(&format!("ethtool -N {netdev} rx-flow-hash udp4 sd"));
    let told = played.run(&format!("ethtool -n {netdev} rx-flow-hash udp4"));
    assert!(
        told.contains("IP DA") && !told.contains("L4 bytes"),
        "{told}"
    );
    let told = played.run(&format!("ethtool -n {netdev} rx-flow-hash tcp4"));
    assert!(told.contains("L4 bytes 0 & 1"), "{told}");
    let told = played.run(&format!("ethtool -S {netdev}"));
    assert!(
        told.contains("rx_packets: 0") && told.contains("tx3_bytes: 0"),
        "{told}"
    );
    // What the netdev can do is the real one's, and can be changed.
    played.run(&format!("ethtool -K {netdev} tso off"));
    let told = played.run(&format!("ethtool -k {netdev}"));
    assert!(told.contains("tcp-segmentation-offload: off"), "{told}");
    // Other netdevs are the kernel's.
    let direct = Command::new("ethtool").args(["-k", "lo"]).output().unwrap();
    assert_eq!(played.output(&["ethtool", "-k", "lo"]), direct);
    played.stop();
}

/// drivers/net/macvlan.c: macvlan_open; intel/i40e/i40e_main.c: i40e_fwd_add.
#[test]
fn i40e_gives_macvlan_devices_queues_of_its_own() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile intel-x710");
    let channels = || {
        let shown = played.emu.json("channel show");
        shown.as_array().map_or(0, Vec::len)
    };
    let feature = || {
        let told = played.run("ethtool -k c0p0");
        let line = told.lines().find(|line| line.starts_with("l2-fwd-offload"));
        line.map(str::to_owned).unwrap_or_default()
    };
    played.run("ip link set c0p0 up");
    let add = |name: &str, more: &str| {
        let address = "address 02:00:00:00:00:05";
        format!("ip link add link c0p0 name {name} {address} {more} type macvlan mode bridge")
    };
    assert_eq!(feature(), "l2-fwd-offload: off");
    // In software, the netdev listens to its address.
    played.run(&add("mv0", ""));
    played.run("ip link set mv0 up");
    let listens = || {
        played
            .run("bridge fdb show dev c0p0")
            .contains("02:00:00:00:00:05")
    };
    assert!(channels() == 0 && listens());
    played.run("ip link del mv0");

    played.run("ethtool -K c0p0 l2-fwd-offload on");
    assert_eq!(feature(), "l2-fwd-offload: on");
    played.run(&add("mv0", "mtu 1400"));
    played.run("ip link set mv0 up");
    assert!(channels() == 1 && !listens());
    let told = played.run("ip -d link show mv0");
    for part in [
        "mv0@c0p0:",
        "mtu 1400",
        "link/ether 02:00:00:00:00:05",
        "macvlan mode bridge",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        !told.contains("tun") && !told.contains("parentdev"),
        "{told}"
    );
    let told = played.run("ethtool -i mv0");
    assert!(told.contains("driver: macvlan\n"), "{told}");
    assert_eq!(
        played.shell("ls /sys/bus/pci/devices/0000:03:00.0/net"),
        "c0p0\n"
    );
    for refused in ["-l mv0", "-x mv0"] {
        let told = played.refused(&format!("ethtool {refused}"));
        assert!(told.contains("not supported"), "{told}");
    }
    let told = played.refused(&add("mv0", ""));
    assert!(told.contains("File exists"), "{told}");
    // The driver has no more than one queue for each.
    played.run("ip link add link c0p0 name mv1 numtxqueues 4 type macvlan mode bridge");
    assert_eq!(channels(), 1);
    played.run("ip link del mv1");
    played.refused("ethtool -K c0p0 l2-fwd-offload off");
    assert_eq!(feature(), "l2-fwd-offload: on");
    played.run("ip link del mv0");
    assert_eq!(channels(), 0);
    played.run("ethtool -K c0p0 l2-fwd-offload off");
    assert_eq!(feature(), "l2-fwd-offload: off");
    let told = played.run("ethtool -l c0p0");
    assert_eq!(told.matches("Combined:\t64").count(), 2, "{told}");
    played.stop();
}

#[test]
fn who_listens_is_told() {
    if !chanio_testbed::can_run() {
        return;
    }
    let played = Played::start("--profile mlx5-cx6dx");
    let log = played.dir.path().join("monitor.log");
    let monitor = |tool: &str, log: &std::path::Path| {
        let mut command = Command::new(program("chanio"));
        command.arg("run").arg("--via").arg(played.emu.run_dir());
        command.args(["--", "timeout", "4", "stdbuf", "-oL", tool, "monitor"]);
        if tool == "ip" {
            command.arg("link");
        }
        let file = std::fs::File::create(log).unwrap();
        command.stdout(file).spawn().expect("chanio run")
    };
    let links = played.dir.path().join("links.log");
    let mut devlink = monitor("devlink", &log);
    let mut ip = monitor("ip", &links);
    std::thread::sleep(Duration::from_millis(700));
    played.run("devlink dev eswitch set pci/0000:03:00.0 mode switchdev");
    let port = played.subfunction(5, "02:00:00:00:00:05");
    played.run(&format!("devlink port del pci/0000:03:00.0/{port}"));
    let _ = (devlink.wait(), ip.wait());
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("[port,new] pci/0000:03:00.0/32768"), "{told}");
    assert!(told.contains("state active"), "{told}");
    assert!(told.contains("[port,del] pci/0000:03:00.0/32768"), "{told}");
    let told = std::fs::read_to_string(&links).unwrap();
    assert!(
        told.contains("enp3s0f0s5") && told.contains("Deleted"),
        "{told}"
    );
    played.stop();
}
