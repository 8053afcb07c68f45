//! Taking a burst from a source, and seeing it through.

use super::Datapath;
use super::classify::{Arrival, Classifier, Delivery};
use super::deliver::{Classified, Deliverer};
use super::frame::{Bytes, Frame, HEAD, Snapshot};
use super::published::Config;
use super::source::Source;
use crate::port::{Channel, Endpoint, Port, RECV_BUF_LEN};
use crate::ring::{BURST, Burst};
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
    /// There was nothing; an event will tell when there is.
    Asleep,
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
    /// Where frames from netdevs are read to. Pages that no frame reaches are never touched.
    buffers: Vec<u8>,
    lengths: ArrayVec<usize, BURST>,
    onward: Onward,
}

/// What happens to a burst once it is here.
struct Onward {
    classifier: Classifier,
    deliveries: Vec<Delivery>,
    deliverer: Deliverer,
}

/// Room for one frame from a netdev with its virtio-net header.
const BUFFER: usize = RECV_BUF_LEN;

/// What a burst is forwarded by.
#[derive(Clone, Copy)]
struct Context<'a> {
    config: &'a Config,
    datapath: &'a Datapath,
    port: &'a Port,
    origin: Origin,
    now: Nanos,
}

impl Receiver {
    pub fn new(worker: usize) -> io::Result<Self> {
        Ok(Self {
            worker,
            burst: Burst::default(),
            snapshots: Box::new([[0; VNET_HDR_LEN + HEAD]; BURST]),
            buffers: vec![0; BURST * BUFFER],
            lengths: ArrayVec::new(),
            onward: Onward {
                classifier: Classifier::new(worker),
                deliveries: Vec::new(),
                deliverer: Deliverer::new(worker)?,
            },
        })
    }

    /// Take what the source has, up to a burst, and forward it.
    pub fn serve(
        &mut self,
        source: Source,
        config: &Config,
        datapath: &Datapath,
        now: Nanos,
    ) -> Progress {
        let (vport, origin) = match source {
            Source::Queue(vport, _) => (vport, Origin::Vport),
            Source::Representor(vport) => (vport, Origin::Representor),
            Source::Uplink => (VportId::UPLINK, Origin::Vport),
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
            now,
        };
        match (source, &port.endpoint) {
            (Source::Representor(_), _) => match &port.representor {
                Some(representor) => self.serve_netdev(context, |b| representor.tap.recv(b)),
                None => Progress::Asleep,
            },
            (Source::Queue(_, pair), Endpoint::Rings(channel)) => {
                self.serve_ring(context, channel, pair)
            }
            (Source::Queue(_, pair), Endpoint::Netdev(netdev)) => {
                match netdev.queues.get(usize::from(pair)) {
                    Some(tap) => self.serve_netdev(context, |b| tap.recv(b)),
                    None => Progress::Asleep,
                }
            }
            (Source::Uplink, Endpoint::Uplink(uplink)) => {
                self.serve_netdev(context, |b| uplink.recv(b))
            }
            _ => Progress::Asleep,
        }
    }

    fn serve_ring(&mut self, context: Context<'_>, channel: &Channel, pair: u16) -> Progress {
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
        let popped = queue.ring.pop_burst(&mut self.burst, BURST);
        let worked = !self.burst.is_empty();
        if worked {
            queue.worked(context.now);
            let mut frames = ArrayVec::<Frame<'_>, BURST>::new();
            for (chain, snapshot) in self.burst.iter().zip(self.snapshots.iter_mut()) {
                let bytes = Bytes::Guest(chain.readable());
                match Frame::snapshot(bytes, queue.header_len, snapshot) {
                    Ok(frame) => frames.push(frame),
                    Err(reason) => context.port.counters.lose(self.worker, reason, 1),
                }
            }
            self.onward.forward(context, &mut frames);
            drop(frames);
            queue.ring.push_read(&self.burst);
            queue.publish(&mut self.onward.deliverer.notifier);
        }
        self.burst.clear();
        let progress = popped.and_then(|_| {
            if worked {
                return Ok(Progress::Worked);
            }
            if queue.lingers(context.now) || !queue.has_kick() {
                return Ok(Progress::Idle);
            }
            if !queue.ring.enable_kicks()? {
                return Ok(Progress::Asleep);
            }
            queue.ring.disable_kicks();
            Ok(Progress::Worked)
        });
        drop(guard);
        progress.unwrap_or_else(|fault| {
            channel.fault(format!("transmit ring {pair}: {fault}"));
            Progress::Asleep
        })
    }

    fn serve_netdev(
        &mut self,
        context: Context<'_>,
        recv: impl Fn(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> Progress {
        self.lengths.clear();
        let mut drained = false;
        for buffer in self.buffers.chunks_exact_mut(BUFFER) {
            match recv(buffer) {
                Ok(Some(len)) => self.lengths.push(len.min(BUFFER)),
                Ok(None) => drained = true,
                Err(error) => {
                    // The netdev is gone or broken; what removes the port comes from elsewhere.
                    tracing::debug!(vport = %context.port.id, %error, "receive");
                    drained = true;
                }
            }
            if drained {
                break;
            }
        }
        let mut frames = ArrayVec::<Frame<'_>, BURST>::new();
        let received = self.buffers.chunks_exact(BUFFER).zip(&self.lengths);
        for ((buffer, len), snapshot) in received.zip(self.snapshots.iter_mut()) {
            match Frame::snapshot(Bytes::Local(&buffer[..*len]), VNET_HDR_LEN, snapshot) {
                Ok(frame) => frames.push(frame),
                Err(reason) => context.port.counters.lose(self.worker, reason, 1),
            }
        }
        self.onward.forward(context, &mut frames);
        if drained {
            Progress::Asleep
        } else {
            Progress::Worked
        }
    }
}

impl Onward {
    fn forward(&mut self, context: Context<'_>, frames: &mut [Frame<'_>]) {
        if frames.is_empty() {
            return;
        }
        let Context {
            config,
            datapath,
            port,
            origin,
            now,
        } = context;
        let arrival = Arrival {
            origin,
            port,
            config,
            fdb: &datapath.fdb,
            now,
        };
        self.classifier
            .classify(arrival, frames, &mut self.deliveries);
        let burst = Classified {
            frames,
            heads: self.classifier.heads(),
        };
        self.deliverer
            .deliver(&self.deliveries, burst, port, config);
    }
}
