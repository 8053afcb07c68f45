//! Requests on a netlink socket and their answers.

use super::{Protocol, Transport, Wire};
use crate::DeviceError;
use chanio_netlink::genl;
use chanio_netlink::message::{
    Acknowledgement, ExtAck, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_OVERRUN,
};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// How long the kernel may take for one request: a NIC's firmware that makes a subfunction, or
/// changes the switch's mode with many of them, takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Notifications that are kept until somebody asks for them; a subscriber that is behind by more
/// has to look for itself, as after an overrun.
const MAX_BACKLOG: usize = 10_000;

/// The descriptors that a request refers to.
pub type Files<'a> = &'a [BorrowedFd<'a>];

/// Why a request did not do what it was meant to.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It was refused.
    #[error("{}", refusal(*.errno, .told))]
    Refused {
        /// As in errno(3).
        errno: i32,
        /// What is said about it.
        told: Box<ExtAck>,
    },
    /// The socket fails.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer, or the request, is no netlink message.
    #[error(transparent)]
    Malformed(#[from] chanio_netlink::Error),
    /// No answer came.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// A generic family that is not there.
    #[error("the kernel has no generic netlink family `{0}`")]
    NoFamily(String),
}

fn refusal(errno: i32, told: &ExtAck) -> String {
    let mut text = nix::errno::Errno::from_raw(errno).desc().to_owned();
    if let Some(message) = &told.message {
        text += ": ";
        text += message;
    }
    if let Some(policy) = &told.policy
        && let (Some(min), Some(max)) = (policy.min, policy.max)
    {
        text += &format!(" (allowed are {min} to {max})");
    }
    text
}

impl TransportError {
    /// Only a number.
    pub fn errno(errno: i32) -> Self {
        TransportError::Refused {
            errno,
            told: Box::default(),
        }
    }

    /// Whether it was refused with this errno.
    pub fn is(&self, errno: i32) -> bool {
        match self {
            TransportError::Refused { errno: told, .. } => *told == errno,
            TransportError::Io(error) => error.raw_os_error() == Some(errno),
            _ => false,
        }
    }

    /// The same, as the failure of a step.
    pub fn at(self, step: &str) -> DeviceError {
        let why = match self.is(libc::EPERM) {
            true => format!("{self} (CAP_NET_ADMIN is needed)"),
            false => self.to_string(),
        };
        DeviceError::Refused {
            reason: format!("{step}: {why}"),
        }
    }
}

/// What the controller says of a generic family.
#[derive(Clone, Debug)]
pub struct Family {
    /// The type of its messages.
    pub id: u16,
    /// Whom it notifies.
    pub groups: Vec<(String, u32)>,
}

/// A netlink socket with a memory for notifications.
pub struct Session {
    wire: Box<dyn Wire>,
    sequence: u32,
    notifications: VecDeque<Message>,
    /// Some were lost since this was last asked.
    lost: bool,
}

impl Session {
    /// A socket in the namespace of the devices.
    pub fn open(transport: &dyn Transport, protocol: Protocol) -> io::Result<Self> {
        transport.open(protocol).map(Session::over)
    }

    /// On this socket.
    pub fn over(wire: Box<dyn Wire>) -> Self {
        Session {
            wire,
            sequence: 0,
            notifications: VecDeque::new(),
            lost: false,
        }
    }

    /// The number that an attribute holds for the descriptor in that place of a request's.
    pub fn file_number(&self, place: u32, file: BorrowedFd<'_>) -> u32 {
        self.wire.file_number(place, file)
    }

    /// Has a request carried out; what came before the acknowledgement.
    pub fn request(&mut self, message: Message) -> Result<Vec<Message>, TransportError> {
        self.request_with(message, &[])
    }

    /// The same for a request that refers to descriptors.
    pub fn request_with(
        &mut self,
        message: Message,
        files: Files<'_>,
    ) -> Result<Vec<Message>, TransportError> {
        self.ask(message, NLM_F_REQUEST | NLM_F_ACK, files)
    }

    /// A listing.
    pub fn dump(&mut self, message: Message) -> Result<Vec<Message>, TransportError> {
        self.ask(message, NLM_F_REQUEST | NLM_F_DUMP, &[])
    }

    fn ask(
        &mut self,
        mut message: Message,
        flags: u16,
        files: Files<'_>,
    ) -> Result<Vec<Message>, TransportError> {
        // 0 is what notifications have.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        message.sequence = self.sequence;
        message.flags |= flags;
        self.wire.send(&message.to_bytes(), files)?;
        let until = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        loop {
            let Some(datagram) = self.receive(until)? else {
                return Err(TransportError::Silent(PATIENCE));
            };
            for answer in Message::parse_all(&datagram)? {
                if answer.sequence != self.sequence {
                    // Of an earlier request that was given up, or told to everybody.
                    if answer.sequence == 0 {
                        self.keep(answer);
                    }
                    continue;
                }
                match answer.kind {
                    NLMSG_DONE => {
                        let code = answer.payload.first_chunk().map(|c| i32::from_ne_bytes(*c));
                        return match code.unwrap_or(0) {
                            0.. => Ok(answers),
                            errno => Err(TransportError::errno(errno.saturating_neg())),
                        };
                    }
                    NLMSG_ERROR => {
                        let told = Acknowledgement::parse(&answer)?;
                        return match told.error {
                            0 => Ok(answers),
                            errno => Err(TransportError::Refused {
                                errno,
                                told: Box::new(told.told),
                            }),
                        };
                    }
                    _ => answers.push(answer),
                }
            }
        }
    }

    /// The next datagram; an overrun is remembered and the wait goes on.
    fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.wire.receive(until) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.lost = true,
                received => return received,
            }
        }
    }

    fn keep(&mut self, message: Message) {
        if message.kind == NLMSG_OVERRUN || self.notifications.len() == MAX_BACKLOG {
            self.lost = true;
        } else {
            self.notifications.push_back(message);
        }
    }

    /// From now on what the group is told is kept for [`Session::notification`].
    pub fn join(&mut self, group: u32) -> io::Result<()> {
        self.wire.join(group)
    }

    /// Forgets what was told so far, for whoever looks for itself after this.
    pub fn forget_notifications(&mut self) {
        self.notifications.clear();
        self.lost = false;
    }

    /// The next notification, or `None` when there was none until then, or when some were lost:
    /// either way whoever waits has to look for itself.
    pub fn notification(&mut self, until: Instant) -> Result<Option<Message>, TransportError> {
        loop {
            if std::mem::take(&mut self.lost) {
                return Ok(None);
            }
            if let Some(message) = self.notifications.pop_front() {
                return Ok(Some(message));
            }
            let Some(datagram) = self.receive(until)? else {
                return Ok(None);
            };
            for message in Message::parse_all(&datagram)? {
                if message.sequence == 0 {
                    self.keep(message);
                }
            }
        }
    }

    /// The number of a generic family, and of its groups.
    pub fn family(&mut self, name: &str) -> Result<Family, TransportError> {
        let none = || TransportError::NoFamily(name.to_owned());
        let asked = genl::Family::named(name).message(0)?;
        let answers = match self.request(asked) {
            Err(error) if error.is(libc::ENOENT) => return Err(none()),
            answers => answers?,
        };
        let answer = answers.first().ok_or_else(none)?;
        let family = genl::Family::parse(&answer.payload)?;
        let groups = family.groups.into_iter();
        Ok(Family {
            id: family.more.id.ok_or_else(none)?,
            groups: groups.filter_map(|g| Some((g.name?, g.id?))).collect(),
        })
    }
}

impl Family {
    /// The number of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        let mut groups = self.groups.iter();
        groups.find(|(known, _)| known == name).map(|(_, id)| *id)
    }
}
