//! What goes onto the wire, as a pcapng file with time stamps in nanoseconds.

use crate::port::SendError;
use chanio_model::offload::{VNET_HDR_LEN, VnetHdr, flags, gso_type};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IoSlice, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a frame may stay in memory while others follow.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// `if_tsresol`: units of 10^-9 s.
const NANOSECONDS: u8 = 9;

/// The file.
pub struct CaptureOut {
    writer: PcapNgWriter<BufWriter<File>>,
    flushed: Instant,
    scratch: Vec<u8>,
}

impl fmt::Debug for CaptureOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureOut")
            .field("file", self.writer.get_ref().get_ref())
            .finish()
    }
}

impl CaptureOut {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(256 * 1024, File::create(path)?);
        let mut writer = PcapNgWriter::new(file).map_err(io_error)?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName("uplink".into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        writer.write_pcapng_block(interface).map_err(io_error)?;
        let mut capture = Self {
            writer,
            flushed: Instant::now(),
            scratch: Vec::new(),
        };
        capture.flush()?;
        Ok(capture)
    }

    /// Appends one frame, now. The slices together are a 12-byte virtio-net header and the frame.
    ///
    /// # Errors
    /// [`SendError::BadHeader`] for a frame whose checksum or segmentation is unfinished, as
    /// nobody would finish it; [`SendError::Other`] if the disk is full and the like.
    pub fn send(&mut self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.scratch.clear();
        for slice in frame {
            self.scratch.extend_from_slice(slice);
        }
        let (header, data) = self
            .scratch
            .split_at_checked(VNET_HDR_LEN)
            .ok_or(SendError::BadHeader)?;
        let header = VnetHdr::read(header);
        if header.flags & flags::NEEDS_CSUM != 0 || header.gso_type != gso_type::NONE {
            return Err(SendError::BadHeader);
        }
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            original_len: data.len() as u32,
            data: Cow::Borrowed(data),
            options: Vec::new(),
        };
        let written = self.writer.write_pcapng_block(packet);
        written.map_err(|e| SendError::Other(io_error(e)))?;
        if self.flushed.elapsed() >= FLUSH_INTERVAL {
            self.flush().map_err(SendError::Other)?;
        }
        Ok(())
    }

    /// Writes out what is in memory. (Dropping does that as well, but cannot tell of errors.)
    ///
    /// # Errors
    /// The system's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        self.writer.get_mut().flush()
    }
}

fn io_error(err: PcapError) -> io::Error {
    match err {
        PcapError::IoError(err) => err,
        err => io::Error::other(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::uplink::CaptureIn;

    #[test]
    fn what_is_written_can_be_played() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.pcapng");
        let mut out = CaptureOut::create(&path).unwrap();
        let frame: Vec<u8> = (0..99).collect();
        let whole = [&[0; 12], &frame[..]].concat();
        // However it is cut into slices.
        for cut in [0, 5, 12, 50, whole.len()] {
            let (a, b) = whole.split_at(cut);
            out.send(&[IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)])
                .unwrap();
        }
        let mut unfinished = whole.clone();
        unfinished[0] = flags::NEEDS_CSUM;
        for bad in [&unfinished[..], &whole[..11], &[]] {
            assert!(matches!(
                out.send(&[IoSlice::new(bad)]),
                Err(SendError::BadHeader)
            ));
        }
        out.flush().unwrap();
        let mut capture = CaptureIn::open(&path).unwrap();
        let mut buf = [0; 200];
        for _ in 0..5 {
            assert_eq!(capture.recv(&mut buf).unwrap(), Some(whole.len()));
            assert_eq!(buf[..whole.len()], whole);
        }
        assert_eq!(capture.recv(&mut buf).unwrap(), None);
    }
}
