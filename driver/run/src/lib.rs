//! Runs an unmodified program with somebody else in the kernel's place on its netlink sockets.
//!
//! A seccomp filter (seccomp_unotify(2)) stops the program where it makes a netlink socket and
//! where it uses one, and asks this process instead. That works for any program, statically
//! linked ones included, and without ptrace. A socket that is played is one end of a socket pair
//! in the program, so that poll and close work by themselves, under a number so high that the
//! filter knows it by that alone; all else that the program does never comes here.
//!
//! This is no sandbox: the program means well, and what it reads or writes elsewhere is its own
//! business.

mod call;
mod filter;
mod memory;
mod notify;
mod serve;
mod sockets;
mod start;

use chanio_netlink::kernel::Kernel;
use std::io;
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
    let (child, listener) = start::start(command)?;
    let answers = std::thread::Builder::new()
        .name("netlink".to_owned())
        .spawn(move || serve::serve(listener, kernel))
        .map_err(Error::Notify)?;
    Ok(Running { child, answers })
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
