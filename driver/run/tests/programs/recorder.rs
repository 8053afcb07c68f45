//! Real programs with a recorder in the kernel's place.

use chanio_netlink::attr::{Raw, Writer};
use chanio_netlink::devlink;
use chanio_netlink::genl::{self, Family, FamilyMore, Group, NEW_FAMILY};
use chanio_netlink::kernel::{Client, Kernel, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use std::process::{Command, Output, Stdio};

pub const NETLINK_ROUTE: i32 = 0;
pub const NETLINK_GENERIC: i32 = 16;
/// The numbers of two generic families, as the recorder gives them.
pub const DEVLINK: u16 = 0x20;
pub const ETHTOOL: u16 = 0x21;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;

/// The devices that there are: `eth0` has index 10, `rep1` 11 and so on.
pub const DEVICES: [&str; 4] = ["eth0", "rep1", "rep2", "vxlan0"];
pub const ETH0: i32 = 10;
pub const REP1: u32 = 11;
pub const REP2: u32 = 12;

/// Answers what programs look up, says yes to everything else, and keeps that.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The requests, look-ups left out.
    pub requests: Vec<(Client, Message)>,
}

impl Kernel for Recorder {
    fn plays(&self, protocol: i32) -> bool {
        [NETLINK_ROUTE, NETLINK_GENERIC].contains(&protocol)
    }

    fn request(&mut self, client: &Client, request: &Message) -> Result<Reply, Refusal> {
        match (client.protocol, request.kind) {
            (NETLINK_ROUTE, RTM_GETLINK) => links(request),
            (NETLINK_GENERIC, genl::CONTROLLER) => family(request),
            _ => {
                self.requests.push((*client, request.clone()));
                match (
                    is_get(client, request),
                    request.flags & NLM_F_DUMP == NLM_F_DUMP,
                ) {
                    (true, true) => Ok(Reply::Dump(Vec::new())),
                    // Who asks for one thing waits for it, or to be told that there is none.
                    (true, false) => Err(Refusal::errno(libc_errno::ENOENT)),
                    (false, _) => Ok(Reply::Answers(Vec::new())),
                }
            }
        }
    }
}

/// rtnetlink numbers its messages new, delete, get, set. Generic requests that change something
/// ask for an acknowledgement.
fn is_get(client: &Client, request: &Message) -> bool {
    match client.protocol {
        NETLINK_GENERIC => request.flags & NLM_F_ACK == 0 || request.flags & NLM_F_DUMP != 0,
        _ => request.kind % 4 == 2,
    }
}

fn link(index: u32, name: &str) -> Message {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.link_layer_type = LinkLayerType::Ether;
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]),
    ];
    let mut payload = vec![0; link.buffer_len()];
    link.emit(&mut payload);
    Message {
        kind: RTM_NEWLINK,
        payload,
        ..Message::default()
    }
}

fn links(request: &Message) -> Result<Reply, Refusal> {
    let all = (10..).zip(DEVICES);
    if request.flags & NLM_F_DUMP == NLM_F_DUMP {
        return Ok(Reply::Dump(
            all.map(|(index, name)| link(index, name)).collect(),
        ));
    }
    let asked = LinkMessage::parse(request.payload.as_slice())
        .map_err(|error| Refusal::text(libc_errno::EINVAL, error.to_string()))?;
    let named = |name: &str| {
        asked
            .attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::IfName(n) if n == name))
    };
    let mut found = all.filter(|(index, name)| *index == asked.header.index || named(name));
    let (index, name) = found.next().ok_or(Refusal::errno(libc_errno::ENODEV))?;
    Ok(Reply::Answers(vec![link(index, name)]))
}

mod libc_errno {
    pub const ENOENT: i32 = 2;
    pub const ENODEV: i32 = 19;
    pub const EINVAL: i32 = 22;
}

fn family(request: &Message) -> Result<Reply, Refusal> {
    let asked = Family::parse(&request.payload)?;
    let name = asked.more.name.unwrap_or_default();
    let id = match name.as_str() {
        "devlink" => DEVLINK,
        "ethtool" => ETHTOOL,
        _ => return Err(Refusal::errno(libc_errno::ENOENT)),
    };
    let answer = Family {
        header: genl::Header {
            command: NEW_FAMILY,
            version: 2,
        },
        more: FamilyMore {
            id: Some(id),
            name: Some(name),
            version: Some(1),
            header_size: Some(0),
            max_attr: Some(200),
        },
        groups: vec![Group {
            name: Some(devlink::CONFIG_GROUP.to_owned()),
            id: Some(5),
        }],
        unknown: if id == ETHTOOL {
            operations()?
        } else {
            Vec::new()
        },
    };
    Ok(Reply::Answers(vec![answer.message(0)?]))
}

/// CTRL_ATTR_OPS, without which ethtool(8) falls back to ioctls: all commands can be asked for.
fn operations() -> Result<Vec<Raw>, Refusal> {
    /// CTRL_ATTR_OP_ID and CTRL_ATTR_OP_FLAGS; GENL_CMD_CAP_DO with GENL_CMD_CAP_DUMP.
    const ID: u16 = 1;
    const FLAGS: u16 = 2;
    const CAPABLE: u32 = 2 | 4;
    /// NLA_F_NESTED.
    const NESTED: u16 = 0x8000;
    let mut out = Writer::new();
    for command in 1..40u16 {
        out.nest(command, |out| {
            out.put(ID, &u32::from(command));
            out.put(FLAGS, &CAPABLE);
        });
    }
    Ok(vec![Raw {
        kind: genl::ctrl::OPS | NESTED,
        value: out.finish()?,
    }])
}

/// Runs a command line and tells what it asked of the kernel.
pub fn record(line: &str) -> (Vec<Message>, Output) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = chanio_run::spawn(command, Recorder::default()).unwrap();
    let (output, recorder) = running.wait_with_output().unwrap();
    (
        recorder
            .requests
            .into_iter()
            .map(|(_, message)| message)
            .collect(),
        output,
    )
}

/// The one request of a command line that must succeed.
pub fn request(line: &str) -> Message {
    let (mut requests, output) = record(line);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {told}");
    assert_eq!(requests.len(), 1, "{line}: {requests:?} {told}");
    requests.remove(0)
}

/// A message's payload as something that is equal for equal attributes in whatever order, padding
/// aside: its words, sorted, padding zeroed where programs leave it as it was.
pub fn normal(message: &Message) -> Vec<u32> {
    let mut payload = message.payload.clone();
    let header = if message.kind == DEVLINK || message.kind == ETHTOOL {
        4
    } else {
        0
    };
    if header > 0 {
        zero_padding(&mut payload[header..]);
    }
    let (words, rest) = payload.as_chunks::<4>();
    assert!(rest.is_empty());
    let mut words: Vec<u32> = words.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    words.sort_unstable();
    words
}

fn zero_padding(mut attributes: &mut [u8]) {
    while let [l0, l1, k0, k1, ..] = *attributes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let padded = length.next_multiple_of(4).min(attributes.len());
        if u16::from_ne_bytes([k0, k1]) & 0x8000 != 0 {
            zero_padding(&mut attributes[4..length]);
        }
        attributes[length..padded].fill(0);
        attributes = &mut attributes[padded..];
    }
}

/// What the program sent is what we send for the same, and we read it as the same.
pub fn assert_same(line: &str, theirs: &Message, ours: &Message) {
    assert_eq!(
        (theirs.kind, theirs.flags),
        (ours.kind, ours.flags),
        "{line}"
    );
    let hex = |m: &Message| {
        m.payload
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    assert_eq!(
        normal(theirs),
        normal(ours),
        "{line}\n{}\n{}",
        hex(theirs),
        hex(ours)
    );
}
