//! What this machine and the agent in the guest say to each other, over a byte stream: orders, each
//! answered by `Done`, `Full` or `Failed`, and frames whenever there are some.

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Order: have the netdev of the NIC that was plugged in; [`Plugged`].
    Attach,
    /// Order: let go of it.
    Detach,
    /// Order: send this frame.
    Send,
    /// Order: answer once no frame comes any more.
    Settle,
    /// Order: run a program; channel and words.
    Run,
    /// Order: have two stacks talk; what, and the channels.
    Talk,
    /// Answer: done; what came of it.
    Done,
    /// Answer: there is no room for the frame.
    Full,
    /// Answer: not done; why.
    Failed,
    /// A frame that has come.
    Frame,
}

const KINDS: [Kind; 10] = [
    Kind::Attach,
    Kind::Detach,
    Kind::Send,
    Kind::Settle,
    Kind::Run,
    Kind::Talk,
    Kind::Done,
    Kind::Full,
    Kind::Failed,
    Kind::Frame,
];

/// The NIC of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plugged {
    /// The channel's name.
    pub channel: String,
    /// Its address.
    pub mac: String,
    /// Queue pairs.
    pub queues: u32,
    /// Bytes.
    pub mtu: u32,
}

/// What a program has said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Said {
    /// It ended well.
    pub good: bool,
    /// On its output.
    pub out: String,
    /// On its error output.
    pub err: String,
}

/// A message: four bytes of its body's length, four of the end's number, both little-endian, one of
/// its kind, and the body.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Whose; the number that [`Kind::Attach`] gave it.
    pub end: u32,
    /// What else there is to say.
    pub body: Vec<u8>,
}

/// The longest body: a frame with all that can be joined to it, or what a program says.
const LONGEST: usize = 1 << 20;

impl Message {
    /// The next one.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h, kind] = head;
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > LONGEST {
            return Err(wrong("a message of more than a megabyte"));
        }
        let kind = KINDS.get(usize::from(kind));
        let mut body = vec![0; len];
        from.read_exact(&mut body)?;
        Ok(Self {
            kind: *kind.ok_or_else(|| wrong("a message of no kind"))?,
            end: u32::from_le_bytes([e, f, g, h]),
            body,
        })
    }

    /// Writes one.
    pub fn write(to: &mut impl Write, kind: Kind, end: u32, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(9 + body.len());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(end.to_le_bytes());
        bytes.push(kind as u8);
        bytes.extend(body);
        to.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_were_and_nothing_else_is_one() {
        let mut bytes = Vec::new();
        for (n, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
            Message::write(&mut bytes, kind, 7, &vec![n as u8; n]).unwrap();
        }
        let mut from = &bytes[..];
        for (n, kind) in KINDS.into_iter().enumerate() {
            let message = Message::read(&mut from).unwrap();
            assert_eq!((message.kind, message.end), (kind, 7));
            assert_eq!(message.body, vec![n as u8; n]);
        }
        assert!(Message::read(&mut from).is_err());
        assert!(Message::read(&mut &[0, 0, 0, 0, 0, 0, 0, 0, 10][..]).is_err());
        assert!(Message::read(&mut &[255; 9][..]).is_err());
    }
}
