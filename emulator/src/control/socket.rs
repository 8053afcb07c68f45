//! The run directory and the control socket in it.

use crate::nic::Refused;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the control socket in the run directory.
pub const SOCKET_NAME: &str = "control.sock";

/// The control API can do everything, so only the owner may connect.
const MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A run directory that no other process uses: take it before [`Nic::start`], whose sockets are
/// in there as well, and drop the last clone after [`Nic::shutdown`]. Given up as well when the
/// process dies.
///
/// [`Nic::shutdown`]: crate::nic::Nic::shutdown
/// [`Nic::start`]: crate::nic::Nic::start
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

impl RunDir {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Refused::Missing`] while another process has it, or what the system says.
    pub fn claim(path: &Path) -> Result<Self, Refused> {
        let what = || format!("run_dir: {}", path.display());
        let failed = |e: io::Error| Refused::os(what(), e);
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let dir = File::open(&path).map_err(failed)?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self {
                path,
                _lock: Arc::new(lock),
            }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Refused::Missing {
                what: what(),
                why: "another chanio-emu uses it; stop that one or choose another --run-dir".into(),
            }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// The directory, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket is, while one is served.
    pub fn socket_path(&self) -> PathBuf {
        self.path.join(SOCKET_NAME)
    }

    /// Listens at the control socket, not blocking. What a dead process left is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if something is there that is no socket, or at which somebody listens; or what
    /// the system says.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        let path = self.socket_path();
        remove_stale(&path)?;
        Ok(UnixListener::from(listen_at(&path, SockType::Stream)?))
    }

    /// Listens at a socket of whole packets (SOCK_SEQPACKET), not blocking. Whoever has the directory
    /// has its sockets, so that one that is there is a dead process's.
    ///
    /// # Errors
    /// `AddrInUse` if something is there that is no socket, or what the system says.
    pub fn listen_for_packets(&self, name: &str) -> io::Result<OwnedFd> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            _ => {}
        }
        listen_at(&path, SockType::SeqPacket)
    }
}

fn listen_at(path: &Path, kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, kind, flags, None)?;
    // What a socket's mode is when it is bound, its file's is from the start.
    fchmod(&fd, Mode::from_bits_truncate(MODE))?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return taken("a file is there that is no socket");
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => taken("a process listens there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_one_process_has_a_run_dir() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = RunDir::claim(&path).unwrap();
        let second = RunDir::claim(&path).unwrap_err().to_string();
        assert!(second.contains("another chanio-emu uses it"), "{second}");
        drop(first);
        RunDir::claim(&path).unwrap();
    }

    #[test]
    fn a_dead_socket_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::claim(dir.path()).unwrap();
        let first = run_dir.listen().unwrap();
        let mode = fs::metadata(run_dir.socket_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(
            run_dir.listen().unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        drop(run_dir.listen().unwrap());

        fs::remove_file(run_dir.socket_path()).unwrap();
        fs::write(run_dir.socket_path(), "precious").unwrap();
        assert_eq!(
            run_dir.listen().unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(fs::read(run_dir.socket_path()).unwrap(), b"precious");
    }
}
