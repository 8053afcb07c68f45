//! Packets to trace: out of hexadecimal digits, a capture, or the words of a match; and a trace in
//! words.

mod build;
mod describe;

use chanio_model::flow::{FlowKey, RuleSpec};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io;
use std::path::Path;

pub use build::frame as frame_of;
pub use describe::describe;

/// Why there is no packet.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not pairs of hexadecimal digits.
    #[error("hex: {0}")]
    Hex(String),
    /// A capture that cannot be read.
    #[error("pcap: {path}: {why}")]
    Capture {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not the words of a match.
    #[error("{0}")]
    Words(String),
}

/// A frame as hexadecimal digits; blanks and colons between them do not count.
///
/// # Errors
/// [`TraceError::Hex`].
pub fn frame_of_hex(text: &str) -> Result<Vec<u8>, TraceError> {
    let blank = |c: &char| !c.is_whitespace() && *c != ':';
    let digits: Vec<u8> = text.chars().filter(blank).map(|c| c as u8).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TraceError::Hex(format!(
            "{} digits, an even number is needed",
            digits.len()
        )));
    }
    let byte = |pair: &[u8; 2]| {
        let pair = std::str::from_utf8(pair).ok();
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        byte.ok_or_else(|| TraceError::Hex("there is something but 0-9 and a-f".into()))
    };
    pairs.iter().map(byte).collect()
}

/// The frames of a pcap or pcapng file.
///
/// # Errors
/// [`TraceError::Capture`].
pub fn frames_of_capture(path: &Path) -> Result<Vec<Vec<u8>>, TraceError> {
    let failed = |why: String| TraceError::Capture {
        path: path.display().to_string(),
        why,
    };
    let bytes = std::fs::read(path).map_err(|e: io::Error| failed(e.to_string()))?;
    let mut frames = Vec::new();
    // pcapng begins with a section header block, whose type reads the same in either byte order.
    if bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        let mut reader = PcapNgReader::new(&bytes[..]).map_err(|e| failed(e.to_string()))?;
        while let Some(block) = reader.next_block() {
            match block.map_err(|e| failed(e.to_string()))? {
                Block::EnhancedPacket(packet) => frames.push(packet.data.into_owned()),
                Block::SimplePacket(packet) => frames.push(packet.data.into_owned()),
                _ => {}
            }
        }
    } else {
        let mut reader = PcapReader::new(&bytes[..]).map_err(|e| failed(e.to_string()))?;
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(|e| failed(e.to_string()))?;
            frames.push(packet.data.into_owned());
        }
    }
    if frames.is_empty() {
        return Err(failed("there is no packet in it".into()));
    }
    Ok(frames)
}

/// A frame with the headers that a match asks for, in the words of flow rules.
///
/// # Errors
/// [`TraceError::Words`] for what is not a match, or asks for what no single frame shows.
pub fn frame_of_words(words: &str) -> Result<Vec<u8>, TraceError> {
    let rule = format!("{words} action drop");
    let spec: RuleSpec = rule
        .parse()
        .map_err(|e| TraceError::Words(format!("{e}")))?;
    let mut matches = spec.matches;
    if matches.mask.in_port != 0 || matches.mask.block != 0 {
        return Err(TraceError::Words(
            "in_port: the port is the first word of the command".into(),
        ));
    }
    if matches.is_tunnel() {
        return Err(TraceError::Words(
            "enc_*: give a packet in a tunnel as hex or from a capture".into(),
        ));
    }
    let mut key: FlowKey = matches.value;
    if let Some(more) = matches.more.take() {
        // Any port of the range will do.
        key.l4_src = more.src_ports.map_or(key.l4_src, |range| range.min);
        key.l4_dst = more.dst_ports.map_or(key.l4_dst, |range| range.min);
    }
    Ok(frame_of(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes() {
        assert_eq!(frame_of_hex("02:00 ff\n0A").unwrap(), [2, 0, 255, 10]);
        for (bad, text) in [("020", "3 digits"), ("0g", "something but")] {
            let error = frame_of_hex(bad).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn words_make_a_frame_or_say_why_not() {
        let frame = frame_of_words("dst_ip 10.0.0.9 ip_proto tcp dst_port 20-30").unwrap();
        assert_eq!((frame[23], &frame[30..34]), (6, &[10, 0, 0, 9][..]));
        assert_eq!(&frame[36..38], [0, 20]);
        for bad in [
            "in_port uplink",
            "enc_kind vxlan enc_key_id 7",
            "colour red",
        ] {
            assert!(frame_of_words(bad).is_err(), "{bad}");
        }
    }
}
