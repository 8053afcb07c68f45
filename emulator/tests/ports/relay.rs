//! The smallest switch: what one port receives, another one sends.

use chanio_emu::port::{RECV_BUF_LEN, SendError};
use chanio_model::offload::{VNET_HDR_LEN, VnetHdr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What a port can do, whatever its kind.
pub trait Port: Send + Sync + 'static {
    fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>>;
    fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError>;
    fn fd(&self) -> BorrowedFd<'_>;
}

impl Port for chanio_emu::port::Tap {
    fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        self.recv(buf)
    }
    fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.send(frame)
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Port for chanio_emu::port::Uplink {
    fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        self.recv(buf)
    }
    fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.send(frame)
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fds()[0]
    }
}

/// What went by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub frames: u64,
    pub longest: usize,
    /// The `gso_type` of the longest.
    pub gso_type: u8,
    pub lost: u64,
}

pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Relay {
    /// Relays both ways until it is stopped.
    pub fn start(a: impl Port, b: impl Port) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
                poll(
                    &mut [readable(a.fd()), readable(b.fd())],
                    PollTimeout::from(20u8),
                )
                .unwrap();
                pass(&a, &b, &mut seen);
                pass(&b, &a, &mut seen);
            }
            seen
        });
        Self { stop, thread }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn pass(from: &impl Port, to: &impl Port, seen: &mut Seen) {
    let mut buf = vec![0xee; RECV_BUF_LEN];
    while let Some(len) = from.recv(&mut buf).unwrap() {
        assert_eq!(buf[10..VNET_HDR_LEN], [0, 0], "num_buffers");
        seen.frames += 1;
        if len - VNET_HDR_LEN > seen.longest {
            seen.longest = len - VNET_HDR_LEN;
            seen.gso_type = VnetHdr::read(&buf).gso_type;
        }
        // In pieces, as from a ring.
        let (header, frame) = buf[..len].split_at(VNET_HDR_LEN);
        let (head, tail) = frame.split_at(frame.len().min(60));
        let sent = to.send(&[IoSlice::new(header), IoSlice::new(head), IoSlice::new(tail)]);
        seen.lost += u64::from(sent.is_err());
    }
}
