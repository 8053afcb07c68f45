//! The other end of a netlink socket, for whoever plays the kernel.

use crate::message::{
    Acknowledgement, ExtAck, Message, NLM_F_ACK, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE,
};
use crate::{Error, Result};

/// The socket that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// NETLINK_ROUTE (0), NETLINK_GENERIC (16) and so on.
    pub protocol: i32,
    /// The socket's port.
    pub port: u32,
    /// It wants to be told why a request is refused (NETLINK_EXT_ACK).
    pub ext_ack: bool,
    /// It checks its requests strictly, and wants the kernel to (NETLINK_GET_STRICT_CHK).
    pub strict: bool,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("errno {errno}{}", .told.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
pub struct Refusal {
    /// The errno.
    pub errno: i32,
    /// What is said about it.
    pub told: ExtAck,
}

impl Refusal {
    /// Only a number.
    pub fn errno(errno: i32) -> Self {
        Refusal {
            errno,
            told: ExtAck::default(),
        }
    }

    /// A number and words.
    pub fn text(errno: i32, message: impl Into<String>) -> Self {
        Refusal {
            errno,
            told: ExtAck::text(message),
        }
    }
}

/// EINVAL, for requests that do not parse.
const EINVAL: i32 = 22;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::text(EINVAL, error.to_string())
    }
}

/// What a request is answered with. Sequence and port are filled in by [`serve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These, and an acknowledgement if the request asks for one.
    Answers(Vec<Message>),
    /// A listing: these, and a message that says it has ended.
    Dump(Vec<Message>),
}

/// What all members of a group are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Whose sockets.
    pub protocol: i32,
    /// Which of them.
    pub group: u32,
    /// What they get.
    pub message: Message,
}

/// Somebody who answers netlink requests.
pub trait Kernel: Send {
    /// Whether sockets of this protocol end here; others stay the real kernel's.
    fn plays(&self, protocol: i32) -> bool;

    /// Carries out one request.
    fn request(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> std::result::Result<Reply, Refusal>;

    /// What has happened since it was last asked, in order.
    fn notifications(&mut self) -> Vec<Notification> {
        Vec::new()
    }
}

/// Carries out a datagram's requests and makes of the replies the datagrams that the kernel would
/// send: answers each in one of their own, listings many in one.
pub fn serve(kernel: &mut dyn Kernel, client: &Client, datagram: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut datagrams = Vec::new();
    let mut rest = datagram;
    // As in netlink_rcv_skb: what is no message ends the datagram. Some programs send all of a
    // buffer that is only begun.
    while let Ok((request, length)) = Message::parse(rest) {
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // As in netlink_rcv_skb: messages that ask for nothing are skipped.
        if request.flags & NLM_F_REQUEST == 0 || request.kind < FIRST_KIND {
            continue;
        }
        match kernel.request(client, &request) {
            Ok(Reply::Answers(answers)) => {
                for answer in answers {
                    datagrams.push(addressed(answer, client, &request).to_bytes());
                }
                if request.flags & NLM_F_ACK != 0 {
                    datagrams.push(acknowledge(client, &request, None)?);
                }
            }
            Ok(Reply::Dump(answers)) => dump(answers, client, &request, &mut datagrams),
            Err(refusal) => datagrams.push(acknowledge(client, &request, Some(refusal))?),
        }
    }
    Ok(datagrams)
}

/// NLMSG_MIN_TYPE: kinds below are netlink's own.
const FIRST_KIND: u16 = 0x10;
/// A listing's datagrams are no longer than the kernel makes them for a reader of whom it knows
/// nothing (NLMSG_GOODSIZE): libmnl's buffers are a page.
const DUMP_SIZE: usize = 3776;

fn addressed(mut answer: Message, client: &Client, request: &Message) -> Message {
    answer.sequence = request.sequence;
    answer.port = client.port;
    answer
}

fn acknowledge(client: &Client, request: &Message, refusal: Option<Refusal>) -> Result<Vec<u8>> {
    let refusal = refusal.unwrap_or_else(|| Refusal::errno(0));
    let request = Message {
        port: client.port,
        payload: Vec::new(),
        ..request.clone()
    };
    let acknowledgement = Acknowledgement {
        error: refusal.errno,
        request,
        told: refusal.told,
    };
    Ok(acknowledgement.emit(client.ext_ack)?.to_bytes())
}

fn dump(answers: Vec<Message>, client: &Client, request: &Message, out: &mut Vec<Vec<u8>>) {
    let done = Message {
        kind: NLMSG_DONE,
        payload: vec![0; 4],
        ..Message::default()
    };
    let mut datagram = Vec::new();
    for mut answer in answers.into_iter().chain([done]) {
        answer.flags |= NLM_F_MULTIPART;
        let bytes = addressed(answer, client, request).to_bytes();
        if !datagram.is_empty() && datagram.len() + bytes.len() > DUMP_SIZE {
            out.push(std::mem::take(&mut datagram));
        }
        datagram.extend(bytes);
    }
    out.push(datagram);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists as many messages as the request's kind says, refuses kind 99.
    struct Counting;

    impl Kernel for Counting {
        fn plays(&self, _: i32) -> bool {
            true
        }
        fn request(
            &mut self,
            _: &Client,
            request: &Message,
        ) -> std::result::Result<Reply, Refusal> {
            match request.kind {
                99 => Err(Refusal::text(16, "busy")),
                98 => Ok(Reply::Answers(vec![Message {
                    kind: 98,
                    ..Message::default()
                }])),
                count => {
                    let one = Message {
                        kind: 40,
                        payload: vec![7; 100],
                        ..Message::default()
                    };
                    Ok(Reply::Dump(vec![one; count.into()]))
                }
            }
        }
    }

    #[test]
    fn what_is_behind_the_last_message_does_not_count() {
        let request = Message {
            kind: 98,
            flags: NLM_F_REQUEST,
            ..Message::default()
        };
        let mut datagram = request.to_bytes();
        datagram.resize(300, 0);
        let answers = serve(&mut Counting, &Client::default(), &datagram).unwrap();
        assert_eq!(answers.len(), 1);
    }

    fn ask(kind: u16, flags: u16) -> Vec<Vec<Message>> {
        let client = Client {
            port: 5,
            ext_ack: true,
            ..Client::default()
        };
        let request = Message {
            kind,
            flags,
            sequence: 3,
            ..Message::default()
        };
        let datagrams = serve(&mut Counting, &client, &request.to_bytes()).unwrap();
        datagrams
            .iter()
            .map(|datagram| Message::parse_all(datagram).unwrap())
            .collect()
    }

    #[test]
    fn a_listing_ends_and_is_cut_into_datagrams() {
        let datagrams = ask(200, NLM_F_REQUEST);
        assert!(datagrams.len() > 2);
        let all: Vec<_> = datagrams.into_iter().flatten().collect();
        assert_eq!(all.len(), 201);
        assert!(
            all.iter()
                .all(|m| m.sequence == 3 && m.port == 5 && m.flags & NLM_F_MULTIPART != 0)
        );
        assert_eq!(all[200].kind, NLMSG_DONE);
    }

    #[test]
    fn an_answer_is_acknowledged_only_when_asked() {
        assert_eq!(ask(98, NLM_F_REQUEST).len(), 1);
        let datagrams = ask(98, NLM_F_REQUEST | NLM_F_ACK);
        assert_eq!(datagrams.len(), 2);
        assert_eq!(Acknowledgement::parse(&datagrams[1][0]).unwrap().error, 0);
    }

    #[test]
    fn a_refusal_says_why() {
        let datagrams = ask(99, NLM_F_REQUEST);
        let told = Acknowledgement::parse(&datagrams[0][0]).unwrap();
        assert_eq!(
            (told.error, told.told.message.as_deref()),
            (16, Some("busy"))
        );
        assert_eq!(told.request.sequence, 3);
    }
}
