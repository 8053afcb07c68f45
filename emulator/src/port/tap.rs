//! One queue of a TAP: what the kernel sends on the netdev is read here, what is written here the
//! kernel receives.

use super::{IfName, SendError, tun_ioctl};
use crate::nic::Refused;
use chanio_model::offload::{RxOffloads, VNET_HDR_LEN};
use nix::errno::Errno;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Queues that the kernel allows in one TAP (`MAX_TAP_QUEUES`).
pub const MAX_QUEUES: u16 = 256;

const DEVICE: &str = "/dev/net/tun";

/// Of the numbers in names that nobody has chosen, the next.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Names that are tried before the kernel is asked for one, for which it looks at all netdevs.
const ATTEMPTS: u32 = 64;

/// The kernel puts a number in.
const UNNAMED: &str = "chanio%d";

/// A queue; the netdev goes away with the last one.
#[derive(Debug)]
pub struct Tap {
    file: File,
    offloads: RxOffloads,
}

impl Tap {
    /// Makes a TAP with one queue in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if a netdev of this name exists, whatever its kind; [`Refused::Missing`]
    /// without /dev/net/tun or CAP_NET_ADMIN.
    pub fn create(name: &IfName) -> Result<Self, Refused> {
        Self::open(name.as_str(), libc::IFF_TUN_EXCL)
    }

    /// Makes a TAP with `queues` queues, 1 to [`MAX_QUEUES`], and a name that nobody has. The
    /// kernel spreads flows over them.
    ///
    /// # Errors
    /// As [`Tap::create`]; nothing is left behind.
    pub fn create_unnamed(queues: u16) -> Result<Vec<Self>, Refused> {
        for _ in 0..ATTEMPTS {
            let name = format!("chanio{}", NEXT.fetch_add(1, Ordering::Relaxed));
            match Self::create_queues(&name, queues) {
                Err(Refused::Invalid {
                    field: "netdev", ..
                }) => {}
                made => return made,
            }
        }
        Self::create_queues(UNNAMED, queues)
    }

    /// The same with this name.
    ///
    /// # Errors
    /// As [`Tap::create`]; nothing is left behind.
    pub fn create_queues(name: &str, queues: u16) -> Result<Vec<Self>, Refused> {
        let (first, more) = match queues {
            // A multi-queue netdev has memory for 256 queues, so one queue is better without.
            1 => (Self::open(name, libc::IFF_TUN_EXCL)?, 0),
            2..=MAX_QUEUES => {
                let flags = libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL;
                (Self::open(name, flags)?, queues - 1)
            }
            _ => {
                return Err(Refused::Invalid {
                    field: "queues",
                    value: queues.to_string(),
                    allowed: format!("1 to {MAX_QUEUES} for a TAP"),
                });
            }
        };
        let name = first.name().map_err(|e| Refused::os("naming a TAP", e))?;
        let others = (0..more).map(|_| Self::open(&name, libc::IFF_MULTI_QUEUE));
        std::iter::once(Ok(first)).chain(others).collect()
    }

    fn open(name: &str, flags: libc::c_int) -> Result<Self, Refused> {
        let file = open_device().map_err(|why| missing(name, why))?;
        let flags = flags | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        tun_ioctl::set_iff(file.as_fd(), name, flags).map_err(|errno| match errno {
            Errno::EBUSY => Refused::Invalid {
                field: "netdev",
                value: name.to_owned(),
                allowed: "a name that no netdev has yet".into(),
            },
            Errno::EPERM => missing(name, NEEDS_NET_ADMIN.into()),
            errno => Refused::os(format!("making TAP `{name}`"), errno),
        })?;
        let setup = || -> Result<RxOffloads, Errno> {
            tun_ioctl::set_vnet_hdr_len(file.as_fd(), VNET_HDR_LEN)?;
            tun_ioctl::set_vnet_little_endian(file.as_fd())?;
            Ok(agree_offloads(file.as_fd()))
        };
        let offloads = setup().map_err(|e| Refused::os(format!("setting up TAP `{name}`"), e))?;
        Ok(Self { file, offloads })
    }

    /// Reads one frame behind its 12-byte virtio-net header; the length counts both. `buf` should
    /// have [`super::RECV_BUF_LEN`] bytes. `None`: nothing is waiting.
    ///
    /// # Errors
    /// `EBADFD` or `EIO` when the netdev is gone (somebody deleted it, or its namespace).
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buf) {
            Ok(len) => {
                Self::complete_header(buf);
                Ok(Some(len))
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Fills in what the kernel steps over without writing it: num_buffers, which no netdev has.
    pub(super) fn complete_header(frame: &mut [u8]) {
        if let Some(num_buffers) = frame.get_mut(10..VNET_HDR_LEN) {
            num_buffers.fill(0);
        }
    }

    /// Writes one frame: the slices together are a 12-byte virtio-net header and the frame.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send(&self, frame: &[IoSlice<'_>]) -> Result<(), SendError> {
        // Not `write_vectored`: that would send the front part of a frame in too many slices.
        let written = nix::sys::uio::writev(&self.file, frame);
        Ok(written.map(drop).map_err(io::Error::from)?)
    }

    /// What frames in either direction may leave to be done.
    pub fn offloads(&self) -> RxOffloads {
        self.offloads
    }

    /// Carrier of the netdev.
    ///
    /// # Errors
    /// The system's, `EBADFD` when the netdev is gone.
    pub fn set_carrier(&self, up: bool) -> io::Result<()> {
        Ok(tun_ioctl::set_carrier(self.file.as_fd(), up)?)
    }

    /// The network namespace in which the netdev is now; while this is open, the namespace stays.
    ///
    /// # Errors
    /// The system's, `EBADFD` when the netdev is gone.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        tun_ioctl::netns(self.file.as_fd())
    }

    /// The netdev's name now.
    ///
    /// # Errors
    /// The system's, `EBADFD` when the netdev is gone.
    pub fn name(&self) -> io::Result<String> {
        Ok(tun_ioctl::name(self.file.as_fd())?)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether this machine lets us make TAPs in the calling thread's network namespace; if not,
/// exactly what is missing.
pub fn probe() -> Result<(), String> {
    let file = open_device()?;
    // The kernel looks for the privilege before it looks at the kind of netdev, so asking for no
    // kind tells them apart without making anything (drivers/net/tun.c, tun_set_iff).
    match tun_ioctl::set_iff(file.as_fd(), "", 0) {
        Err(Errno::EPERM) => Err(NEEDS_NET_ADMIN.into()),
        _ => Ok(()),
    }
}

const NEEDS_NET_ADMIN: &str =
    "CAP_NET_ADMIN is missing: run as root or with AmbientCapabilities=CAP_NET_ADMIN";

fn missing(name: &str, why: String) -> Refused {
    Refused::Missing {
        what: format!("TAP `{name}`"),
        why,
    }
}

fn open_device() -> Result<File, String> {
    let mut options = File::options();
    let device = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE);
    device.map_err(|err| {
        let hint = match err.raw_os_error() {
            Some(libc::ENOENT) => {
                "the device node is missing: `modprobe tun` (CONFIG_TUN), or in a container give it \
                 this device"
            }
            Some(libc::ENODEV | libc::ENXIO) => "the kernel has no TUN driver (CONFIG_TUN)",
            Some(libc::EACCES | libc::EPERM) => "no permission to open it",
            Some(libc::EMFILE) => "too many open files: raise RLIMIT_NOFILE",
            _ => "cannot open it",
        };
        format!("{DEVICE}: {hint} ({err})")
    })
}

/// Asks for all offloads that this kernel knows: USO came with Linux 6.2.
fn agree_offloads(fd: BorrowedFd<'_>) -> RxOffloads {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let without_uso = RxOffloads {
        uso4: false,
        uso6: false,
        ..RxOffloads::ALL
    };
    let wishes = [
        (tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6, RxOffloads::ALL),
        (tcp, without_uso),
        (
            libc::TUN_F_CSUM,
            RxOffloads {
                csum: true,
                ..RxOffloads::default()
            },
        ),
    ];
    let agreed = wishes
        .into_iter()
        .find(|(bits, _)| tun_ioctl::set_offload(fd, *bits).is_ok());
    agreed.map_or_else(RxOffloads::default, |(_, offloads)| offloads)
}
