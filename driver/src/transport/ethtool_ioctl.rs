//! SIOCETHTOOL (linux/sockios.h): what the kernel has no netlink request for.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

mod raw {
    // linux/sockios.h
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    nix::ioctl_readwrite_bad!(ethtool, SIOCETHTOOL, libc::ifreq);
}

/// The longest command.
const MAX_COMMAND: usize = 1 << 20;

/// Room behind a command. For ETHTOOL_GSTATS and ETHTOOL_GSTRINGS the kernel copies out as many
/// as the driver has by then, whatever number the command holds (net/ethtool/ioctl.c,
/// ethtool_get_stats): a million bytes would be 131,072 counters, which no driver has.
const SLACK: usize = 1 << 20;

/// Carries out the command in `data` on a netdev of this thread's namespace; of what the kernel
/// answers, as much is kept as `data` was long.
pub(super) fn carry_out(netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
    if netdev.len() >= libc::IFNAMSIZ || netdev.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    if data.len() < 4 || data.len() > MAX_COMMAND {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(netdev.bytes()) {
        *to = from.cast_signed();
    }
    let length = data.len();
    let mut room = data.clone();
    room.resize(length + SLACK, 0);
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: room.as_mut_ptr().cast(),
        },
    };
    let file = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: the kernel reads and writes one ifreq at the pointer, which `request` is, and
    // through ifru_data the command's struct and the table behind it: no more than the size in the
    // command, or than SLACK says; `room` has both, lives across the call, and nobody else refers
    // to it.
    unsafe { raw::ethtool(file.as_raw_fd(), &raw mut request) }?;
    room.truncate(length);
    *data = room;
    Ok(())
}
