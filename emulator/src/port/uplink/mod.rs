//! The wire.
//!
//! | file | what lives there |
//! |---|---|
//! | `spec` | the text form of `--uplink` |
//! | `packet` | an existing netdev through AF_PACKET; `packet_sys` has its system calls |
//! | `xdp` | an existing netdev through AF_XDP: `bpf` the program in it, `umem` memory and rings |
//! | `capture_in`, `capture_out` | capture files in place of a wire |

mod capture_in;
mod capture_out;
mod packet;
mod packet_sys;
mod spec;
mod xdp;

pub use capture_in::{CaptureError, CaptureIn};
pub use capture_out::CaptureOut;
pub use packet::PacketPort;
pub use spec::UplinkSpecError;
pub use xdp::{Sending, XdpPort};

use super::{SendError, Tap};
use crate::nic::Refused;
use crate::nic::spec::UplinkSpec;
use chanio_model::DropReason;
use chanio_model::offload::RxOffloads;
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

/// The wire's side of the switch; any number of threads may use it at once.
#[derive(Debug)]
pub enum Uplink {
    /// No wire: nothing arrives, and what is sent is gone.
    None,
    /// What the host sends on this netdev arrives from the wire.
    Tap(Tap),
    /// A netdev of the host.
    Packet(PacketPort),
    /// A netdev of the host, taken from the stack.
    Xdp(Box<XdpPort>),
    /// Capture files in its place.
    Capture(Box<CaptureFiles>),
}

/// What arrives from the wire, and where sent frames go.
#[derive(Debug)]
pub struct CaptureFiles {
    input: Option<Mutex<CaptureIn>>,
    output: Option<Mutex<CaptureOut>>,
}

impl Uplink {
    /// Opens what `--uplink` asks for, in the calling thread's network namespace. The TAP is made
    /// here and down, as every new netdev.
    ///
    /// # Errors
    /// [`Refused::Invalid`]: the TAP exists, the netdev does not, the file is no capture of
    /// Ethernet; [`Refused::Missing`]: a privilege; [`Refused::Os`] otherwise.
    pub fn open(spec: &UplinkSpec) -> Result<Self, Refused> {
        let ifname = |name: &str| {
            name.parse().map_err(|_| Refused::Invalid {
                field: "uplink",
                value: name.to_owned(),
                allowed: "a netdev's name".into(),
            })
        };
        match spec {
            UplinkSpec::None => Ok(Uplink::None),
            UplinkSpec::Tap(name) => Ok(Uplink::Tap(Tap::create(&ifname(name)?)?)),
            UplinkSpec::Packet(name) => Ok(Uplink::Packet(PacketPort::open(&ifname(name)?)?)),
            UplinkSpec::Xdp(name) => Ok(Uplink::Xdp(Box::new(XdpPort::open(&ifname(name)?)?))),
            UplinkSpec::Pcap { input, output } => {
                let input = input.as_deref().map(CaptureIn::open).transpose();
                let input = input.map_err(|err| Refused::Invalid {
                    field: "uplink",
                    value: spec.to_string(),
                    allowed: format!("a capture that can be read ({err})"),
                })?;
                let output = output.as_deref().map(|path| {
                    CaptureOut::create(path)
                        .map_err(|e| Refused::os(format!("creating {}", path.display()), e))
                });
                let output = output.transpose()?.map(Mutex::new);
                let input = input.map(Mutex::new);
                Ok(Uplink::Capture(Box::new(CaptureFiles { input, output })))
            }
        }
    }

    /// Takes one frame from the wire, behind its 12-byte virtio-net header; the length counts
    /// both. `buf` should have [`super::RECV_BUF_LEN`] bytes. `None`: nothing is waiting.
    ///
    /// # Errors
    /// The netdev is gone; a capture file is malformed ([`CaptureError`] inside), after which it
    /// has ended.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Uplink::None => Ok(None),
            Uplink::Tap(tap) => tap.recv(buf),
            Uplink::Packet(port) => port.recv(buf),
            Uplink::Xdp(port) => Ok(port.recv(buf)),
            Uplink::Capture(files) => match &files.input {
                Some(input) => input.lock().recv(buf).map_err(|error| {
                    // Said once: it has ended now.
                    tracing::error!(%error, "the rest of the uplink's capture is not played");
                    io::Error::other(error)
                }),
                None => Ok(None),
            },
        }
    }

    /// Puts one frame on the wire: the slices together are a 12-byte virtio-net header and the
    /// frame.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        match self {
            Uplink::None => Ok(()),
            Uplink::Tap(tap) => tap.send(frame),
            Uplink::Packet(port) => port.send(frame),
            Uplink::Xdp(port) => port.send(frame),
            Uplink::Capture(files) => match &files.output {
                Some(output) => output.lock().send(frame),
                None => Ok(()),
            },
        }
    }

    /// What to wait on for frames; nothing: see [`Uplink::has_more`].
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Uplink::None | Uplink::Capture(_) => Vec::new(),
            Uplink::Tap(tap) => vec![tap.as_fd()],
            Uplink::Packet(port) => vec![port.as_fd()],
            Uplink::Xdp(port) => port.fds().collect(),
        }
    }

    /// Whether a capture file has frames left, which `recv` gives as fast as they are taken.
    pub fn has_more(&self) -> bool {
        let Uplink::Capture(files) = self else {
            return false;
        };
        files
            .input
            .as_ref()
            .is_some_and(|input| input.lock().has_more())
    }

    /// What sent frames may leave to be done. (What received ones leave is in their headers.)
    pub fn offloads(&self) -> RxOffloads {
        match self {
            Uplink::None => RxOffloads::ALL,
            Uplink::Tap(tap) => tap.offloads(),
            Uplink::Packet(port) => port.offloads(),
            Uplink::Xdp(_) | Uplink::Capture(_) => RxOffloads::default(),
        }
    }

    /// Frames that the netdev had and that never came out of [`Uplink::recv`], by reason.
    pub fn lost(&self) -> Vec<(DropReason, u64)> {
        let mut lost = match self {
            Uplink::Packet(port) => port.lost().to_vec(),
            Uplink::Xdp(port) => port.lost().to_vec(),
            _ => Vec::new(),
        };
        lost.retain(|(_, n)| *n > 0);
        lost
    }

    /// Writes out what a capture file has buffered; to be called now and then when nothing is
    /// sent. (Sending does so once a second, and so does the end.)
    ///
    /// # Errors
    /// The disk is full, and the like.
    pub fn flush(&self) -> io::Result<()> {
        let Uplink::Capture(files) = self else {
            return Ok(());
        };
        files
            .output
            .as_ref()
            .map_or(Ok(()), |output| output.lock().flush())
    }
}
