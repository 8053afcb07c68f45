//! Where each frame of a burst goes.

use super::frame::Frame;
use super::published::Config;
use super::receive::Origin;
use super::watch::{Decided, Watch};
use crate::port::{Counted, Port};
use crate::ring::BURST;
use arrayvec::ArrayVec;
use chanio_model::eswitch::{
    Arriving, Dest, Fdb, FlowCache, HeadId, Heads, LearnOutcome, Meta, Output, Outputs, Slot,
    VlanOp,
};
use chanio_model::flow::FlowKey;
use chanio_model::{DropReason, Mac, Nanos, VportId, wire};
use parking_lot::RwLock;

/// One frame of the burst to one destination.
#[derive(Clone, Copy)]
pub struct Delivery {
    /// Destinations in the order of this number are served one after the other.
    pub order: u64,
    pub dest: Dest,
    pub vlan: VlanOp,
    /// Its first bytes, in [`Classifier::heads`].
    pub head: HeadId,
    /// Position in the burst.
    pub frame: u16,
}

/// The worker's memory for classifying; nothing is allocated once it has grown.
pub struct Classifier {
    worker: usize,
    cache: FlowCache,
    outputs: Outputs,
    /// While somebody captures: frames of the burst for which a chain had no rule, and the chain.
    missed: Vec<(u16, u32)>,
    learn: Vec<(u16, Mac, VportId)>,
}

/// What is known of a frame of the burst before any is decided on.
struct ParsedFrame {
    key: FlowKey,
    slot: Slot,
    l3_len: u32,
    /// Position in the burst.
    frame: u16,
}

/// A burst to be classified.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// Which side of the port it came by.
    pub origin: Origin,
    /// Where it came in.
    pub port: &'a Port,
    /// What decides.
    pub config: &'a Config,
    /// Learned and static addresses.
    pub fdb: &'a RwLock<Fdb>,
    /// The burst's time.
    pub now: Nanos,
    /// Who wants to see it.
    pub watch: Watch<'a>,
}

impl<'a> Arrival<'a> {
    /// What decides.
    fn decided(&self, fdb: &'a Fdb) -> Decided<'a> {
        Decided {
            config: self.config,
            fdb,
            from: self.port.id,
            origin: self.origin,
            now: self.now,
        }
    }
}

impl Classifier {
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            cache: FlowCache::default(),
            outputs: Outputs::for_worker(worker),
            missed: Vec::new(),
            learn: Vec::new(),
        }
    }

    /// The first bytes of the burst's frames that were rewritten.
    pub fn heads(&self) -> &Heads {
        &self.outputs.heads
    }

    /// While somebody captures: the burst's frames for which a chain had no rule, and the chain.
    pub fn missed(&self) -> &[(u16, u32)] {
        &self.missed
    }

    /// Fill `deliveries`, ordered by destination and, within one, as the frames came. Counts what
    /// entered and what is lost before it reaches a destination.
    pub fn classify(
        &mut self,
        arrival: Arrival<'_>,
        frames: &mut [Frame<'_>],
        deliveries: &mut Vec<Delivery>,
    ) {
        let Arrival {
            origin,
            port,
            config,
            ..
        } = arrival;
        deliveries.clear();
        self.missed.clear();
        let mut parsed = ArrayVec::<ParsedFrame, BURST>::new();
        let bytes = frames.iter().map(|frame| frame.len as u64).sum();
        let counted = match origin {
            Origin::Vport => Counted::Tx,
            Origin::Representor => Counted::RepresentorTx,
        };
        port.counters
            .count(self.worker, counted, frames.len() as u64, bytes);
        let fdb = arrival.fdb.read();
        config.switch.begin_burst(&mut self.cache);
        self.outputs.begin_burst();
        let may_repeat = origin == Origin::Vport && config.switch.repeats();
        for (index, frame) in (0..).zip(frames.iter_mut()) {
            if may_repeat
                && frame.is_plain()
                && let Some(output) =
                    config
                        .switch
                        .repeated(&self.cache, frame.head(), frame.len as u32, port.id)
            {
                deliveries.push(delivery(&output, index));
                continue;
            }
            match self.parse(port.id, config, frame, index) {
                Ok(parsed) if may_repeat => {
                    self.decide(arrival, &fdb, frame, &parsed, deliveries);
                }
                Ok(frame) => parsed.push(frame),
                Err(reason) => {
                    port.counters.lose(self.worker, reason, 1);
                    let decided = arrival.decided(&fdb);
                    arrival.watch.refused(port.id, reason, frame, decided);
                }
            }
        }
        for parsed in &parsed {
            let frame = &frames[usize::from(parsed.frame)];
            self.decide(arrival, &fdb, frame, parsed, deliveries);
        }
        drop(fdb);
        self.learn(arrival.fdb, arrival.now);
        // Most bursts go to one place and are in order already, which this finds in one pass.
        deliveries.sort_unstable_by_key(|d| d.order);
    }

    #[inline]
    fn decide(
        &mut self,
        arrival: Arrival<'_>,
        fdb: &Fdb,
        frame: &Frame<'_>,
        parsed: &ParsedFrame,
        deliveries: &mut Vec<Delivery>,
    ) {
        let Arrival {
            origin,
            port,
            config,
            now,
            ..
        } = arrival;
        let meta = Meta {
            len: frame.len as u32,
            l3_len: parsed.l3_len,
            now,
            shard: self.worker,
        };
        let (switch, out) = (&config.switch, &mut self.outputs);
        let cache = &mut self.cache;
        let packet = Arriving {
            key: &parsed.key,
            meta,
            head: frame.head(),
            offload: frame.noted_offload(),
        };
        let decided = match origin {
            Origin::Vport => switch.from_vport_cached(cache, parsed.slot, fdb, packet, out),
            Origin::Representor => switch.from_representor(port.id, &parsed.key, meta, out),
        };
        if let Err(reason) = decided {
            port.counters.lose(self.worker, reason, 1);
            let decided = arrival.decided(fdb);
            return arrival.watch.refused(port.id, reason, frame, decided);
        }
        if let Some(chain) = out.missed
            && arrival.watch.is_active()
        {
            self.missed.push((parsed.frame, chain));
        }
        if let Some((vid, mac)) = out.learn {
            self.learn.push((vid, mac, port.id));
        }
        for &(vport, reason) in &out.lost {
            // If that port has gone, the loss is still one: of the port it came from.
            let at = config.port(vport).map_or(port, |port| port);
            at.counters.lose(self.worker, reason, 1);
            let decided = arrival.decided(fdb);
            arrival.watch.refused(at.id, reason, frame, decided);
        }
        for output in &out.list {
            deliveries.push(delivery(output, parsed.frame));
        }
    }

    #[inline(always)]
    fn parse(
        &self,
        vport: VportId,
        config: &Config,
        frame: &mut Frame<'_>,
        index: u16,
    ) -> Result<ParsedFrame, DropReason> {
        let len = frame.len as u32;
        let parsed = wire::parse(frame.head(), len, vport)?;
        if !frame.is_plain() {
            frame.set_offload(frame.header().check(&parsed, frame.head(), len)?);
        }
        let meta = Meta::new(len, &parsed, frame.offload().gso.as_ref(), 0, 0);
        Ok(ParsedFrame {
            slot: config.switch.slot(&self.cache, &parsed.key),
            key: parsed.key,
            l3_len: meta.l3_len,
            frame: index,
        })
    }

    fn learn(&mut self, fdb: &RwLock<Fdb>, now: Nanos) {
        if self.learn.is_empty() {
            return;
        }
        let mut fdb = fdb.write();
        for (vid, mac, vport) in self.learn.drain(..) {
            if fdb.learn(vid, mac, vport, now) == LearnOutcome::LimitReached {
                tracing::trace!(%vport, %mac, "address table full");
            }
        }
    }
}

fn delivery(output: &Output, frame: u16) -> Delivery {
    let place = match output.dest {
        Dest::Vport(vport) => u64::from(vport.0) << 1,
        Dest::Representor(vport) => u64::from(vport.0) << 1 | 1,
    };
    Delivery {
        order: place << 16 | u64::from(frame),
        dest: output.dest,
        vlan: output.vlan,
        head: output.head,
        frame,
    }
}
