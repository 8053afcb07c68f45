//! One connection.

use super::packet::{Body, CtPacket};
use super::sctp::Sctp;
use super::tcp::{Context, Tcp, TcpState};
use super::tracked::Info;
use super::verdict::Verdict;
use super::{CtConfig, CtSpec, Direction, Tuple, icmp};
use crate::Nanos;
use crate::wire::ip_proto;

/// Bits of [`Entry::status`].
pub(super) mod status {
    /// In the table.
    pub const COMMITTED: u16 = 0x01;
    /// The other end has answered.
    pub const SEEN_REPLY: u16 = 0x02;
    /// Not to be dropped for others.
    pub const ASSURED: u16 = 0x04;
    /// Its source is translated.
    pub const SRC_NAT: u16 = 0x08;
    /// Its destination is translated.
    pub const DST_NAT: u16 = 0x10;
    /// Either.
    pub const NAT: u16 = SRC_NAT | DST_NAT;
    /// It was decided what its source is translated to, maybe to itself.
    pub const SRC_DONE: u16 = 0x20;
    /// The same of its destination.
    pub const DST_DONE: u16 = 0x40;
    /// Both.
    pub const NAT_DONE: u16 = SRC_DONE | DST_DONE;
    /// In the flow table: packets that end nothing pass without being looked at.
    pub const FLOW_TABLE: u16 = 0x80;
}

/// A day: how long an entry lasts at least that the flow table keeps.
const DAY: Nanos = 86_400_000_000_000;
/// A UDP flow that goes both ways for longer is a stream.
const STREAM: Nanos = 2_000_000_000;

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtCounters {
    /// Packets that changed the connection, as nf_conntrack counts them.
    pub packets: u64,
    /// Their IP packets' bytes.
    pub bytes: u64,
}

/// What a protocol's tracker remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp(Tcp),
    Udp { stream_from: Nanos },
    Sctp(Sctp),
    Other,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Grows from one commit to the next.
    pub id: u64,
    /// What packets of each direction look like before translation.
    pub tuples: [Tuple; 2],
    pub status: u16,
    /// When it expires; how long it is to last, before it is committed.
    pub expires: Nanos,
    /// How long it stays in the flow table.
    pub flow_until: Nanos,
    pub mark: u32,
    pub label: [u8; 16],
    pub protocol: Protocol,
    pub counters: [CtCounters; 2],
}

impl Entry {
    /// A connection of which nothing was seen; its packets look like these.
    pub fn new(original: Tuple, reply: Tuple) -> Self {
        Self {
            id: 0,
            tuples: [original, reply],
            status: 0,
            expires: 0,
            flow_until: 0,
            mark: 0,
            label: [0; 16],
            protocol: Protocol::Other,
            counters: Default::default(),
        }
    }

    #[inline]
    pub fn has(&self, bits: u16) -> bool {
        self.status & bits != 0
    }

    /// How a packet of some direction stands to it, before it was received.
    pub fn info(&self, direction: Direction) -> Info {
        match direction {
            Direction::Reply => Info::EstablishedReply,
            Direction::Original if self.has(status::SEEN_REPLY) => Info::Established,
            Direction::Original => Info::New,
        }
    }

    /// Brings the flow table up to date; whether the connection is over.
    pub fn is_over(&mut self, now: Nanos, config: &CtConfig) -> bool {
        if self.has(status::FLOW_TABLE) && self.flow_until <= now {
            self.leave_flow_table(self.flow_until, config);
        }
        !self.has(status::FLOW_TABLE) && self.expires <= now
    }

    /// Near its end, or never got far: may go when room is needed.
    pub fn may_go(&self) -> bool {
        !self.has(status::ASSURED)
            || match &self.protocol {
                Protocol::Tcp(tcp) => tcp.state.is_closing(),
                Protocol::Sctp(sctp) => sctp.state.is_closing(),
                _ => false,
            }
    }

    /// Takes a packet of some direction.
    pub fn receive(
        &mut self,
        packet: &CtPacket,
        direction: Direction,
        now: Nanos,
        config: &CtConfig,
    ) -> Verdict {
        if self.has(status::FLOW_TABLE) && packet.plain && self.passes_by(packet, now, config) {
            self.count(packet, direction);
            return Verdict::AS_IT_WAS;
        }
        let verdict = self.track(packet, direction, now, config);
        match verdict {
            Verdict::Accept { timeout, assured } => {
                if let Some(timeout) = timeout {
                    self.expires = match self.has(status::COMMITTED) {
                        true => now.saturating_add(timeout),
                        false => timeout,
                    };
                    self.count(packet, direction);
                }
                if assured {
                    self.status |= status::ASSURED;
                }
                if direction == Direction::Reply {
                    self.status |= status::SEEN_REPLY;
                }
            }
            Verdict::Invalid {
                at_most: Some(timeout),
            } => self.expires = now.saturating_add(timeout),
            Verdict::Kill => {
                self.count(packet, direction);
                if direction == Direction::Reply {
                    self.status |= status::SEEN_REPLY;
                }
            }
            Verdict::Invalid { at_most: None } | Verdict::Reopen => {}
        }
        verdict
    }

    /// Sets mark and label as a commit asks (act_ct.c, `tcf_ct_act_set_mark` and `_labels`).
    pub fn mark_as(&mut self, spec: &CtSpec) {
        if spec.mark_mask != 0 {
            self.mark = self.mark & !spec.mark_mask | spec.mark;
        }
        if spec.label_mask != [0; 16] {
            for (i, byte) in self.label.iter_mut().enumerate() {
                *byte = *byte & !spec.label_mask[i] ^ spec.label[i];
            }
        }
    }

    fn count(&mut self, packet: &CtPacket, direction: Direction) {
        let counters = &mut self.counters[direction.index()];
        counters.packets += 1;
        counters.bytes += u64::from(packet.len);
    }

    /// Whether the flow table lets the packet by.
    fn passes_by(&mut self, packet: &CtPacket, now: Nanos, config: &CtConfig) -> bool {
        if let Body::Tcp(segment) = &packet.body
            && segment.ends_something()
        {
            self.leave_flow_table(now, config);
            return false;
        }
        self.flow_until = now.saturating_add(config.flow_table);
        self.has(status::ASSURED)
    }

    /// Puts it into the flow table if it is one for that (act_ct.c,
    /// `tcf_ct_flow_table_process_conn`).
    pub fn enter_flow_table(&mut self, info: Info, now: Nanos, config: &CtConfig) {
        if self.has(status::FLOW_TABLE) || !self.has(status::COMMITTED) {
            return;
        }
        let established =
            matches!(info, Info::Established | Info::EstablishedReply) && self.has(status::ASSURED);
        let original = &self.tuples[0];
        let fit = match (&mut self.protocol, original.proto) {
            (Protocol::Tcp(tcp), _) if established && tcp.state == TcpState::Established => {
                // Segments will go by unseen.
                tcp.be_liberal();
                true
            }
            (Protocol::Udp { .. }, ip_proto::UDP) => true,
            (_, ip_proto::GRE) => {
                let call = original.src_port != 0 || original.dst_port != 0;
                established && self.status & status::NAT == 0 && !call
            }
            _ => false,
        };
        if fit {
            self.status |= status::FLOW_TABLE;
            self.flow_until = now.saturating_add(config.flow_table);
            if self.expires < now.saturating_add(DAY / 2) {
                self.expires = now.saturating_add(DAY);
            }
        }
    }

    /// Takes it out of the flow table again; what is left of its time is as if its last packet
    /// had been the flow table's time ago (nf_flow_table_core.c, `flow_offload_fixup_ct`).
    fn leave_flow_table(&mut self, now: Nanos, config: &CtConfig) {
        self.status &= !status::FLOW_TABLE;
        let usual = match &mut self.protocol {
            Protocol::Tcp(tcp) => {
                tcp.lose_track();
                config.tcp.timeouts.of(tcp.state)
            }
            Protocol::Udp { .. } => config.udp_stream,
            _ => return,
        };
        let left = now.saturating_add(usual.saturating_sub(config.flow_table));
        self.expires = self.expires.min(left);
    }

    /// The protocol's own view.
    fn track(
        &mut self,
        packet: &CtPacket,
        direction: Direction,
        now: Nanos,
        config: &CtConfig,
    ) -> Verdict {
        let fresh = !self.has(status::COMMITTED);
        let seen_reply = self.has(status::SEEN_REPLY);
        match &packet.body {
            Body::Tcp(segment) => {
                let context = Context {
                    config: &config.tcp,
                    fresh,
                    seen_reply,
                    assured: self.has(status::ASSURED),
                    remaining: self.expires.saturating_sub(now),
                };
                let mut tcp = match self.protocol {
                    Protocol::Tcp(tcp) => tcp,
                    _ => Tcp::default(),
                };
                let verdict = tcp.receive(segment, direction, &context);
                self.protocol = Protocol::Tcp(tcp);
                verdict
            }
            Body::Sctp(chunks) => {
                let mut sctp = match self.protocol {
                    Protocol::Sctp(sctp) => sctp,
                    _ => Sctp::default(),
                };
                let verdict = sctp.receive(chunks, direction, fresh, &config.sctp);
                self.protocol = Protocol::Sctp(sctp);
                verdict
            }
            Body::Udp { valid: false } | Body::UdpLite { valid: false } => Verdict::INVALID,
            Body::Udp { valid: true } => {
                if fresh {
                    self.protocol = Protocol::Udp {
                        stream_from: now.saturating_add(STREAM),
                    };
                }
                let stream =
                    matches!(self.protocol, Protocol::Udp { stream_from } if now > stream_from);
                either(seen_reply && stream, config.udp, config.udp_stream)
            }
            Body::UdpLite { valid: true } => either(seen_reply, config.udp, config.udp_stream),
            Body::Gre => either(seen_reply, config.gre, config.gre_stream),
            Body::Icmp => {
                let [icmp_type, _] = self.tuples[0].dst_port.to_be_bytes();
                if icmp::may_begin(self.tuples[0].proto, icmp_type) {
                    Verdict::lasts(config.icmp)
                } else {
                    Verdict::INVALID
                }
            }
            Body::Other => Verdict::lasts(config.generic),
            Body::NotIp | Body::Fragment | Body::Untrackable | Body::IcmpError(_) => {
                Verdict::INVALID
            }
        }
    }
}

/// Of protocols that know of a connection only whether it goes both ways.
fn either(both_ways: bool, timeout: Nanos, stream: Nanos) -> Verdict {
    Verdict::Accept {
        timeout: Some(if both_ways { stream } else { timeout }),
        assured: both_ways,
    }
}
