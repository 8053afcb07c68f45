//! Ways in which a driver breaks the rules, for tests: one function each, and what the channel
//! must say when it is stopped for it.

use super::{Client, region};
use crate::ring::driver::SharedArea;
use crate::vhost::features;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use vhost::VhostBackend;

/// Features that a client needs for all of these, beside those that every client has.
pub const FEATURES: u64 = features::INDIRECT_DESC;

/// One way, done to a client of split rings with [`FEATURES`] whose rings run and are idle or busy
/// receiving.
pub struct Violation {
    /// What is done.
    pub what: &'static str,
    /// Part of the reason that is shown.
    pub says: &'static str,
    /// Do it.
    pub harm: fn(&Client),
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// In a transmit ring.
pub const IN_RINGS: [Violation; 9] = [
    Violation {
        what: "the available index jumps",
        says: "available index jumped",
        harm: |client| available(client, 0, 1000),
    },
    Violation {
        what: "a head beyond the table",
        says: "outside a table of 64",
        harm: |client| available(client, 64, 1),
    },
    Violation {
        what: "a buffer out of memory",
        says: "is not mapped",
        harm: |client| one(client, |_| 0xdead_0000_0000, 64, 0),
    },
    Violation {
        what: "a huge buffer",
        says: "is not mapped",
        harm: |client| one(client, |table| table, u32::MAX, 0),
    },
    Violation {
        what: "an empty buffer",
        says: "length 0",
        harm: |client| one(client, |table| table, 0, 0),
    },
    Violation {
        what: "a loop",
        says: "loops",
        harm: |client| one(client, |table| table, 1, NEXT),
    },
    Violation {
        what: "a readable buffer behind a writable one",
        says: "follows a writable one",
        harm: |client| {
            let table = client.transmit_ring().0.desc;
            descriptor(client, 0, table, 64, NEXT | WRITE, 1);
            descriptor(client, 1, table, 64, 0, 0);
            available(client, 0, 1);
        },
    },
    Violation {
        what: "a table of one and a half descriptors",
        says: "indirect table of 24 bytes",
        harm: |client| one(client, |table| table, 24, INDIRECT),
    },
    Violation {
        what: "a table in a table",
        says: "is itself indirect",
        harm: |client| one(client, |table| table, 16, INDIRECT),
    },
];

/// In memory and messages.
pub const IN_MESSAGES: [Violation; 6] = [
    Violation {
        what: "shared memory is truncated",
        says: "truncated",
        harm: |client| {
            let area = client.transmit_ring().1;
            area.file().set_len(0).expect("an own file");
            // It is noticed when somebody looks.
            client.kick().expect("an eventfd");
        },
    },
    Violation {
        what: "memory regions that overlap",
        says: "overlap",
        harm: |client| {
            let region = region(client.transmit_ring().1);
            let mut other = region;
            other.guest_phys_addr += 0x1000;
            let _ = client.frontend().set_mem_table(&[region, other]);
        },
    },
    Violation {
        what: "memory that rings run in is removed",
        says: "is in no memory region",
        harm: |client| {
            let other = SharedArea::new(0x8000_0000, 0x1_0000).expect("memory");
            let _ = client.frontend().set_mem_table(&[region(&other)]);
        },
    },
    Violation {
        what: "memory that is no memory",
        says: "not a regular file",
        harm: |client| {
            let null = null();
            let mut region = region(client.transmit_ring().1);
            region.mmap_handle = null.as_raw_fd();
            let _ = client.frontend().set_mem_table(&[region]);
        },
    },
    Violation {
        what: "a kick that is no eventfd",
        says: "not an eventfd",
        harm: |client| {
            // SET_VRING_KICK for ring 1, version 1, 8 bytes.
            let words: [u32; 5] = [12, 1, 8, 1, 0];
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
            let null = null();
            let rights = [null.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&rights)];
            let socket = client.frontend().as_raw_fd();
            let parts = [IoSlice::new(&bytes)];
            let sent = sendmsg::<()>(socket, &parts, &rights, MsgFlags::empty(), None);
            sent.expect("a connected socket");
        },
    },
    Violation {
        what: "a ring is resized while it runs",
        says: "while it runs",
        harm: |client| {
            let _ = client.frontend().set_vring_num(1, 128);
        },
    },
];

fn null() -> File {
    File::open("/dev/null").expect("/dev/null")
}

/// Write descriptor `index` of the transmit ring.
fn descriptor(client: &Client, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
    let (config, area) = client.transmit_ring();
    let mut bytes = addr.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    let at = config.desc + 16 * u64::from(index);
    area.memory().write(at, &bytes).expect("the ring's memory");
}

/// Make the chain at `head` available, set the index, and kick.
fn available(client: &Client, head: u16, index: u16) {
    let (config, area) = client.transmit_ring();
    for (at, value) in [(config.avail + 4, head), (config.avail + 2, index)] {
        let written = area.memory().write(at, &value.to_le_bytes());
        written.expect("the ring's memory");
    }
    client.kick().expect("an eventfd");
}

/// Make one descriptor available, at an address made of that of the table.
fn one(client: &Client, addr: fn(u64) -> u64, len: u32, flags: u16) {
    let table = client.transmit_ring().0.desc;
    descriptor(client, 0, addr(table), len, flags, 0);
    available(client, 0, 1);
}
