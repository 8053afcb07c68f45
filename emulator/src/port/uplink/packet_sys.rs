//! The system calls of packet(7) that no safe crate has: all unsafe code of the AF_PACKET uplink.

use crate::port::burst::{Gathering, Outcomes};
use crate::ring::BURST;
use arrayvec::ArrayVec;
use libc::{c_int, c_void};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Kinds of hardware whose frames have an Ethernet header.
const ETHERNET: [u16; 2] = [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK];

/// A frame as it was received.
pub(super) struct Received {
    /// Bytes that were put into the slices.
    pub(super) len: usize,
    /// TPID and TCI (host order) of a VLAN tag that the kernel took off.
    pub(super) vlan: Option<(u16, u16)>,
}

/// Room for a `cmsghdr` with a `tpacket_auxdata` behind it, aligned for both.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A non-blocking socket for raw frames that receives nothing yet, because it has no protocol.
pub(super) fn open() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Packet, SockType::Raw, flags, None)
}

/// A socket option at level SOL_PACKET that is an int.
pub(super) fn set_option(fd: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    set(fd, option, &value)
}

/// All frames that the netdev sees, not only those for its own address, for as long as the socket
/// lives.
pub(super) fn set_promiscuous(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: ifindex.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::PACKET_ADD_MEMBERSHIP, &request)
}

fn set<T: Copy>(fd: BorrowedFd<'_>, option: c_int, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the pointer, which are the `T` that we borrow.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const *value).cast(),
            len,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Frames that did not fit into the socket's buffer since this was last asked.
pub(super) fn overruns(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut len = mem::size_of_val(&stats) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes at the pointer, which are the whole of `stats`,
    // and the length to `len`; both live on this stack frame.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(stats.tp_drops)
    }
}

/// Begins to receive all that arrives at the netdev.
///
/// Returns whether its frames have an Ethernet header.
pub(super) fn bind(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<bool> {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut len = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at the pointer, which are the whole of `address`.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel writes at most `len` bytes at the pointer, which are the whole of
    // `address`, and the length to `len`; both live on this stack frame.
    let named =
        unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut len) };
    if named < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ETHERNET.contains(&address.sll_hatype))
}

/// The slices of a frame to be received: header and frame.
pub(super) type Slices<'a> = ArrayVec<[IoSliceMut<'a>; 2], BURST>;

/// Receives frames, one into each of the slices, until there are no more.
///
/// # Errors
/// That of the first frame; the next call tells that of a later one.
pub(super) fn recv_each(
    fd: BorrowedFd<'_>,
    mut slices: Slices<'_>,
) -> io::Result<ArrayVec<Received, BURST>> {
    let mut controls = [const { Control([0; 64]) }; BURST];
    let mut messages: ArrayVec<libc::mmsghdr, BURST> = slices
        .iter_mut()
        .zip(&mut controls)
        .map(|(slices, control)| {
            let mut message = no_message();
            // IoSliceMut is guaranteed to have the layout of iovec.
            message.msg_hdr.msg_iov = slices.as_mut_ptr().cast();
            message.msg_hdr.msg_iovlen = slices.len() as _;
            message.msg_hdr.msg_control = (&raw mut *control).cast::<c_void>();
            message.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
            message
        })
        .collect();
    // SAFETY: there are so many messages; every iovec is a slice that we hold mutably, each control
    // has `msg_controllen` bytes, and all of it outlives the call.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as u32,
            0,
            ptr::null_mut(),
        )
    };
    let Ok(received) = usize::try_from(received) else {
        return Err(io::Error::last_os_error());
    };
    let received = messages.iter().take(received).map(|message| Received {
        len: message.msg_len as usize,
        vlan: vlan_tag(&message.msg_hdr),
    });
    Ok(received.collect())
}

fn no_message() -> libc::mmsghdr {
    // SAFETY: all zero is an mmsghdr: null pointers and zero lengths.
    unsafe { mem::zeroed() }
}

/// The tag in the message's auxiliary data.
fn vlan_tag(msg: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `msg` was filled in by recvmsg: `msg_control` points to `msg_controllen` valid bytes
    // of the caller's `Control`, which is aligned for a cmsghdr.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(msg).as_ref() };
    while let Some(cmsg) = header {
        if cmsg.cmsg_level == libc::SOL_PACKET && cmsg.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: the kernel puts a whole tpacket_auxdata behind this header (packet(7)); had
            // it been cut off, it would have the flag MSG_CTRUNC and a shorter length, but
            // `Control` has room for it. The read does not rely on alignment.
            let aux = unsafe {
                libc::CMSG_DATA(cmsg)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            };
            // Without a TPID (before Linux 3.14) it is an 802.1Q tag.
            let known = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let tpid = if known {
                aux.tp_vlan_tpid
            } else {
                libc::ETH_P_8021Q as u16
            };
            let tagged = aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return tagged.then_some((tpid, aux.tp_vlan_tci));
        }
        // SAFETY: as for the first; `cmsg` is one of this message's headers.
        header = unsafe { libc::CMSG_NXTHDR(msg, cmsg).as_ref() };
    }
    None
}

/// Sends each frame; `sent` gets what became of it.
pub(super) fn send_each(fd: BorrowedFd<'_>, frames: &Gathering<'_, '_>, sent: &mut Outcomes) {
    let mut messages: ArrayVec<libc::mmsghdr, BURST> = frames
        .iter()
        .map(|pieces| {
            let mut message = no_message();
            message.msg_hdr.msg_iov = pieces.as_ptr().cast_mut();
            message.msg_hdr.msg_iovlen = pieces.len() as _;
            message
        })
        .collect();
    while sent.len() < messages.len() {
        let left = &mut messages[sent.len()..];
        // SAFETY: there are so many messages, and every piece can be read while `frames` is
        // borrowed (`Gathering`); the kernel only reads them. Memory whose file was truncated makes
        // it fail with EFAULT.
        let done =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0) };
        match Errno::result(done) {
            Ok(done) => sent.extend((0..done).map(|_| Ok(()))),
            // It is the first one's; the others have their own.
            Err(errno) => sent.push(Err(errno)),
        }
    }
}

/// Sends one frame.
pub(super) fn send(fd: &OwnedFd, slices: &[IoSlice<'_>]) -> nix::Result<usize> {
    // `writev` on a packet socket is `sendmsg` without flags (man 2 write), and nix has it safe.
    nix::sys::uio::writev(fd.as_fd(), slices)
}
