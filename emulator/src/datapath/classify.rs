//! Where each frame of a burst goes.

use super::frame::Frame;
use super::published::Config;
use super::receive::Origin;
use crate::port::{Counted, Port};
use chanio_model::eswitch::{Dest, Fdb, LearnOutcome, Meta, Output, Outputs, VlanOp};
use chanio_model::offload::VnetHdr;
use chanio_model::{DropReason, Mac, Nanos, VportId, wire};
use parking_lot::RwLock;

/// One frame of the burst to one destination.
#[derive(Clone, Copy)]
pub struct Delivery {
    /// Destinations in the order of this number are served one after the other.
    pub order: u64,
    pub dest: Dest,
    pub vlan: VlanOp,
    /// Position in the burst.
    pub frame: u16,
}

/// The worker's memory for classifying; nothing is allocated once it has grown.
pub struct Classifier {
    worker: usize,
    outputs: Outputs,
    learn: Vec<(u16, Mac, VportId)>,
}

impl Classifier {
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            outputs: Outputs::default(),
            learn: Vec::new(),
        }
    }

    /// Fill `deliveries`, ordered by destination and, within one, as the frames came. Counts what
    /// entered and what is lost before it reaches a destination.
    #[allow(clippy::too_many_arguments)]
    pub fn classify(
        &mut self,
        origin: Origin,
        port: &Port,
        frames: &mut [Frame<'_>],
        config: &Config,
        fdb: &RwLock<Fdb>,
        now: Nanos,
        deliveries: &mut Vec<Delivery>,
    ) {
        deliveries.clear();
        let mut bytes = 0;
        {
            let fdb = fdb.read();
            for (index, frame) in frames.iter_mut().enumerate() {
                bytes += frame.len as u64;
                if let Err(reason) = self.one(origin, port.id, frame, config, &fdb, now) {
                    port.counters.lose(self.worker, reason, 1);
                    continue;
                }
                if let Some((vid, mac)) = self.outputs.learn {
                    self.learn.push((vid, mac, port.id));
                }
                for &(vport, reason) in &self.outputs.lost {
                    if let Some(port) = config.port(vport) {
                        port.counters.lose(self.worker, reason, 1);
                    }
                }
                deliveries.extend(
                    self.outputs
                        .list
                        .iter()
                        .map(|output| delivery(output, index as u16)),
                );
            }
        }
        let counted = match origin {
            Origin::Vport => Counted::Tx,
            Origin::Representor => Counted::RepresentorTx,
        };
        port.counters
            .count(self.worker, counted, frames.len() as u64, bytes);
        self.learn(fdb, now);
        // Most bursts go to one place and are in order already, which this finds in one pass.
        deliveries.sort_unstable_by_key(|d| d.order);
    }

    fn one(
        &mut self,
        origin: Origin,
        vport: VportId,
        frame: &mut Frame<'_>,
        config: &Config,
        fdb: &Fdb,
        now: Nanos,
    ) -> Result<(), DropReason> {
        self.outputs.clear();
        let len = frame.len as u32;
        let parsed = wire::parse(frame.head(), len, vport)?;
        frame.key = parsed.key;
        let header = VnetHdr::read(&frame.header);
        frame.offload = header.check(&parsed, frame.head(), len)?;
        let meta = Meta::new(len, &parsed, frame.offload.gso.as_ref(), now, self.worker);
        match origin {
            Origin::Vport => config
                .switch
                .from_vport(fdb, &parsed.key, meta, &mut self.outputs),
            Origin::Representor => {
                config
                    .switch
                    .from_representor(vport, &parsed.key, meta, &mut self.outputs)
            }
        }
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
        frame,
    }
}
