//! A frame on its way: the worker's own copy of its first bytes, which is all that decisions are
//! made on, and a reference to the rest.

use crate::port::RECV_BUF_LEN;
use crate::ring::Readable;
use chanio_model::edit::{Edited, ROOM};
use chanio_model::eswitch::VlanOp;
use chanio_model::flow::FlowKey;
use chanio_model::offload::{HASH_HDR_LEN, Offload, VNET_HDR_LEN, VnetHdr, flags, gso_type};
use chanio_model::rss::{PacketHash, Rss};
use chanio_model::wire::VLAN_TAG_LEN;
use chanio_model::{DropReason, VportId, wire};

/// Bytes copied before anything looks at them. Enough for Ethernet, two VLAN tags, IPv6 with
/// options and a full TCP header; the rest of the frame never influences a decision.
pub const HEAD: usize = 192;

/// The longest frame taken from anywhere, as netdevs give it.
pub const MAX_FRAME: usize = RECV_BUF_LEN - VNET_HDR_LEN;

/// The longest that one can become on its way: rewriting puts no more in front of it.
pub const MAX_LEAVING: usize = MAX_FRAME + ROOM + VLAN_TAG_LEN;

/// All bytes that a source gave for a frame, its virtio-net header in front.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// A chain in a guest's memory; the guest may still write to it.
    Guest(Readable<'a>),
    /// The worker's own memory.
    Local(&'a [u8]),
}

impl Bytes<'_> {
    #[inline]
    fn len(&self) -> usize {
        match self {
            Bytes::Guest(bytes) => bytes.len() as usize,
            Bytes::Local(bytes) => bytes.len(),
        }
    }

    /// Copies from `offset` on. The caller keeps within [`Bytes::len`].
    #[inline]
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        match self {
            Bytes::Guest(bytes) => {
                bytes.copy_out(offset, into);
            }
            Bytes::Local(bytes) => into.copy_from_slice(&bytes[offset..offset + into.len()]),
        }
    }
}

/// The worker's memory for the first bytes of a frame: the virtio-net header ends, and the frame
/// begins, at [`HASH_HDR_LEN`], the longest header's end.
pub type Snapshot = [u8; HASH_HDR_LEN + HEAD];

/// Room for one.
pub const NO_SNAPSHOT: Snapshot = [0; HASH_HDR_LEN + HEAD];

/// The header of a frame in one buffer with nothing left to do, and no hash.
const PLAIN_HEADER: [u8; VNET_HDR_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A received frame.
pub struct Frame<'a> {
    /// The virtio-net header and the head behind it. The header as the source wrote it, or of a
    /// plain frame the one that it will be delivered with.
    snapshot: &'a [u8],
    /// The source left nothing to be done to it.
    plain: bool,
    /// Bytes from the destination address to the end.
    pub len: usize,
    /// All of the source's bytes.
    pub source: Bytes<'a>,
    /// Bytes of virtio-net header in front of the frame: 10, 12 or 20.
    header_len: usize,
    /// What is left to do before it is a finished packet; of plain frames, nothing. (Optional, so
    /// that those need not fill it in.)
    offload: Option<Offload>,
}

impl<'a> Frame<'a> {
    /// Copy header and head of the frame that `source` holds behind `header_len` bytes (10, 12 or
    /// 20) of virtio-net header.
    #[inline(always)]
    pub fn snapshot(
        source: Bytes<'a>,
        header_len: usize,
        into: &'a mut Snapshot,
    ) -> Result<Self, DropReason> {
        let all = source.len();
        let len = all.checked_sub(header_len).ok_or(DropReason::Runt)?;
        if len > MAX_FRAME {
            return Err(DropReason::TooLong);
        }
        let into = &mut into[HASH_HDR_LEN - header_len..];
        let n = all.min(into.len());
        let snapshot = &mut into[..n];
        source.copy_out(0, snapshot);
        let plain = snapshot[0] & flags::NEEDS_CSUM == 0 && snapshot[1] == gso_type::NONE;
        if plain {
            match snapshot.first_chunk_mut() {
                Some(header) if header_len == VNET_HDR_LEN => *header = PLAIN_HEADER,
                _ => {
                    let len = header_len.min(VNET_HDR_LEN);
                    snapshot[..len].copy_from_slice(&PLAIN_HEADER[..len]);
                }
            }
        }
        Ok(Self {
            snapshot,
            plain,
            len,
            source,
            header_len,
            offload: None,
        })
    }

    /// The virtio-net header, unless the frame is plain: then that has nothing to say.
    #[inline]
    pub fn header(&self) -> VnetHdr {
        VnetHdr::read(&self.snapshot[..self.header_len])
    }

    /// Notes what is left to do, once the header was checked.
    #[inline]
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = Some(offload);
    }

    /// What is left to do before it is a finished packet.
    #[inline]
    pub fn offload(&self) -> Offload {
        self.offload.unwrap_or_default()
    }

    /// The same, if that was noted.
    #[inline]
    pub fn noted_offload(&self) -> Option<&Offload> {
        self.offload.as_ref()
    }

    /// Whether the source left nothing to be done to the frame.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Header and head of a plain frame as a receiver gets them whose header is as long as the
    /// source's; `None` if it is not.
    #[inline]
    pub fn plain_front(&self, header_len: usize) -> Option<&'a [u8]> {
        (self.plain && header_len == self.header_len).then_some(self.snapshot)
    }

    /// Spreads flows over queues: the same for all packets of a flow, other for most others.
    pub fn flow_hash(&self) -> u32 {
        let parsed = wire::parse(self.head(), self.len as u32, VportId::UPLINK);
        let key = parsed.map_or(FlowKey::default(), |parsed| parsed.key.of_flow());
        let words = key.words().iter();
        let mixed = words.fold(0u64, |hash, word| {
            (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (mixed >> 32) as u32
    }

    /// The bytes that decisions are made on, and that are delivered.
    #[inline]
    pub fn head(&self) -> &'a [u8] {
        &self.snapshot[self.header_len..]
    }

    /// Bytes behind the head: where in `source`, and how many.
    #[inline]
    pub fn tail(&self) -> (usize, usize) {
        let taken = self.snapshot.len();
        (taken, self.header_len + self.len - taken)
    }

    /// The frame as it came.
    pub fn leaving_as_it_came(&self) -> Leaving<'_> {
        self.leaving(None, VlanOp::None)
    }

    /// The frame as one of its deliveries has it: with rewritten first bytes, or its own, and
    /// with `vlan` done to those.
    #[inline]
    pub fn leaving<'f>(&'f self, edited: Option<Edited<'f>>, vlan: VlanOp) -> Leaving<'f> {
        match edited {
            None => Leaving {
                head: self.head(),
                tail: self.tail(),
                offload: self.offload(),
                source: self.source,
                vlan,
            },
            Some(edited) => Leaving {
                head: edited.head,
                tail: (
                    self.header_len + edited.taken as usize,
                    edited.tail as usize,
                ),
                offload: edited.offload,
                source: self.source,
                vlan,
            },
        }
    }
}

/// A frame as one destination gets it.
#[derive(Clone, Copy)]
pub struct Leaving<'f> {
    head: &'f [u8],
    /// Bytes behind the head: where in `source`, and how many.
    tail: (usize, usize),
    offload: Offload,
    source: Bytes<'f>,
    vlan: VlanOp,
}

impl<'f> Leaving<'f> {
    /// Bytes behind the head: where in the source, and how many.
    #[inline]
    pub fn tail(&self) -> (usize, usize) {
        self.tail
    }

    /// Where they are.
    #[inline]
    pub fn source(&self) -> Bytes<'f> {
        self.source
    }

    /// The bytes that decisions are made on, unless a tag is to be put in or taken out.
    #[inline]
    pub fn untagged_head(&self) -> Option<&'f [u8]> {
        (self.vlan == VlanOp::None).then_some(self.head)
    }

    /// The hash by which a channel's settings choose its queue. Tags do not matter to it.
    pub fn rss_hash(&self, rss: &Rss) -> PacketHash {
        rss.hash(self.head, (self.head.len() + self.tail.1) as u32)
    }

    /// Its headers, tags aside; none of what is no frame.
    pub fn key(&self) -> Option<FlowKey> {
        let length = (self.head.len() + self.tail.1) as u32;
        let parsed = wire::parse(self.head, length, VportId::UPLINK);
        parsed.ok().map(|parsed| parsed.key)
    }

    /// The head with a tag put in or taken out: three pieces to be delivered in a row.
    #[inline]
    pub fn head_pieces<'b>(&self, tag: &'b mut [u8; 4]) -> [&'b [u8]; 3]
    where
        'f: 'b,
    {
        let head = self.head;
        match self.vlan {
            VlanOp::None => [head, &[], &[]],
            VlanOp::Push(tci) => {
                tag[..2].copy_from_slice(&0x8100u16.to_be_bytes());
                tag[2..].copy_from_slice(&tci.to_be_bytes());
                [&head[..12], tag, &head[12..]]
            }
            VlanOp::Pop => [&head[..12], &[], &head[16..]],
            VlanOp::SetVid(vid) => {
                tag.copy_from_slice(&head[12..16]);
                tag[2] = tag[2] & 0xf0 | (vid >> 8) as u8;
                tag[3] = vid as u8;
                [&head[..12], tag, &head[16..]]
            }
        }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        let len = self.head.len() + self.tail.1;
        len.saturating_add_signed(isize::from(self.vlan.delta()))
    }

    /// The offload request: offsets move with the tag.
    #[inline]
    pub fn offload(&self) -> Offload {
        match self.vlan.delta() {
            0 => self.offload,
            delta => self.offload.shifted(delta),
        }
    }

    /// All of it in one piece. `into` has [`MAX_LEAVING`] bytes.
    pub fn flatten<'b>(&self, into: &'b mut [u8]) -> &'b mut [u8] {
        let mut tag = [0; 4];
        let mut at = 0;
        for piece in self.head_pieces(&mut tag) {
            into[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        let (offset, len) = self.tail;
        self.source.copy_out(offset, &mut into[at..at + len]);
        &mut into[..at + len]
    }
}
