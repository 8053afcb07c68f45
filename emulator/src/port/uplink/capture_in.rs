//! A capture file, pcap or pcapng, as what arrives from the wire. Files are as untrusted as
//! packets are: anything may be in them.

use crate::port::RECV_BUF_LEN;
use chanio_model::offload::VNET_HDR_LEN;
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest frame that is played, bytes: no port takes a longer one.
const MAX_FRAME: usize = RECV_BUF_LEN - VNET_HDR_LEN;
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;
/// Longest record or block that is read, bytes. Packets are shorter by far, but a pcapng block of
/// decryption secrets or of names may be long.
const MAX_BLOCK: usize = 16 << 20;
/// What a pcapng file begins with, in either byte order.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Why a capture cannot be played (on).
#[derive(Debug, thiserror::Error)]
#[error("{}: {place}: {why}", path.display())]
pub struct CaptureError {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub place: Place,
    /// What is wrong there.
    pub why: String,
}

/// A place in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as such, or its first header.
    Start,
    /// While reading packet number `packet` (from 1) or what stands before it; `offset` is where
    /// its record or block begins, bytes.
    Packet {
        /// From 1.
        packet: u64,
        /// Bytes from the file's start.
        offset: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Start => f.write_str("file header"),
            Place::Packet { packet, offset } => write!(f, "packet {packet} at byte {offset}"),
        }
    }
}

enum Format {
    Pcap(PcapParser),
    PcapNg(PcapNgParser),
}

/// What [`CaptureIn::recv`] gives next.
enum Next {
    /// The frame that has been read ahead.
    Frame,
    Failure(CaptureError),
    End,
}

/// The frames of a capture, once and in order, as fast as they are taken. A frame of which only
/// the beginning was captured is played as far as it is there.
pub struct CaptureIn {
    path: PathBuf,
    format: Format,
    window: Window<File>,
    /// Read ahead, so that what is wrong at the beginning of a file shows when it is opened.
    frame: Vec<u8>,
    next: Next,
    /// Number of the frame read last, from 1.
    packet: u64,
}

impl fmt::Debug for CaptureIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, packet, .. } = self;
        f.debug_struct("CaptureIn")
            .field("path", path)
            .field("packet", packet)
            .finish_non_exhaustive()
    }
}

impl CaptureIn {
    /// Opens the file and reads up to its first frame.
    ///
    /// # Errors
    /// It cannot be read, is neither pcap nor pcapng, or its link type is not Ethernet.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let start = |why: String| CaptureError {
            path: path.into(),
            place: Place::Start,
            why,
        };
        let file = File::open(path).map_err(|e| start(e.to_string()))?;
        let mut window = Window::new(file);
        let format = Format::read(&mut window).map_err(start)?;
        let mut capture = Self {
            path: path.into(),
            format,
            window,
            frame: Vec::new(),
            next: Next::End,
            packet: 0,
        };
        match capture.read_ahead() {
            Next::Failure(err) => Err(err),
            next => Ok(Self { next, ..capture }),
        }
    }

    /// Whether there is a frame left, or an error to tell.
    pub fn has_more(&self) -> bool {
        !matches!(self.next, Next::End)
    }

    /// Copies the next frame into `buf`, behind a virtio-net header of 12 zero bytes (a captured
    /// frame has nothing left to be done); the length counts both. `None`: that was all.
    ///
    /// # Errors
    /// The file is malformed at this point, and ends here.
    pub fn recv(&mut self, buf: &mut [u8]) -> Result<Option<usize>, CaptureError> {
        match std::mem::replace(&mut self.next, Next::End) {
            Next::End => Ok(None),
            Next::Failure(err) => Err(err),
            Next::Frame => {
                let len = VNET_HDR_LEN + self.frame.len();
                let Some(room) = buf.get_mut(..len) else {
                    return Err(
                        self.error(format!("the frame of {len} bytes needs a longer buffer"))
                    );
                };
                let (header, frame) = room.split_at_mut(VNET_HDR_LEN);
                header.fill(0);
                frame.copy_from_slice(&self.frame);
                self.next = self.read_ahead();
                Ok(Some(len))
            }
        }
    }

    fn read_ahead(&mut self) -> Next {
        self.packet += 1;
        let Self {
            format,
            window,
            frame,
            ..
        } = self;
        loop {
            match window.parse(|bytes| format.record(bytes, frame)) {
                Ok(Some(true)) => return Next::Frame,
                Ok(Some(false)) => {}
                Ok(None) => return Next::End,
                Err(why) => return Next::Failure(self.error(why)),
            }
        }
    }

    fn error(&self, why: String) -> CaptureError {
        let place = Place::Packet {
            packet: self.packet,
            offset: self.window.offset,
        };
        CaptureError {
            path: self.path.clone(),
            place,
            why,
        }
    }
}

impl Format {
    fn read<R: Read>(window: &mut Window<R>) -> Result<Self, String> {
        let format = window.parse(|bytes| {
            let magic: [u8; 4] = *bytes.first_chunk().ok_or(Stop::More)?;
            Ok(if magic == PCAPNG_MAGIC {
                let (rest, parser) = PcapNgParser::new(bytes)?;
                (rest.len(), Format::PcapNg(parser))
            } else {
                let (rest, parser) = PcapParser::new(bytes)?;
                // The upper half may tell the length of a frame check sequence.
                ethernet(DataLink::from(u32::from(parser.header().datalink) & 0xffff))?;
                (rest.len(), Format::Pcap(parser))
            })
        });
        format?.ok_or_else(|| "the file is empty".to_owned())
    }

    /// Parses one record or block from the front of `bytes`, and puts its packet, if it has one,
    /// into `frame`. Returns how many bytes are behind it, and whether there was a packet.
    fn record(&mut self, bytes: &[u8], frame: &mut Vec<u8>) -> Result<(usize, bool), Stop> {
        let mut put = |data: &[u8]| {
            if data.len() > MAX_FRAME {
                let len = data.len();
                return Err(Stop::Bad(format!(
                    "a frame of {len} bytes, more than {MAX_FRAME}"
                )));
            }
            frame.clear();
            frame.extend_from_slice(data);
            Ok(!data.is_empty())
        };
        match self {
            Format::Pcap(parser) => {
                let (rest, packet) = parser.next_raw_packet(bytes)?;
                Ok((rest.len(), put(&packet.data)?))
            }
            Format::PcapNg(parser) => {
                let (rest, block) = parser.next_block(bytes)?;
                let is_packet = match block {
                    Block::EnhancedPacket(packet) => {
                        interface(parser, packet.interface_id)?;
                        put(&packet.data)?
                    }
                    Block::Packet(packet) => {
                        interface(parser, packet.interface_id.into())?;
                        put(&packet.data)?
                    }
                    // It has no captured length, only padding to tell apart.
                    Block::SimplePacket(packet) => {
                        let snaplen = match interface(parser, 0)? {
                            0 => u32::MAX,
                            snaplen => snaplen,
                        };
                        let len = packet.original_len.min(snaplen) as usize;
                        put(&packet.data[..len.min(packet.data.len())])?
                    }
                    _ => false,
                };
                Ok((rest.len(), is_packet))
            }
        }
    }
}

/// The snapshot length of a packet's interface, which must be there and Ethernet.
fn interface(parser: &PcapNgParser, id: u32) -> Result<u32, Stop> {
    let interfaces = parser.interfaces();
    let interface = interfaces.get(id as usize).ok_or_else(|| {
        Stop::Bad(format!(
            "interface {id} is not described, there are {}",
            interfaces.len()
        ))
    })?;
    ethernet(interface.linktype)?;
    Ok(interface.snaplen)
}

fn ethernet(link: DataLink) -> Result<(), Stop> {
    if link == DataLink::ETHERNET {
        Ok(())
    } else {
        Err(Stop::Bad(format!(
            "link type {}, must be 1 (Ethernet)",
            u32::from(link)
        )))
    }
}

/// Why parsing stopped.
enum Stop {
    /// The bytes end too early.
    More,
    Bad(String),
}

impl From<PcapError> for Stop {
    fn from(err: PcapError) -> Self {
        match err {
            PcapError::IncompleteBuffer => Stop::More,
            PcapError::InvalidField(what) => Stop::Bad(what.to_owned()),
            err => Stop::Bad(err.to_string()),
        }
    }
}

/// The part of a file that is in memory.
struct Window<R> {
    source: R,
    bytes: Vec<u8>,
    /// Where the next record begins in `bytes`, and in the file.
    start: usize,
    offset: u64,
}

impl<R: Read> Window<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            bytes: Vec::new(),
            start: 0,
            offset: 0,
        }
    }

    /// Calls `parser` with what begins at the next record, and again with more of it as long as
    /// it stops for that. The parser returns how many bytes are left behind the record. `None`:
    /// the file ends here.
    fn parse<T>(
        &mut self,
        mut parser: impl FnMut(&[u8]) -> Result<(usize, T), Stop>,
    ) -> Result<Option<T>, String> {
        loop {
            let bytes = &self.bytes[self.start..];
            match parser(bytes) {
                Ok((rest, value)) => {
                    let used = bytes.len().saturating_sub(rest);
                    self.start += used;
                    self.offset += used as u64;
                    return Ok(Some(value));
                }
                Err(Stop::Bad(why)) => return Err(why),
                Err(Stop::More) if bytes.len() >= MAX_BLOCK => {
                    return Err(format!("damaged, or longer than {MAX_BLOCK} bytes"));
                }
                Err(Stop::More) => {
                    let had = bytes.len();
                    match (self.fill().map_err(|e| e.to_string())?, had) {
                        (0, 0) => return Ok(None),
                        (0, _) => return Err(format!("cut off: {had} bytes are left")),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Reads on; as much again as is there already, so that a long block does not cost the square
    /// of its length.
    fn fill(&mut self) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let want = self.bytes.len().clamp(CHUNK, MAX_BLOCK) as u64;
        self.source.by_ref().take(want).read_to_end(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn open(bytes: &[u8]) -> (tempfile::NamedTempFile, Result<CaptureIn, CaptureError>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let capture = CaptureIn::open(file.path());
        (file, capture)
    }

    /// All frames, and the text of the error at which the file ended, if one did.
    fn play(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
        let (_file, capture) = open(bytes);
        let mut frames = Vec::new();
        let mut capture = match capture {
            Ok(capture) => capture,
            Err(err) => return (frames, Some(err.to_string())),
        };
        let mut buf = vec![0xee; RECV_BUF_LEN];
        loop {
            let more = capture.has_more();
            match capture.recv(&mut buf) {
                Ok(Some(len)) => {
                    assert!(more);
                    assert_eq!(buf[..12], [0; 12]);
                    frames.push(buf[12..len].to_vec());
                }
                Ok(None) => {
                    assert!(!more);
                    return (frames, None);
                }
                Err(err) => {
                    assert!(!capture.has_more());
                    return (frames, Some(err.to_string()));
                }
            }
        }
    }

    /// Numbers in the byte order of a file.
    #[derive(Clone, Copy)]
    enum Order {
        Little,
        Big,
    }

    impl Order {
        fn u16(self, n: u16) -> [u8; 2] {
            match self {
                Order::Little => n.to_le_bytes(),
                Order::Big => n.to_be_bytes(),
            }
        }

        fn u32(self, n: u32) -> [u8; 4] {
            match self {
                Order::Little => n.to_le_bytes(),
                Order::Big => n.to_be_bytes(),
            }
        }

        fn words(self, words: &[u32]) -> Vec<u8> {
            words.iter().flat_map(|w| self.u32(*w)).collect()
        }
    }

    fn pcap(order: Order, magic: u32, link: u32, frames: &[&[u8]]) -> Vec<u8> {
        let mut file = order.words(&[magic]);
        file.extend([order.u16(2), order.u16(4)].concat());
        file.extend(order.words(&[0, 0, 65_535, link]));
        for frame in frames {
            let len = frame.len() as u32;
            file.extend(order.words(&[7, 8, len, len + 1]));
            file.extend(*frame);
        }
        file
    }

    fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (12 + body.len().next_multiple_of(4)) as u32;
        let mut block = order.words(&[kind, len]);
        block.extend(body);
        block.resize(len as usize - 4, 0);
        block.extend(order.u32(len));
        block
    }

    fn section(order: Order, link: u16) -> Vec<u8> {
        let mut body = order.u32(0x1a2b_3c4d).to_vec();
        body.extend([order.u16(1), order.u16(0)].concat());
        body.extend([0xff; 8]);
        let mut file = block(order, 0x0a0d_0d0a, &body);
        let idb = [order.u16(link).to_vec(), vec![0; 2], order.u32(60).to_vec()].concat();
        file.extend(block(order, 1, &idb));
        file
    }

    fn enhanced(order: Order, interface: u32, frame: &[u8]) -> Vec<u8> {
        let len = frame.len() as u32;
        let mut body = order.words(&[interface, 0, 0, len, len]);
        body.extend(frame);
        block(order, 6, &body)
    }

    const A: &[u8] = &[0xa5; 61];
    const B: &[u8] = &[0x5a; 1514];

    #[test]
    fn pcap_in_both_orders_and_resolutions() {
        for order in [Order::Little, Order::Big] {
            for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
                let (frames, err) = play(&pcap(order, magic, 1, &[A, B, A]));
                assert_eq!(
                    (frames, err),
                    (vec![A.to_vec(), B.to_vec(), A.to_vec()], None)
                );
            }
        }
        assert_eq!(
            play(&pcap(Order::Little, 0xa1b2_c3d4, 1, &[])),
            (vec![], None)
        );
    }

    #[test]
    fn pcapng_sections_and_packet_blocks() {
        let mut file = Vec::new();
        for order in [Order::Big, Order::Little] {
            file.extend(section(order, 1));
            file.extend(enhanced(order, 0, A));
            file.extend(block(order, 0xbad, b"unknown block"));
            // A simple packet of an interface that captures 60 bytes, and one with padding.
            file.extend(block(order, 3, &[&order.u32(1514)[..], &B[..60]].concat()));
            file.extend(block(order, 3, &[&order.u32(59)[..], &B[..59]].concat()));
        }
        let once = vec![A.to_vec(), B[..60].to_vec(), B[..59].to_vec()];
        assert_eq!(play(&file), ([once.clone(), once].concat(), None));
    }

    #[test]
    fn what_is_no_ethernet_capture_is_refused_with_its_place() {
        let why = |bytes: &[u8]| {
            let (frames, err) = play(bytes);
            assert!(frames.is_empty());
            err.expect("refused")
        };
        assert!(why(b"").ends_with("file header: the file is empty"));
        assert!(why(b"abc").ends_with("file header: cut off: 3 bytes are left"));
        assert!(why(b"#!/bin/sh and more than twenty-four bytes").contains("file header: "));
        let linux_sll = pcap(Order::Little, 0xa1b2_c3d4, 113, &[A]);
        assert!(why(&linux_sll).ends_with("file header: link type 113, must be 1 (Ethernet)"));
        let mut raw_ip = section(Order::Little, 101);
        let at = raw_ip.len();
        raw_ip.extend(enhanced(Order::Little, 0, A));
        let err = why(&raw_ip);
        assert!(err.ends_with(&format!(
            "packet 1 at byte {at}: link type 101, must be 1 (Ethernet)"
        )));
    }

    #[test]
    fn damage_names_packet_and_byte_and_keeps_what_came_before() {
        let whole = pcap(Order::Little, 0xa1b2_c3d4, 1, &[A, B]);
        let (frames, err) = play(&whole[..whole.len() - 1]);
        assert_eq!(frames, [A]);
        let left = 16 + B.len() - 1;
        let at = 24 + 16 + A.len();
        let want = format!("packet 2 at byte {at}: cut off: {left} bytes are left");
        assert!(err.unwrap().ends_with(&want));

        let mut file = section(Order::Big, 1);
        file.extend(enhanced(Order::Big, 0, A));
        let at = file.len();
        file.extend(enhanced(Order::Big, 1, A));
        let (frames, err) = play(&file);
        assert_eq!(frames, [A]);
        let want = format!("packet 2 at byte {at}: interface 1 is not described, there are 1");
        assert!(err.unwrap().ends_with(&want));

        let huge = vec![0; MAX_FRAME + 1];
        let (_, err) = play(&pcap(Order::Big, 0xa1b2_c3d4, 1, &[&huge]));
        assert!(err.unwrap().contains("packet 1 at byte 24: a frame of"));
        let (frames, _) = play(&pcap(Order::Big, 0xa1b2_c3d4, 1, &[&huge[1..]]));
        assert_eq!(frames.len(), 1);
    }

    proptest::proptest! {
        /// Whatever a file has in it, playing it ends.
        #[test]
        fn no_file_causes_a_panic(
            ng in proptest::bool::ANY,
            big in proptest::bool::ANY,
            damage in proptest::collection::vec((0usize..400, proptest::num::u8::ANY), 0..8),
            cut in 0usize..400,
        ) {
            let order = if big { Order::Big } else { Order::Little };
            let mut file = if ng {
                let packets = [enhanced(order, 0, A), enhanced(order, 0, &B[..99])].concat();
                [section(order, 1), packets].concat()
            } else {
                pcap(order, 0xa1b2_c3d4, 1, &[A, &B[..99]])
            };
            for (at, byte) in damage {
                let len = file.len();
                file[at % len] = byte;
            }
            file.truncate(cut);
            play(&file);
        }
    }
}
