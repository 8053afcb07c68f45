//! What the rest of the emulator sees of the sessions.

use super::device::Device;
use super::event_loop::{Command, Endpoint, EventLoop, Role, SessionHandle};
use super::listen::{check_path, listen_at};
use crate::nic::Refused;
use nix::sys::eventfd::EventFd;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// A channel to be served, and where its client is found.
pub enum SessionSpec {
    /// Listen at this path for one client at a time; others are turned away while it is there.
    Listen(PathBuf, Arc<dyn Device>),
    /// Connect to this path, now and whenever the connection is lost: tries start 100 ms apart and
    /// go up to 1 s.
    Connect(PathBuf, Arc<dyn Device>),
}

/// The thread that serves all vhost-user sockets. Stops them all when dropped.
///
/// All methods but [`config_changed`](Self::config_changed) and [`announce`](Self::announce) wait
/// for that thread, so a [`Device`] must not call them from its own methods, nor may the caller
/// hold a lock that a `Device` method takes.
///
/// A client that breaks the protocol is disconnected and its channel gets [`Device::fault`]; a new
/// client finds everything as at the first time.
pub struct VhostServer {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl VhostServer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let (commands, mailbox) = channel();
        let (event_loop, wake) = EventLoop::new(mailbox)?;
        let thread = std::thread::Builder::new()
            .name("vhost".into())
            .spawn(move || event_loop.run())?;
        Ok(VhostServer {
            commands,
            wake,
            thread: Some(thread),
        })
    }

    /// Serves some channels; either all of them or, with an error, none. When it returns, clients
    /// can connect. Socket files get mode 0660; a file left by a process that died is replaced.
    ///
    /// # Errors
    /// [`Refused::Os`]: a path is longer than 107 bytes, somebody listens there, something is there
    /// that is no socket, or the process has run out of descriptors.
    pub fn add(&self, specs: Vec<SessionSpec>) -> Result<Vec<SessionHandle>, Refused> {
        let mut endpoints = Vec::with_capacity(specs.len());
        for spec in specs {
            endpoints.push(match spec {
                SessionSpec::Listen(path, device) => {
                    let (listener, _file) = listen_at(&path).map_err(|source| {
                        Refused::os(format!("listening at {}", path.display()), source)
                    })?;
                    Endpoint {
                        role: Role::Listen { listener, _file },
                        device,
                    }
                }
                SessionSpec::Connect(path, device) => {
                    check_path(&path).map_err(|source| {
                        Refused::os(format!("connecting to {}", path.display()), source)
                    })?;
                    Endpoint {
                        role: Role::Connect { path },
                        device,
                    }
                }
            });
        }
        self.ask(|reply| Command::Add(endpoints, reply))
            .ok_or(Refused::ShuttingDown)?
            .map_err(|source| Refused::os("watching a socket", source))
    }

    /// Ends some sessions. When it returns, their rings are stopped, their clients disconnected and
    /// their socket files gone.
    pub fn remove(&self, handles: Vec<SessionHandle>) {
        self.ask(|reply| Command::Remove(handles, reply));
    }

    /// Disconnects the client, if there is one; it or another may come again and finds a channel
    /// without its predecessor's traces. When it returns, the rings are stopped.
    pub fn reset(&self, handle: &SessionHandle) {
        self.ask(|reply| Command::Reset(*handle, reply));
    }

    /// Tells the driver that the link, the address or the MTU has changed, if its frontend has
    /// given us a channel for that. Does not wait.
    pub fn config_changed(&self, handle: &SessionHandle) {
        self.send(Command::ConfigChanged(*handle));
    }

    /// Asks the driver to announce its addresses to the network, if its control queue is served
    /// here. Does not wait.
    pub fn announce(&self, handle: &SessionHandle) {
        self.send(Command::Announce(*handle));
    }

    fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        // A full counter wakes as well.
        let _ = self.wake.write(1);
        sent
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = channel();
        self.send(command(reply));
        // If the thread has ended, the reply's sender is dropped with the command.
        answer.recv().ok()
    }
}

impl Drop for VhostServer {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the session thread has panicked");
        }
    }
}
