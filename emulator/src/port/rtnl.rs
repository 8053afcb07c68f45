//! A blocking rtnetlink socket that pipelines: many requests to a datagram, and their answers read
//! afterwards. The kernel works through a datagram before `send` returns, so nothing here waits
//! for long and no runtime is needed. Messages are built and parsed by the netlink-packet crates.

use chanio_netlink::message::Message;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator, Parseable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::fmt;
use std::io;

/// Requests per datagram: their acknowledgements (under 1 KiB of buffer each) fit several times
/// into the smallest receive buffer that a system gives.
const WINDOW: usize = 64;

/// Room for one datagram of answers; the kernel fills at most 32 KiB (`NLMSG_GOODSIZE`-based
/// dumps follow the size that the reader offers).
const RECV_LEN: usize = 64 * 1024;

/// A dump that lacks something (`NLM_F_DUMP_INTR` of include/uapi/linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// `NLMSGERR_ATTR_MSG` of include/uapi/linux/netlink.h.
const EXTACK_MSG: u16 = 1;

/// Why the kernel refused one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError {
    /// As in errno(3), positive.
    pub errno: i32,
    /// The extended acknowledgement's text, if there was one.
    pub text: Option<String>,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let err = io::Error::from_raw_os_error(self.errno);
        match &self.text {
            Some(text) => write!(f, "{err}: {text}"),
            None => err.fmt(f),
        }
    }
}

impl std::error::Error for KernelError {}

impl From<io::Error> for KernelError {
    /// A failure of the socket itself.
    fn from(err: io::Error) -> Self {
        Self {
            errno: err.raw_os_error().unwrap_or(libc::EIO),
            text: None,
        }
    }
}

impl From<KernelError> for io::Error {
    fn from(err: KernelError) -> Self {
        let plain = io::Error::from_raw_os_error(err.errno);
        if err.text.is_some() {
            io::Error::new(plain.kind(), err)
        } else {
            plain
        }
    }
}

/// What to ask of the kernel, with flags beyond REQUEST and ACK.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

/// The socket; it belongs to the network namespace in which it was opened.
pub(crate) struct Rtnl {
    socket: Socket,
    next_seq: u32,
    answers: Vec<u8>,
}

impl Rtnl {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // With these an answer to a failure has the kernel's own words instead of the request;
        // without them (before Linux 4.12) it has a number only.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self {
            socket,
            next_seq: 1,
            answers: vec![0; RECV_LEN],
        })
    }

    /// Sends every request, also after one was refused, and returns what became of each, in order.
    ///
    /// # Errors
    /// The socket itself fails; then some requests may have been carried out.
    pub(crate) fn run(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> io::Result<Vec<Result<(), KernelError>>> {
        let mut requests = requests.into_iter().peekable();
        let mut outcomes = Vec::new();
        let mut datagram = Vec::new();
        while requests.peek().is_some() {
            datagram.clear();
            let first_seq = self.next_seq;
            for request in requests.by_ref().take(WINDOW) {
                self.append(request, NLM_F_ACK, &mut datagram);
            }
            self.socket.send(&datagram, 0)?;
            self.collect_acks(first_seq, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// As [`Rtnl::run`] for one request.
    pub(super) fn run_one(&mut self, message: RouteNetlinkMessage) -> Result<(), KernelError> {
        let outcomes = self.run([Request { message, flags: 0 }]);
        outcomes.map_err(KernelError::from)?.into_iter().collect()
    }

    /// Calls `each` with the body of every link of the namespace: an `ifinfomsg` and attributes.
    pub(super) fn dump_links(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.dump(libc::RTM_GETLINK, &[0; 16], |_, body| each(body))?;
        Ok(())
    }

    /// Sends a request for a dump, of this type and with this body, and calls `each` with type and
    /// body of every message of the answer. False: things changed meanwhile, so that the answer may
    /// lack some.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        let request = Message {
            kind,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
            sequence: self.next_seq,
            port: 0,
            payload: body.to_vec(),
        };
        self.next_seq = self.next_seq.wrapping_add(1);
        self.socket.send(&request.to_bytes(), 0)?;
        let mut whole = true;
        loop {
            let len = self.recv()?;
            for (header, body) in messages(&self.answers[..len]) {
                if header.sequence_number != request.sequence {
                    continue;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return Err(ack(body).err().map_or_else(unexpected, Into::into)),
                    kind => each(kind, body),
                }
            }
        }
    }

    /// Sends a request that one message answers, of this type and with this body, and calls `each`
    /// with type and body of the answer; the inner result tells whether the kernel refused it.
    ///
    /// # Errors
    /// The socket itself fails.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        body: &[u8],
        each: impl FnOnce(u16, &[u8]),
    ) -> io::Result<Result<(), KernelError>> {
        let request = Message {
            kind,
            flags: NLM_F_REQUEST,
            sequence: self.next_seq,
            port: 0,
            payload: body.to_vec(),
        };
        self.next_seq = self.next_seq.wrapping_add(1);
        self.socket.send(&request.to_bytes(), 0)?;
        loop {
            let len = self.recv()?;
            let mut all = messages(&self.answers[..len]);
            let answer = all.find(|(header, _)| header.sequence_number == request.sequence);
            let Some((header, body)) = answer else {
                continue;
            };
            if header.message_type == NLMSG_ERROR {
                return Ok(ack(body));
            }
            each(header.message_type, body);
            return Ok(Ok(()));
        }
    }

    fn append(&mut self, request: Request, flags: u16, datagram: &mut Vec<u8>) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | request.flags;
        header.sequence_number = self.next_seq;
        self.next_seq = self.next_seq.wrapping_add(1);
        let mut message =
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
        message.finalize();
        let start = datagram.len();
        datagram.resize((start + message.buffer_len()).next_multiple_of(4), 0);
        message.serialize(&mut datagram[start..]);
    }

    /// Reads until every request from `first_seq` on has its answer.
    fn collect_acks(
        &mut self,
        first_seq: u32,
        outcomes: &mut Vec<Result<(), KernelError>>,
    ) -> io::Result<()> {
        let count = self.next_seq.wrapping_sub(first_seq) as usize;
        let base = outcomes.len();
        outcomes.resize(base + count, Ok(()));
        let mut waiting = count;
        while waiting > 0 {
            let len = self.recv()?;
            for (header, body) in messages(&self.answers[..len]) {
                let index = header.sequence_number.wrapping_sub(first_seq) as usize;
                if header.message_type == NLMSG_ERROR && index < count {
                    outcomes[base + index] = ack(body);
                    waiting = waiting.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    fn recv(&mut self) -> io::Result<usize> {
        let mut room = &mut self.answers[..];
        let len = self.socket.recv(&mut room, 0)?;
        Ok(len.min(RECV_LEN))
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the kernel acknowledged a netlink dump instead of answering it")
}

/// An `nlmsgerr`: the negative errno, the request's header, attributes.
fn ack(body: &[u8]) -> Result<(), KernelError> {
    let code = body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
    if code == 0 {
        return Ok(());
    }
    let attributes = NlasIterator::new(body.get(20..).unwrap_or_default());
    let text = attributes
        .flatten()
        .find(|nla| nla.kind() == EXTACK_MSG)
        .map(|nla| {
            let text = nla.value();
            String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
        });
    Err(KernelError {
        errno: code.saturating_neg(),
        text,
    })
}

/// The messages of a datagram with their bodies; ends at the first that is cut off.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let whole = datagram;
        let buffer = NetlinkBuffer::new_checked(&whole).ok()?;
        let header = NetlinkHeader::parse(&buffer).ok()?;
        let len = header.length as usize;
        let body = whole.get(16..len)?;
        datagram = whole.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::LinkUnspec;

    #[test]
    fn answers_stay_in_order_over_many_windows() {
        let mut rtnl = Rtnl::open().unwrap();
        let set = |index: u32| Request {
            message: RouteNetlinkMessage::SetLink(
                LinkUnspec::new_with_index(index)
                    .append_extra_attribute(
                        rtnetlink::packet_route::link::LinkAttribute::NumTxQueues(1),
                    )
                    .build(),
            ),
            flags: 0,
        };
        // No such index: the kernel looks the netdev up before it asks for privilege to change it.
        let outcomes = rtnl.run((0..200).map(|i| set(2_000_000_000 + i))).unwrap();
        assert_eq!(outcomes.len(), 200);
        for outcome in outcomes {
            let err = outcome.unwrap_err();
            assert!(matches!(err.errno, libc::ENODEV | libc::EPERM), "{err}");
        }
        assert!(rtnl.run([]).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_datagram_ends_the_walk() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[1; 15]).count(), 0);
        let mut short = [0; 16];
        for len in [0u32, 1, 15, 17, u32::MAX] {
            short[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&short).count(), 0, "{len}");
        }
        short[..4].copy_from_slice(&16u32.to_ne_bytes());
        assert_eq!(messages(&short).count(), 1);
    }

    #[test]
    fn the_kernels_words_come_through() {
        let mut body = (-libc::EBUSY).to_ne_bytes().to_vec();
        body.extend([0; 16]);
        assert_eq!(
            ack(&body),
            Err(KernelError {
                errno: libc::EBUSY,
                text: None
            })
        );
        body.extend(8u16.to_ne_bytes());
        body.extend(EXTACK_MSG.to_ne_bytes());
        body.extend(b"no!\0");
        let err = ack(&body).unwrap_err();
        assert_eq!(err.text.as_deref(), Some("no!"));
        assert!(io::Error::from(err).to_string().ends_with(": no!"));
        assert_eq!(ack(&0i32.to_ne_bytes()), Ok(()));
    }
}
