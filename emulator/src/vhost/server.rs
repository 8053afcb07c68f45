//! What the rest of the emulator sees of the sessions.

use super::device::Device;
use super::doorman::Doorman;
use super::event_loop::{Command, Endpoint, EventLoop, Role, SessionHandle};
use super::listen::check_path;
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

/// The threads that serve all vhost-user sockets: one listens, one talks. Stops them all when
/// dropped.
///
/// All methods but [`config_changed`](Self::config_changed) and [`announce`](Self::announce) wait
/// for those threads, so a [`Device`] must not call them from its own methods, nor may the caller
/// hold a lock that a `Device` method takes.
///
/// A client that breaks the protocol is disconnected and its channel gets [`Device::fault`]; a new
/// client finds everything as at the first time.
pub struct VhostServer {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// Ends after the session thread.
    doorman: Doorman,
}

impl VhostServer {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let (commands, mailbox) = channel();
        let doorman = Doorman::start()?;
        let (event_loop, wake) = EventLoop::new(mailbox, doorman.visitors())?;
        let thread = std::thread::Builder::new()
            .name("vhost".into())
            .spawn(move || event_loop.run())?;
        Ok(VhostServer {
            commands,
            wake,
            thread: Some(thread),
            doorman,
        })
    }

    /// Serves some channels; either all of them or, with an error, none. When it returns, clients
    /// can connect. Socket files get mode 0660; a file left by a process that died is replaced.
    ///
    /// # Errors
    /// [`Refused::Os`]: a path is longer than 107 bytes, somebody listens there, something is there
    /// that is no socket, or the process has run out of descriptors.
    pub fn add(&self, specs: Vec<SessionSpec>) -> Result<Vec<SessionHandle>, Refused> {
        let (mut listeners, mut connectors) = (Vec::new(), Vec::new());
        let (mut paths, mut listens) = (Vec::new(), Vec::with_capacity(specs.len()));
        for spec in specs {
            listens.push(matches!(spec, SessionSpec::Listen(..)));
            match spec {
                SessionSpec::Listen(path, device) => {
                    let role = Role::Listen;
                    listeners.push(Endpoint { role, device });
                    paths.push(path);
                }
                SessionSpec::Connect(path, device) => {
                    check_path(&path).map_err(|source| {
                        Refused::os(format!("connecting to {}", path.display()), source)
                    })?;
                    let role = Role::Connect { path };
                    connectors.push(Endpoint { role, device });
                }
            }
        }
        // Sessions before doors, so that who comes is known; connecting last, when nothing can
        // fail any more.
        let listeners = self.begin(listeners)?;
        let doors = listeners.iter().copied().zip(paths).collect();
        if let Err(refused) = self.doorman.open(doors) {
            self.ask(|reply| Command::Remove(listeners, reply));
            return Err(refused);
        }
        let mut listeners = listeners.into_iter();
        let mut connectors = self.begin(connectors)?.into_iter();
        let handle = |listens| match listens {
            true => listeners.next(),
            false => connectors.next(),
        };
        Ok(listens.into_iter().filter_map(handle).collect())
    }

    fn begin(&self, endpoints: Vec<Endpoint>) -> Result<Vec<SessionHandle>, Refused> {
        self.ask(|reply| Command::Add(endpoints, reply))
            .ok_or(Refused::ShuttingDown)
    }

    /// Ends some sessions. When it returns, their rings are stopped, their clients disconnected and
    /// their socket files gone.
    pub fn remove(&self, handles: Vec<SessionHandle>) {
        self.doorman.close(handles.clone());
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
        // The doorman goes after this: to the session thread its end would be a failure.
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the session thread has panicked");
        }
    }
}
