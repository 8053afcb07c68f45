//! What travels on the socket of an emulator that plays the kernel, `<run-dir>/netlink.sock`.
//!
//! The socket is a SOCK_SEQPACKET one. A connection stands for one netlink socket (its first packet
//! is [`Request::Open`]) or for one client of files and ioctls. A packet is a byte of kind and a
//! body in native byte order. Each request but a datagram is answered by exactly one
//! [`Answer::Result`]; datagrams are answered by datagrams, and groups that were joined send theirs
//! at any time. Descriptors that IFLA_NET_NS_FD attributes name travel beside the packet of the
//! datagram (SCM_RIGHTS), in the order of the attributes, whose values are then 0, 1 and so on.

use crate::{Error, Result};

/// The socket's name in the emulator's run directory.
pub const SOCKET_NAME: &str = "netlink.sock";
/// No packet is longer, in bytes.
pub const MAX_PACKET: usize = 1 << 20;
/// The size of a netdev's name with its NUL (linux/if.h, IFNAMSIZ).
pub const NAME_SIZE: usize = 16;
/// The longest path, in bytes (linux/limits.h, PATH_MAX).
pub const MAX_PATH: usize = 4095;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum Request {
    /// The connection stands for a netlink socket of this protocol (NETLINK_ROUTE 0,
    /// NETLINK_GENERIC 16).
    Open(u32),
    /// One or more netlink messages.
    Datagram(Vec<u8>),
    /// Notifications of this group from now on.
    Join(u32),
    /// None of this group any more.
    Leave(u32),
    /// SIOCETHTOOL; with a descriptor beside the packet, in the network namespace that it is.
    Ethtool {
        /// The netdev's name, 1 to 15 bytes.
        interface: String,
        /// The command's struct (linux/ethtool.h), which begins with its number.
        command: Vec<u8>,
    },
    /// The content of a file under /sys.
    Read(String),
    /// Write to a file under /sys.
    Write {
        /// The file.
        path: String,
        /// What one write(2) is given.
        data: Vec<u8>,
    },
    /// The names in a directory under /sys.
    List(String),
    /// The target of a link under /sys.
    ReadLink(String),
    /// setsockopt(2) of SOL_NETLINK: NETLINK_EXT_ACK, which is on unless told otherwise, or
    /// NETLINK_GET_STRICT_CHK (netlink(7)).
    Option {
        /// NETLINK_*.
        name: u32,
        /// 0: off.
        value: u32,
    },
}

/// What the emulator sends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum Answer {
    /// What recvmsg(2) on the netlink socket gives.
    Datagram(Vec<u8>),
    /// What came of a request.
    Result {
        /// 0, or the errno as a positive number.
        errno: i32,
        /// ethtool: the struct as changed; read: the content; list: [`Entry::list`]; readlink: the
        /// target.
        data: Vec<u8>,
    },
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Link,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The name, neither empty nor with a slash.
    pub name: String,
}

const OPEN: u8 = 0;
const DATAGRAM: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const ETHTOOL: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LIST: u8 = 7;
const READ_LINK: u8 = 8;
const RESULT: u8 = 9;
const OPTION: u8 = 10;

impl Request {
    /// The packet, which must not be longer than [`MAX_PACKET`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        match self {
            Request::Open(protocol) => packet(OPEN, &[&protocol.to_ne_bytes()]),
            Request::Datagram(datagram) => packet(DATAGRAM, &[datagram]),
            Request::Join(group) => packet(JOIN, &[&group.to_ne_bytes()]),
            Request::Leave(group) => packet(LEAVE, &[&group.to_ne_bytes()]),
            Request::Ethtool { interface, command } => {
                check("the interface name", interface.len(), 1, NAME_SIZE - 1)?;
                let mut name = [0; NAME_SIZE];
                name[..interface.len()].copy_from_slice(interface.as_bytes());
                packet(ETHTOOL, &[&name, command])
            }
            Request::Read(path) => packet(READ, &[checked(path)?]),
            Request::Write { path, data } => {
                let path = checked(path)?;
                // A checked path is shorter than 64 KiB.
                packet(WRITE, &[&(path.len() as u16).to_ne_bytes(), path, data])
            }
            Request::List(path) => packet(LIST, &[checked(path)?]),
            Request::ReadLink(path) => packet(READ_LINK, &[checked(path)?]),
            Request::Option { name, value } => {
                packet(OPTION, &[&name.to_ne_bytes(), &value.to_ne_bytes()])
            }
        }
    }

    /// Reads a packet.
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let (kind, body) = split(packet)?;
        Ok(match kind {
            OPEN => Request::Open(number(body, "the body of open")?),
            DATAGRAM => Request::Datagram(body.to_vec()),
            JOIN => Request::Join(number(body, "the body of join")?),
            LEAVE => Request::Leave(number(body, "the body of leave")?),
            ETHTOOL => {
                let (name, command) = body
                    .split_first_chunk::<NAME_SIZE>()
                    .ok_or_else(|| short("the body of ethtool", body, NAME_SIZE))?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
                check("the interface name", end, 1, NAME_SIZE - 1)?;
                Request::Ethtool {
                    interface: text(&name[..end], "interface name")?,
                    command: command.to_vec(),
                }
            }
            READ => Request::Read(path(body)?),
            WRITE => {
                let (length, rest) = body
                    .split_first_chunk()
                    .ok_or_else(|| short("the body of write", body, 2))?;
                let length = usize::from(u16::from_ne_bytes(*length));
                let (name, data) = rest
                    .split_at_checked(length)
                    .ok_or_else(|| short("the path of write", rest, length))?;
                Request::Write {
                    path: path(name)?,
                    data: data.to_vec(),
                }
            }
            LIST => Request::List(path(body)?),
            READ_LINK => Request::ReadLink(path(body)?),
            OPTION => {
                let (name, value) = body.split_at(body.len().min(4));
                Request::Option {
                    name: number(name, "the name of option")?,
                    value: number(value, "the value of option")?,
                }
            }
            _ => {
                return Err(Error::Value {
                    what: "the kind of packet",
                    got: kind.into(),
                    allowed: "0 to 8 and 10",
                });
            }
        })
    }
}

impl Answer {
    /// The packet, which must not be longer than [`MAX_PACKET`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        match self {
            Answer::Datagram(datagram) => packet(DATAGRAM, &[datagram]),
            Answer::Result { errno, data } => packet(RESULT, &[&errno.to_ne_bytes(), data]),
        }
    }

    /// Reads a packet.
    pub fn parse(packet: &[u8]) -> Result<Self> {
        let (kind, body) = split(packet)?;
        match kind {
            DATAGRAM => Ok(Answer::Datagram(body.to_vec())),
            RESULT => {
                let (errno, data) = body
                    .split_first_chunk()
                    .ok_or_else(|| short("the body of result", body, 4))?;
                Ok(Answer::Result {
                    errno: i32::from_ne_bytes(*errno),
                    data: data.to_vec(),
                })
            }
            _ => Err(Error::Value {
                what: "the kind of packet",
                got: kind.into(),
                allowed: "1 and 9",
            }),
        }
    }
}

impl Entry {
    /// A directory's entries as the data of a result: each a byte of kind (`d`, `f`, `l`) and the
    /// name, with NULs between them.
    pub fn list(entries: &[Entry]) -> Vec<u8> {
        let mut data = Vec::new();
        for entry in entries {
            if !data.is_empty() {
                data.push(0);
            }
            data.push(match entry.kind {
                EntryKind::Directory => b'd',
                EntryKind::File => b'f',
                EntryKind::Link => b'l',
            });
            data.extend_from_slice(entry.name.as_bytes());
        }
        data
    }

    /// Reads what [`Entry::list`] wrote.
    pub fn parse_list(data: &[u8]) -> Result<Vec<Entry>> {
        if data.is_empty() {
            return Ok(Vec::new());
        }
        data.split(|byte| *byte == 0).map(Self::parse).collect()
    }

    fn parse(entry: &[u8]) -> Result<Self> {
        let (kind, name) = entry
            .split_first()
            .ok_or_else(|| short("a directory's entry", entry, 2))?;
        let kind = match kind {
            b'd' => EntryKind::Directory,
            b'f' => EntryKind::File,
            b'l' => EntryKind::Link,
            _ => {
                return Err(Error::Value {
                    what: "the kind of a directory's entry",
                    got: (*kind).into(),
                    allowed: "'d', 'f' and 'l'",
                });
            }
        };
        check("a name in a directory", name.len(), 1, 255)?;
        let name = text(name, "name in a directory")?;
        Ok(Entry { kind, name })
    }
}

fn packet(kind: u8, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    check("the packet", length, 1, MAX_PACKET)?;
    let mut packet = Vec::with_capacity(length);
    packet.push(kind);
    for part in parts {
        packet.extend_from_slice(part);
    }
    Ok(packet)
}

fn split(packet: &[u8]) -> Result<(u8, &[u8])> {
    check("the packet", packet.len(), 1, MAX_PACKET)?;
    Ok((packet[0], &packet[1..]))
}

fn number(body: &[u8], what: &'static str) -> Result<u32> {
    let bytes = body.try_into().map_err(|_| Error::Length {
        what,
        got: body.len(),
        min: 4,
        max: 4,
    })?;
    Ok(u32::from_ne_bytes(bytes))
}

fn path(bytes: &[u8]) -> Result<String> {
    let path = text(bytes, "path")?;
    checked(&path)?;
    Ok(path)
}

/// A path that can be asked for: absolute, and of a length that the kernel takes.
fn checked(path: &str) -> Result<&[u8]> {
    check("the path", path.len(), 1, MAX_PATH)?;
    match path.as_bytes()[0] {
        b'/' => Ok(path.as_bytes()),
        first => Err(Error::Value {
            what: "the path's first byte",
            got: first.into(),
            allowed: "'/'",
        }),
    }
}

fn text(bytes: &[u8], what: &str) -> Result<String> {
    let not_text = || Error::NotText {
        family: "",
        attr: what.to_owned(),
    };
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(not_text()),
    }
}

fn short(what: &'static str, bytes: &[u8], want: usize) -> Error {
    Error::Short {
        what,
        got: bytes.len(),
        want,
    }
}

fn check(what: &'static str, got: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&got) {
        return Ok(());
    }
    Err(Error::Length {
        what,
        got,
        min,
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbitrary::{Arbitrary, Unstructured};
    use proptest::prelude::*;

    #[test]
    fn packets_are_as_agreed() {
        let ethtool = Request::Ethtool {
            interface: "eth0".into(),
            command: vec![3, 0, 0, 0],
        };
        let bytes = ethtool.to_bytes().unwrap();
        assert_eq!(bytes, b"\x04eth0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0");
        let write = Request::Write {
            path: "/sys/a".into(),
            data: b"1\n".to_vec(),
        };
        let mut want = vec![6];
        want.extend(6u16.to_ne_bytes());
        want.extend(b"/sys/a1\n");
        assert_eq!(write.to_bytes().unwrap(), want);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let told = |packet: &[u8]| Request::parse(packet).unwrap_err().to_string();
        assert_eq!(
            told(b"\x05sys"),
            "the path's first byte: 115 is out of range, allowed are '/'"
        );
        assert_eq!(
            told(b""),
            "the packet: length 0 is out of range, allowed are 1 to 1048576"
        );
        assert_eq!(
            told(b"\x02\0"),
            "the body of join: length 1 is out of range, allowed are 4 to 4"
        );
        assert_eq!(
            told(&[ETHTOOL; 17]),
            "the interface name: length 16 is out of range, allowed are 1 to 15"
        );
        assert!(Request::Read("/".repeat(5000)).to_bytes().is_err());
        assert!(Request::Datagram(vec![0; MAX_PACKET]).to_bytes().is_err());
    }

    #[test]
    fn a_directory_is_listed_and_read() {
        let entry = |kind, name: &str| Entry {
            kind,
            name: name.into(),
        };
        let entries = [
            entry(EntryKind::Directory, "net"),
            entry(EntryKind::File, "vendor"),
            entry(EntryKind::Link, "virtfn0"),
        ];
        let data = Entry::list(&entries);
        assert_eq!(data, b"dnet\0fvendor\0lvirtfn0");
        assert_eq!(Entry::parse_list(&data).unwrap(), entries);
        assert_eq!(Entry::parse_list(b"").unwrap(), []);
        assert!(Entry::parse_list(b"dnet\0").is_err());
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(seed in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut seed = Unstructured::new(&seed);
            let request = Request::arbitrary(&mut seed).unwrap();
            // Names with a NUL and paths without a slash cannot be sent.
            if let Ok(bytes) = request.to_bytes() && !format!("{request:?}").contains("\\0") {
                prop_assert_eq!(Request::parse(&bytes).unwrap(), request);
            }
            let answer = Answer::arbitrary(&mut seed).unwrap();
            prop_assert_eq!(Answer::parse(&answer.to_bytes().unwrap()).unwrap(), answer);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(Request::parse(&request.to_bytes().unwrap()).unwrap(), request);
            }
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert_eq!(answer.to_bytes().unwrap(), bytes.clone());
            }
            let _ = Entry::parse_list(&bytes);
        }
    }
}
