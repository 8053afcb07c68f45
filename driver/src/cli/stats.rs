//! `chanio stats`

use super::Done;
use super::out::Out;
use super::watch::Watch;
use chanio::Nic;
use chanio::nic::VportStats;

#[derive(clap::Args)]
pub struct Args {
    /// Channels or `uplink`; all if none is named
    names: Vec<String>,
    /// Only what was lost, and why
    #[arg(long)]
    drops: bool,
    /// Of each queue pair, in ethtool's names
    #[arg(long, conflicts_with = "drops")]
    queues: bool,
    #[command(flatten)]
    watch: Watch,
}

pub fn run(args: &Args, nic: &mut dyn Nic, out: &mut Out) -> Done {
    args.watch.show(out, |out| show(args, nic, out))
}

fn show(args: &Args, nic: &mut dyn Nic, out: &mut Out) -> Done {
    let stats = nic.stats(&args.names, args.queues)?;
    if out.is_json() {
        return Ok(out.json(&stats)?);
    }
    if args.drops {
        let rows: Vec<_> = stats
            .iter()
            .flat_map(|s| s.drops.iter().map(move |(reason, n)| (s, reason, *n)))
            .map(|(s, reason, n)| {
                let why = s.explanations.get(reason).cloned().unwrap_or_default();
                [s.name.clone(), reason.clone(), n.to_string(), why]
            })
            .collect();
        return Ok(out.list(
            &rows,
            ["NAME", "REASON", "PACKETS", "WHAT IT MEANS"],
            Clone::clone,
        )?);
    }
    if args.queues {
        let rows: Vec<_> = stats
            .iter()
            .flat_map(|s| s.queues.iter().map(move |(name, n)| (s, name, n)))
            .map(|(s, name, n)| [s.name.clone(), name.clone(), n.to_string()])
            .collect();
        return Ok(out.list(&rows, ["NAME", "COUNTER", "VALUE"], Clone::clone)?);
    }
    let heading = [
        "NAME",
        "TX PACKETS",
        "TX BYTES",
        "RX PACKETS",
        "RX BYTES",
        "DROPPED",
        "REPRESENTOR",
        "TO HOST",
        "FROM HOST",
    ];
    Ok(out.list(&stats, heading, |s: &VportStats| {
        let representor = s.representor.as_ref();
        [
            s.name.clone(),
            s.tx_packets.to_string(),
            s.tx_bytes.to_string(),
            s.rx_packets.to_string(),
            s.rx_bytes.to_string(),
            s.drops.values().sum::<u64>().to_string(),
            representor.map_or("-".into(), |r| r.name.clone()),
            representor.map_or("-".into(), |r| r.rx_packets.to_string()),
            representor.map_or("-".into(), |r| r.tx_packets.to_string()),
        ]
    })?)
}
