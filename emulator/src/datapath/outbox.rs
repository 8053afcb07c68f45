//! Giving frames to a netdev, as many as possible with one system call.

use super::classify::Delivery;
use super::deliver::{Classified, Fared, finish, port_reason};
use super::frame::Bytes;
use crate::port::burst::{Gathering, Outcomes, Pieces};
use crate::port::uplink::Sending;
use crate::port::{Netdev, SendError, Uring};
use crate::ring::BURST;
use chanio_model::DropReason;
use chanio_model::offload::{RxOffloads, VNET_HDR_LEN};
use chanio_model::wire::VLAN_TAG_LEN;
use nix::errno::Errno;
use std::io::{self, IoSlice};

/// The worker's memory for what goes to a netdev.
pub struct Outbox {
    headers: Box<[[u8; VNET_HDR_LEN]; BURST]>,
    tags: Box<[[u8; VLAN_TAG_LEN]; BURST]>,
    pieces: Pieces,
    sent: Outcomes,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            headers: Box::new([[0; VNET_HDR_LEN]; BURST]),
            tags: Box::new([[0; VLAN_TAG_LEN]; BURST]),
            pieces: Pieces::default(),
            sent: Outcomes::new(),
        }
    }
}

/// Where frames go, and how.
pub struct Way<'a> {
    pub to: Netdev<'a>,
    /// Under which reason a frame is lost.
    pub why: fn(SendError) -> DropReason,
    pub uring: Option<&'a mut Uring>,
    /// Room for a whole frame and for a segment of it.
    pub local: (&'a mut [u8], &'a mut [u8]),
}

impl Outbox {
    /// Gives all of a share, in order, and tells how each frame fared.
    ///
    /// Frames go from where they are, their first bytes from the worker's memory and the rest from
    /// the source's: the kernel makes the only copy. Those of which something is left to be done
    /// that the netdev does not do are finished in `local` first.
    pub fn give(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        mut way: Way<'_>,
        mut fared: impl FnMut(&Delivery, Fared),
    ) {
        let mut rest = share;
        while let Some((next, others)) = rest.split_first() {
            let whole = self.send_whole(rest, burst, &mut way);
            for (delivery, sent) in rest.iter().zip(&self.sent) {
                let len = burst.leaving(delivery).len();
                let one = match *sent {
                    Ok(()) => Fared::whole(Ok(()), len),
                    // The guest's memory is gone. Copying it has the page fault that stops the
                    // channel.
                    Err(Errno::EFAULT) => send_finished(delivery, burst, &mut way),
                    Err(errno) => Fared::whole(Err((way.why)(io::Error::from(errno).into())), len),
                };
                fared(delivery, one);
            }
            rest = match whole {
                0 => {
                    fared(next, send_finished(next, burst, &mut way));
                    others
                }
                n => &rest[n..],
            };
        }
    }

    /// Sends the first frames of a share, as far as they need nothing done; returns how many.
    fn send_whole(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        way: &mut Way<'_>,
    ) -> usize {
        self.sent.clear();
        if !way.to.gathers() {
            return 0;
        }
        let takes = way.to.offloads();
        let mut frames: Gathering<'_, '_> = self.pieces.begin();
        for ((delivery, header), tag) in share
            .iter()
            .zip(self.headers.iter_mut())
            .zip(self.tags.iter_mut())
        {
            let leaving = burst.leaving(delivery);
            let offload = leaving.offload();
            if !offload.fits(takes) || !frames.has_room() {
                break;
            }
            offload.to_hdr(takes).write(header);
            let len = way.to.adapt(header);
            frames.slice(&header[..len]);
            for piece in leaving.head_pieces(tag) {
                frames.slice(piece);
            }
            let (offset, len) = leaving.tail();
            match leaving.source() {
                Bytes::Guest(source) => frames.guest(source, offset, len),
                Bytes::Local(source) => frames.slice(&source[offset..offset + len]),
            }
            frames.end_frame();
        }
        if !frames.is_empty() {
            way.to
                .send_all(&frames, way.uring.as_deref_mut(), &mut self.sent);
        }
        frames.len()
    }
}

/// Sends a frame in one piece, with done to it what the netdev does not do.
fn send_finished(delivery: &Delivery, burst: Classified<'_, '_>, way: &mut Way<'_>) -> Fared {
    let leaving = burst.leaving(delivery);
    let (flat, segment) = (&mut *way.local.0, &mut *way.local.1);
    let flat = leaving.flatten(flat);
    finish(
        flat,
        leaving.offload(),
        way.to.offloads(),
        segment,
        |header, bytes| {
            let sent = way.to.send(&[IoSlice::new(header), IoSlice::new(bytes)]);
            sent.map_err(way.why)
        },
    )
}

/// Gives all of a share to the wire by AF_XDP: each frame is copied once, to where the kernel sends
/// it from, or finished in `local` first.
pub fn give_xdp(
    share: &[Delivery],
    burst: Classified<'_, '_>,
    mut wire: Sending<'_>,
    local: (&mut [u8], &mut [u8]),
    mut fared: impl FnMut(&Delivery, Fared),
) {
    let takes = RxOffloads::default();
    let (flat, segment) = local;
    for delivery in share {
        let leaving = burst.leaving(delivery);
        let (offload, len) = (leaving.offload(), leaving.len());
        let one = if offload.fits(takes) {
            let put = wire.put(len, |into| {
                leaving.flatten(into);
            });
            Fared::whole(put.map_err(port_reason), len)
        } else {
            let flat = leaving.flatten(flat);
            finish(flat, offload, takes, segment, |_, bytes| {
                let put = wire.put(bytes.len(), |into| into.copy_from_slice(bytes));
                put.map_err(port_reason)
            })
        };
        fared(delivery, one);
    }
}
