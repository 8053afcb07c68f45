//! Runs an unmodified program with somebody else in the kernel's place on its netlink sockets.
//!
//! A seccomp filter (seccomp_unotify(2)) stops the program where it makes a netlink socket and
//! where it uses one, and asks this process instead. That works for any program, statically
//! linked ones included, and without ptrace. A socket that is played is one end of a socket pair
//! in the program, so that poll and close work by themselves, under a number so high that the
//! filter knows it by that alone; all else that the program does never comes here.
//!
//! With an emulator in the kernel's place ([`spawn_via`]), so are the files of its device: the
//! program opens real files with the content that the emulator gave, and writes to them come here.
//!
//! This is no sandbox: the program means well, and what it reads or writes elsewhere is its own
//! business.

mod call;
mod ethtool;
mod files;
mod filter;
mod memory;
mod notify;
mod played;
mod serve;
mod sockets;
mod start;
mod via;

use chanio_netlink::kernel::{Client, Kernel, Refusal, Reply};
use chanio_netlink::message::Message;
use played::Elsewhere;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread::JoinHandle;

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not start.
    #[error("{program}: cannot be started: {source}")]
    Start {
        /// Which one.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody plays the kernel there.
    #[error(
        "{}: no emulator plays the kernel there (chanio-emu --netlink --run-dir {}): {source}",
        .run_dir.display(), .run_dir.display()
    )]
    Via {
        /// Where.
        run_dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not let us in its place.
    #[error("seccomp user notification: {0}")]
    Notify(io::Error),
    /// Waiting for it failed.
    #[error("waiting for the program: {0}")]
    Wait(io::Error),
    /// The thread that answers it has panicked.
    #[error("the thread that answers the program has panicked")]
    Panicked,
}

/// A program that runs, and who answers it.
#[derive(Debug)]
pub struct Running<K> {
    child: Child,
    answers: JoinHandle<io::Result<K>>,
}

/// Starts a program whose netlink sockets `kernel` answers.
pub fn spawn<K: Kernel + 'static>(command: Command, kernel: K) -> Result<Running<K>, Error> {
    spawn_with(command, kernel, None)
}

/// Starts a program for which an emulator plays the kernel: on its netlink sockets, at the files
/// of the emulator's device under /sys, and for ethtool's ioctl. The emulator is the one whose run
/// directory this is (`chanio-emu --netlink`).
///
/// What is not about the device is the real kernel's, and so is all that the program does in a
/// network namespace other than the emulator's.
///
/// # Errors
/// [`Error::Via`]: no emulator plays the kernel there; or as [`spawn`].
pub fn spawn_via(command: Command, run_dir: &Path) -> Result<Running<RealKernel>, Error> {
    let elsewhere = Elsewhere::open(run_dir).map_err(|source| Error::Via {
        run_dir: run_dir.to_owned(),
        source,
    })?;
    spawn_with(command, RealKernel, Some(elsewhere))
}

fn spawn_with<K: Kernel + 'static>(
    command: Command,
    kernel: K,
    elsewhere: Option<Elsewhere>,
) -> Result<Running<K>, Error> {
    let (child, listener) = start::start(command, elsewhere.is_some())?;
    let answers = std::thread::Builder::new()
        .name("netlink".to_owned())
        .spawn(move || serve::serve(listener, kernel, elsewhere))
        .map_err(Error::Notify)?;
    Ok(Running { child, answers })
}

/// Plays nothing: netlink sockets that end nowhere else are the real kernel's.
#[derive(Clone, Copy, Debug)]
pub struct RealKernel;

impl Kernel for RealKernel {
    fn plays(&self, _: i32) -> bool {
        false
    }

    fn request(&mut self, _: &Client, _: &Message) -> Result<Reply, Refusal> {
        Err(Refusal::errno(libc::EPROTONOSUPPORT))
    }
}

impl<K> Running<K> {
    /// The program.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it has ended, and everybody whom it started.
    pub fn wait(mut self) -> Result<(ExitStatus, K), Error> {
        let status = self.child.wait().map_err(Error::Wait)?;
        Ok((status, join(self.answers)?))
    }

    /// As [`Running::wait`], with what it wrote where that is a pipe.
    pub fn wait_with_output(self) -> Result<(Output, K), Error> {
        let output = self.child.wait_with_output().map_err(Error::Wait)?;
        Ok((output, join(self.answers)?))
    }
}

fn join<K>(answers: JoinHandle<io::Result<K>>) -> Result<K, Error> {
    answers
        .join()
        .map_err(|_| Error::Panicked)?
        .map_err(Error::Notify)
}
