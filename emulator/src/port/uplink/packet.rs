//! An existing netdev as the wire, through packet(7): all that arrives there is received (also by
//! the host, as before), and what is sent goes out. Frames to be segmented pass whole, and VLAN
//! tags that the kernel took off are put back.

use super::packet_sys::{self, Received};
use crate::nic::Refused;
use crate::port::burst::{Gathering, Outcomes};
use crate::port::{IfName, SendError};
use arrayvec::ArrayVec;
use chanio_model::DropReason;
use chanio_model::offload::{RxOffloads, VNET_HDR_LEN, VnetHdr, flags, gso_type};
use chanio_model::wire::VLAN_TAG_LEN;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// The kernel's header has no `num_buffers` (before Linux 6.6 there is no other form).
const KERNEL_HDR_LEN: usize = 10;
/// Both Ethernet addresses; a VLAN tag comes behind them.
const MACS_LEN: usize = 12;
/// A room that has a place for each part of a frame.
const SHORTEST_ROOM: usize = VNET_HDR_LEN + MACS_LEN + VLAN_TAG_LEN;
/// Waiting frames, bytes: what arrives while all workers are busy for some milliseconds.
const RECV_BUFFER: usize = 8 << 20;
/// Slices of a frame for which sending needs no allocation.
const FEW_SLICES: usize = 32;
/// Frames in a row that cannot be represented, after which `recv` returns.
const MAX_SKIPPED: u32 = 64;

/// The netdev.
#[derive(Debug)]
pub struct PacketPort {
    fd: OwnedFd,
    offloads: RxOffloads,
    unsupported: AtomicU64,
    overruns: AtomicU64,
}

impl PacketPort {
    /// Opens the netdev in the calling thread's network namespace. It may be down.
    ///
    /// # Errors
    /// [`Refused::Invalid`]: there is no such netdev, or it is not Ethernet; [`Refused::Missing`]:
    /// CAP_NET_RAW, or a kernel feature.
    pub fn open(name: &IfName) -> Result<Self, Refused> {
        let invalid = |allowed: &str| Refused::Invalid {
            field: "uplink",
            value: format!("packet:{name}"),
            allowed: allowed.into(),
        };
        let missing = |why: &str| Refused::Missing {
            what: format!("uplink `packet:{name}`"),
            why: why.into(),
        };
        let fd = packet_sys::open().map_err(|errno| match errno {
            Errno::EPERM => missing("CAP_NET_RAW is missing"),
            Errno::EAFNOSUPPORT => missing("the kernel has no packet sockets (CONFIG_PACKET)"),
            errno => Refused::os("opening a packet socket", errno),
        })?;
        let ifindex = if_nametoindex(name.as_str())
            .map_err(|_| invalid("a netdev that exists in this network namespace"))?;
        for (option, what) in [
            (libc::PACKET_VNET_HDR, "PACKET_VNET_HDR"),
            (libc::PACKET_AUXDATA, "PACKET_AUXDATA"),
            (
                libc::PACKET_IGNORE_OUTGOING,
                "PACKET_IGNORE_OUTGOING (Linux 4.20)",
            ),
        ] {
            packet_sys::set_option(fd.as_fd(), option, 1)
                .map_err(|e| Refused::os(format!("setting {what}"), e))?;
        }
        // Beyond the system's maximum only with CAP_NET_ADMIN; then as much as it gives.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECV_BUFFER).is_err() {
            let _ = setsockopt(&fd, sockopt::RcvBuf, &RECV_BUFFER);
        }
        let os = |e: io::Error| Refused::os(format!("binding to `{name}`"), e);
        if !packet_sys::bind(fd.as_fd(), ifindex).map_err(os)? {
            return Err(invalid("an Ethernet netdev"));
        }
        packet_sys::set_promiscuous(fd.as_fd(), ifindex).map_err(os)?;
        Ok(Self {
            fd,
            offloads: kernel_offloads(),
            unsupported: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
        })
    }

    /// As [`super::Uplink::recv`].
    ///
    /// # Errors
    /// The system's.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut len = None;
        let rooms = (1, buf.len());
        self.recv_each(buf, rooms, |place| len = Some(place.len()))?;
        Ok(len)
    }

    /// Receives up to `n` frames, each into the next `stride` bytes of `rooms`, and tells where they
    /// are; returns whether nothing is left.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::port) fn recv_each(
        &self,
        rooms: &mut [u8],
        (n, stride): (usize, usize),
        mut got: impl FnMut(Range<usize>),
    ) -> io::Result<bool> {
        if stride < SHORTEST_ROOM {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the buffer is too short",
            ));
        }
        for _ in 0..MAX_SKIPPED {
            let slices = rooms.chunks_exact_mut(stride).take(n).map(|room| {
                let (header, frame) = room.split_at_mut(VNET_HDR_LEN);
                // A tag to be put back needs room, so the buffer is not offered to its end.
                let room = frame.len() - VLAN_TAG_LEN;
                [
                    IoSliceMut::new(&mut header[..KERNEL_HDR_LEN]),
                    IoSliceMut::new(&mut frame[..room]),
                ]
            });
            let received = match packet_sys::recv_each(self.fd.as_fd(), slices.collect()) {
                Ok(received) => received,
                Err(err) => match err.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(true),
                    // Told once when the netdev goes down; it may come back.
                    Some(libc::ENETDOWN) => continue,
                    // A frame to be segmented in a way that virtio-net cannot say; it is gone.
                    Some(libc::EINVAL) => {
                        self.unsupported.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    _ => return Err(err),
                },
            };
            let mut any = false;
            for (received, (i, room)) in received
                .iter()
                .zip(rooms.chunks_exact_mut(stride).enumerate())
            {
                if let Some(len) = complete(room, received) {
                    got(i * stride..i * stride + len);
                    any = true;
                }
            }
            if any {
                // Where it ended early there may be an error before further frames.
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`super::Uplink::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        let mut header = [0; VNET_HDR_LEN];
        let mut at = 0;
        let mut rest = frame;
        // Gathers the header, leaving in `cut` what the last slice touched has of the frame.
        let cut = loop {
            let (first, others) = rest.split_first().ok_or(SendError::BadHeader)?;
            rest = others;
            let take = first.len().min(VNET_HDR_LEN - at);
            header[at..at + take].copy_from_slice(&first[..take]);
            at += take;
            if at == VNET_HDR_LEN {
                break &first[take..];
            }
        };
        let len = self.adapt(&mut header);
        let front = [IoSlice::new(&header[..len]), IoSlice::new(cut)];
        let rest = rest.iter().map(|slice| IoSlice::new(slice));
        let all = front.into_iter().chain(rest.clone());
        let sent = if rest.len() + front.len() <= FEW_SLICES {
            packet_sys::send(&self.fd, &all.collect::<ArrayVec<_, FEW_SLICES>>())
        } else {
            packet_sys::send(&self.fd, &all.collect::<Vec<_>>())
        };
        Ok(sent.map(drop).map_err(io::Error::from)?)
    }

    /// Makes a virtio-net header what packet sockets have; returns how many of its bytes those are.
    pub(in crate::port) fn adapt(&self, header: &mut [u8; VNET_HDR_LEN]) -> usize {
        host_order_to_little_endian(&mut header[..KERNEL_HDR_LEN]);
        KERNEL_HDR_LEN
    }

    /// Sends all frames, adapted headers in front; `sent` gets what became of each.
    pub(in crate::port) fn send_all(&self, frames: &Gathering<'_, '_>, sent: &mut Outcomes) {
        packet_sys::send_each(self.fd.as_fd(), frames, sent);
    }

    /// What sent frames may leave to be done; the kernel does it if the netdev cannot.
    pub fn offloads(&self) -> RxOffloads {
        self.offloads
    }

    /// Frames that were lost before they could be received: there was no room, or they came in a
    /// form that a virtio-net header cannot describe (segments of SCTP or of a tunnel).
    pub fn lost(&self) -> [(DropReason, u64); 2] {
        // The kernel forgets what it has told.
        let new = packet_sys::overruns(self.fd.as_fd()).unwrap_or(0);
        let before = self.overruns.fetch_add(u64::from(new), Ordering::Relaxed);
        let unsupported = self.unsupported.load(Ordering::Relaxed);
        [
            (DropReason::UplinkOverrun, before + u64::from(new)),
            (DropReason::UplinkUnsupported, unsupported),
        ]
    }
}

impl AsFd for PacketPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes of a received frame one as ports give them; returns its length with the header. `None`: it
/// is shorter than an Ethernet header, and nothing that comes from an Ethernet netdev is.
fn complete(room: &mut [u8], received: &Received) -> Option<usize> {
    let (header, frame) = room.split_at_mut(VNET_HDR_LEN);
    let len = received.len.checked_sub(KERNEL_HDR_LEN)?;
    if len <= MACS_LEN {
        return None;
    }
    host_order_to_little_endian(&mut header[..KERNEL_HDR_LEN]);
    header[KERNEL_HDR_LEN..].fill(0);
    let Some((tpid, tci)) = received.vlan else {
        return Some(VNET_HDR_LEN + len);
    };
    frame.copy_within(MACS_LEN..len, MACS_LEN + VLAN_TAG_LEN);
    frame[MACS_LEN..MACS_LEN + 2].copy_from_slice(&tpid.to_be_bytes());
    frame[MACS_LEN + 2..MACS_LEN + 4].copy_from_slice(&tci.to_be_bytes());
    shift_header(header);
    Some(VNET_HDR_LEN + len + VLAN_TAG_LEN)
}

/// The header's offsets after a VLAN tag was put in front of what they point to.
fn shift_header(header: &mut [u8]) {
    let mut hdr = VnetHdr::read(header);
    if hdr.flags & flags::NEEDS_CSUM != 0 {
        hdr.csum_start = hdr.csum_start.saturating_add(VLAN_TAG_LEN as u16);
    }
    if hdr.gso_type != gso_type::NONE {
        hdr.hdr_len = hdr.hdr_len.saturating_add(VLAN_TAG_LEN as u16);
    }
    if let Some(out) = header.first_chunk_mut() {
        hdr.write(out);
    }
}

/// Packet sockets have the 16-bit fields in the host's order, ports have them little-endian.
fn host_order_to_little_endian(header: &mut [u8]) {
    if cfg!(target_endian = "big") {
        header[2..]
            .chunks_exact_mut(2)
            .for_each(|field| field.swap(0, 1));
    }
}

/// Linux takes everything but USO since long, and USO since 6.2.
fn kernel_offloads() -> RxOffloads {
    let uso = std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (number(), number()) >= (6, 2)
    });
    RxOffloads {
        uso4: uso,
        uso6: uso,
        ..RxOffloads::ALL
    }
}
