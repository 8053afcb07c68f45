//! `chanio capture`

use super::out::{Out, Printed};
use super::{CliError, Done};
use chanio::Nic;
use chanio::nic::{CaptureFilter, CapturedFrame};
use chanio::pcapng::{self, Writer};
use chanio_model::flow::FlowKey;
use chanio_model::{VportId, wire};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Channels, representors or `uplink`; all if none is named
    ports: Vec<String>,
    /// Write pcapng there, `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only frames that are lost
    #[arg(long, conflicts_with = "points")]
    drops: bool,
    /// Only frames lost for this reason, as `stats` names it; may be given again
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// tx, rx (of the channel), representor-rx, representor-tx (as `ip -s link` counts them) or
    /// drop; may be given again
    #[arg(long = "point", value_name = "POINT")]
    points: Vec<String>,
    /// Only this queue pair
    #[arg(long)]
    queue: Option<u16>,
    /// End after so many frames
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: Option<u64>,
    /// So many bytes of each frame [default: all]
    #[arg(
        short,
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true
    )]
    snaplen: u32,
}

/// Where frames go.
enum Sink {
    File(Writer<Box<dyn Write>>),
    Json,
    Text,
}

impl Sink {
    fn show(&mut self, frame: &CapturedFrame) -> io::Result<()> {
        let line = match self {
            Sink::File(writer) => return writer.write(frame),
            // One object a line: a capture has no end that a list could close with.
            Sink::Json => serde_json::to_string(frame).map_err(io::Error::other)?,
            Sink::Text => line(frame),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }
}

pub fn run(args: Args, nic: &mut dyn Nic, out: &mut Out) -> Done {
    let mut points = args.points;
    if args.drops {
        points.push("drop".into());
    }
    let mut sink = match args.write {
        Some(path) if path.as_os_str() == "-" => {
            Sink::File(Writer::new(Box::new(io::stdout()) as Box<dyn Write>)?)
        }
        Some(path) => {
            let file = File::create(&path)
                .map_err(|e| CliError::Usage(format!("write: {}: {e}", path.display())))?;
            Sink::File(Writer::new(
                Box::new(io::BufWriter::new(file)) as Box<dyn Write>
            )?)
        }
        None if out.is_json() => Sink::Json,
        None => Sink::Text,
    };
    let filter = CaptureFilter {
        ports: args.ports,
        points,
        queue: args.queue,
        reasons: args.reasons,
        snaplen: args.snaplen,
        duration: args.duration.map(Duration::from_secs),
    };
    let (mut frames, mut missed, mut written) = (0u64, 0, Ok(()));
    nic.capture(filter, &mut |frame| {
        written = sink.show(&frame);
        frames += 1;
        missed = frame.missed;
        written.is_ok() && args.count.is_none_or(|count| frames < count)
    })?;
    written?;
    if missed > 0 {
        eprintln!("chanio: {missed} frames came faster than they could be shown");
    }
    Ok(Printed)
}

/// One line for people.
fn line(frame: &CapturedFrame) -> String {
    let (secs, nanos) = (frame.at_ns / 1_000_000_000, frame.at_ns % 1_000_000_000);
    let of_day = secs % 86_400;
    let (hours, minutes, secs) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let note = pcapng::comment(frame).map_or(String::new(), |note| format!(" [{note}]"));
    format!(
        "{hours:02}:{minutes:02}:{secs:02}.{nanos:09} {} {} {} bytes {}{note}",
        frame.port,
        frame.point,
        frame.len,
        headers(frame),
    )
}

/// Addresses and what is between them.
fn headers(frame: &CapturedFrame) -> String {
    let Ok(parsed) = wire::parse(&frame.data, frame.len, VportId::UPLINK) else {
        return "cut off".into();
    };
    let key = parsed.key;
    let mut text = format!("{} > {}", key.eth_src, key.eth_dst);
    if key.vlan & FlowKey::VLAN_PRESENT != 0 {
        text += &format!(" vlan {}", key.vid());
    }
    let v4 = |[a, b, c, d, ..]: [u8; 16]| Ipv4Addr::new(a, b, c, d).to_string();
    let v6 = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_string();
    let address = match key.eth_type {
        wire::eth_type::IPV4 => v4,
        wire::eth_type::IPV6 => v6,
        other => return format!("{text} ethertype {other:#06x}"),
    };
    let (from, to) = (address(key.ip_src), address(key.ip_dst));
    let proto = key.ip_proto;
    if wire::ip_proto::has_ports(proto) && parsed.l4_offset != 0 {
        format!(
            "{text} {from} port {} > {to} port {} proto {proto}",
            key.l4_src, key.l4_dst
        )
    } else {
        format!("{text} {from} > {to} proto {proto}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_where_and_why() {
        let mut data = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        data.extend([
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        data.extend([0, 80, 1, 0, 0, 8, 0, 0]);
        let frame = CapturedFrame {
            at_ns: 86_400_000_000_000 * 3 + 3_723_000_000_004,
            port: "web1".into(),
            point: "drop".into(),
            queue: None,
            len: 42,
            data,
            reason: Some("rule_drop".into()),
            rule: Some(3),
            missed: 0,
            no_rule_in: None,
        };
        assert_eq!(
            line(&frame),
            "01:02:03.000000004 web1 drop 42 bytes 02:00:00:00:00:01 > 02:00:00:00:00:02 \
             10.0.0.1 port 80 > 10.0.0.2 port 256 proto 17 [lost: rule_drop, rule 3]"
        );
    }
}
