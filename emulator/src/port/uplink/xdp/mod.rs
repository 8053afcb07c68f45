//! A netdev as the wire, through AF_XDP: its frames come to us before the stack sees them, and it
//! has them no more. Memory is shared with the kernel, and a system call is made for a burst.
//!
//! Frames pass finished: XDP has no way to leave a checksum or segmentation to others, nor to tell
//! of a VLAN tag that a netdev took off. `packet:` does both.

mod bpf;
mod umem;

use self::bpf::Mode;
use self::umem::{RxHalf, TxHalf, Umem};
use crate::nic::Refused;
use crate::port::{IfName, SendError};
use chanio_model::DropReason;
use chanio_model::offload::VNET_HDR_LEN;
use chanio_model::wire::VLAN_TAG_LEN;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use parking_lot::{Mutex, MutexGuard};
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// Chunks of a queue that wait for frames: what arrives while all workers are busy for a while.
const RX_CHUNKS: u32 = 2048;
/// Chunks of a queue for frames to be sent.
const TX_CHUNKS: u32 = 1024;
/// Bytes of a chunk; the kernel takes no larger ones than a page.
const CHUNKS: [u32; 2] = [2048, 4096];
/// Receive queues of one netdev, at most.
const MAX_QUEUES: u32 = 64;
/// How long to wait for a queue that a closed socket had.
const UNTIL_FREE: Duration = Duration::from_millis(500);
/// What an Ethernet frame has besides its packet: two addresses, two tags and a type.
const ETHERNET: usize = 14 + 2 * VLAN_TAG_LEN;
/// The largest MTU whose frames fit into the largest chunk.
const MAX_MTU: usize = umem::longest(CHUNKS[1]) - ETHERNET;

/// The netdev.
#[derive(Debug)]
pub struct XdpPort {
    queues: Vec<Queue>,
    /// The longest frame that can be sent, bytes.
    longest: usize,
    /// While it is open, the netdev gives us its frames.
    _link: OwnedFd,
}

/// One of its receive queues, and the socket that has its frames.
#[derive(Debug)]
struct Queue {
    socket: OwnedFd,
    rx: Mutex<RxHalf>,
    tx: Mutex<TxHalf>,
}

impl XdpPort {
    /// Opens all receive queues of a netdev in the calling thread's network namespace. It may be
    /// down. Where its driver cannot run the program that this takes, the stack does; a line of the
    /// log says which.
    ///
    /// # Errors
    /// [`Refused::Invalid`]: there is no such netdev, it is not Ethernet, its MTU is too large, or
    /// somebody else has it already; [`Refused::Missing`]: a privilege or a kernel feature.
    pub fn open(name: &IfName) -> Result<Self, Refused> {
        let opening = Opening { name };
        let ifindex = if_nametoindex(name.as_str()).map_err(|_| {
            opening.invalid("a netdev that exists in this network namespace".to_owned())
        })?;
        if opening.number("type")? != u64::from(libc::ARPHRD_ETHER) {
            return Err(opening.invalid("an Ethernet netdev".to_owned()));
        }
        let mtu = opening.number("mtu")? as usize;
        let fits = |chunk: &u32| mtu + ETHERNET <= umem::longest(*chunk);
        let chunk = CHUNKS.into_iter().find(fits).ok_or_else(|| {
            let allowed = format!("a netdev whose MTU is at most {MAX_MTU}, this one has {mtu}");
            opening.invalid(allowed)
        })?;
        let count = opening.queues()?;
        let sockets = bpf::sockets(count).map_err(|e| opening.failed("making an XSKMAP", e))?;
        let queues: Vec<Queue> = (0..count)
            .map(|queue| opening.queue((ifindex, queue), chunk, sockets.as_fd()))
            .collect::<Result<_, _>>()?;
        let program =
            bpf::load(sockets.as_fd()).map_err(|e| opening.failed("loading the XDP program", e))?;
        let attach = |mode| bpf::attach(program.as_fd(), ifindex, mode);
        let (link, mode) = match attach(Mode::Driver) {
            Ok(link) => (link, Mode::Driver),
            Err(Errno::EBUSY | Errno::EEXIST) => {
                let allowed = "a netdev without an XDP program (`ip link set dev NETDEV xdp off`)";
                return Err(opening.invalid(allowed.to_owned()));
            }
            Err(why) => {
                tracing::warn!(
                    "uplink `xdp:{name}`: its driver runs no XDP program ({why}), the stack does: \
                     frames are copied once more"
                );
                let link = attach(Mode::Generic);
                let link = link.map_err(|e| opening.failed("attaching the XDP program", e))?;
                (link, Mode::Generic)
            }
        };
        let zero_copy = queues
            .iter()
            .all(|queue| umem::is_zero_copy(queue.socket.as_fd()).unwrap_or(false));
        tracing::info!(
            "uplink `xdp:{name}`: {count} queues, {mode:?} mode, zero copy: {zero_copy}"
        );
        Ok(Self {
            longest: umem::longest(chunk),
            queues,
            _link: link,
        })
    }

    /// What to wait on for frames.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(|queue| queue.socket.as_fd())
    }

    /// Receive queues.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Takes up to `max` frames of a receive queue and shows them, each behind an empty 12-byte
    /// virtio-net header: where the kernel put them, and gone when `show` returns.
    pub fn receive<R>(&self, queue: usize, max: usize, show: impl FnOnce(&[&[u8]]) -> R) -> R {
        let queue = &self.queues[queue];
        let mut rx = queue.rx.lock();
        let chunks = rx.take(max);
        let shown = show(&rx.frames(&chunks));
        rx.give_back(queue.socket.as_fd(), &chunks);
        shown
    }

    /// As [`super::Uplink::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> Option<usize> {
        (0..self.queues.len()).find_map(|queue| {
            self.receive(queue, 1, |frames| {
                let frame = frames.first()?;
                let len = frame.len().min(buf.len());
                buf[..len].copy_from_slice(&frame[..len]);
                Some(len)
            })
        })
    }

    /// As [`super::Uplink::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        let whole = frame.iter().map(|slice| slice.len()).sum::<usize>();
        let len = whole.checked_sub(VNET_HDR_LEN);
        self.begin(0)
            .put(len.ok_or(SendError::BadHeader)?, |mut into| {
                let mut skip = VNET_HDR_LEN;
                for slice in frame {
                    let piece = &slice[skip.min(slice.len())..];
                    skip -= slice.len() - piece.len();
                    into[..piece.len()].copy_from_slice(piece);
                    into = &mut into[piece.len()..];
                }
            })
    }

    /// Begins to send frames; any number of threads may, each best with a `spread` of its own.
    pub fn begin(&self, spread: usize) -> Sending<'_> {
        let queue = &self.queues[spread % self.queues.len()];
        Sending {
            tx: queue.tx.lock(),
            socket: queue.socket.as_fd(),
            longest: self.longest,
        }
    }

    /// Frames that were lost before they could be received, because there was no room for them.
    pub fn lost(&self) -> [(DropReason, u64); 1] {
        let lost = self.queues.iter().map(|queue| {
            let statistics = umem::statistics(queue.socket.as_fd());
            statistics.map_or(0, |s| s.rx_dropped + s.rx_ring_full)
        });
        [(DropReason::UplinkOverrun, lost.sum())]
    }
}

/// Frames being sent by one queue.
pub struct Sending<'a> {
    tx: MutexGuard<'a, TxHalf>,
    socket: BorrowedFd<'a>,
    longest: usize,
}

impl Sending<'_> {
    /// Sends one finished frame of `len` bytes, which `write` writes.
    ///
    /// # Errors
    /// [`SendError::Full`], [`SendError::TooBig`], [`SendError::Down`]; nothing was sent.
    pub fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<(), SendError> {
        if len > self.longest {
            return Err(SendError::TooBig);
        }
        let put = self.tx.put(self.socket, len, write);
        match put.map_err(io::Error::from)? {
            true => Ok(()),
            false => Err(SendError::Full),
        }
    }
}

impl Drop for Sending<'_> {
    /// Has all of it sent.
    fn drop(&mut self) {
        if let Err(error) = self.tx.flush(self.socket) {
            tracing::debug!(%error, "sending on AF_XDP");
        }
    }
}

/// Joins a socket to a queue. The kernel lets go of a queue some time after its socket was closed, so
/// one that is taken may be free soon.
fn bind(socket: BorrowedFd<'_>, ifindex: u32, queue: u32) -> Result<(), Errno> {
    let until = Instant::now() + UNTIL_FREE;
    loop {
        match umem::bind(socket, ifindex, queue) {
            Err(Errno::EBUSY) if Instant::now() < until => thread::sleep(UNTIL_FREE / 20),
            done => return done,
        }
    }
}

/// A netdev being opened.
struct Opening<'a> {
    name: &'a IfName,
}

impl Opening<'_> {
    fn invalid(&self, allowed: String) -> Refused {
        Refused::Invalid {
            field: "uplink",
            value: format!("xdp:{}", self.name),
            allowed,
        }
    }

    fn failed(&self, step: &str, errno: Errno) -> Refused {
        let why = match errno {
            Errno::EPERM | Errno::EACCES => {
                "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF (or CAP_SYS_ADMIN) are needed"
            }
            Errno::EAFNOSUPPORT => "the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
            Errno::ENOSYS => "the kernel has no bpf(2) (CONFIG_BPF_SYSCALL)",
            Errno::ENOBUFS => "too little memory may be locked: raise RLIMIT_MEMLOCK",
            errno => return Refused::os(format!("uplink `xdp:{}`: {step}", self.name), errno),
        };
        Refused::Missing {
            what: format!("uplink `xdp:{}`: {step}", self.name),
            why: format!("{why} ({errno})"),
        }
    }

    /// A number that the kernel tells of the netdev.
    fn number(&self, what: &str) -> Result<u64, Refused> {
        let path = format!("/sys/class/net/{}/{what}", self.name);
        let text = fs::read_to_string(&path).map_err(|e| Refused::os(format!("reading {path}"), e));
        text?.trim().parse().map_err(|_| {
            let what = format!("reading {path}");
            Refused::os(what, io::Error::other("not a number"))
        })
    }

    /// Its receive queues.
    fn queues(&self) -> Result<u32, Refused> {
        let path = format!("/sys/class/net/{}/queues", self.name);
        let entries = fs::read_dir(&path).map_err(|e| Refused::os(format!("reading {path}"), e))?;
        let is_rx = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"rx-");
        let count = entries.flatten().filter(|e| is_rx(&e.file_name())).count() as u32;
        if !(1..=MAX_QUEUES).contains(&count) {
            let allowed = format!(
                "a netdev with 1 to {MAX_QUEUES} receive queues, this one has {count} (`ethtool -L`)"
            );
            return Err(self.invalid(allowed));
        }
        Ok(count)
    }

    /// One receive queue, in the table of sockets.
    fn queue(
        &self,
        (ifindex, queue): (u32, u32),
        chunk: u32,
        sockets: BorrowedFd<'_>,
    ) -> Result<Queue, Refused> {
        let step = |step: &str| {
            let step = format!("{step} of queue {queue}");
            move |errno| self.failed(&step, errno)
        };
        let socket = umem::open().map_err(step("opening the socket"))?;
        let fd = socket.as_fd();
        let umem = Umem::new(fd, RX_CHUNKS + TX_CHUNKS, chunk);
        let umem = umem.map_err(step("registering the memory"))?;
        let rx = RxHalf::new(fd, umem.clone(), RX_CHUNKS);
        let rx = rx.map_err(step("making the receive rings"))?;
        let tx = TxHalf::new(fd, umem, (RX_CHUNKS, TX_CHUNKS));
        let tx = tx.map_err(step("making the send rings"))?;
        bind(fd, ifindex, queue).map_err(|errno| match errno {
            Errno::EBUSY => self.invalid(format!(
                "a netdev whose queues no other AF_XDP socket has, queue {queue} has one"
            )),
            errno => step("binding the socket")(errno),
        })?;
        bpf::set_socket(sockets, queue, fd).map_err(step("setting the socket"))?;
        Ok(Queue {
            rx: Mutex::new(rx),
            tx: Mutex::new(tx),
            socket,
        })
    }
}
