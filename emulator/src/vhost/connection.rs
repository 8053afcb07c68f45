//! One connection: messages taken off its socket as they become whole.

use super::control_ring::Scratch;
use super::device::Device;
use super::error::SessionError;
use super::session::{Session, Watch};
use super::socket::{HEADER_LEN, Head, Header, Socket};
use nix::errno::Errno;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE};
use vhost::vhost_user::{BackendReqHandler, Error};

/// Messages handled before other connections get their turn.
const TURN: usize = 32;

/// What the loop is to do with a connection after its turn.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing until the socket or the control queue has news.
    Wait,
    /// Give it another turn.
    More,
    /// The client has gone.
    Gone,
    /// The client broke the rules.
    Fault(SessionError),
}

/// A connected client.
pub struct Connection {
    handler: BackendReqHandler<Mutex<Session>>,
    session: Arc<Mutex<Session>>,
}

impl Connection {
    /// Takes over a non-blocking socket.
    pub fn new(socket: UnixStream, device: Arc<dyn Device>, watch: Watch) -> Self {
        let session = Arc::new(Mutex::new(Session::new(device, watch)));
        let handler = BackendReqHandler::from_stream(socket, Arc::clone(&session));
        Connection { handler, session }
    }

    /// The state behind it. Only the session thread ever locks it; the library wants a lock.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles the messages that are there as a whole, then the control queue.
    pub fn serve(&mut self, scratch: &mut Scratch) -> Outcome {
        let outcome = self.serve_messages();
        if !matches!(outcome, Outcome::Wait | Outcome::More) {
            return outcome;
        }
        match self.session().serve_control(scratch) {
            Ok(false) => outcome,
            Ok(true) => Outcome::More,
            Err(error) => Outcome::Fault(error),
        }
    }

    fn serve_messages(&mut self) -> Outcome {
        for _ in 0..TURN {
            let outcome = match self.next_message() {
                Ok(Some(header)) => self.handle(&header),
                Ok(None) => return Outcome::Wait,
                Err(outcome) => return outcome,
            };
            if let Some(error) = self.session().take_fault() {
                return Outcome::Fault(error);
            }
            if let Err(outcome) = outcome {
                return outcome;
            }
        }
        Outcome::More
    }

    /// The header of the next message once all of it is there and a reply to it would not wait.
    fn next_message(&self) -> Result<Option<Header>, Outcome> {
        let socket = Socket::of(&self.handler);
        let gone = |_: Errno| Outcome::Gone;
        // Asked first: what is missing after the client has closed will never come.
        let (ended, writable) = socket.poll().map_err(gone)?;
        let (header, seen) = match socket.head().map_err(gone)? {
            Head::Nothing => return Ok(None),
            Head::End => return Err(Outcome::Gone),
            Head::Part(have) if ended => {
                return Err(Outcome::Fault(SessionError::Truncated { have }));
            }
            Head::Part(_) => {
                // A look stops at attached descriptors, so a header with some in its middle would
                // never be seen whole.
                let whole = socket.unread().map_err(gone)? >= HEADER_LEN;
                return if whole {
                    Err(Outcome::Fault(SessionError::Split))
                } else {
                    Ok(None)
                };
            }
            Head::Header(header, seen) => (header, seen),
        };
        let Header { flags, size, .. } = header;
        if flags & 3 != 1 {
            return Err(Outcome::Fault(SessionError::Version {
                request: header.name(),
                flags,
            }));
        }
        if size as usize > MAX_MSG_SIZE {
            return Err(Outcome::Fault(SessionError::MessageSize {
                request: header.name(),
                size,
            }));
        }
        let whole = HEADER_LEN + size as usize;
        if seen < whole {
            // A look is short, and stops at attached descriptors.
            let have = socket.unread().map_err(gone)?;
            if have < whole {
                return match ended {
                    true => Err(Outcome::Fault(SessionError::Truncated { have })),
                    false => Ok(None),
                };
            }
        }
        // Not writable: the client does not read its replies. The socket tells when it does.
        Ok(writable.then_some(header))
    }

    fn handle(&mut self, header: &Header) -> Result<(), Outcome> {
        tracing::trace!(request = %header.name(), flags = header.flags, size = header.size);
        match FrontendReq::try_from(header.request) {
            // The library has no code for the first two, cannot speak on the channel that the last
            // brings, and refuses SET_VRING_ENABLE before SET_FEATURES: QEMU sends it then for each
            // pair that a guest uses, virtio-user as its first word when it reconnects.
            Ok(
                request @ (FrontendReq::NET_SET_MTU
                | FrontendReq::SEND_RARP
                | FrontendReq::SET_VRING_ENABLE
                | FrontendReq::SET_BACKEND_REQ_FD),
            ) => self.handle_here(request, header),
            _ => self.handle_in_library(header),
        }
    }

    fn handle_in_library(&mut self, header: &Header) -> Result<(), Outcome> {
        match self.handler.handle_request() {
            Ok(()) => Ok(()),
            // From the session: it has kept what is fatal; the client has its answer.
            Err(Error::ReqHandlerError(error)) => {
                tracing::debug!(%error, "request refused");
                Ok(())
            }
            Err(Error::Disconnected | Error::SocketBroken(_) | Error::SocketError(_)) => {
                Err(Outcome::Gone)
            }
            Err(error) => Err(self.malformed(header, error.to_string())),
        }
    }

    fn malformed(&self, header: &Header, reason: String) -> Outcome {
        let request = header.name();
        Outcome::Fault(SessionError::Message { request, reason })
    }

    fn handle_here(&mut self, request: FrontendReq, header: &Header) -> Result<(), Outcome> {
        let mut body = [0; 8];
        let Some(body) = body.get_mut(..header.size as usize) else {
            return Err(self.malformed(header, format!("{} bytes, at most 8", header.size)));
        };
        let socket = Socket::of(&self.handler);
        let fds = match socket.take(body) {
            Ok(Some(fds)) => fds,
            Ok(None) => return Err(Outcome::Fault(SessionError::Split)),
            Err(_) => return Err(Outcome::Gone),
        };
        let length = || self.malformed(header, format!("{} bytes", header.size));
        if request != FrontendReq::SET_BACKEND_REQ_FD && !fds.is_empty() {
            return Err(self.malformed(header, "descriptors are attached".into()));
        }
        let mut session = self.session();
        let outcome = match request {
            FrontendReq::NET_SET_MTU => {
                let mtu = <[u8; 8]>::try_from(&*body).map_err(|_| length())?;
                session.set_mtu(u64::from_ne_bytes(mtu))
            }
            FrontendReq::SET_VRING_ENABLE => {
                let state = <[u8; 8]>::try_from(&*body).map_err(|_| length())?;
                let [index, num]: [u32; 2] = bytemuck::cast(state);
                match num {
                    0 | 1 => session.enable(index, num == 1),
                    _ => Err(SessionError::Message {
                        request: header.name(),
                        reason: format!("{num} is neither 0 nor 1"),
                    }),
                }
            }
            FrontendReq::SET_BACKEND_REQ_FD => match <[_; 1]>::try_from(fds) {
                Ok([fd]) => session.set_backend_channel(fd),
                Err(fds) => Err(SessionError::Message {
                    request: header.name(),
                    reason: format!("{} descriptors are attached, not 1", fds.len()),
                }),
            },
            _ => Err(SessionError::Refused {
                request: "SEND_RARP",
                reason: "protocol feature RARP was not offered".into(),
            }),
        };
        if header.needs_reply() && session.reply_ack() {
            socket
                .acknowledge(header, outcome.is_ok())
                .map_err(|_| Outcome::Gone)?;
        }
        if let Err(error) = outcome {
            if error.is_refusal() {
                tracing::debug!(%error, "request refused");
            } else {
                session.set_fault(error);
            }
        }
        Ok(())
    }
}
