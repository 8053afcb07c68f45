//! The ioctls of /dev/net/tun (kernel: include/uapi/linux/if_tun.h): all unsafe code of TAPs.

use libc::{c_int, c_short};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

mod raw {
    nix::ioctl_write_ptr_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(get_iff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_vnet_hdr_sz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_vnet_le, libc::TUNSETVNETLE, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_carrier, libc::TUNSETCARRIER, libc::c_int);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_none_bad!(get_dev_netns, libc::TUNGETDEVNETNS);
}

/// A request with the name filled in, cut at 15 bytes, and the flags as TUNSETIFF wants them.
fn request(name: &str, flags: c_int) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // The kernel reads these 16 bits as unsigned: IFF_TUN_EXCL is the top one.
    let ifru_flags = flags as c_short;
    libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags },
    }
}

/// Makes the netdev, or attaches a further queue to it.
pub(super) fn set_iff(fd: BorrowedFd<'_>, name: &str, flags: c_int) -> Result<(), Errno> {
    let request = request(name, flags);
    // SAFETY: the kernel reads and writes one ifreq at the pointer (it writes the name back), and
    // `request` is a whole ifreq that lives on this stack frame across the call.
    unsafe { raw::set_iff(fd.as_raw_fd(), &raw const request) }.map(drop)
}

/// The netdev's name now: it can be renamed at any time.
pub(super) fn name(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut request = request("", 0);
    // SAFETY: the kernel writes one ifreq at the pointer, which is what `request` is.
    unsafe { raw::get_iff(fd.as_raw_fd(), &raw mut request) }?;
    let bytes = request
        .ifr_name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned());
    Ok(String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned())
}

/// Bytes of virtio-net header in front of each frame.
pub(super) fn set_vnet_hdr_len(fd: BorrowedFd<'_>, len: usize) -> Result<(), Errno> {
    let len = len as c_int;
    // SAFETY: the kernel reads one int at the pointer; `len` outlives the call.
    unsafe { raw::set_vnet_hdr_sz(fd.as_raw_fd(), &raw const len) }.map(drop)
}

/// The virtio-net header is little-endian, whatever the host is.
pub(super) fn set_vnet_little_endian(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let on: c_int = 1;
    // SAFETY: the kernel reads one int at the pointer; `on` outlives the call.
    unsafe { raw::set_vnet_le(fd.as_raw_fd(), &raw const on) }.map(drop)
}

/// Carrier of the netdev.
pub(super) fn set_carrier(fd: BorrowedFd<'_>, up: bool) -> Result<(), Errno> {
    let up = c_int::from(up);
    // SAFETY: the kernel reads one int at the pointer; `up` outlives the call.
    unsafe { raw::set_carrier(fd.as_raw_fd(), &raw const up) }.map(drop)
}

/// Which offloads the reader of the TAP understands, as `TUN_F_*` bits.
pub(super) fn set_offload(fd: BorrowedFd<'_>, bits: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the argument is a number, no pointer is involved.
    unsafe { raw::set_offload(fd.as_raw_fd(), bits.cast_signed()) }.map(drop)
}

/// The network namespace in which the netdev is now.
pub(super) fn netns(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no argument.
    let netns = unsafe { raw::get_dev_netns(fd.as_raw_fd()) }?;
    // SAFETY: the ioctl has just opened this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(netns) })
}
