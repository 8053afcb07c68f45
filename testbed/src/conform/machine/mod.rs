//! A Debian guest that has the channels: each is a NIC plugged into it while it runs, a netdev in a
//! network namespace of its own there.

pub mod agent;
mod protocol;
mod qmp;

pub use protocol::{Plugged, Said};

use super::case::{Ended, Stop};
use super::endpoint::Endpoint;
use super::stacks::{Counted, Talk};
use crate::guest::{BOOT, Guest, Kernel};
use crate::process::{Process, program};
use protocol::{Kind, Message};
use qmp::Qmp;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an order may take: the longest is a transfer of megabytes.
const PATIENCE: Duration = Duration::from_secs(90);
/// MiB of the guest's memory.
const MEMORY: u32 = 384;

/// Frames that have come, by end.
type Inbox = Arc<Mutex<HashMap<u32, VecDeque<Vec<u8>>>>>;

/// The guest.
pub struct Machine {
    /// Its orders, and what it answers to them.
    orders: Mutex<(UnixStream, Receiver<io::Result<Message>>)>,
    qmp: Mutex<Qmp>,
    inbox: Inbox,
    next: AtomicU32,
    guest: Mutex<Process>,
    // Behind the guest: its files go when it has.
    _dir: tempfile::TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Boots it.
    ///
    /// # Errors
    /// There is no image for it, or it does not come up; with what it has said.
    ///
    /// # Panics
    /// If QEMU or this workspace's programs are missing.
    pub fn boot() -> Result<Arc<Self>, String> {
        let kernel = Kernel::Cloud;
        kernel.image()?;
        let text = |e: io::Error| e.to_string();
        let dir = tempfile::tempdir().map_err(text)?;
        let [port, monitor] = ["port.sock", "qmp.sock"].map(|name| dir.path().join(name));
        let listener = UnixListener::bind(&port).map_err(text)?;
        let guest = Guest {
            port: Some(&port),
            monitor: Some(&monitor),
            programs: &[program("chanio-conform")],
            // What a frame does is then over by the time that it is sent.
            cpus: 1,
            memory: MEMORY,
            kernel,
            ..Guest::new(
                dir.path(),
                "load virtio_console\nchanio-conform --serve /dev/vport0p1\n",
            )
        }
        .boot();
        let guest = Mutex::new(guest);
        let until = Instant::now() + BOOT;
        let said = |what: &str| format!("the guest {what}:\n{}", lock(&guest).output());
        listener.set_nonblocking(true).map_err(text)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Err(e) => return Err(said(&format!("is not connected to: {e}"))),
            }
        };
        stream.set_nonblocking(false).map_err(text)?;
        let inbox = Inbox::default();
        let (answer, answers) = channel();
        let (mut reader, sorted) = (stream.try_clone().map_err(text)?, inbox.clone());
        // Ends with QEMU, whose socket it is.
        std::thread::spawn(move || {
            loop {
                match Message::read(&mut reader) {
                    Ok(Message {
                        kind: Kind::Frame,
                        end,
                        body,
                    }) => {
                        // Nobody's any more, if it has been unplugged.
                        if let Some(frames) = lock(&sorted).get_mut(&end) {
                            frames.push_back(body);
                        }
                    }
                    other => {
                        let broken = other.is_err();
                        if answer.send(other).is_err() || broken {
                            break;
                        }
                    }
                }
            }
        });
        // It says so once it is there.
        match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(Message {
                kind: Kind::Done, ..
            })) => {}
            other => return Err(said(&format!("does not come up ({other:?})"))),
        }
        let qmp = Qmp::connect(&monitor).map_err(|e| said(&e.to_string()))?;
        Ok(Arc::new(Self {
            orders: Mutex::new((stream, answers)),
            qmp: Mutex::new(qmp),
            inbox,
            next: AtomicU32::new(0),
            guest,
            _dir: dir,
        }))
    }

    /// Has an order carried out; what it answers.
    fn order(&self, kind: Kind, end: u32, body: &[u8]) -> io::Result<Message> {
        let (stream, answers) = &mut *lock(&self.orders);
        Message::write(stream, kind, end, body)?;
        let broken = |why: String| {
            let said = lock(&self.guest).output();
            io::Error::other(format!("the guest: {why}:\n{said}"))
        };
        match answers.recv_timeout(PATIENCE) {
            Ok(Ok(answer)) => match answer.kind {
                Kind::Failed => Err(io::Error::other(
                    String::from_utf8_lossy(&answer.body).into_owned(),
                )),
                _ => Ok(answer),
            },
            Ok(Err(error)) => Err(broken(error.to_string())),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    /// Plugs in the channel that listens at `socket`.
    ///
    /// # Errors
    /// QEMU or the guest does not take it.
    pub fn plug(self: &Arc<Self>, socket: &Path, nic: &Plugged) -> io::Result<Plug> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.qmp).plug(id, socket, nic)?;
        lock(&self.inbox).insert(id, VecDeque::new());
        let plug = Plug {
            machine: self.clone(),
            id,
        };
        self.order(Kind::Attach, id, &serde_json::to_vec(nic)?)?;
        Ok(plug)
    }

    /// Runs a program in the network namespace of the channel of this name.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(&self, channel: &str, words: &[&str]) -> Ended<Said> {
        let order = serde_json::to_vec(&(channel, words)).map_err(io::Error::from)?;
        let answer = self.order(Kind::Run, 0, &order)?;
        Ok(serde_json::from_slice(&answer.body).map_err(io::Error::from)?)
    }

    /// Has the stacks in the network namespaces of these channels talk to each other.
    ///
    /// # Errors
    /// As [`Talk::perform`].
    pub fn talk(&self, talk: Talk, channels: [&str; 2]) -> Ended<Counted> {
        let order = serde_json::to_vec(&(talk, channels)).map_err(io::Error::from)?;
        let answer = self.order(Kind::Talk, 0, &order)?;
        let ended: Result<Counted, Stop> =
            serde_json::from_slice(&answer.body).map_err(io::Error::from)?;
        ended
    }
}

/// A channel plugged into the guest; dropping it takes it out.
pub struct Plug {
    machine: Arc<Machine>,
    id: u32,
}

impl Endpoint for Plug {
    fn offer(&mut self, frame: &[u8]) -> io::Result<bool> {
        let answer = self.machine.order(Kind::Send, self.id, frame)?;
        Ok(answer.kind == Kind::Done)
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut inbox = lock(&self.machine.inbox);
        Ok(inbox.get_mut(&self.id).and_then(VecDeque::pop_front))
    }

    fn settle(&mut self) -> io::Result<()> {
        // What came before the answer has been read before it.
        self.machine.order(Kind::Settle, self.id, &[]).map(drop)
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let detached = self.machine.order(Kind::Detach, self.id, &[]);
        let unplugged = lock(&self.machine.qmp).unplug(self.id);
        lock(&self.machine.inbox).remove(&self.id);
        for error in [detached.err(), unplugged.err()].into_iter().flatten() {
            eprintln!("conform: taking a NIC out of the guest: {error}");
        }
    }
}
