//! Captured frames as a pcapng file: an interface for each port and side, the direction in the
//! packet's flags, and why it was lost in its comment.

use crate::nic::CapturedFrame;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

/// `if_tsresol`: units of 10^-9 s.
const NANOSECONDS: u8 = 9;
/// `epb_flags`, bits 0 and 1 (pcapng, "Enhanced Packet Block Flags Word"): as the port sees it.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Writes captured frames.
pub struct Writer<W: Write> {
    inner: PcapNgWriter<W>,
    interfaces: HashMap<String, u32>,
    missed: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn new(to: W) -> io::Result<Self> {
        Ok(Self {
            inner: PcapNgWriter::new(to).map_err(io_error)?,
            interfaces: HashMap::new(),
            missed: 0,
        })
    }

    /// Appends a frame; it is in the file when this returns, so that it can be read on the fly.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&mut self, frame: &CapturedFrame) -> io::Result<()> {
        let interface_id = self.interface(frame)?;
        let direction = match frame.point.as_str() {
            "tx" | "representor-tx" => Some(OUTBOUND),
            "rx" | "representor-rx" => Some(INBOUND),
            _ => None,
        };
        let mut options = Vec::new();
        if let Some(text) = comment(frame) {
            options.push(EnhancedPacketOption::Comment(text.into()));
        }
        options.extend(direction.map(EnhancedPacketOption::Flags));
        let missed = frame.missed.saturating_sub(self.missed);
        if missed > 0 {
            options.push(EnhancedPacketOption::DropCount(missed));
        }
        self.missed = frame.missed;
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(frame.at_ns),
            original_len: frame.len,
            data: Cow::Borrowed(&frame.data),
            options,
        };
        self.inner.write_pcapng_block(block).map_err(io_error)?;
        self.inner.get_mut().flush()
    }

    fn interface(&mut self, frame: &CapturedFrame) -> io::Result<u32> {
        let name = match frame.point.as_str() {
            "representor-tx" | "representor-rx" => format!("{} representor", frame.port),
            _ => frame.port.clone(),
        };
        if let Some(id) = self.interfaces.get(&name) {
            return Ok(*id);
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(name.as_str().into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.inner.write_pcapng_block(block).map_err(io_error)?;
        let id = self.interfaces.len() as u32;
        self.interfaces.insert(name, id);
        Ok(id)
    }
}

/// What a reader should know of a frame beside its bytes.
pub fn comment(frame: &CapturedFrame) -> Option<String> {
    let rule = frame.rule.map(|id| format!("rule {id}"));
    let missed = frame
        .no_rule_in
        .map(|chain| format!("no rule in chain {chain}"));
    let queue = frame.queue.map(|queue| format!("queue {queue}"));
    let lost = frame
        .reason
        .as_ref()
        .map(|reason| format!("lost: {reason}"));
    let parts: Vec<_> = [lost, rule, missed, queue].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    #[test]
    fn says_where_and_why() {
        let sent = CapturedFrame {
            at_ns: 1_700_000_000_123_456_789,
            port: "web1".into(),
            point: "tx".into(),
            queue: Some(1),
            len: 100,
            data: vec![1; 60],
            reason: None,
            rule: None,
            missed: 0,
            no_rule_in: None,
        };
        let lost = CapturedFrame {
            point: "drop".into(),
            reason: Some("rule_drop".into()),
            rule: Some(7),
            missed: 3,
            ..sent.clone()
        };
        let host = CapturedFrame {
            point: "representor-rx".into(),
            missed: 3,
            ..sent.clone()
        };
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for frame in [&sent, &lost, &host] {
            writer.write(frame).unwrap();
        }
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let (mut names, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(i) => names.push(format!("{:?}", i.options[0])),
                Block::EnhancedPacket(p) => packets.push(p.into_owned()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["IfName(\"web1\")", "IfName(\"web1 representor\")"]);
        let told: Vec<_> = packets
            .iter()
            .map(|p| (p.interface_id, p.original_len, p.data.len()))
            .collect();
        assert_eq!(told, [(0, 100, 60), (0, 100, 60), (1, 100, 60)]);
        assert_eq!(packets[0].timestamp.as_nanos(), 1_700_000_000_123_456_789);
        let text = format!("{:?}", packets[1].options);
        assert!(text.contains("lost: rule_drop, rule 7, queue 1"), "{text}");
        assert!(text.contains("DropCount(3)"), "{text}");
        assert!(!format!("{:?}", packets[2].options).contains("DropCount"));
    }
}
