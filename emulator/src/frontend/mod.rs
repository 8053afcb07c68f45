//! The other end of a channel's socket: a small virtio-net driver over vhost-user.
//!
//! It polls, uses one queue pair, and exists so that a demo, a test or a bench can send and
//! receive real frames through real rings in the same process. It is no example of a fast driver.

pub mod misbehave;

use crate::ring::RingConfig;
use crate::ring::driver::{DriverError, DriverQueue, QueueOptions, SharedArea};
use crate::vhost::features;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of virtio-net header in front of every frame (VIRTIO_F_VERSION_1).
pub const HEADER: usize = 12;
/// Positions of the two rings in the device.
const RX: usize = 0;
const TX: usize = 1;

/// How large a client's queues are.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Buffers in each direction, 2 to 32768: a power of two, unless `features` has RING_PACKED.
    pub queue_size: u16,
    /// Bytes of each buffer; a frame and its 12-byte header must fit, or be spread over several
    /// where `features` has mergeable buffers.
    pub buffer_size: u32,
    /// Virtio features to accept beside VERSION_1, out of those the device offers.
    pub features: u64,
    /// Give the device an eventfd for each ring to call on. The client polls all the same; without,
    /// it takes two descriptors less at either end.
    pub calls: bool,
}

impl ClientOptions {
    /// Memory that a client shares with its device, bytes: a multiple of the page size.
    pub fn area_bytes(&self) -> u64 {
        (2 * self.queue_bytes()).next_multiple_of(4096)
    }

    /// Of those, what a queue and its buffers take.
    fn queue_bytes(&self) -> u64 {
        let buffers = u64::from(self.queue_size) * u64::from(self.buffer_size);
        (ring_bytes(self.queue_size) + buffers).next_multiple_of(64)
    }
}

impl Default for ClientOptions {
    /// 256 buffers of 2 KiB and event indices.
    fn default() -> Self {
        Self {
            queue_size: 256,
            buffer_size: 2048,
            features: features::EVENT_IDX,
            calls: true,
        }
    }
}

/// Why a client could not attach or go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("connecting to {path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The device refused a request or hung up.
    #[error("{step}: {source}")]
    Protocol {
        /// The request.
        step: &'static str,
        /// What came back.
        source: vhost::Error,
    },
    /// The device lacks a feature that was asked for.
    #[error("features: {missing:#x} of {asked:#x} are not offered")]
    Features {
        /// Bits asked for.
        asked: u64,
        /// Bits of those that the device does not have.
        missing: u64,
    },
    /// The shared memory or a queue.
    #[error(transparent)]
    Queue(#[from] DriverError),
    /// An eventfd.
    #[error("eventfd: {0}")]
    Event(#[from] io::Error),
}

/// A driver attached to a channel. Dropping it hangs up.
pub struct Client {
    frontend: Frontend,
    area: SharedArea,
    rx: Queue,
    tx: Queue,
    last_header: [u8; HEADER],
}

struct Queue {
    ring: DriverQueue,
    /// The same for both queues: the device looks at the transmit ring's only.
    kick: Arc<EventFd>,
    call: Option<EventFd>,
    /// Guest address of the first buffer, and bytes of each.
    buffers: u64,
    buffer_size: u32,
    /// Which buffer each chain in flight has, by head.
    buffer_of: Box<[u16]>,
    /// Buffers in no chain.
    free: Vec<u16>,
}

impl Queue {
    fn new(
        area: &SharedArea,
        at: u64,
        kick: &Arc<EventFd>,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let size = options.queue_size;
        let has = |feature| options.features & feature != 0;
        let layout = if has(features::RING_PACKED) {
            QueueOptions::packed(size)
        } else {
            QueueOptions::split(size)
        };
        let layout = QueueOptions {
            event_idx: has(features::EVENT_IDX),
            in_order: has(features::IN_ORDER),
            ..layout
        };
        Ok(Self {
            ring: DriverQueue::with(area.memory().clone(), at, layout)?,
            kick: Arc::clone(kick),
            call: options
                .calls
                .then(|| EventFd::new(libc::EFD_NONBLOCK))
                .transpose()?,
            buffers: at + ring_bytes(size),
            buffer_size: options.buffer_size,
            buffer_of: vec![0; usize::from(size)].into(),
            free: (0..size).rev().collect(),
        })
    }

    /// Tell the device where the queue is.
    fn describe(&self, frontend: &Frontend, index: usize) -> Result<(), vhost::Error> {
        let config = self.ring.config();
        frontend.set_vring_num(index, config.size)?;
        frontend.set_vring_base(index, config.next_avail)?;
        frontend.set_vring_addr(
            index,
            &VringConfigData {
                queue_max_size: config.size,
                queue_size: config.size,
                flags: 0,
                desc_table_addr: config.desc,
                used_ring_addr: config.used,
                avail_ring_addr: config.avail,
                log_addr: None,
            },
        )?;
        if let Some(call) = &self.call {
            frontend.set_vring_call(index, call)?;
        }
        frontend.set_vring_kick(index, &self.kick)
    }

    fn address(&self, buffer: u16) -> u64 {
        self.buffers + u64::from(buffer) * u64::from(self.buffer_size)
    }

    /// Give the device the next free buffer, to read `out` bytes of or to write to.
    fn offer(&mut self, out: Option<u32>) {
        let Some(buffer) = self.free.pop() else {
            return;
        };
        let at = self.address(buffer);
        let head = match out {
            Some(len) => self.ring.add_out(&[(at, len)]),
            None => self.ring.add_in(&[(at, self.buffer_size)]),
        };
        match head {
            Some(head) => self.buffer_of[usize::from(head)] = buffer,
            None => self.free.push(buffer),
        }
    }

    /// Take back a buffer that the device is done with: its address, and the bytes written.
    fn reap(&mut self) -> Result<Option<(u64, u32)>, ClientError> {
        let Some((head, len)) = self.ring.poll_used()? else {
            return Ok(None);
        };
        let buffer = self.buffer_of[usize::from(head)];
        self.free.push(buffer);
        Ok(Some((self.address(buffer), len.min(self.buffer_size))))
    }

    /// Whether the device wanted to be told.
    fn publish(&mut self) -> Result<bool, ClientError> {
        let wanted = self.ring.publish();
        if wanted {
            self.kick.write(1)?;
        }
        Ok(wanted)
    }
}

/// Guest memory for the tables of a queue, a multiple of 64 bytes.
fn ring_bytes(size: u16) -> u64 {
    DriverQueue::bytes(size).next_multiple_of(64)
}

/// How memory is described to a device.
pub fn region(area: &SharedArea) -> VhostUserMemoryRegionInfo {
    let spec = area.spec();
    VhostUserMemoryRegionInfo {
        guest_phys_addr: spec.gpa,
        memory_size: spec.size,
        userspace_addr: spec.uva,
        mmap_offset: spec.mmap_offset,
        mmap_handle: area.file().as_raw_fd(),
    }
}

impl Client {
    /// Where the memory of a client is, guest physical.
    pub const AREA: u64 = 0x10_0000;

    /// Attach to the channel that listens at `socket`.
    pub fn connect(socket: &Path, options: ClientOptions) -> Result<Self, ClientError> {
        Self::connect_in(
            socket,
            options,
            SharedArea::new(Self::AREA, options.area_bytes())?,
        )
    }

    /// As [`Client::connect`], with memory of at least [`ClientOptions::area_bytes`] that was made
    /// for it.
    pub fn connect_in(
        socket: &Path,
        options: ClientOptions,
        area: SharedArea,
    ) -> Result<Self, ClientError> {
        let connect_error = |source| ClientError::Connect {
            path: socket.display().to_string(),
            source,
        };
        let stream = UnixStream::connect(socket).map_err(connect_error)?;
        let mut frontend = Frontend::from_stream(stream, 2);
        let step = |step| move |source| ClientError::Protocol { step, source };

        frontend.set_owner().map_err(step("SET_OWNER"))?;
        let offered = frontend.get_features().map_err(step("GET_FEATURES"))?;
        let asked = options.features | features::VERSION_1 | features::PROTOCOL_FEATURES;
        if asked & !offered != 0 {
            return Err(ClientError::Features {
                asked,
                missing: asked & !offered,
            });
        }
        let protocol = frontend
            .get_protocol_features()
            .map_err(step("GET_PROTOCOL_FEATURES"))?;
        let protocol = protocol & VhostUserProtocolFeatures::REPLY_ACK;
        frontend
            .set_protocol_features(protocol)
            .map_err(step("SET_PROTOCOL_FEATURES"))?;
        frontend.set_features(asked).map_err(step("SET_FEATURES"))?;

        frontend
            .set_mem_table(&[region(&area)])
            .map_err(step("SET_MEM_TABLE"))?;

        let kick = Arc::new(EventFd::new(libc::EFD_NONBLOCK)?);
        let at = area.spec().gpa;
        let mut rx = Queue::new(&area, at, &kick, &options)?;
        let mut tx = Queue::new(&area, at + options.queue_bytes(), &kick, &options)?;
        for _ in 0..options.queue_size {
            rx.offer(None);
        }
        rx.ring.publish();
        for (index, queue) in [(RX, &mut rx), (TX, &mut tx)] {
            queue.ring.disable_calls();
            queue
                .describe(&frontend, index)
                .map_err(step("setting up a ring"))?;
        }
        for index in [RX, TX] {
            frontend
                .set_vring_enable(index, true)
                .map_err(step("SET_VRING_ENABLE"))?;
        }
        // An answer means that everything before it has been done.
        frontend.get_features().map_err(step("GET_FEATURES"))?;
        Ok(Self {
            frontend,
            area,
            rx,
            tx,
            last_header: [0; HEADER],
        })
    }

    /// Put a frame (from the destination address on, checksums finished) in the transmit ring.
    /// False, and nothing done, when the ring is full or the frame too long for a buffer. The
    /// device sees it after [`Client::flush`].
    pub fn send(&mut self, frame: &[u8]) -> Result<bool, ClientError> {
        self.send_with(&[0; HEADER], frame)
    }

    /// As [`Client::send`], with a virtio-net header (virtio 1.3 §5.1.6) that asks for a checksum
    /// or segmentation.
    pub fn send_with(&mut self, header: &[u8; HEADER], frame: &[u8]) -> Result<bool, ClientError> {
        self.in_flight()?;
        let Some(&buffer) = self.tx.free.last() else {
            return Ok(false);
        };
        let len = HEADER + frame.len();
        if len > self.tx.buffer_size as usize {
            return Ok(false);
        }
        let at = self.tx.address(buffer);
        let memory = self.area.memory();
        let written = memory.write(at, header);
        let written = written.and_then(|()| memory.write(at + HEADER as u64, frame));
        debug_assert!(written.is_some(), "buffers are in the area");
        self.tx.offer(Some(len as u32));
        Ok(true)
    }

    /// Show the device what was sent, waking it if it sleeps; whether it was to be woken.
    pub fn flush(&mut self) -> Result<bool, ClientError> {
        self.tx.publish()
    }

    /// Frames sent that the device is not done with.
    pub fn in_flight(&mut self) -> Result<usize, ClientError> {
        while self.tx.reap()?.is_some() {}
        Ok(self.tx.buffer_of.len() - self.tx.free.len())
    }

    /// The next frame received, into `frame`; false when there is none. A frame that the device
    /// spread over several buffers is put together.
    pub fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, ClientError> {
        frame.clear();
        let mut buffers_left = 1;
        while buffers_left > 0 {
            // All buffers of a frame become visible at once: all are there, or none.
            let Some((at, len)) = self.rx.reap()? else {
                return Ok(false);
            };
            let start = frame.len();
            frame.resize(start + len as usize, 0);
            let read = self.area.memory().read(at, &mut frame[start..]);
            debug_assert!(read.is_some(), "buffers are in the area");
            self.rx.offer(None);
            if start == 0 && frame.len() >= HEADER {
                buffers_left = u16::from_le_bytes([frame[10], frame[11]]).max(1);
            }
            buffers_left -= 1;
        }
        let header = frame.drain(..HEADER.min(frame.len()));
        self.last_header = header.as_slice().try_into().unwrap_or_default();
        drop(header);
        self.rx.publish()?;
        Ok(true)
    }

    /// The virtio-net header of the frame received last.
    pub fn last_header(&self) -> [u8; HEADER] {
        self.last_header
    }

    /// The connection, for requests beyond those that [`Client::connect`] makes.
    pub fn frontend(&self) -> &Frontend {
        &self.frontend
    }

    /// Where the transmit ring is and the memory it is in, for tests that misbehave.
    pub fn transmit_ring(&self) -> (RingConfig, &SharedArea) {
        (self.tx.ring.config(), &self.area)
    }

    /// The same of the receive ring.
    pub fn receive_ring(&self) -> (RingConfig, &SharedArea) {
        (self.rx.ring.config(), &self.area)
    }

    /// Guest addresses of the transmit ring's buffers, each with a virtio-net header and a frame in
    /// it, for tests that rewrite what was sent.
    pub fn transmit_buffers(&self) -> Vec<u64> {
        let buffers = 0..self.tx.buffer_of.len() as u16;
        buffers.map(|buffer| self.tx.address(buffer)).collect()
    }

    /// Wake the device, whether it asks for that or not.
    pub fn kick(&self) -> Result<(), ClientError> {
        Ok(self.tx.kick.write(1)?)
    }
}
