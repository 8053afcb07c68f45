//! Address translation: what a connection's packets are to look like (nf_nat_core.c and act_ct.c's
//! `tcf_ct_act_nat` of Linux 6.1).
//!
//! Where the kernel draws a port or an address at random, this takes a hash of who talks to whom:
//! the same connection gets the same translation again, if it is free.

use super::action::{CtNat, NatEnd, NatRange, NatRewrite};
use super::entry::{Entry, status};
use super::packet::{Body, CtPacket, has_ports};
use super::tracked::Info;
use super::{CtSpec, Direction, Tuple};
use crate::DropReason;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// The end that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manip {
    Src,
    Dst,
}

impl Manip {
    fn other(self) -> Self {
        match self {
            Self::Src => Self::Dst,
            Self::Dst => Self::Src,
        }
    }

    /// Set if a connection's end is translated.
    fn bit(self) -> u16 {
        match self {
            Self::Src => status::SRC_NAT,
            Self::Dst => status::DST_NAT,
        }
    }

    /// Set if it was decided.
    fn done(self) -> u16 {
        match self {
            Self::Src => status::SRC_DONE,
            Self::Dst => status::DST_DONE,
        }
    }

    fn address(self, tuple: &mut Tuple) -> &mut [u8; 16] {
        match self {
            Self::Src => &mut tuple.src,
            Self::Dst => &mut tuple.dst,
        }
    }

    /// The port; of ICMP always the identifier.
    fn port(self, tuple: &mut Tuple) -> &mut u16 {
        match self {
            Self::Dst if !tuple.is_icmp() => &mut tuple.dst_port,
            _ => &mut tuple.src_port,
        }
    }
}

/// What is to be known of all connections.
pub(super) trait Connections {
    /// Whether another connection than the one that begins like `original` has packets that look
    /// like `tuple`.
    fn is_taken(&self, tuple: &Tuple, original: &Tuple) -> bool;

    /// What another connection of the same source is translated to, the newest that suits.
    fn translation_of(
        &self,
        tuple: &Tuple,
        suits: &dyn Fn(&[u8; 16], u16) -> bool,
    ) -> Option<([u8; 16], u16)>;
}

/// Decides and applies translations.
pub(super) struct Translator<C> {
    pub others: C,
}

impl<C: Connections> Translator<C> {
    /// What the `nat` of an action makes of a packet. A connection that is not committed yet gets
    /// its translation here.
    pub fn translate(
        &self,
        entry: &mut Entry,
        info: Info,
        spec: &CtSpec,
        packet: &CtPacket,
    ) -> Result<NatRewrite, DropReason> {
        let mut rewrite = NatRewrite::default();
        let Some(nat) = &spec.nat else {
            return Ok(rewrite);
        };
        let range = match nat {
            CtNat::Existing => None,
            CtNat::Src(range) | CtNat::Dst(range) => Some(range),
        };
        let as_before =
            info != Info::New && entry.has(status::NAT) && (info != Info::Related || spec.commit);
        let manip = match nat {
            _ if as_before => {
                let source = match info.direction() {
                    Direction::Original => entry.has(status::SRC_NAT),
                    Direction::Reply => !entry.has(status::SRC_NAT),
                };
                if source { Manip::Src } else { Manip::Dst }
            }
            CtNat::Src(_) => Manip::Src,
            CtNat::Dst(_) => Manip::Dst,
            CtNat::Existing => return Ok(rewrite),
        };
        self.one_end(entry, info, range, manip, packet, &mut rewrite)?;
        if entry.has(status::DST_NAT) {
            if entry.has(status::SRC_NAT) {
                self.one_end(entry, info, range, manip.other(), packet, &mut rewrite)?;
            } else if info.direction() == Direction::Original {
                // The translated destination may already talk to someone who looks like this
                // source.
                self.one_end(entry, info, None, Manip::Src, packet, &mut rewrite)?;
            }
        }
        Ok(rewrite)
    }

    fn one_end(
        &self,
        entry: &mut Entry,
        info: Info,
        range: Option<&NatRange>,
        manip: Manip,
        packet: &CtPacket,
        rewrite: &mut NatRewrite,
    ) -> Result<(), DropReason> {
        if let Body::IcmpError(embedded) = &packet.body {
            // A redirect names an address that only one side knows.
            let done = entry.status & status::NAT_DONE == status::NAT_DONE;
            if embedded.redirect && (!done || entry.has(status::NAT)) {
                return Err(DropReason::CtRedirect);
            }
        } else if info == Info::New && !entry.has(manip.done()) {
            self.decide(entry, range, manip)?;
        }
        let bit = match info.direction() {
            Direction::Original => manip.bit(),
            Direction::Reply => manip.other().bit(),
        };
        if !entry.has(bit) {
            return Ok(());
        }
        let opposite = info.direction().opposite().index();
        if let Some(mut target) = entry.tuples[opposite].inverted() {
            let end = NatEnd {
                address: *manip.address(&mut target),
                port: *manip.port(&mut target),
            };
            match manip {
                Manip::Src => rewrite.src = Some(end),
                Manip::Dst => rewrite.dst = Some(end),
            }
        }
        Ok(())
    }

    /// Decides what one end of a new connection is translated to: something in the range, or, if
    /// there is none, its own address, and another port only if that is needed.
    fn decide(
        &self,
        entry: &mut Entry,
        range: Option<&NatRange>,
        manip: Manip,
    ) -> Result<(), DropReason> {
        if entry.has(status::COMMITTED) {
            return Ok(());
        }
        let Some(mut current) = entry.tuples[1].inverted() else {
            return Ok(());
        };
        let own = NatRange::only(current.version, *manip.address(&mut current));
        let range = range.filter(|range| range.version() == current.version);
        let new = self.unique(current, range.unwrap_or(&own), manip, &entry.tuples[0])?;
        if new != current {
            if let Some(reply) = new.inverted() {
                entry.tuples[1] = reply;
            }
            entry.status |= manip.bit();
        }
        entry.status |= manip.done();
        Ok(())
    }

    /// Whether the replies to such packets belong to another connection.
    fn is_used(&self, tuple: &Tuple, original: &Tuple) -> bool {
        let reply = tuple.inverted();
        reply.is_some_and(|reply| self.others.is_taken(&reply, original))
    }

    fn unique(
        &self,
        current: Tuple,
        range: &NatRange,
        manip: Manip,
        original: &Tuple,
    ) -> Result<Tuple, DropReason> {
        if manip == Manip::Src {
            if in_range(&current.src, current.src_port, current.proto, range) {
                if !self.is_used(&current, original) {
                    return Ok(current);
                }
            } else {
                // Another connection of this source may have a translation that suits.
                let suits =
                    |address: &[u8; 16], port| in_range(address, port, current.proto, range);
                if let Some((src, src_port)) = self.others.translation_of(&current, &suits) {
                    let same = Tuple {
                        src,
                        src_port,
                        ..current
                    };
                    if !self.is_used(&same, original) {
                        return Ok(same);
                    }
                }
            }
        }
        let mut tuple = current;
        *manip.address(&mut tuple) = address_in(range, &current);
        let keep_port = match range.ports() {
            Some((min, max)) => {
                let port = *manip.port(&mut tuple);
                let fits = !counts_ports(tuple.proto) || (min..=max).contains(&port);
                fits && (min == max || !self.is_used(&tuple, original))
            }
            None => !self.is_used(&tuple, original),
        };
        if keep_port {
            return Ok(tuple);
        }
        self.other_port(tuple, range, manip, original)
    }

    /// Looks for a port that is free.
    fn other_port(
        &self,
        mut tuple: Tuple,
        range: &NatRange,
        manip: Manip,
        original: &Tuple,
    ) -> Result<Tuple, DropReason> {
        const AT_ONCE: u32 = 128;
        const LEAST: u32 = 16;
        if !has_ports(tuple.proto) && !tuple.is_icmp() {
            return Ok(tuple);
        }
        let (min, max) = match range.ports() {
            Some(ports) => ports,
            None if tuple.is_icmp() => (0, u16::MAX),
            // Whoever is asked for on this port is not there on another.
            None if manip == Manip::Dst => return Ok(tuple),
            // Ports of one kind stay among themselves.
            None => match tuple.src_port {
                0..512 => (1, 511),
                512..1024 => (600, 1023),
                1024.. => (1024, u16::MAX),
            },
        };
        let size = u32::from(max - min) + 1;
        // The untranslated tuple: whoever shares an address must not share the place to begin.
        let mut offset = hash(original.words());
        let mut attempts = size.min(AT_ONCE);
        // Not all of them: a range that is full must not cost the time of 65,536 look-ups.
        loop {
            for i in 0..attempts {
                let port = u32::from(min) + (offset as u32).wrapping_add(i) % size;
                *manip.port(&mut tuple) = port as u16;
                if !self.is_used(&tuple, original) {
                    return Ok(tuple);
                }
            }
            if attempts >= size || attempts < LEAST {
                return Err(DropReason::CtNatExhausted);
            }
            attempts /= 2;
            offset = hash([offset].into_iter());
        }
    }
}

/// Whether a port range limits connections of this protocol.
fn counts_ports(proto: u8) -> bool {
    use crate::wire::ip_proto::{GRE, ICMP, ICMPV6};
    has_ports(proto) || matches!(proto, ICMP | ICMPV6 | GRE)
}

fn in_range(address: &[u8; 16], port: u16, proto: u8, range: &NatRange) -> bool {
    let (min, max) = range.octets();
    let ports = range.ports().filter(|_| counts_ports(proto));
    (min..=max).contains(&address) && ports.is_none_or(|(min, max)| (min..=max).contains(&port))
}

/// One of the range's addresses, the same for packets of one end to another.
fn address_in(range: &NatRange, tuple: &Tuple) -> [u8; 16] {
    let (min, max) = range.octets();
    if min == max {
        return *min;
    }
    let ends = Tuple {
        src_port: 0,
        dst_port: 0,
        proto: 0,
        ..*tuple
    };
    let wide = u128::from(hash(ends.words())) << 64 | u128::from(hash(tuple.words()));
    let (low, high) = (u128::from_be_bytes(*min), u128::from_be_bytes(*max));
    // IPv4 sits in the upper 32 bits.
    let shift = if tuple.version == 4 { 96 } else { 0 };
    let count = ((high >> shift) - (low >> shift)).saturating_add(1);
    let pick = (if shift > 0 { wide >> 64 } else { wide }) % count;
    (((low >> shift) + pick) << shift).to_be_bytes()
}

fn hash(words: impl Iterator<Item = u64>) -> u64 {
    let mut hasher = FxHasher::default();
    words.for_each(|word| hasher.write_u64(word));
    hasher.finish()
}
