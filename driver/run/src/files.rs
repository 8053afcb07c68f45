//! Files under /sys that are the emulator's: opened, read, written and looked for by the program.
//!
//! What the program opens is a real file with the content that the emulator gave, a real directory
//! with the names that it gave beside those that there really are. Files opened to be written get
//! numbers of which the filter knows that writes come here, and what is written goes to the
//! emulator before the write returns. A shell moves such a file to number 1, so writes to the
//! first three numbers come here as well, and are told by the file that is behind.

use crate::filter::{END_FD, FIRST_FILE};
use crate::sockets::ProgramFile;
use crate::via::Via;
use chanio_netlink::played::{Entry, EntryKind, Request};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::mkdtemp;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Below these the emulator may have something.
const PLAYED: [&str; 4] = [
    "/sys/bus/pci",
    "/sys/bus/auxiliary",
    "/sys/class/net",
    "/sys/devices",
];

/// Files that the program can write to at once, until it ends: what is behind each is kept.
const MAX_WRITABLE: usize = 4096;

/// What is at a path of the emulator's.
#[derive(Debug)]
enum Found {
    Directory(Vec<Entry>),
    File(Vec<u8>),
}

/// A file that the program has opened to write to.
#[derive(Debug)]
struct Writable {
    path: String,
    /// Open, so that no other file can be taken for it.
    file: File,
}

/// The emulator's files as far as the program uses them.
#[derive(Debug)]
pub struct Files {
    /// Where what the program opens is put.
    place: PathBuf,
    next: u64,
    /// Directories that were opened, by their number in `place`.
    directories: Vec<(PathBuf, String)>,
    writable: Vec<Writable>,
}

/// An opened file, and the number that it must have in the program.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: OwnedFd,
    /// Of one that is written to; others get what the kernel gives them.
    pub number: Option<u32>,
}

impl Files {
    /// Nothing opened yet.
    pub fn new() -> io::Result<Self> {
        let template = std::env::temp_dir().join("chanio-run-XXXXXX");
        Ok(Self {
            place: mkdtemp(&template)?,
            next: 0,
            directories: Vec::new(),
            writable: Vec::new(),
        })
    }

    /// The path that a thread means, if the emulator may have something there: without `.` and
    /// `..`, with those of the directories that were opened here.
    pub fn path(&self, thread: u32, directory: i32, path: &[u8]) -> Option<String> {
        let path = str::from_utf8(path).ok()?;
        let whole = if path.starts_with('/') {
            path.to_owned()
        } else {
            let base = if directory == libc::AT_FDCWD {
                fs::read_link(format!("/proc/{thread}/cwd"))
            } else {
                fs::read_link(format!("/proc/{thread}/fd/{directory}"))
            };
            let base = base.ok()?;
            let opened = self.directories.iter().find(|(at, _)| *at == base);
            let base = match opened {
                Some((_, path)) => path.clone(),
                None => base.into_os_string().into_string().ok()?,
            };
            format!("{base}/{path}")
        };
        // A link before `..` would lead elsewhere; programs ask for real paths first.
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let path = format!("/{}", parts.join("/"));
        let may_be = |played: &&str| {
            let rest = path.strip_prefix(*played);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        PLAYED.iter().any(may_be).then_some(path)
    }

    fn find(&self, via: &Via, path: &str) -> Result<Option<Found>, Errno> {
        match via.ask(&Request::List(path.to_owned())) {
            Ok(data) => {
                let mut entries = Entry::parse_list(&data).map_err(|_| Errno::EPROTO)?;
                add_real(path, &mut entries);
                Ok(Some(Found::Directory(entries)))
            }
            Err(Errno::ENOTDIR) => {
                // What cannot be read can be there nevertheless.
                let content = via.ask(&Request::Read(path.to_owned()));
                Ok(Some(Found::File(content.unwrap_or_default())))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// open(2); none of what is not the emulator's.
    pub fn open(
        &mut self,
        via: &Via,
        thread: u32,
        path: &str,
        flags: i32,
    ) -> Result<Option<Opened>, Errno> {
        let found = match self.find(via, path)? {
            Some(found) => found,
            None => return Ok(None),
        };
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        match &found {
            Found::Directory(_) if writes => return Err(Errno::EISDIR),
            Found::File(_) if flags & libc::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR),
            Found::File(_) if !writes => {
                // A read that fails, fails when the file is read; it is told at once here.
                via.ask(&Request::Read(path.to_owned()))?;
            }
            _ => {}
        }
        let (at, file) = self.put(&found)?;
        if let Found::Directory(_) = found {
            self.directories.push((at, path.to_owned()));
            return Ok(Some(Opened {
                file: file.into(),
                number: None,
            }));
        }
        fs::remove_file(&at).map_err(errno_of)?;
        let number = writes.then(|| self.free_number(thread)).transpose()?;
        if writes {
            if self.writable.len() == MAX_WRITABLE {
                return Err(Errno::ENFILE);
            }
            self.writable.push(Writable {
                path: path.to_owned(),
                file: file.try_clone().map_err(errno_of)?,
            });
        }
        Ok(Some(Opened {
            file: file.into(),
            number,
        }))
    }

    /// What stat(2) would tell of it; none of what is not the emulator's.
    pub fn metadata(&mut self, via: &Via, path: &str) -> Result<Option<File>, Errno> {
        let Some(found) = self.find(via, path)? else {
            return Ok(None);
        };
        let (at, file) = self.put(&found)?;
        let gone = match found {
            Found::Directory(_) => fs::remove_dir_all(&at),
            Found::File(_) => fs::remove_file(&at),
        };
        gone.map_err(errno_of)?;
        Ok(Some(file))
    }

    /// Whether the emulator has something there.
    pub fn exists(&self, via: &Via, path: &str) -> Result<bool, Errno> {
        Ok(self.find(via, path)?.is_some())
    }

    /// readlink(2); none of what is not the emulator's.
    pub fn read_link(&self, via: &Via, path: &str) -> Result<Option<Vec<u8>>, Errno> {
        match via.ask(&Request::ReadLink(path.to_owned())) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether writes may have to be looked at at all.
    pub fn any_writable(&self) -> bool {
        !self.writable.is_empty()
    }

    /// write(2) to what is behind a number, if it is the emulator's: how much was written.
    pub fn write(
        &self,
        via: &Via,
        thread: u32,
        number: u32,
        data: impl FnOnce() -> Result<Vec<u8>, Errno>,
    ) -> Result<Option<usize>, Errno> {
        let Some(path) = self.behind(thread, number) else {
            return Ok(None);
        };
        let data = data()?;
        let length = data.len();
        let path = path.to_owned();
        via.ask(&Request::Write { path, data })?;
        Ok(Some(length))
    }

    /// The path of a file that was opened here to be written, by its number in the program.
    fn behind(&self, thread: u32, number: u32) -> Option<&str> {
        let file = ProgramFile::of(thread, number).ok()?;
        let told = fstat(file.as_fd()).ok()?;
        let is_it = |writable: &&Writable| {
            let own = writable.file.metadata();
            own.is_ok_and(|own| (own.dev(), own.ino()) == (told.st_dev, told.st_ino))
        };
        self.writable.iter().find(is_it).map(|w| w.path.as_str())
    }

    /// Makes a file or directory of what was found.
    fn put(&mut self, found: &Found) -> Result<(PathBuf, File), Errno> {
        let at = self.place.join(self.next.to_string());
        self.next += 1;
        let make = || -> io::Result<File> {
            match found {
                Found::File(content) => {
                    let mut options = File::options();
                    let mut file = options.read(true).write(true).create_new(true).open(&at)?;
                    file.write_all(content)?;
                    // To be read from its beginning.
                    io::Seek::rewind(&mut file)?;
                    Ok(file)
                }
                Found::Directory(entries) => {
                    fs::create_dir(&at)?;
                    for entry in entries {
                        let path = at.join(&entry.name);
                        match entry.kind {
                            EntryKind::Directory => fs::create_dir(path)?,
                            EntryKind::File => drop(File::create_new(path)?),
                            EntryKind::Link => symlink("elsewhere", path)?,
                        }
                    }
                    File::open(&at)
                }
            }
        };
        make().map(|file| (at.clone(), file)).map_err(errno_of)
    }

    fn free_number(&self, thread: u32) -> Result<u32, Errno> {
        let is_free = |number: &u32| {
            let path = format!("/proc/{thread}/fd/{number}");
            fs::symlink_metadata(Path::new(&path)).is_err()
        };
        (FIRST_FILE..END_FD).find(is_free).ok_or(Errno::EMFILE)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Adds what really is in a directory that the emulator has only a part of.
fn add_real(path: &str, entries: &mut Vec<Entry>) {
    for real in fs::read_dir(path).into_iter().flatten().flatten() {
        let Ok(name) = real.file_name().into_string() else {
            continue;
        };
        if entries.iter().any(|entry| entry.name == name) {
            continue;
        }
        let kind = match real.file_type() {
            Ok(kind) if kind.is_dir() => EntryKind::Directory,
            Ok(kind) if kind.is_symlink() => EntryKind::Link,
            _ => EntryKind::File,
        };
        entries.push(Entry { kind, name });
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
