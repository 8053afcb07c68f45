//! Calls that are about files under /sys and about ethtool's ioctl, with an emulator in the
//! kernel's place.

use crate::call::Outcome;
use crate::ethtool;
use crate::files::Files;
use crate::filter::{SIOCETHTOOL, WRITES};
use crate::memory::{Buffer, Memory};
use crate::notify::Stopped;
use crate::via::{Far, Via};
use chanio_netlink::played::Request;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Longest path (linux/limits.h).
const PATH_MAX: usize = 4096;

/// An emulator, and what the program has of it.
#[derive(Debug)]
pub struct Elsewhere {
    via: Via,
    files: Files,
}

impl Elsewhere {
    /// The emulator whose run directory this is.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            via: Via::open(run_dir)?,
            files: Files::new()?,
        })
    }

    /// A netlink socket for a thread, if it is to be the emulator's.
    pub fn open_socket(&self, protocol: i32, thread: u32) -> Result<Option<Far>, Errno> {
        self.via.open_socket(protocol, thread)
    }

    /// Carries out a call on something other than a played socket.
    pub fn carry_out(&mut self, stopped: &Stopped) -> Result<Outcome, Errno> {
        let call = Call {
            stopped,
            memory: Memory::of(stopped.thread),
            elsewhere: self,
        };
        call.carry_out()
    }
}

struct Call<'a> {
    stopped: &'a Stopped,
    memory: Memory,
    elsewhere: &'a mut Elsewhere,
}

impl Call<'_> {
    fn arg(&self, index: usize) -> u64 {
        self.stopped.args[index]
    }

    fn int(&self, index: usize) -> i32 {
        (self.arg(index) as u32).cast_signed()
    }

    fn carry_out(mut self) -> Result<Outcome, Errno> {
        use libc::AT_FDCWD;
        let stopped = self.stopped;
        match stopped.call {
            call if WRITES.contains(&call) => self.write(),
            libc::SYS_ioctl if self.arg(1) as u32 == SIOCETHTOOL => self.ethtool(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.open(AT_FDCWD, self.arg(0), self.int(1)),
            libc::SYS_openat => self.open(self.int(0), self.arg(1), self.int(2)),
            libc::SYS_openat2 => {
                // struct open_how begins with the flags.
                let flags = self.memory.read(self.arg(2), 8)?;
                let flags = flags.first_chunk().map_or(0, |f| u64::from_ne_bytes(*f));
                self.open(self.int(0), self.arg(1), flags as i32)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => self.read_link(AT_FDCWD, [0, 1, 2]),
            libc::SYS_readlinkat => self.read_link(self.int(0), [1, 2, 3]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access => self.access(AT_FDCWD, self.arg(0)),
            libc::SYS_faccessat | libc::SYS_faccessat2 => self.access(self.int(0), self.arg(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => self.stat(AT_FDCWD, [0, 1], false),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => self.stat(AT_FDCWD, [0, 1], true),
            libc::SYS_newfstatat => {
                let no_follow = self.int(3) & libc::AT_SYMLINK_NOFOLLOW != 0;
                self.stat(self.int(0), [1, 2], no_follow)
            }
            libc::SYS_statx => {
                // Who uses it falls back to fstatat where it is not there (statx(2)).
                match self.path(self.int(0), self.arg(1))? {
                    Some(path) if self.exists(&path)? => Err(Errno::ENOSYS),
                    _ => Ok(Outcome::Resume),
                }
            }
            _ => Ok(Outcome::Resume),
        }
    }

    /// SIOCETHTOOL: a struct ifreq with the netdev's name and where the command is.
    fn ethtool(&self) -> Result<Outcome, Errno> {
        const NAME_LEN: usize = 16;
        let request = self.memory.read(self.arg(2), NAME_LEN + 8)?;
        let (name, at) = request.split_at(NAME_LEN);
        let at = at.first_chunk().map_or(0, |at| u64::from_ne_bytes(*at));
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let Ok(interface) = String::from_utf8(name.to_vec()) else {
            return Ok(Outcome::Resume);
        };
        let head = self.memory.read(at, ethtool::HEAD)?;
        let Some(size) = ethtool::size(&head) else {
            return Ok(Outcome::Resume);
        };
        let Some(size) = ethtool::whole(&self.memory.read(at, size)?) else {
            return Ok(Outcome::Resume);
        };
        let request = Request::Ethtool {
            interface,
            command: self.memory.read(at, size)?,
        };
        match self.elsewhere.via.ask(&request) {
            Ok(changed) => {
                self.memory.write(at, &changed[..changed.len().min(size)])?;
                Ok(Outcome::Done(0))
            }
            // Not its netdev, or nothing that it answers itself.
            Err(Errno::ENODEV | Errno::ENOTTY) => Ok(Outcome::Resume),
            Err(errno) => Err(errno),
        }
    }

    /// The path that is meant, if the emulator may have something there.
    fn path(&self, directory: i32, at: u64) -> Result<Option<String>, Errno> {
        let path = self.memory.read_text(at, PATH_MAX)?;
        if path.is_empty() {
            return Ok(None);
        }
        let files = &self.elsewhere.files;
        Ok(files.path(self.stopped.thread, directory, &path))
    }

    fn exists(&self, path: &str) -> Result<bool, Errno> {
        let Elsewhere { via, files } = &*self.elsewhere;
        files.exists(via, path)
    }

    fn open(&mut self, directory: i32, at: u64, flags: i32) -> Result<Outcome, Errno> {
        let Some(path) = self.path(directory, at)? else {
            return Ok(Outcome::Resume);
        };
        let Elsewhere { via, files } = self.elsewhere;
        let opened = files.open(via, self.stopped.thread, &path, flags)?;
        Ok(match opened {
            None => Outcome::Resume,
            Some(opened) => Outcome::File {
                file: opened.file,
                number: opened.number,
                close_on_exec: flags & libc::O_CLOEXEC != 0,
            },
        })
    }

    fn write(&mut self) -> Result<Outcome, Errno> {
        let Elsewhere { via, files } = &*self.elsewhere;
        if !files.any_writable() {
            return Ok(Outcome::Resume);
        }
        let number = self.int(0).cast_unsigned();
        let data = || {
            let buffers = if self.stopped.call == libc::SYS_writev {
                let count = self.arg(2) as usize;
                self.memory.read_buffers(self.arg(1), count)?
            } else {
                vec![Buffer {
                    at: self.arg(1),
                    len: self.arg(2) as usize,
                }]
            };
            self.memory.gather(&buffers)
        };
        let written = files.write(via, self.stopped.thread, number, data)?;
        Ok(match written {
            Some(length) => Outcome::Done(length as u64),
            None => Outcome::Resume,
        })
    }

    fn read_link(
        &mut self,
        directory: i32,
        [path, buffer, size]: [usize; 3],
    ) -> Result<Outcome, Errno> {
        let Some(path) = self.path(directory, self.arg(path))? else {
            return Ok(Outcome::Resume);
        };
        let Elsewhere { via, files } = &*self.elsewhere;
        let Some(target) = files.read_link(via, &path)? else {
            return Ok(Outcome::Resume);
        };
        let room = self.int(size).max(0) as usize;
        let told = &target[..target.len().min(room)];
        self.memory.write(self.arg(buffer), told)?;
        Ok(Outcome::Done(told.len() as u64))
    }

    fn access(&mut self, directory: i32, at: u64) -> Result<Outcome, Errno> {
        match self.path(directory, at)? {
            Some(path) if self.exists(&path)? => Ok(Outcome::Done(0)),
            _ => Ok(Outcome::Resume),
        }
    }

    fn stat(
        &mut self,
        directory: i32,
        [path, to]: [usize; 2],
        no_follow: bool,
    ) -> Result<Outcome, Errno> {
        let Some(path) = self.path(directory, self.arg(path))? else {
            return Ok(Outcome::Resume);
        };
        let Elsewhere { via, files } = &mut *self.elsewhere;
        let is_link = no_follow && matches!(files.read_link(via, &path), Ok(Some(_)));
        let Some(file) = files.metadata(via, &path)? else {
            return Ok(Outcome::Resume);
        };
        let mut told = fstat(file.as_fd())?;
        if is_link {
            told.st_mode = libc::S_IFLNK | 0o777;
        }
        self.memory.write_stat(self.arg(to), &told)?;
        Ok(Outcome::Done(0))
    }
}
