//! `chanio flow`

use super::out::Out;
use super::watch::Watch;
use super::{CliError, Done, idle, or_dash};
use chanio::Nic;
use chanio::nic::KernelRule;
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Add a rule, in words like tc-flower's, and print its id
    ///
    /// Keys are tc-flower's (an unknown one is answered with the list), and prio, chain, in_port,
    /// cookie; then action drop, pass, redirect PORT, mirror PORT and so on, up to 32 times.
    /// A port is a channel's name or `uplink`. The lowest prio wins. For example:
    ///
    /// chanio flow add prio 10 in_port web1 dst_ip 10.0.0.0/8 ip_proto tcp action redirect web2
    Add {
        /// Each in the place of the one of its chain and priority that matches the same
        #[arg(long)]
        replace: bool,
        /// Rules from a file, one a line, # for comments; all or none
        #[arg(long, value_name = "FILE", conflicts_with = "words")]
        file: Option<PathBuf>,
        /// The rule
        #[arg(
            required_unless_present = "file",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        words: Vec<String>,
    },
    /// Remove rules
    Del {
        /// Which
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Remove all rules
    Flush,
    /// All rules with their counters
    Show {
        /// With those of each action
        #[arg(long)]
        actions: bool,
        /// Instead, what tc and bridges of the kernel have for representors, and what of it is in
        /// hardware (chanio-emu --offload)
        #[arg(long, conflicts_with = "actions")]
        kernel: bool,
        #[command(flatten)]
        watch: Watch,
    },
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Add {
            replace,
            file,
            words,
        } => {
            let rules = match file {
                None => vec![words.join(" ")],
                Some(path) => {
                    let text = std::fs::read_to_string(&path)
                        .map_err(|e| CliError::Usage(format!("file: {}: {e}", path.display())))?;
                    let lines = text
                        .lines()
                        .map(|l| l.split('#').next().unwrap_or("").trim());
                    lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
                }
            };
            let ids = nic.add_flows(rules, replace)?;
            if out.is_json() {
                return Ok(out.json(&serde_json::json!({ "ids": ids }))?);
            }
            let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
            Ok(out.text(&lines)?)
        }
        Command::Del { ids } => {
            nic.del_flows(&ids)?;
            Ok(out.done(&serde_json::json!({ "deleted": ids.len() }))?)
        }
        Command::Flush => {
            let deleted = nic.flush_flows()?;
            Ok(out.done(&serde_json::json!({ "deleted": deleted }))?)
        }
        Command::Show {
            actions,
            kernel,
            watch,
        } => watch.show(out, |out| match (actions, kernel) {
            (_, true) => show_kernel(nic, out),
            (true, _) if !out.is_json() => show_actions(nic, out),
            _ => show(nic, out),
        }),
    }
}

fn show_actions(nic: &mut dyn Nic, out: &mut Out) -> Done {
    let heading = ["ID", "ACTION", "PACKETS", "BYTES", "IDLE (s)"];
    let flows = nic.flows()?;
    let list = |f: &chanio::nic::Flow| {
        let id = f.id;
        f.action_stats
            .iter()
            .map(move |a| (id, a.clone()))
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = flows.iter().flat_map(list).collect();
    Ok(out.list(&all, heading, |(id, a)| {
        [
            id.to_string(),
            a.action.clone(),
            a.packets.to_string(),
            a.bytes.to_string(),
            idle(a.idle_ns),
        ]
    })?)
}

fn show(nic: &mut dyn Nic, out: &mut Out) -> Done {
    let heading = ["ID", "PACKETS", "BYTES", "IDLE (s)", "RULE"];
    Ok(out.list(&nic.flows()?, heading, |f| {
        [
            f.id.to_string(),
            f.packets.to_string(),
            f.bytes.to_string(),
            idle(f.idle_ns),
            f.rule.clone(),
        ]
    })?)
}

/// What the kernel has, as `tc filter show` calls it.
fn show_kernel(nic: &mut dyn Nic, out: &mut Out) -> Done {
    let heading = [
        "PLACE", "CHAIN", "PREF", "PROTOCOL", "KIND", "HANDLE", "IN HW", "PACKETS", "BYTES", "RULE",
    ];
    let of_filter = |rule: &KernelRule, text: String| match rule.kind.as_str() {
        "fdb" => "-".to_owned(),
        _ => text,
    };
    Ok(out.list(&nic.kernel_rules()?, heading, |rule| {
        [
            rule.place.clone(),
            of_filter(rule, rule.chain.to_string()),
            of_filter(rule, rule.priority.to_string()),
            of_filter(rule, protocol(rule.protocol)),
            rule.kind.clone(),
            of_filter(rule, format!("{:#x}", rule.handle)),
            in_hardware(rule),
            rule.packets.to_string(),
            rule.bytes.to_string(),
            or_dash(rule.rule.as_deref()),
        ]
    })?)
}

fn in_hardware(rule: &KernelRule) -> String {
    match (&rule.why_not, rule.in_hw_count) {
        (None, _) => "yes".to_owned(),
        (Some(why), 0) => format!("no: {why}"),
        (Some(why), count) => format!("{count} of {}: {why}", rule.ports),
    }
}

/// In tc's words.
fn protocol(ether_type: u32) -> String {
    match ether_type {
        3 => "all".to_owned(),
        0x0800 => "ip".to_owned(),
        0x86dd => "ipv6".to_owned(),
        0x0806 => "arp".to_owned(),
        0x8100 => "802.1Q".to_owned(),
        0x88a8 => "802.1ad".to_owned(),
        0x8847 => "mpls_uc".to_owned(),
        other => format!("{other:#06x}"),
    }
}
