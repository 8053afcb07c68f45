//! Giving each destination its share of a burst.

use super::classify::Delivery;
use super::frame::{Bytes, Frame, Leaving, MAX_LEAVING};
use super::lro::Joiner;
use super::outbox::{self, Outbox, Way};
use super::published::Config;
use super::watch::Watch;
use crate::capture::Point;
use crate::port::{
    Attached, Channel, Counted, Endpoint, Netdev, Port, RxQueue, SendError, Uplink, Uring,
};
use crate::ring::{Filling, Notifier, Reserve, RingFault, RxScratch, full_fence};
use crate::vhost::Device;
use chanio_model::DropReason;
use chanio_model::eswitch::{Dest, Heads, VlanOp};
use chanio_model::offload::{
    HASH_HDR_LEN, Offload, RxOffloads, Segmenter, VNET_HDR_LEN, finish_checksum, with_hash,
};
use chanio_model::rss::{PacketHash, Rss};
use chanio_model::steer::{QueueChoice, QueueRules};
use parking_lot::MutexGuard;
use std::io;

/// The worker's memory for delivering.
pub struct Deliverer {
    worker: usize,
    /// A frame in one piece, for netdevs and for finishing it in software.
    flat: Vec<u8>,
    /// One segment of it.
    segment: Vec<u8>,
    scratch: RxScratch,
    /// A share again, by ring.
    spread: Vec<Delivery>,
    joiner: Joiner,
    /// A share again, by what is joined, and how many deliveries each part has.
    joined: Vec<Delivery>,
    groups: Vec<usize>,
    outbox: Outbox,
    /// How the worker calls drivers.
    pub notifier: Notifier,
    /// How it serves TAPs; `None`: frame by frame.
    pub uring: Option<Uring>,
}

/// The frames that deliveries are about.
#[derive(Clone, Copy)]
pub struct Classified<'b, 'a> {
    /// As they came.
    pub frames: &'b [Frame<'a>],
    /// The first bytes of those that were rewritten.
    pub heads: &'b Heads,
    /// For which a chain had no rule, and the chain, if somebody wants to know.
    pub missed: &'b [(u16, u32)],
    /// Who wants to see them.
    pub watch: Watch<'b>,
}

impl<'b, 'a> Classified<'b, 'a> {
    /// The frame as it came.
    #[inline]
    fn frame(&self, delivery: &Delivery) -> &'b Frame<'a> {
        &self.frames[usize::from(delivery.frame)]
    }

    /// Shows a frame that got to a port or did not.
    #[inline]
    fn show(&self, port: &Port, point: Point, queue: Option<u16>, delivery: &Delivery, sent: Sent) {
        if self.watch.is_active() {
            let mut missed = self.missed.iter();
            let to_host = matches!(delivery.dest, Dest::Representor(_));
            let missed = missed.find(|(frame, _)| to_host && *frame == delivery.frame);
            let no_rule_in = missed.map(|(_, chain)| *chain);
            let leaving = || self.leaving(delivery);
            self.watch
                .left(port.id, point, queue, no_rule_in, leaving, sent);
        }
    }

    /// Shows frames that are all lost at a port.
    fn show_lost(&self, port: &Port, share: &[Delivery], reason: DropReason) {
        for delivery in share {
            self.show(port, Point::Lost, None, delivery, Err(reason));
        }
    }

    /// The frame as it is to be delivered.
    #[inline]
    pub fn leaving(&self, delivery: &Delivery) -> Leaving<'b> {
        let edited = self.heads.get(delivery.head);
        self.frame(delivery).leaving(edited, delivery.vlan)
    }

    /// The queue pair, of so many, that the frame goes to; [`NOWHERE`] if a rule drops it. A table
    /// may name pairs that do not run now.
    fn pair(&self, delivery: &Delivery, to: Spread<'_>) -> u16 {
        let pairs = to.pairs;
        let chosen = to.rules.and_then(|rules| {
            let key = self.leaving(delivery).key()?;
            rules.choose(&key)
        });
        match (chosen, to.rss) {
            (Some(QueueChoice::Drop), _) => NOWHERE,
            (Some(QueueChoice::Queue(queue)), _) => queue % pairs,
            (None, Some(rss)) => rss.queue(self.leaving(delivery).rss_hash(rss)) % pairs,
            (None, None) => {
                let hash = u64::from(self.frame(delivery).flow_hash());
                ((hash * u64::from(pairs)) >> 32) as u16
            }
        }
    }
}

/// By what frames are spread over a port's queue pairs.
#[derive(Clone, Copy)]
struct Spread<'r> {
    rss: Option<&'r Rss>,
    rules: Option<&'r QueueRules>,
    pairs: u16,
}

/// The pair of frames that a rule drops; a port has at most 256.
const NOWHERE: u16 = u16::MAX;

/// How one frame, or one segment of it, fared at a destination.
pub type Sent = Result<(), DropReason>;

/// What came of one frame at a destination: as many frames as it had to be cut into.
#[derive(Clone, Copy, Default)]
pub struct Fared {
    packets: u64,
    bytes: u64,
    lost: Option<(DropReason, u64)>,
}

impl Fared {
    /// Whether all of it got there.
    fn sent(&self) -> Sent {
        self.lost.map_or(Ok(()), |(reason, _)| Err(reason))
    }

    /// A frame of this length that had to be sent as one.
    pub fn whole(sent: Sent, bytes: usize) -> Self {
        let mut fared = Self::default();
        fared.add(sent, bytes, 1);
        fared
    }

    /// One more, of this length; `left` are lost if it is. Whether it was taken.
    fn add(&mut self, sent: Sent, bytes: usize, left: usize) -> bool {
        match sent {
            Ok(()) => {
                self.packets += 1;
                self.bytes += bytes as u64;
            }
            Err(reason) => self.lost = Some((reason, left as u64)),
        }
        sent.is_ok()
    }
}

impl Deliverer {
    pub fn new(worker: usize, uring: Option<Uring>) -> io::Result<Self> {
        Ok(Self {
            worker,
            flat: vec![0; MAX_LEAVING],
            segment: vec![0; MAX_LEAVING],
            scratch: RxScratch::default(),
            spread: Vec::new(),
            joiner: Joiner::new(),
            joined: Vec::new(),
            groups: Vec::new(),
            outbox: Outbox::default(),
            notifier: Notifier::new()?,
            uring,
        })
    }

    /// Deliver all; `from` is charged for what the host's side of a representor does not take.
    /// What is returned is still to be done.
    pub fn deliver<'c>(
        &mut self,
        deliveries: &[Delivery],
        burst: Classified<'_, '_>,
        from: &Port,
        config: &'c Config,
    ) -> Left<'c> {
        let mut left = Left::default();
        for share in deliveries.chunk_by(|a, b| a.dest == b.dest) {
            self.announce(&mut left);
            match share[0].dest {
                Dest::Vport(vport) => match config.port(vport) {
                    Some(port) => self.give_port(share, burst, port, &mut left),
                    None => self.all_lost(share, burst, from, DropReason::NoDestination),
                },
                Dest::Representor(vport) => match config.port(vport) {
                    Some(port) => self.give_representor(share, burst, port),
                    None => self.all_lost(share, burst, from, DropReason::NoDestination),
                },
            }
        }
        left
    }

    /// Done with a ring, before there is another one: a worker never holds two of them, or two
    /// workers could wait for each other.
    fn announce(&mut self, left: &mut Left<'_>) {
        if left.shown.is_some() {
            full_fence();
            left.announce(&mut self.notifier);
        }
    }

    /// None of them gets anywhere; `port` is charged.
    fn all_lost(
        &self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        port: &Port,
        reason: DropReason,
    ) {
        let lost = share.len() as u64;
        port.counters.lose(self.worker, reason, lost);
        burst.show_lost(port, share, reason);
    }

    fn give_port<'c>(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        port: &'c Port,
        left: &mut Left<'c>,
    ) {
        match &port.endpoint {
            Endpoint::Rings(channel) => self.fill_rings(share, burst, (port, channel), left),
            Endpoint::Netdev(netdev) => self.give_taps(share, burst, port, netdev),
            Endpoint::Uplink(Uplink::None) => {
                self.all_lost(share, burst, port, DropReason::UplinkAbsent);
            }
            Endpoint::Uplink(Uplink::Xdp(wire)) => {
                let worker = self.worker;
                let local = (&mut self.flat[..], &mut self.segment[..]);
                outbox::give_xdp(
                    share,
                    burst,
                    wire.begin(worker),
                    local,
                    |delivery, fared| {
                        count(worker, port, Counted::Rx, fared);
                        burst.show(port, Point::ToPort, None, delivery, fared.sent());
                    },
                );
            }
            Endpoint::Uplink(uplink) => {
                let worker = self.worker;
                self.give_netdev(
                    share,
                    burst,
                    uplink.into(),
                    port_reason,
                    |delivery, fared| {
                        count(worker, port, Counted::Rx, fared);
                        burst.show(port, Point::ToPort, None, delivery, fared.sent());
                    },
                );
            }
        }
    }

    fn give_taps(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        port: &Port,
        netdev: &Attached,
    ) {
        let taps = &netdev.queues;
        let rss = (taps.len() > 1).then(|| netdev.steering.spread()).flatten();
        let rules = netdev.steering.rules();
        let spread = Spread {
            rss: rss.as_deref(),
            rules: rules.as_deref(),
            pairs: taps.len() as u16,
        };
        self.by_pair(share, burst, spread, |this, share, pair| {
            if pair == NOWHERE {
                return this.all_lost(share, burst, port, DropReason::QueueRule);
            }
            let worker = this.worker;
            let tap = Netdev::Tap(&taps[usize::from(pair)]);
            this.give_netdev(share, burst, tap, port_reason, |delivery, fared| {
                let counters = &port.counters;
                counters.count_queue(pair, false, fared.packets, fared.bytes);
                count(worker, port, Counted::Rx, fared);
                burst.show(port, Point::ToPort, Some(pair), delivery, fared.sent());
            });
        });
    }

    fn give_representor(&mut self, share: &[Delivery], burst: Classified<'_, '_>, port: &Port) {
        let Some(representor) = &port.representor else {
            return self.all_lost(share, burst, port, DropReason::NoRepresentor);
        };
        let (worker, tap) = (self.worker, Netdev::Tap(&representor.tap));
        self.give_netdev(share, burst, tap, representor_reason, |delivery, fared| {
            count(worker, port, Counted::RepresentorRx, fared);
            burst.show(port, Point::ToHost, None, delivery, fared.sent());
        });
    }

    fn give_netdev(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        to: Netdev<'_>,
        why: fn(SendError) -> DropReason,
        fared: impl FnMut(&Delivery, Fared),
    ) {
        let way = Way {
            to,
            why,
            uring: self.uring.as_mut(),
            local: (&mut self.flat, &mut self.segment),
        };
        self.outbox.give(share, burst, way, fared);
    }

    /// Gives a share pair by pair: flows are spread over them, frames of one flow stay in order.
    fn by_pair(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        to: Spread<'_>,
        mut give: impl FnMut(&mut Self, &[Delivery], u16),
    ) {
        if to.pairs <= 1 && to.rules.is_none() {
            return give(self, share, 0);
        }
        let mut spread = std::mem::take(&mut self.spread);
        spread.clear();
        spread.extend(share.iter().map(|delivery| {
            let pair = burst.pair(delivery, to);
            let order = u64::from(pair) << 16 | u64::from(delivery.frame);
            Delivery { order, ..*delivery }
        }));
        spread.sort_unstable_by_key(|d| d.order);
        for share in spread.chunk_by(|a, b| a.order >> 16 == b.order >> 16) {
            give(self, share, (share[0].order >> 16) as u16);
        }
        self.spread = spread;
    }

    fn fill_rings<'c>(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        (port, channel): (&Port, &'c Channel),
        left: &mut Left<'c>,
    ) {
        let pairs = channel.rx_pairs();
        let rss = (pairs > 1).then(|| channel.steering().spread()).flatten();
        let spread = Spread {
            rss: rss.as_deref(),
            rules: None,
            pairs,
        };
        self.by_pair(share, burst, spread, |this, share, pair| {
            this.announce(left);
            let ring = channel.rx(pair).filter(|_| pair < pairs);
            this.fill_ring(share, burst, (port, channel), (pair, ring), left);
        });
    }

    fn fill_ring<'c>(
        &mut self,
        share: &[Delivery],
        burst: Classified<'_, '_>,
        (port, channel): (&Port, &'c Channel),
        (pair, ring): (u16, Option<RxGuard<'c>>),
        left: &mut Left<'c>,
    ) {
        let Some(mut guard) = ring.filter(|g| g.is_some()) else {
            return self.all_lost(share, burst, port, DropReason::NotConnected);
        };
        let queue = guard.as_mut().expect("filtered above");
        let report = queue.hash_report.then(|| channel.steering().report());
        let report = report.flatten();
        let wants = Wants::of(queue, report.as_deref());
        let joins = channel.lro() && wants.takes_large();
        if joins {
            self.joined.clear();
            self.joined.extend_from_slice(share);
            let takes = wants.offloads;
            self.joiner
                .group(&mut self.joined, &mut self.groups, burst, takes);
        }
        let share = if joins { &self.joined[..] } else { share };
        let mut ring = queue.ring.fill(&mut self.scratch, share.len());
        let mut all = Fared::default();
        let mut fault = None;
        let mut rest = share;
        let mut groups = self.groups.iter();
        let mut group = &share[..0];
        while !rest.is_empty() {
            if joins && group.is_empty() {
                group = &rest[..groups.next().copied().unwrap_or(1)];
            }
            let (count, packet) = match group.len() {
                0 | 1 => (1, None),
                _ => self.joiner.join(group, burst),
            };
            let (these, others) = rest.split_at(count);
            (rest, group) = (others, group.get(count..).unwrap_or(&[]));
            let filled = match packet {
                Some(packet) => fill_joined(&mut ring, wants, burst, these, packet),
                None => {
                    let local = (&mut self.flat[..], &mut self.segment[..]);
                    fill_buffers(&mut ring, wants, burst, &these[0], local)
                }
            };
            match filled {
                Ok(fared) => {
                    all.packets += fared.packets;
                    all.bytes += fared.bytes;
                    if let Some((reason, packets)) = fared.lost {
                        port.counters.lose(self.worker, reason, packets);
                    }
                    for delivery in these {
                        burst.show(port, Point::ToPort, Some(pair), delivery, fared.sent());
                    }
                }
                Err(found) => {
                    let lost = these.len() as u64;
                    port.counters
                        .lose(self.worker, DropReason::NotConnected, lost);
                    burst.show_lost(port, these, DropReason::NotConnected);
                    fault = Some(found);
                }
            }
        }
        let (packets, bytes) = (all.packets, all.bytes);
        port.counters
            .count(self.worker, Counted::Rx, packets, bytes);
        port.counters
            .count_locked_queue(pair, false, packets, bytes);
        drop(ring);
        left.shown = queue.ring.show().then_some(guard);
        left.faults.extend(fault.map(|fault| (channel, fault)));
    }
}

type RxGuard<'c> = MutexGuard<'c, Option<Box<RxQueue>>>;

/// What is still to be done once a burst is delivered.
#[derive(Default)]
#[must_use]
pub struct Left<'c> {
    /// The last ring, whose driver can see what it was given and may have to be woken.
    shown: Option<RxGuard<'c>>,
    /// Channels that are to be stopped.
    faults: Vec<(&'c Channel, RingFault)>,
}

impl Left<'_> {
    /// Lets go of the ring, and wakes its driver if it asks for that. A fence comes before this.
    pub fn announce(&mut self, notifier: &mut Notifier) {
        if let Some(queue) = self.shown.take().as_mut().and_then(|guard| guard.as_mut()) {
            queue.announce(notifier);
        }
    }

    /// Stops the channels whose rings were bad. That takes all their rings' locks, so whoever
    /// calls this holds none: it may be one of those, or that of a channel whose worker waits for
    /// ours.
    pub fn stop_faulty(self) {
        drop(self.shown);
        for (channel, fault) in self.faults {
            channel.fault(format!("receive ring: {fault}"));
        }
    }
}

/// How a driver wants its frames.
#[derive(Clone, Copy)]
struct Wants<'a> {
    header_len: usize,
    mergeable: bool,
    offloads: RxOffloads,
    /// The header tells the packet's hash.
    hash_report: bool,
    /// By which it is computed; `None`: there is none.
    rss: Option<&'a Rss>,
}

impl<'a> Wants<'a> {
    fn of(queue: &RxQueue, rss: Option<&'a Rss>) -> Self {
        Self {
            header_len: queue.header_len,
            mergeable: queue.mergeable,
            offloads: queue.offloads,
            hash_report: queue.hash_report,
            rss,
        }
    }

    /// Whether frames can be joined for it.
    fn takes_large(&self) -> bool {
        let RxOffloads {
            csum, tso4, tso6, ..
        } = self.offloads;
        self.mergeable && csum && (tso4 || tso6)
    }

    fn hash(&self, leaving: &Leaving<'_>) -> PacketHash {
        let rss = self.rss;
        rss.map_or_else(PacketHash::default, |rss| leaving.rss_hash(rss))
    }
}

/// Give a ring one packet that was made of several frames; they are counted as they came.
fn fill_joined(
    ring: &mut Filling<'_, '_>,
    wants: Wants<'_>,
    burst: Classified<'_, '_>,
    frames: &[Delivery],
    (packet, offload): (&mut [u8], Offload),
) -> Result<Fared, RingFault> {
    let mut header = [0; VNET_HDR_LEN];
    offload.to_hdr(wants.offloads).write(&mut header);
    // They are of one flow.
    let hash = wants.hash(&burst.leaving(&frames[0]));
    let header = with_hash(&header, hash);
    let sent = put(ring, wants, header, [packet, &[], &[]], None)?;
    let mut fared = Fared::default();
    for (left, delivery) in (1..=frames.len()).rev().zip(frames) {
        if !fared.add(sent, burst.leaving(delivery).len(), left) {
            break;
        }
    }
    Ok(fared)
}

/// Give one frame to a ring: as it is, or finished in `local` first, which has room for a whole
/// frame and for a segment of it. The outer error is the ring's, the inner one the frame's.
#[inline]
fn fill_buffers<'f>(
    ring: &mut Filling<'_, 'f>,
    wants: Wants<'_>,
    burst: Classified<'_, 'f>,
    delivery: &Delivery,
    local: (&mut [u8], &mut [u8]),
) -> Result<Fared, RingFault> {
    let frame = burst.frame(delivery);
    if delivery.vlan == VlanOp::None
        && delivery.head.is_as_it_came()
        && !wants.hash_report
        && let Some(front) = frame.plain_front(wants.header_len)
    {
        // As most are: nothing to compute, and one buffer.
        let (offset, tail) = frame.tail();
        let put = match frame.source {
            _ if tail == 0 => ring.put(front, None),
            Bytes::Guest(source) => ring.put(front, Some((source, offset))),
            Bytes::Local(_) => false,
        };
        if put {
            return Ok(Fared::whole(Ok(()), frame.len));
        }
    }
    fill_finished(ring, wants, &burst.leaving(delivery), local)
}

fn fill_finished(
    ring: &mut Filling<'_, '_>,
    wants: Wants<'_>,
    leaving: &Leaving<'_>,
    local: (&mut [u8], &mut [u8]),
) -> Result<Fared, RingFault> {
    let offload = leaving.offload();
    let hash = wants.hash(leaving);
    if offload.fits(wants.offloads) {
        let mut header = [0; VNET_HDR_LEN];
        offload.to_hdr(wants.offloads).write(&mut header);
        let mut tag = [0; 4];
        let head = leaving.head_pieces(&mut tag);
        let sent = put(ring, wants, with_hash(&header, hash), head, Some(leaving))?;
        return Ok(Fared::whole(sent, leaving.len()));
    }
    let (flat, segment) = local;
    let flat = leaving.flatten(flat);
    let mut fault = None;
    let fared = finish(flat, offload, wants.offloads, segment, |header, bytes| {
        let header = with_hash(header, hash);
        put(ring, wants, header, [bytes, &[], &[]], None).unwrap_or_else(|found| {
            fault = Some(found);
            Err(DropReason::NotConnected)
        })
    });
    fault.map_or(Ok(fared), Err)
}

/// Put one frame into a ring: header, the pieces of its head, and the tail of `leaving`, which
/// is copied from where the source has it.
#[inline]
fn put(
    ring: &mut Filling<'_, '_>,
    wants: Wants<'_>,
    mut header: [u8; HASH_HDR_LEN],
    head: [&[u8]; 3],
    leaving: Option<&Leaving<'_>>,
) -> Result<Sent, RingFault> {
    let (tail_offset, tail_len) = leaving.map_or((0, 0), Leaving::tail);
    let head_len: usize = head.iter().map(|piece| piece.len()).sum();
    let total = wants.header_len + head_len + tail_len;
    let buffers = match ring.reserve(total as u32, wants.mergeable)? {
        Reserve::Ready(buffers) => buffers,
        Reserve::NoBuffers => return Ok(Err(DropReason::NoBuffers)),
        Reserve::TooSmall { .. } => return Ok(Err(DropReason::BufferTooSmall)),
    };
    header[10..12].copy_from_slice(&buffers.num_buffers().to_le_bytes());
    let into = buffers.writable();
    let mut at = into.copy_in(0, &header[..wants.header_len]);
    for piece in head {
        at += into.copy_in(at, piece);
    }
    match leaving.map(Leaving::source) {
        Some(Bytes::Guest(source)) => {
            into.copy_from(at, source, tail_offset, tail_len);
        }
        Some(Bytes::Local(source)) => {
            into.copy_in(at, &source[tail_offset..tail_offset + tail_len]);
        }
        None => {}
    }
    buffers.commit();
    Ok(Ok(()))
}

/// Give a frame to a receiver that takes it as it is, or do in software what the receiver does
/// not: the checksum, or segments with theirs. Ends at the first piece that is not taken.
pub fn finish(
    flat: &mut [u8],
    offload: Offload,
    takes: RxOffloads,
    segment: &mut [u8],
    mut give: impl FnMut(&[u8; VNET_HDR_LEN], &[u8]) -> Sent,
) -> Fared {
    let mut header = [0; VNET_HDR_LEN];
    if offload.fits(takes) {
        offload.to_hdr(takes).write(&mut header);
        return Fared::whole(give(&header, flat), flat.len());
    }
    if offload.gso.is_some() {
        let segments = match Segmenter::new(flat, &offload) {
            Ok(segments) => segments,
            Err(reason) => return Fared::whole(Err(reason), flat.len()),
        };
        let (mut fared, count) = (Fared::default(), segments.count());
        for n in 0..count {
            let Some(len) = segments.write(n, segment) else {
                break;
            };
            let sent = give(&header, &segment[..len]);
            if !fared.add(sent, len, count - n) {
                break;
            }
        }
        return fared;
    }
    if let Some(csum) = offload.csum {
        finish_checksum(flat, csum);
    }
    Fared::whole(give(&header, flat), flat.len())
}

fn count(worker: usize, port: &Port, what: Counted, fared: Fared) {
    port.counters
        .count(worker, what, fared.packets, fared.bytes);
    if let Some((reason, packets)) = fared.lost {
        port.counters.lose(worker, reason, packets);
    }
}

fn representor_reason(error: SendError) -> DropReason {
    match error {
        SendError::Full => DropReason::RepresentorFull,
        _ => DropReason::RepresentorDown,
    }
}

pub fn port_reason(error: SendError) -> DropReason {
    match error {
        SendError::Full => DropReason::PortFull,
        SendError::TooBig => DropReason::MtuExceeded,
        SendError::BadHeader => DropReason::BadOffload,
        SendError::Down | SendError::Other(_) => DropReason::PortDown,
    }
}
