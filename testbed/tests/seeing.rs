//! Why was this dropped? Captures that tshark reads, traces, and the refusals of other NICs. All
//! through the two programs.

use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::{Netns, isolate};
use chanio_testbed::process::{Process, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Fields of every frame of a capture that a display filter takes, as tshark decodes it.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(file)
        .args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    run(&mut command).lines().map(str::to_owned).collect()
}

/// A process that captures, once it does.
fn capture(emu: &Emulator, dir: &Path, words: &str) -> Process {
    let process = Process::start("capture", dir, &mut emu.command(words));
    std::thread::sleep(Duration::from_millis(700));
    process
}

const UDP: &str = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                   [s.sendto(b'x' * 40, ('10.9.0.2', port)) for port in (9, 9, 9, 10)]";

#[test]
fn captures_and_traces_say_what_became_of_packets_and_why() {
    if !chanio_testbed::can_run() {
        return;
    }
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let (red, _blue) = (Netns::new("red"), Netns::new("blue"));
    let emu = Emulator::start(dir.path(), "--queues 16 --workers 1");
    emu.chanio("eswitch set --mode switchdev");
    for (n, name) in ["red", "blue"].into_iter().enumerate() {
        let at = format!("--attach tap:{name}:eth0 --address 10.9.0.{}/24", n + 1);
        emu.chanio(&format!("channel add {name} {at}"));
    }
    emu.chanio("flow add prio 9 in_port red action redirect blue");
    emu.chanio("flow add prio 9 in_port blue action redirect red");
    let drop = "prio 1 in_port red eth_type ipv4 ip_proto udp dst_port 9 action drop";
    let rule = emu.chanio(&format!("flow add {drop}")).trim().to_owned();
    red.run(&["ping", "-c", "1", "-W", "3", "10.9.0.2"]);

    let (all, drops) = (
        dir.path().join("all.pcapng"),
        dir.path().join("drops.pcapng"),
    );
    let mut everything = capture(
        &emu,
        dir.path(),
        &format!("capture -w {} --duration 4", all.display()),
    );
    let words = format!(
        "capture red --drops --reason rule_drop -c 3 -w {}",
        drops.display()
    );
    let mut lost = capture(&emu, dir.path(), &words);
    red.run(&["python3", "-c", UDP]);
    assert!(
        lost.wait(Duration::from_secs(10)).success(),
        "three frames end it"
    );
    assert!(everything.wait(Duration::from_secs(10)).success());

    let told = tshark(
        &drops,
        "udp.dstport == 9",
        &["frame.interface_name", "frame.comment"],
    );
    assert_eq!(
        told,
        vec![format!("red\tlost: rule_drop, rule {rule}, queue 0"); 3]
    );
    let bad = "_ws.malformed || ip.checksum.status == 0";
    assert_eq!(tshark(&all, bad, &["frame.number"]), Vec::<String>::new());
    // Sent by red, lost at red; what was not lost arrived at blue.
    let names = |port: u16| {
        let mut names = tshark(
            &all,
            &format!("udp.dstport == {port} && !icmp"),
            &["frame.interface_name"],
        );
        names.sort();
        names
    };
    assert_eq!(names(9), vec!["red"; 6]);
    assert_eq!(names(10), vec!["blue", "red"]);

    // A trace says the same, and leaves no trace.
    let before = emu.json("flow show");
    let words = "trace red src_ip 10.9.0.1 dst_ip 10.9.0.2 ip_proto udp dst_port 9";
    let steps = emu.json(words)[0].take();
    println!("{}", emu.chanio(words));
    assert_eq!(steps[0]["rule"].to_string(), rule);
    let end = steps.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&end["step"], &end["reason"]),
        (&"lost".into(), &"rule_drop".into())
    );
    let passes = emu.json("trace red dst_ip 10.9.0.2 ip_proto udp dst_port 10")[0].take();
    let end = passes.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&end["step"], &end["port"]),
        (&"output".into(), &"blue".into())
    );
    // The dropped frame itself, out of the capture.
    let again = emu.json(&format!("trace red --pcap {}", drops.display()));
    assert_eq!(again.as_array().unwrap().len(), 3);
    assert_eq!(again[2][0]["rule"].to_string(), rule);
    // Idle times go on; nothing was counted.
    let counts = |flows: &serde_json::Value| -> Vec<_> {
        let flows = flows.as_array().unwrap().iter();
        flows
            .map(|flow| (flow["packets"].clone(), flow["bytes"].clone()))
            .collect()
    };
    assert_eq!(counts(&before), counts(&emu.json("flow show")));
    // To the host, because a chain had no rule for it.
    let up = dir.path().join("up.pcapng");
    let channels = emu.json("channel show");
    let red_info = channels
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == "red");
    let representor = red_info.unwrap()["representor"].as_str().unwrap();
    run(Command::new("ip").args(["link", "set", representor, "up"]));
    let to_11 = "in_port red eth_type ipv4 ip_proto udp dst_port 11";
    emu.chanio(&format!("flow add prio 2 {to_11} action goto chain 4"));
    emu.chanio("flow add chain 4 in_port red eth_type ipv4 ip_proto tcp action drop");
    let words = format!(
        "capture red --point representor-rx -c 1 -w {}",
        up.display()
    );
    let mut missed = capture(&emu, dir.path(), &words);
    red.run(&["python3", "-c", &UDP.replace("(9, 9, 9, 10)", "(11,)")]);
    assert!(missed.wait(Duration::from_secs(10)).success());
    let told = tshark(&up, "udp.dstport == 11", &["frame.comment"]);
    assert_eq!(told, ["no rule in chain 4"]);
    let words = "trace red dst_ip 10.9.0.2 ip_proto udp dst_port 11";
    let text = emu.chanio(words);
    assert!(text.contains("no rule in chain 4: to the host"), "{text}");
    // Ports that share rules: the uplink is one if it is said to be.
    let words = "trace uplink dst_ip 10.9.0.3 ip_proto udp dst_port 10";
    let rule = emu.chanio("flow add prio 3 block 22 eth_type ipv4 action drop");
    assert!(emu.json(words)[0][0]["rule"].is_null());
    let now = emu.json("eswitch set --uplink-block 22");
    assert_eq!(now["uplink_block"], 22, "{now}");
    assert_eq!(emu.json(words)[0][0]["rule"].to_string(), rule.trim());
    let (code, why) = emu.refused("trace red --hex 0200");
    assert!(
        code == 1 && why.contains("2 bytes is not allowed, must be 14 to 65535"),
        "{why}"
    );
    let (code, why) = emu.refused("capture nobody");
    assert!(
        code == 1 && why.contains("no port is called `nobody`"),
        "{why}"
    );
    emu.stop();
}

#[test]
fn a_profile_refuses_what_its_driver_would() {
    let dir = tempfile::tempdir().unwrap();
    let emu = Emulator::start(
        dir.path(),
        "--queues 300 --representors off --profile mlx5-cx6dx",
    );
    assert_eq!(emu.json("nic show")[0]["profile"], "mlx5-cx6dx");
    assert_eq!(emu.json("nic show")[0]["capabilities"]["max_channels"], 252);
    emu.chanio("eswitch set --mode switchdev");
    emu.chanio("channel add web --count 252");
    let (code, why) = emu.refused("channel add one-more");
    assert!(code == 1 && why.contains("253 is beyond the 252"), "{why}");
    emu.chanio("flow add in_port web1 action redirect web2");
    for (rule, text) in [
        (
            "in_port web1 action redirect web1",
            "can't forward from a VF to itself",
        ),
        (
            "in_port web1 action mirror web2 action drop",
            "Rule cannot support forward+drop action",
        ),
        ("eth_type arp arp_op request action drop", "Unsupported key"),
    ] {
        let (code, why) = emu.refused(&format!("flow add {rule}"));
        assert!(
            code == 1 && why.contains(text) && why.contains(".c: "),
            "{why}"
        );
    }
    assert_eq!(emu.json("flow show").as_array().unwrap().len(), 1);
    emu.stop();

    let emu = Emulator::start(
        dir.path(),
        "--queues 4 --representors off --profile intel-x710",
    );
    let (code, why) = emu.refused("eswitch set --mode switchdev");
    assert!(
        code == 1 && why.contains("Operation not supported"),
        "{why}"
    );
    assert_eq!(emu.json("eswitch show")[0]["mode"], "legacy");
    emu.stop();
}
