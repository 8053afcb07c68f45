//! One client's session: what it has negotiated and set up, and which rings run because of it.
//!
//! No sockets here; [`super::connection`] brings the messages. Every request is answered by
//! changing this state and telling the [`Device`]; rings are started and stopped before the reply
//! goes out, so a client that has its answer may reuse the memory.

use super::control_queue::RxState;
use super::control_ring::{ControlRing, Scratch, Target};
use super::device::{Device, RingIndex, RingStart};
use super::error::SessionError;
use super::features::{self, CTRL_VQ, MQ, PROTOCOL_FEATURES, RING_PACKED, RSS};
use super::net_config::{MIN_MTU, NetConfig};
use super::socket;
use super::vring::{KickState, RingAddress, Vring};
use crate::ring::{Call, EventFd, GuestMemory, Kick, Ring, RingConfig, RingError, SplitRing};
use chanio_model::Mac;
use nix::sys::epoll::Epoll;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

/// Queue pairs of a vhost-user channel at most: ring numbers in messages have 8 bits, and one ring
/// is the control queue.
pub const MAX_QUEUE_PAIRS: u16 = 127;

/// Protocol features offered. Not STATUS (the library has no messages for it), not LOG_SHMFD (no
/// migration of a running device), not INFLIGHT (rings are served in order, so the used index says
/// where to go on), not RARP (the switch learns a moved address from its first frame).
pub fn protocol_features() -> Protocol {
    Protocol::MQ
        | Protocol::REPLY_ACK
        | Protocol::MTU
        | Protocol::CONFIG
        | Protocol::RESET_DEVICE
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::BACKEND_REQ
}

/// Where the kick of the control queue is watched.
pub struct Watch {
    /// The event loop's.
    pub epoll: Arc<Epoll>,
    /// What its events carry.
    pub token: u64,
}

/// State of one connection.
pub struct Session {
    pub(super) device: Arc<dyn Device>,
    watch: Watch,
    offered: u64,
    /// `None` until SET_FEATURES.
    features: Option<u64>,
    pub(super) protocol: u64,
    pub(super) mem: Option<Arc<GuestMemory>>,
    /// As many as the client has spoken of.
    rings: Vec<Vring>,
    control: Option<Box<ControlRing>>,
    /// From the first start of the control queue to the next reset.
    rx: Option<Box<RxState>>,
    announce: bool,
    /// NET_SET_MTU.
    mtu: Option<u16>,
    backend: Option<UnixStream>,
    fault: Option<SessionError>,
}

impl Session {
    /// A client that has said nothing yet.
    pub fn new(device: Arc<dyn Device>, watch: Watch) -> Self {
        let offered = features::offered(device.max_queue_pairs());
        Session {
            device,
            watch,
            offered,
            features: None,
            protocol: 0,
            mem: None,
            rings: Vec::new(),
            control: None,
            rx: None,
            announce: false,
            mtu: None,
            backend: None,
            fault: None,
        }
    }

    /// Virtio features offered.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// Virtio features accepted, 0 before that.
    pub fn features(&self) -> u64 {
        self.features.unwrap_or(0)
    }

    /// The client may ask for an acknowledgement of any request.
    pub fn reply_ack(&self) -> bool {
        self.has_protocol(Protocol::REPLY_ACK)
    }

    /// A protocol feature was accepted.
    pub fn has_protocol(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() != 0
    }

    /// Keeps an error that ends the session.
    pub fn set_fault(&mut self, error: SessionError) {
        self.fault.get_or_insert(error);
    }

    /// The error that ends the session, if there is one.
    pub fn take_fault(&mut self) -> Option<SessionError> {
        self.fault.take()
    }

    // ---- negotiation ----

    /// SET_FEATURES. Running rings go on with the new choice.
    pub fn accept_features(&mut self, accepted: u64) -> Result<(), SessionError> {
        features::check(accepted, self.offered)?;
        if self.features != Some(accepted) {
            self.pause();
            self.rx = None;
            self.features = Some(accepted);
            self.device.set_features(accepted & !PROTOCOL_FEATURES);
        }
        self.resume()
    }

    /// SET_PROTOCOL_FEATURES.
    pub fn accept_protocol(&mut self, asked: u64) -> Result<(), SessionError> {
        let offered = protocol_features().bits();
        if asked & !offered != 0 {
            return Err(SessionError::ProtocolFeatures { asked, offered });
        }
        self.protocol = asked;
        Ok(())
    }

    /// NET_SET_MTU: what the frontend tells its driver.
    pub fn set_mtu(&mut self, mtu: u64) -> Result<(), SessionError> {
        let request = "NET_SET_MTU";
        if !self.has_protocol(Protocol::MTU) {
            let reason = "protocol feature MTU was not negotiated".into();
            return Err(SessionError::Refused { request, reason });
        }
        let max = self.device.mtu();
        match u16::try_from(mtu) {
            Ok(mtu) if (MIN_MTU..=max).contains(&mtu) => {
                self.mtu = Some(mtu);
                Ok(())
            }
            _ => {
                let reason = format!("MTU {mtu} is not {MIN_MTU} to {max}");
                Err(SessionError::Refused { request, reason })
            }
        }
    }

    /// SET_BACKEND_REQ_FD: a stream socket on which we may speak first.
    pub fn set_backend_channel(&mut self, fd: OwnedFd) -> Result<(), SessionError> {
        let refused = |reason: &str| SessionError::Message {
            request: "SET_BACKEND_REQ_FD".into(),
            reason: reason.into(),
        };
        if !self.has_protocol(Protocol::BACKEND_REQ) {
            return Err(refused("protocol feature BACKEND_REQ was not negotiated"));
        }
        if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
            return Err(refused("the descriptor is not a stream socket"));
        }
        let channel = UnixStream::from(fd);
        if channel.local_addr().is_err() {
            return Err(refused("the descriptor is not a unix socket"));
        }
        self.backend = Some(channel);
        Ok(())
    }

    // ---- config space ----

    /// What the driver reads.
    pub fn config(&self) -> NetConfig {
        let mtu = self.device.mtu();
        NetConfig {
            mac: self.device.mac(),
            link_up: self.device.link_up(),
            announce: self.announce,
            max_pairs: self.device.max_queue_pairs(),
            mtu: self.mtu.map_or(mtu, |set| set.min(mtu)),
        }
    }

    /// SET_CONFIG: the address is all that a (legacy) driver may write.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SessionError> {
        let request = "SET_CONFIG";
        let refused = |reason| SessionError::Refused { request, reason };
        let (0, Ok(mac)) = (offset, bytes.try_into()) else {
            let text = format!(
                "{} bytes at {offset}: only the address can be set",
                bytes.len()
            );
            return Err(refused(text));
        };
        self.device.set_mac(Mac(mac)).map_err(refused)
    }

    /// Tells the driver that config space has changed, if the frontend lets us.
    pub fn config_changed(&mut self) {
        if let Some(channel) = &self.backend
            && let Err(error) = socket::send_config_changed(channel)
        {
            tracing::debug!(%error, "the frontend was not told of a config change");
        }
    }

    /// Asks the driver to announce its addresses (virtio 1.3 §5.1.6.5.4), if it can.
    pub fn request_announce(&mut self) {
        if self.control.is_some() && self.features() & features::GUEST_ANNOUNCE != 0 {
            self.announce = true;
            self.config_changed();
        }
    }

    // ---- rings ----

    /// Position of the control queue.
    fn control_index(&self) -> u16 {
        // virtio 1.3 §5.1.2: behind the pairs that the driver knows of.
        let pairs = if self.features() & (MQ | RSS) != 0 {
            self.device.max_queue_pairs()
        } else {
            1
        };
        2 * pairs
    }

    /// A frontend that serves the control queue itself does not hand on CTRL_VQ.
    fn is_control(&self, index: u16) -> bool {
        self.features() & CTRL_VQ != 0 && index == self.control_index()
    }

    /// Whether rings are packed. Frontends negotiate before they speak of rings.
    fn is_packed(&self) -> bool {
        self.features() & RING_PACKED != 0
    }

    /// The state of a ring, made when first spoken of.
    fn ring(&mut self, index: u32) -> Result<(u16, &mut Vring), SessionError> {
        let control = 2 * self.device.max_queue_pairs();
        if index > u32::from(control) {
            let last_data = control.saturating_sub(1);
            return Err(SessionError::RingIndex {
                index,
                last_data,
                control,
            });
        }
        let at = index as usize;
        if self.rings.len() <= at {
            self.rings.resize_with(at + 1, Vring::default);
        }
        Ok((index as u16, &mut self.rings[at]))
    }

    fn stopped_ring(
        &mut self,
        index: u32,
        request: &'static str,
    ) -> Result<(u16, &mut Vring), SessionError> {
        let (index, ring) = self.ring(index)?;
        if ring.running {
            return Err(SessionError::Running { index, request });
        }
        Ok((index, ring))
    }

    /// SET_VRING_NUM.
    pub fn set_size(&mut self, index: u32, size: u32) -> Result<(), SessionError> {
        let packed = self.is_packed();
        let (index, ring) = self.stopped_ring(index, "SET_VRING_NUM")?;
        if !(1..=32768).contains(&size) || !(packed || size.is_power_of_two()) {
            return Err(if packed {
                SessionError::PackedSize { index, size }
            } else {
                SessionError::RingSize { index, size }
            });
        }
        ring.size = size as u16;
        self.start(index)
    }

    /// SET_VRING_ADDR, in addresses of the client. What is not mapped (yet) is found out when the
    /// ring starts.
    pub fn set_address(&mut self, index: u32, address: RingAddress) -> Result<(), SessionError> {
        let (index, ring) = self.ring(index)?;
        if ring.address == Some(address) {
            return Ok(());
        }
        if ring.running {
            return Err(SessionError::Running {
                index,
                request: "SET_VRING_ADDR",
            });
        }
        ring.address = Some(address);
        self.start(index)
    }

    /// SET_VRING_BASE. For a packed ring the lower half says where the next available descriptor
    /// is (slot in 15 bits, wrap counter above), the upper half the same for used ones. A ring
    /// that stands still has both in one place; DPDK leaves the upper half 0, as driver and as
    /// device, so that it says nothing.
    pub fn set_base(&mut self, index: u32, base: u32) -> Result<(), SessionError> {
        let packed = self.is_packed();
        let (index, ring) = self.stopped_ring(index, "SET_VRING_BASE")?;
        let position = if packed {
            base as u16
        } else {
            u16::try_from(base).map_err(|_| SessionError::RingBase { index, base })?
        };
        ring.base = Some(position);
        Ok(())
    }

    /// GET_VRING_BASE: stops the ring; it starts again with a new kick.
    pub fn stop_for_base(&mut self, index: u32) -> Result<u32, SessionError> {
        let packed = self.is_packed();
        let (index, _) = self.ring(index)?;
        self.stop(index);
        let (_, ring) = self.ring(u32::from(index))?;
        ring.kick = KickState::Unset;
        if packed {
            let position = u32::from(ring.base.unwrap_or(1 << 15));
            return Ok(position | position << 16);
        }
        Ok(u32::from(ring.base.unwrap_or(0)))
    }

    /// SET_VRING_KICK. `None`: the ring is polled.
    pub fn set_kick(&mut self, index: u8, fd: Option<OwnedFd>) -> Result<(), SessionError> {
        let (index, _) = self.ring(u32::from(index))?;
        let receives = index % 2 == 0 && self.features.is_some() && !self.is_control(index);
        let kick = match fd {
            None => KickState::Polled,
            Some(fd) => {
                let fd = event(index, "SET_VRING_KICK", fd)?;
                if receives {
                    KickState::Unread
                } else {
                    KickState::Event(fd)
                }
            }
        };
        self.stop(index);
        self.ring(u32::from(index))?.1.kick = kick;
        self.start(index)
    }

    /// SET_VRING_CALL. `None`: the driver polls.
    pub fn set_call(&mut self, index: u8, fd: Option<OwnedFd>) -> Result<(), SessionError> {
        let (index, _) = self.ring(u32::from(index))?;
        let call = fd
            .map(|fd| event(index, "SET_VRING_CALL", fd))
            .transpose()?;
        self.stop(index);
        self.ring(u32::from(index))?.1.call = call;
        self.start(index)
    }

    /// SET_VRING_ERR. Nothing is ever signalled there: an error ends the session.
    pub fn set_err(&mut self, index: u8, fd: Option<OwnedFd>) -> Result<(), SessionError> {
        let (index, _) = self.ring(u32::from(index))?;
        fd.map(|fd| event(index, "SET_VRING_ERR", fd)).transpose()?;
        Ok(())
    }

    /// SET_VRING_ENABLE. May come at any time, even first (see [`super::connection`]).
    pub fn enable(&mut self, index: u32, on: bool) -> Result<(), SessionError> {
        let (index, ring) = self.ring(index)?;
        ring.enabled = on;
        if on {
            return self.start(index);
        }
        self.stop(index);
        Ok(())
    }

    /// Starts a ring if everything for it is there and it does not run.
    fn start(&mut self, index: u16) -> Result<(), SessionError> {
        let (Some(features), Some(mem)) = (self.features, self.mem.clone()) else {
            return Ok(());
        };
        let is_control = self.is_control(index);
        let ring = &self.rings[usize::from(index)];
        // Without PROTOCOL_FEATURES there is no message to enable a ring with.
        if ring.running || !(ring.enabled || features & PROTOCOL_FEATURES == 0) {
            return Ok(());
        }
        let Some(config) = ring.config(index, &mem, features)? else {
            return Ok(());
        };
        let call = ring.call.clone().map(Call::new);
        let kick = match &ring.kick {
            KickState::Event(fd) => Some(fd.clone()),
            KickState::Polled | KickState::Unread | KickState::Unset => None,
        };
        let device_rings = 2 * self.device.max_queue_pairs();
        if !is_control && index >= device_rings {
            let (last_data, control) = (device_rings.saturating_sub(1), self.control_index());
            return Err(SessionError::RingIndex {
                index: u32::from(index),
                last_data,
                control,
            });
        }
        let ring = take_up(mem, config).map_err(|source| SessionError::Ring { index, source })?;
        if is_control {
            self.start_control(index, ring, kick, call, features)?;
        } else {
            let features = features & !PROTOCOL_FEATURES;
            self.device.start_ring(
                RingIndex(index),
                RingStart {
                    ring,
                    kick,
                    call,
                    features,
                },
            );
        }
        self.rings[usize::from(index)].running = true;
        Ok(())
    }

    fn start_control(
        &mut self,
        index: u16,
        ring: Ring,
        kick: Option<EventFd>,
        call: Option<Call>,
        features: u64,
    ) -> Result<(), SessionError> {
        let fd = kick.ok_or(SessionError::ControlPolled { index })?;
        let request = "SET_VRING_KICK";
        let kick = Kick::register(fd, Arc::clone(&self.watch.epoll), self.watch.token).map_err(
            |source| SessionError::Event {
                index,
                request,
                source,
            },
        )?;
        if self.rx.is_none() {
            self.rx = Some(Box::new(RxState::new(features)));
            if features & MQ != 0 {
                // virtio 1.3 §5.1.6.5.6: one pair is used until the driver asks for more here.
                self.device.set_active_pairs(1);
            }
        }
        self.control = Some(Box::new(ControlRing {
            index,
            ring,
            call,
            _kick: kick,
        }));
        Ok(())
    }

    /// Stops a ring if it runs and remembers where.
    fn stop(&mut self, index: u16) {
        let Some(ring) = self
            .rings
            .get_mut(usize::from(index))
            .filter(|ring| ring.running)
        else {
            return;
        };
        ring.running = false;
        let base = match self.control.take_if(|control| control.index == index) {
            Some(control) => Some(control.ring.next_avail()),
            None => self.device.stop_ring(RingIndex(index)),
        };
        // `None`: the device has stopped it before, for a fault.
        ring.base = base.or(ring.base);
    }

    /// Stops all rings; after this nothing touches the client's memory.
    pub fn pause(&mut self) {
        for index in 0..self.rings.len() {
            self.stop(index as u16);
        }
    }

    /// Starts all rings that can run.
    pub fn resume(&mut self) -> Result<(), SessionError> {
        (0..self.rings.len()).try_for_each(|index| self.start(index as u16))
    }

    /// RESET_DEVICE: as before SET_FEATURES, but memory, protocol features and calls stay, which
    /// frontends do not send again.
    pub fn reset(&mut self) {
        self.disable_all();
        for ring in &mut self.rings {
            *ring = Vring {
                call: ring.call.take(),
                ..Vring::default()
            };
        }
        self.forget_features();
    }

    /// RESET_OWNER, which every implementation takes for something else: stop and disable.
    pub fn disable_all(&mut self) {
        self.pause();
        for ring in &mut self.rings {
            ring.enabled = false;
        }
    }

    /// The client has gone: all rings stop and the device is as nobody had been there.
    pub fn close(&mut self) {
        self.pause();
        self.rings = Vec::new();
        self.mem = None;
        self.backend = None;
        self.forget_features();
    }

    fn forget_features(&mut self) {
        self.features = None;
        self.rx = None;
        self.announce = false;
        self.device.set_features(0);
    }

    /// Lets the control queue have its turn; returns whether it wants another.
    pub fn serve_control(&mut self, scratch: &mut Scratch) -> Result<bool, SessionError> {
        let features = self.features();
        let (Some(control), Some(rx)) = (&mut self.control, &mut self.rx) else {
            return Ok(false);
        };
        let device = &*self.device;
        let announce = &mut self.announce;
        control.serve(
            &mut Target {
                device,
                features,
                rx,
                announce,
            },
            scratch,
        )
    }
}

/// Takes up a ring where its used index says. Our rings are served in order, so that is where the
/// last device left off, and what GET_VRING_BASE gave the client. A client whose device has died
/// cannot know: QEMU looks into the ring as well, but virtio-user gives base 0 when it reconnects.
///
/// A packed ring does not say where it was left, so there the client's word counts: virtio-user
/// starts a new ring when it reconnects.
fn take_up(mem: Arc<GuestMemory>, mut config: RingConfig) -> Result<Ring, RingError> {
    if config.packed {
        return Ring::new(mem, &config);
    }
    let ring = SplitRing::new(Arc::clone(&mem), &config)?;
    let (base, used) = (config.next_avail, ring.used_idx());
    if used == base {
        return Ok(Ring::Split(ring));
    }
    tracing::debug!(base, used, "a ring goes on at its used index");
    config.next_avail = used;
    Ring::new(mem, &config)
}

fn event(index: u16, request: &'static str, fd: OwnedFd) -> Result<EventFd, SessionError> {
    EventFd::new(fd).map_err(|source| SessionError::Event {
        index,
        request,
        source,
    })
}
