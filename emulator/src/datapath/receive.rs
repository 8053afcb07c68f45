//! Taking a burst from a source, and seeing it through.

use super::Datapath;
use super::classify::{Arrival, Classifier, Delivery};
use super::deliver::{Classified, Deliverer, Left};
use super::frame::{Bytes, Frame, NO_SNAPSHOT, Snapshot};
use super::published::Config;
use super::source::Source;
use super::watch::Watch;
use crate::port::uplink::XdpPort;
use crate::port::{Channel, Endpoint, Inbox, Netdev, Port, Tap, Uplink, Uring};
use crate::ring::{BURST, Burst, full_fence};
use crate::vhost::Device;
use arrayvec::ArrayVec;
use chanio_model::offload::VNET_HDR_LEN;
use chanio_model::{Nanos, VportId};
use std::io;

/// What came of serving a source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was a burst.
    Worked,
    /// There was nothing; it wants to be asked again.
    Idle,
    /// What there is has to wait until then.
    Parked(Nanos),
    /// All that there was, if anything, was taken from a netdev; an event will tell of more.
    Drained {
        /// There was a burst.
        worked: bool,
    },
    /// There was nothing; an event will tell when there is.
    Asleep,
}

/// A round of the worker over its sources.
#[derive(Clone, Copy)]
pub struct Round {
    /// When it began.
    pub now: Nanos,
    /// How long a busy ring is polled in vain before it sleeps.
    pub linger: Nanos,
}

/// Which side of a port a frame entered by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The channel, or the wire.
    Vport,
    /// The host, on the representor.
    Representor,
}

/// The worker's memory for a burst; nothing is allocated once it has grown.
pub struct Receiver {
    worker: usize,
    burst: Burst,
    snapshots: Box<[Snapshot; BURST]>,
    /// Where frames from netdevs are read to.
    inbox: Inbox,
    onward: Onward,
}

/// What happens to a burst once it is here.
struct Onward {
    worker: usize,
    classifier: Classifier,
    deliveries: Vec<Delivery>,
    deliverer: Deliverer,
}

/// What a burst is forwarded by.
#[derive(Clone, Copy)]
struct Context<'a> {
    config: &'a Config,
    datapath: &'a Datapath,
    port: &'a Port,
    origin: Origin,
    /// The queue pair it came from, where there are several.
    queue: Option<u16>,
    now: Nanos,
}

impl Receiver {
    pub fn new(worker: usize, uring: Option<Uring>) -> io::Result<Self> {
        Ok(Self {
            worker,
            burst: Burst::default(),
            snapshots: Box::new([NO_SNAPSHOT; BURST]),
            inbox: Inbox::default(),
            onward: Onward {
                worker,
                classifier: Classifier::new(worker),
                deliveries: Vec::new(),
                deliverer: Deliverer::new(worker, uring)?,
            },
        })
    }

    /// Take what the source has, up to a burst, and forward it.
    pub fn serve(
        &mut self,
        source: Source,
        config: &Config,
        datapath: &Datapath,
        Round { now, linger }: Round,
    ) -> Progress {
        let (vport, origin, queue) = match source {
            Source::Queue(vport, pair) => (vport, Origin::Vport, Some(pair)),
            Source::Representor(vport) => (vport, Origin::Representor, None),
            Source::Uplink => (VportId::UPLINK, Origin::Vport, None),
        };
        // An event may outlive its port.
        let Some(port) = config.port(vport) else {
            return Progress::Asleep;
        };
        let context = Context {
            config,
            datapath,
            port,
            origin,
            queue,
            now,
        };
        match (source, &port.endpoint) {
            (Source::Representor(_), _) => match &port.representor {
                Some(representor) => {
                    self.serve_netdev(context, BURST, Netdev::Tap(&representor.tap))
                }
                None => Progress::Asleep,
            },
            (Source::Queue(_, pair), Endpoint::Rings(channel)) => {
                self.serve_ring(context, channel, pair, linger)
            }
            (Source::Queue(_, pair), Endpoint::Netdev(netdev)) => {
                match netdev.queues.get(usize::from(pair)) {
                    Some(tap) => self.serve_tap(context, tap, pair),
                    None => Progress::Asleep,
                }
            }
            (Source::Uplink, Endpoint::Uplink(Uplink::Xdp(wire))) => self.serve_xdp(context, wire),
            (Source::Uplink, Endpoint::Uplink(uplink)) => {
                self.serve_netdev(context, BURST, uplink.into())
            }
            _ => Progress::Asleep,
        }
    }

    fn serve_ring(
        &mut self,
        context: Context<'_>,
        channel: &Channel,
        pair: u16,
        linger: Nanos,
    ) -> Progress {
        // Held until the burst is delivered: its payload is read from the guest's buffers.
        let Some(mut guard) = channel.tx(pair) else {
            return Progress::Asleep;
        };
        if channel.worker(pair) != Some(self.worker) {
            // An event from before it was given to another, who knows.
            return Progress::Asleep;
        }
        let Some(queue) = guard.as_mut() else {
            return Progress::Asleep;
        };
        let quota = match context.port.limiter.ask(context.now) {
            Ok(quota) => quota,
            Err(until) => return Progress::Parked(until),
        };
        let popped = queue.ring.pop_bytes(&mut self.burst, quota.bytes);
        let worked = !self.burst.is_empty();
        let mut left = Left::default();
        if worked {
            queue.worked(context.now, linger);
            let mut frames = ArrayVec::<Frame<'_>, BURST>::new();
            for (chain, snapshot) in self.burst.iter().zip(self.snapshots.iter_mut()) {
                let bytes = Bytes::Guest(chain.readable());
                match Frame::snapshot(bytes, queue.header_len, snapshot) {
                    Ok(frame) => frames.push(frame),
                    Err(reason) => context.port.counters.lose(self.worker, reason, 1),
                }
            }
            let lengths = frames.iter().map(|frame| frame.len);
            let bytes = lengths.clone().sum::<usize>() as u64;
            let counters = &context.port.counters;
            counters.count_locked_queue(pair, true, lengths.len() as u64, bytes);
            context.port.limiter.taken(&quota, lengths);
            left = self.onward.forward(context, &mut frames);
            drop(frames);
            queue.ring.push_read(&self.burst);
            queue.ring.show();
            // One barrier for both rings: it waits until all that was written has got there.
            full_fence();
            let notifier = &mut self.onward.deliverer.notifier;
            left.announce(notifier);
            queue.announce(notifier);
        }
        self.burst.clear();
        let progress = popped.and_then(|_| {
            if worked {
                return Ok(Progress::Worked);
            }
            if queue.lingers(context.now, linger) || !queue.has_kick() {
                return Ok(Progress::Idle);
            }
            Ok(match queue.ask()? {
                true => Progress::Worked,
                false => Progress::Asleep,
            })
        });
        drop(guard);
        left.stop_faulty();
        progress.unwrap_or_else(|fault| {
            channel.fault(format!("transmit ring {pair}: {fault}"));
            Progress::Asleep
        })
    }

    /// What the kernel has for a container's queue stays there while the channel has no credit.
    fn serve_tap(&mut self, context: Context<'_>, tap: &Tap, pair: u16) -> Progress {
        let limiter = &context.port.limiter;
        let quota = match limiter.ask(context.now) {
            Ok(quota) => quota,
            Err(until) => return Progress::Parked(until),
        };
        let progress = self.serve_netdev(context, quota.packets, Netdev::Tap(tap));
        let lengths = self.inbox.lengths();
        let lengths = lengths.map(|len| len.saturating_sub(VNET_HDR_LEN));
        let bytes = lengths.clone().sum::<usize>() as u64;
        let counters = &context.port.counters;
        counters.count_queue(pair, true, lengths.len() as u64, bytes);
        limiter.taken(&quota, lengths);
        progress
    }

    /// Frames stay where the kernel has put them until they are delivered.
    fn serve_xdp(&mut self, context: Context<'_>, wire: &XdpPort) -> Progress {
        let (mut worked, mut more) = (false, false);
        for queue in 0..wire.queues() {
            let taken = wire.receive(queue, BURST, |frames| {
                let snapshots = &mut *self.snapshots;
                self.onward
                    .forward_local(context, frames.iter().copied(), snapshots);
                frames.len()
            });
            worked |= taken > 0;
            more |= taken == BURST;
        }
        if more {
            Progress::Worked
        } else {
            Progress::Drained { worked }
        }
    }

    fn serve_netdev(
        &mut self,
        context: Context<'_>,
        at_most: usize,
        netdev: Netdev<'_>,
    ) -> Progress {
        let uring = self.onward.deliverer.uring.as_mut();
        let drained = self.inbox.fill(netdev, at_most, uring);
        let drained = drained.unwrap_or_else(|error| {
            // The netdev is gone or broken; what removes the port comes from elsewhere.
            tracing::debug!(vport = %context.port.id, %error, "receive");
            true
        });
        let snapshots = &mut *self.snapshots;
        self.onward
            .forward_local(context, self.inbox.frames(), snapshots);
        if drained {
            Progress::Drained {
                worked: self.inbox.lengths().len() > 0,
            }
        } else {
            Progress::Worked
        }
    }
}

impl Onward {
    /// Forwards frames that are in memory of ours, each behind its virtio-net header.
    fn forward_local<'f>(
        &mut self,
        context: Context<'_>,
        from: impl Iterator<Item = &'f [u8]>,
        snapshots: &mut [Snapshot; BURST],
    ) {
        let mut frames = ArrayVec::<Frame<'_>, BURST>::new();
        for (frame, snapshot) in from.zip(snapshots) {
            match Frame::snapshot(Bytes::Local(frame), VNET_HDR_LEN, snapshot) {
                Ok(frame) => frames.push(frame),
                Err(reason) => context.port.counters.lose(self.worker, reason, 1),
            }
        }
        let mut left = self.forward(context, &mut frames);
        full_fence();
        left.announce(&mut self.deliverer.notifier);
        left.stop_faulty();
    }

    /// What is returned is for the caller to do, behind a fence.
    fn forward<'c>(&mut self, context: Context<'c>, frames: &mut [Frame<'_>]) -> Left<'c> {
        if frames.is_empty() {
            return Left::default();
        }
        let Context {
            config,
            datapath,
            port,
            origin,
            queue,
            now,
        } = context;
        let watch = Watch::new(&datapath.captures, queue);
        watch.arrived(port.id, origin, frames);
        let arrival = Arrival {
            origin,
            port,
            config,
            fdb: &datapath.fdb,
            now,
            watch,
        };
        self.classifier
            .classify(arrival, frames, &mut self.deliveries);
        let burst = Classified {
            frames,
            heads: self.classifier.heads(),
            missed: self.classifier.missed(),
            watch,
        };
        self.deliverer
            .deliver(&self.deliveries, burst, port, config)
    }
}
