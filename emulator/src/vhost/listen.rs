//! Socket files: made, taken over from the dead, removed.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod, lstat};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Owner and group may connect: put the VMM's user into the group of the emulator's.
const MODE: u32 = 0o660;

/// Connections that may wait to be accepted. One client is served at a time; the rest is refused
/// by accepting it, so few ever wait.
const BACKLOG: i32 = 16;

/// The name of a socket in the file system; removed when dropped, unless somebody has put another
/// file there since.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Ok(self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a socket file stays behind");
        }
    }
}

fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    lstat(path).map(|stat| (stat.st_dev, stat.st_ino))
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// Listens at `path`, mode 0660, not blocking. A socket that nobody listens at any more, left by a
/// process that died, is replaced.
///
/// # Errors
/// `InvalidInput` for a path of more than 107 bytes, `AddrInUse` if something is there that is no
/// socket or if somebody listens, or what the system says.
pub fn listen_at(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let address = address(path)?;
    let fd = unix_socket()?;
    // The mode of the socket before it is bound limits that of its file from the first moment.
    fchmod(&fd, Mode::from_bits_truncate(MODE))?;
    match bind(fd.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => {
            remove_stale(path)?;
            bind(fd.as_raw_fd(), &address)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    // The umask may have taken the group away.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok((UnixListener::from(fd), file))
}

/// Connects to a socket that somebody else listens at, without waiting; the result does not block.
///
/// # Errors
/// `ConnectionRefused`, `NotFound`, `WouldBlock` if too many are waiting there, or what else the
/// system says.
pub fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let fd = unix_socket()?;
    connect(fd.as_raw_fd(), &address(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Whether a path can be a socket's.
///
/// # Errors
/// `InvalidInput` for one of more than 107 bytes.
pub fn check_path(path: &Path) -> io::Result<()> {
    address(path).map(drop)
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::new(path).map_err(|_| {
        let len = path.as_os_str().len();
        let text = format!("the path has {len} bytes, a socket's may have 1 to 107");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |text: &str| io::Error::new(io::ErrorKind::AddrInUse, text);
    let stat = lstat(path)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(in_use("something that is not a socket is there"));
    }
    match connect_to(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(in_use("another process listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_while_we_listen_and_only_for_owner_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let (listener, file) = listen_at(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        connect_to(&path).unwrap();
        listener.accept().unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_dead_are_replaced_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, file) = listen_at(&path).unwrap();
        let error = listen_at(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        // Somebody else's file at our place stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(file);
        assert_eq!(
            listen_at(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn paths_have_107_bytes_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let fill = 107 - dir.path().as_os_str().len() - 1;
        assert!(listen_at(&dir.path().join("x".repeat(fill))).is_ok());
        let error = listen_at(&dir.path().join("x".repeat(fill + 1))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("108 bytes"), "{error}");
    }
}
