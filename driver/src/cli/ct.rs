//! `chanio ct`

use super::Done;
use super::out::Out;
use chanio::Nic;
use chanio::nic::{Connection, ConnectionSide};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Connections, one a line, as `conntrack -L` shows them
    Show {
        /// Of this zone only
        #[arg(long, value_name = "ZONE")]
        zone: Option<u16>,
        /// Of this protocol only: tcp, udp, sctp, icmp, icmpv6, gre or a number
        #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
        proto: Option<u32>,
    },
    /// Forget connections
    Flush {
        /// Of this zone only
        #[arg(long, value_name = "ZONE")]
        zone: Option<u16>,
    },
}

/// IP protocols with names (IANA).
const NAMES: [(&str, u32); 6] = [
    ("icmp", ICMP),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("icmpv6", ICMPV6),
    ("sctp", 132),
];
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

fn protocol(text: &str) -> Result<u32, String> {
    let named = NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number);
    let number = named.or_else(|| text.parse().ok().filter(|number| *number <= 255));
    number.ok_or_else(|| "neither a number of 0 to 255 nor one of the names".to_owned())
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Show { zone, proto } => {
            let mut list = nic.connections(zone)?;
            list.retain(|connection| proto.is_none_or(|proto| connection.protocol == proto));
            list.sort_by_key(|connection| connection.id);
            if out.is_json() {
                return Ok(out.json(&list)?);
            }
            let lines: String = list
                .iter()
                .map(|connection| line(connection) + "\n")
                .collect();
            Ok(out.text(&lines)?)
        }
        Command::Flush { zone } => {
            let deleted = nic.flush_connections(zone)?;
            Ok(out.done(&serde_json::json!({ "deleted": deleted }))?)
        }
    }
}

/// As conntrack(8) has it: protocol, seconds left, state, both directions, flags.
fn line(connection: &Connection) -> String {
    let number = connection.protocol;
    let name = NAMES.iter().find(|(_, known)| *known == number);
    let name = name.map_or("unknown", |(name, _)| name);
    let mut words = vec![format!("{name:<8} {number}")];
    if !connection.offloaded {
        words.push((connection.expires_ns / 1_000_000_000).to_string());
        words.extend(connection.state.clone());
    }
    words.push(side(number, &connection.original));
    if !connection.seen_reply {
        words.push("[UNREPLIED]".to_owned());
    }
    words.push(side(number, &connection.reply));
    if connection.offloaded {
        words.push("[OFFLOAD]".to_owned());
    } else if connection.assured {
        words.push("[ASSURED]".to_owned());
    }
    words.push(format!("mark={}", connection.mark));
    if connection.label.iter().any(|byte| *byte != 0) {
        let digits = connection
            .label
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"));
        words.push(format!("labels=0x{}", digits.collect::<String>()));
    }
    if connection.zone != 0 {
        words.push(format!("zone={}", connection.zone));
    }
    words.join(" ")
}

fn side(protocol: u32, side: &ConnectionSide) -> String {
    let ConnectionSide {
        src,
        dst,
        src_port,
        dst_port,
        packets,
        bytes,
    } = side;
    let ports = match protocol {
        ICMP | ICMPV6 => {
            format!(
                "type={} code={} id={src_port}",
                dst_port >> 8,
                dst_port & 0xff
            )
        }
        6 | 17 | 132 => format!("sport={src_port} dport={dst_port}"),
        _ => String::new(),
    };
    let words = [
        format!("src={src} dst={dst}"),
        ports,
        format!("packets={packets} bytes={bytes}"),
    ];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_conntrack_has_them() {
        let side = |src: &str, dst: &str, src_port, dst_port| ConnectionSide {
            src: src.into(),
            dst: dst.into(),
            src_port,
            dst_port,
            packets: 3,
            bytes: 180,
        };
        let mut connection = Connection {
            id: 1,
            zone: 5,
            protocol: 6,
            state: Some("ESTABLISHED".into()),
            original: side("10.0.0.1", "10.0.0.2", 1234, 80),
            reply: side("10.0.0.2", "10.0.0.1", 80, 1234),
            seen_reply: true,
            assured: true,
            offloaded: false,
            expires_ns: 431_999_500_000_000,
            mark: 7,
            label: vec![0; 16],
        };
        assert_eq!(
            line(&connection),
            "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1234 dport=80 packets=3 \
             bytes=180 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1234 packets=3 bytes=180 [ASSURED] \
             mark=7 zone=5"
        );
        connection.protocol = ICMP;
        (connection.state, connection.seen_reply, connection.assured) = (None, false, false);
        (connection.zone, connection.label[0]) = (0, 1);
        connection.original = side("10.0.0.1", "10.0.0.2", 99, 8 << 8);
        connection.reply = side("10.0.0.2", "10.0.0.1", 99, 0);
        assert_eq!(
            line(&connection),
            "icmp     1 431999 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=99 packets=3 bytes=180 \
             [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=99 packets=3 bytes=180 mark=7 \
             labels=0x00000000000000000000000000000001"
        );
        assert_eq!((protocol("sctp"), protocol("255")), (Ok(132), Ok(255)));
        assert!(protocol("256").is_err() && protocol("TCP").is_err());
    }
}
