//! `chanio trace`

use super::out::Out;
use super::{CliError, Done};
use chanio::Nic;
use chanio::trace::{describe, frame_of_hex, frame_of_words, frames_of_capture};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Where the packet comes in: a channel's name, or `uplink`
    port: String,
    /// The host sends it on the port's representor
    #[arg(long)]
    from_host: bool,
    /// The whole frame in hexadecimal
    #[arg(long, value_name = "DIGITS")]
    hex: Option<String>,
    /// Every frame of a pcap or pcapng file
    #[arg(long, value_name = "FILE", conflicts_with = "hex")]
    pcap: Option<PathBuf>,
    /// Its headers in the words of a flow rule's match, as
    /// dst_ip 10.0.0.1 ip_proto tcp dst_port 80; the rest is filled in
    #[arg(conflicts_with_all = ["hex", "pcap"], trailing_var_arg = true)]
    words: Vec<String>,
}

pub fn run(args: Args, nic: &mut dyn Nic, out: &mut Out) -> Done {
    let frames = match (&args.hex, &args.pcap) {
        (Some(hex), _) => vec![frame_of_hex(hex)],
        (_, Some(path)) => frames_of_capture(path).map_or_else(
            |error| vec![Err(error)],
            |frames| frames.into_iter().map(Ok).collect(),
        ),
        _ => vec![frame_of_words(&args.words.join(" "))],
    };
    let frames: Result<Vec<_>, _> = frames.into_iter().collect();
    let frames = frames.map_err(|e| CliError::Usage(e.to_string()))?;
    let mut traces = Vec::with_capacity(frames.len());
    for frame in frames {
        traces.push(nic.trace(&args.port, args.from_host, frame)?);
    }
    if out.is_json() {
        return Ok(out.json(&traces)?);
    }
    let texts: Vec<_> = traces.iter().map(|steps| describe(steps)).collect();
    Ok(out.text(&texts.join("\n"))?)
}
