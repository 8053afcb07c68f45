//! Every way a ring can be refused at setup, or turn out to be broken while it runs.

use thiserror::Error;

/// Which part of a ring an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The descriptor table, or a packed ring's descriptor ring: 16 bytes per entry, aligned to 16.
    Desc,
    /// The available ring: 6 + 2 bytes per entry, aligned to 2.
    Avail,
    /// The used ring: 6 + 8 bytes per entry, aligned to 4.
    Used,
    /// A packed ring's area where the driver says when it wants calls: 4 bytes, aligned to 4.
    DriverArea,
    /// The same for the device and kicks.
    DeviceArea,
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Table::Desc => "descriptor table",
            Table::Avail => "available ring",
            Table::Used => "used ring",
            Table::DriverArea => "driver event area",
            Table::DeviceArea => "device event area",
        })
    }
}

/// A ring configuration that cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RingError {
    /// Split rings are powers of two up to 32768 entries (virtio 1.3 §2.7).
    #[error("ring size {size} is not a power of two in 1..=32768")]
    Size {
        /// Entries asked for.
        size: u32,
    },
    /// Packed rings have up to 32768 entries (virtio 1.3 §2.8).
    #[error("packed ring size {size} is not in 1..=32768")]
    PackedSize {
        /// Entries asked for.
        size: u32,
    },
    /// A packed ring cannot go on where it has no slot.
    #[error("slot {index} is outside a packed ring of {size}")]
    Position {
        /// The slot to start at.
        index: u16,
        /// Entries in the ring.
        size: u16,
    },
    /// A table does not start where virtio 1.3 §2.7 or §2.8 lets it.
    #[error("{table} at guest address {gpa:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Which table.
        table: Table,
        /// Its guest physical address.
        gpa: u64,
        /// Required alignment, bytes.
        align: u64,
    },
    /// A table is not contained in one mapped region.
    #[error("{table} at guest address {gpa:#x}, {len} bytes, is not inside one memory region")]
    Unmapped {
        /// Which table.
        table: Table,
        /// Its guest physical address.
        gpa: u64,
        /// Its length in bytes.
        len: usize,
    },
}

/// A protocol violation by the driver found while serving a ring. The ring is of no further use
/// until the driver resets it (virtio 1.3 §2.1.2, DEVICE_NEEDS_RESET).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RingFault {
    /// The driver claims more new chains than the ring has entries.
    #[error("available index jumped to {idx} with {next} served next: more than {size} entries")]
    AvailJump {
        /// The available index read.
        idx: u16,
        /// The index this side serves next.
        next: u16,
        /// Entries in the ring.
        size: u16,
    },
    /// A head or `next` points outside its descriptor table.
    #[error("descriptor index {index} is outside a table of {size}")]
    DescIndex {
        /// The index read.
        index: u16,
        /// Entries in the table it indexes.
        size: u16,
    },
    /// A buffer is not (entirely) in mapped guest memory.
    #[error("guest range {gpa:#x}+{len} is not mapped")]
    OutOfMemory {
        /// Guest physical address of the buffer.
        gpa: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A descriptor of no bytes.
    #[error("descriptor {index} (guest address {gpa:#x}) has length 0")]
    ZeroLength {
        /// Index in its table.
        index: u16,
        /// Its address field.
        gpa: u64,
    },
    /// A chain visited more descriptors than its table has, so it loops; in a packed ring it does
    /// not end within the ring.
    #[error("chain from head {head} loops in a table of {size}")]
    Loop {
        /// The chain's head index in the ring's own table.
        head: u16,
        /// Entries in the table in which it loops.
        size: u16,
    },
    /// A chain needs more host segments than the device supports.
    #[error("chain from head {head} has more than {limit} segments")]
    TooLong {
        /// The chain's head index.
        head: u16,
        /// Segments supported.
        limit: usize,
    },
    /// The chain's bytes do not fit in 32 bits (virtio 1.3 §2.7.5).
    #[error("chain from head {head} is longer than 2^32 - 1 bytes")]
    LengthOverflow {
        /// The chain's head index.
        head: u16,
    },
    /// An indirect table inside an indirect table (virtio 1.3 §2.7.5.3.1).
    #[error("entry {index} of an indirect table is itself indirect")]
    NestedIndirect {
        /// Index inside the outer indirect table.
        index: u16,
    },
    /// INDIRECT and NEXT in one descriptor (virtio 1.3 §2.7.5.3.1), or in a packed ring in one list
    /// (§2.8.19).
    #[error("indirect descriptor {index} also has NEXT set, or stands behind one that has")]
    IndirectWithNext {
        /// Index in the ring's table.
        index: u16,
    },
    /// INDIRECT although VIRTIO_F_INDIRECT_DESC was not negotiated.
    #[error("descriptor {index} is indirect but VIRTIO_F_INDIRECT_DESC was not negotiated")]
    IndirectNotNegotiated {
        /// Index in the ring's table.
        index: u16,
    },
    /// An indirect table's length is not 1..=32768 whole descriptors.
    #[error("indirect table of {len} bytes: not a multiple of 16 in 16..=524288")]
    IndirectBadLength {
        /// The length read, bytes.
        len: u32,
    },
    /// A device-readable descriptor behind a device-writable one (virtio 1.3 §2.7.4.2).
    #[error("readable descriptor {index} follows a writable one")]
    ReadableAfterWritable {
        /// Index in its table.
        index: u16,
    },
    /// A receive buffer with a device-readable part.
    #[error("receive buffer {head} has {len} bytes the device may not write")]
    NotWritable {
        /// The chain's head index.
        head: u16,
        /// Device-readable bytes in it.
        len: u32,
    },
    /// The client shortened its memory file under a live mapping.
    #[error("guest memory was truncated by its owner")]
    MemoryTruncated,
}
