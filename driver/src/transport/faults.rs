//! Failures on demand: wraps a transport and, where a plan says so, refuses, delays or forgets.

use super::{Netns, Protocol, Transport, Wire};
use chanio_netlink::devlink::{Devlink, OperationalState};
use chanio_netlink::message::{Acknowledgement, ExtAck, Message, NLM_F_DUMP};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Something that was asked of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A netlink request: of the protocol, its type, and for generic families the command.
    Request {
        /// NETLINK_ROUTE or NETLINK_GENERIC.
        protocol: Protocol,
        /// nlmsg_type.
        kind: u16,
        /// genlmsghdr.cmd; 0 for other protocols.
        command: u8,
        /// It only asks: a listing, or a type that gets something.
        reads: bool,
    },
    /// A file is read, listed, or followed.
    Read(PathBuf),
    /// A file is written.
    Write(PathBuf),
    /// SIOCETHTOOL with this command.
    Ethtool(u32),
    /// A container's namespace is entered.
    Enter(String),
}

impl Operation {
    /// Whether it can change something.
    pub fn changes(&self) -> bool {
        match self {
            Operation::Request { reads, .. } => !reads,
            Operation::Write(_) => true,
            // The G of ETHTOOL_G* is not in the number: all count.
            Operation::Ethtool(_) => true,
            Operation::Read(_) | Operation::Enter(_) => false,
        }
    }
}

/// Which operations an effect is for.
#[derive(Clone, Debug)]
pub enum When {
    /// The nth operation from now on, counted from 0, whatever it is.
    Nth(usize),
    /// Every netlink request of this type (and generic command, if one is given).
    Request {
        /// nlmsg_type; for generic families [`When::Request::command`] alone tells.
        kind: Option<u16>,
        /// genlmsghdr.cmd.
        command: Option<u8>,
    },
    /// Every use of a file whose path ends so.
    Path(String),
    /// Every operation.
    Always,
}

/// What happens then.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It is refused, and never gets to the other side.
    Refuse {
        /// As in errno(3).
        errno: i32,
        /// The kernel's words, for netlink requests.
        text: Option<String>,
    },
    /// It takes so long.
    Delay(Duration),
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Operation>,
    plan: Vec<(When, Effect)>,
    lose_notifications: bool,
    never_attach: bool,
    patience: Option<Duration>,
}

/// A transport with failures; clones share the plan.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<dyn Transport>,
    state: Arc<Mutex<State>>,
}

impl Faults {
    /// Around this transport, with no failure planned.
    pub fn around(inner: Arc<dyn Transport>) -> Self {
        Faults {
            inner,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the plan and what was seen.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// Adds to the plan; of several that fit, the first counts.
    pub fn plan(&self, when: When, effect: Effect) {
        self.state().plan.push((when, effect));
    }

    /// What multicast groups are told does not arrive.
    pub fn lose_notifications(&self) {
        self.state().lose_notifications = true;
    }

    /// No port's function is ever seen as attached to a driver.
    pub fn never_attach(&self) {
        self.state().never_attach = true;
    }

    /// How long what a driver does on its own is waited for.
    pub fn set_patience(&self, patience: Duration) {
        self.state().patience = Some(patience);
    }

    /// All operations since the beginning or the last [`Faults::clear`], the refused ones too.
    pub fn seen(&self) -> Vec<Operation> {
        self.state().seen.clone()
    }

    /// Notes the operation; what is refused, if it is to be.
    fn meet(&self, operation: Operation) -> Option<(i32, Option<String>)> {
        let effect = {
            let mut state = self.state();
            let place = state.seen.len();
            let fits = |when: &When| match (when, &operation) {
                (When::Nth(n), _) => *n == place,
                (When::Always, _) => true,
                (
                    When::Request { kind, command },
                    Operation::Request {
                        kind: is,
                        command: does,
                        ..
                    },
                ) => kind.is_none_or(|k| k == *is) && command.is_none_or(|c| c == *does),
                (When::Path(end), Operation::Read(path) | Operation::Write(path)) => {
                    path.to_string_lossy().ends_with(end.as_str())
                }
                (When::Request { .. } | When::Path(_), _) => false,
            };
            let effect = state.plan.iter().find(|(when, _)| fits(when));
            let effect = effect.map(|(_, effect)| effect.clone());
            state.seen.push(operation);
            effect
        };
        match effect? {
            Effect::Refuse { errno, text } => Some((errno, text)),
            Effect::Delay(time) => {
                std::thread::sleep(time);
                None
            }
        }
    }

    fn file(&self, operation: Operation) -> io::Result<()> {
        match self.meet(operation) {
            Some((errno, _)) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    fn wrap(&self, wire: Box<dyn Wire>, protocol: Protocol) -> Box<dyn Wire> {
        Box::new(FaultyWire {
            wire,
            protocol,
            faults: self.clone(),
            refusals: VecDeque::new(),
        })
    }
}

impl Transport for Faults {
    fn open(&self, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        Ok(self.wrap(self.inner.open(protocol)?, protocol))
    }

    fn open_in(&self, netns: &Netns, protocol: Protocol) -> io::Result<Box<dyn Wire>> {
        self.file(Operation::Enter(netns.name().to_owned()))?;
        Ok(self.wrap(self.inner.open_in(netns, protocol)?, protocol))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(Operation::Read(path.to_owned()))?;
        self.inner.read(path)
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.file(Operation::Write(path.to_owned()))?;
        self.inner.write(path, data)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.file(Operation::Read(path.to_owned()))?;
        self.inner.list(path)
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        self.file(Operation::Read(path.to_owned()))?;
        self.inner.link_target(path)
    }

    fn ethtool(&self, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        let command = data.first_chunk().map_or(0, |c| u32::from_ne_bytes(*c));
        self.file(Operation::Ethtool(command))?;
        self.inner.ethtool(netdev, data)
    }

    fn ethtool_in(&self, netns: &Netns, netdev: &str, data: &mut Vec<u8>) -> io::Result<()> {
        let command = data.first_chunk().map_or(0, |c| u32::from_ne_bytes(*c));
        self.file(Operation::Ethtool(command))?;
        self.inner.ethtool_in(netns, netdev, data)
    }

    fn patience(&self) -> Duration {
        self.state()
            .patience
            .unwrap_or_else(|| self.inner.patience())
    }
}

struct FaultyWire {
    wire: Box<dyn Wire>,
    protocol: Protocol,
    faults: Faults,
    /// Answers to requests that never got to the other side.
    refusals: VecDeque<Vec<u8>>,
}

impl FaultyWire {
    fn operation(&self, message: &Message) -> Operation {
        let generic = self.protocol == Protocol::Generic;
        let command = if generic {
            message.payload.first()
        } else {
            None
        };
        let command = command.copied().unwrap_or(0);
        // rtnetlink's types come in fours: new, delete, get, set (rtnetlink_rcv_msg). devlink's
        // and ethtool's gets have no such rule.
        let gets = !generic && message.kind & 3 == 2;
        Operation::Request {
            protocol: self.protocol,
            kind: message.kind,
            command,
            reads: gets || message.flags & NLM_F_DUMP == NLM_F_DUMP,
        }
    }

    /// A datagram as it is let through: `None` if nothing of it is.
    fn filter(&self, datagram: Vec<u8>) -> Option<Vec<u8>> {
        let (lose, never_attach) = {
            let state = self.faults.state();
            (state.lose_notifications, state.never_attach)
        };
        let generic = self.protocol == Protocol::Generic;
        if !(lose || never_attach && generic) {
            return Some(datagram);
        }
        let Ok(messages) = Message::parse_all(&datagram) else {
            return Some(datagram);
        };
        let mut out = Vec::new();
        for message in messages {
            if lose && message.sequence == 0 {
                continue;
            }
            let detached = if never_attach && generic {
                detached(&message)
            } else {
                None
            };
            detached.unwrap_or(message).emit(&mut out);
        }
        (!out.is_empty()).then_some(out)
    }
}

/// The message with its port's function detached, if it is about one that is attached.
fn detached(message: &Message) -> Option<Message> {
    if message.kind <= chanio_netlink::genl::CONTROLLER {
        return None;
    }
    let mut told = Devlink::parse(&message.payload).ok()?;
    let function = told.port.function.as_mut()?;
    if function.operational_state != Some(OperationalState::Attached) {
        return None;
    }
    function.operational_state = Some(OperationalState::Detached);
    let changed = told.message(message.kind, message.flags).ok()?;
    Some(Message {
        payload: changed.payload,
        ..message.clone()
    })
}

impl Wire for FaultyWire {
    fn send(&mut self, datagram: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let messages = Message::parse_all(datagram).unwrap_or_default();
        for message in messages {
            let operation = self.operation(&message);
            let Some((errno, text)) = self.faults.meet(operation) else {
                continue;
            };
            let refusal = Acknowledgement {
                error: errno,
                request: Message {
                    payload: Vec::new(),
                    ..message
                },
                told: text.map(ExtAck::text).unwrap_or_default(),
            };
            let answer = refusal.emit(true).map_err(io::Error::other)?;
            self.refusals.push_back(answer.to_bytes());
            return Ok(());
        }
        self.wire.send(datagram, files)
    }

    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Ok(Some(refusal));
        }
        loop {
            let Some(datagram) = self.wire.receive(until)? else {
                return Ok(None);
            };
            if let Some(datagram) = self.filter(datagram) {
                return Ok(Some(datagram));
            }
        }
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.wire.join(group)
    }

    fn file_number(&self, place: u32, file: BorrowedFd<'_>) -> u32 {
        self.wire.file_number(place, file)
    }
}
