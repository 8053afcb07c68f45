//! The checksums that follow a change.

use super::Packet;
use super::delta::Delta;
use crate::DropReason;
use crate::offload::Csum;
use crate::wire::checksum::Sum;
use crate::wire::{IpVersion, Layout, Transport, checksum_field, ip_proto};

/// SCTP's common header: ports, tag, checksum.
const SCTP_HEADER_LEN: usize = 12;
const SCTP_CHECKSUM: usize = 8;

impl Packet {
    /// Writes an even number of bytes of the IP header that only its own checksum takes in.
    pub(super) fn write_header(&mut self, layout: &Layout, at: usize, new: &[u8]) {
        let old = &mut self.head_mut()[at..at + new.len()];
        let delta = Delta::of(old, new);
        old.copy_from_slice(new);
        self.fix_ip(layout, delta);
    }

    /// Writes an address of the IP header.
    pub(super) fn write_address(
        &mut self,
        layout: &Layout,
        at: usize,
        new: &[u8],
    ) -> Result<(), DropReason> {
        let delta = Delta::of(&self.head()[at..at + new.len()], new);
        self.fix_transport(layout, delta, true)?;
        self.write_header(layout, at, new);
        Ok(())
    }

    /// Writes an even number of bytes of the transport header.
    pub(super) fn write_transport(
        &mut self,
        layout: &Layout,
        at: usize,
        new: &[u8],
    ) -> Result<(), DropReason> {
        let delta = Delta::of(&self.head()[at..at + new.len()], new);
        self.fix_sctp(layout, at, new)?;
        self.fix_transport(layout, delta, false)?;
        self.head_mut()[at..at + new.len()].copy_from_slice(new);
        Ok(())
    }

    /// The IPv4 header's checksum follows; nothing for IPv6.
    fn fix_ip(&mut self, layout: &Layout, delta: Delta) {
        if layout.ip.is_some_and(|ip| ip.version == IpVersion::V4) {
            self.change_word(layout.l3 + 10, |sum| delta.of_checksum(sum));
        }
    }

    /// The transport's checksum follows a change in its pseudo-header, or in itself. Nothing
    /// happens where there is none: no such protocol, a later fragment, UDP without one, or cut
    /// off by the sender. `RewriteDepth` if it lies beyond the head.
    pub(super) fn fix_transport(
        &mut self,
        layout: &Layout,
        delta: Delta,
        pseudo: bool,
    ) -> Result<(), DropReason> {
        let Some(ip) = layout.ip else {
            return Ok(());
        };
        let l4 = match ip.l4 {
            Transport::At(l4) => l4,
            Transport::Later => return Ok(()),
            Transport::Unknown if self.tail() == 0 => return Ok(()),
            Transport::Unknown => return Err(DropReason::RewriteDepth),
        };
        let Some((offset, with_pseudo)) = checksum_field(ip.version, ip.proto) else {
            return Ok(());
        };
        if pseudo && !with_pseudo {
            return Ok(());
        }
        let at = l4 + offset;
        if at + 2 > self.head().len() {
            let cut_off = at as u32 + 2 > self.frame_len();
            return if cut_off {
                Ok(())
            } else {
                Err(DropReason::RewriteDepth)
            };
        }
        if self.is_pending(l4, offset) {
            // What the device will sum begins with the transport header; the field holds the
            // pseudo-header's part.
            if pseudo {
                self.change_word(at, |sum| delta.of_partial(sum));
            }
            return Ok(());
        }
        let udp = ip.proto == ip_proto::UDP;
        self.change_word(at, |sum| match delta.of_checksum(sum) {
            _ if udp && sum == 0 => 0, // RFC 768: none
            0 if udp => 0xffff,
            sum => sum,
        });
        Ok(())
    }

    /// SCTP's CRC32c follows new bytes in the frame's SCTP header (RFC 9260 §6.8, Appendix A).
    /// A CRC is linear: what changes depends on the changed bits and on how many bytes follow
    /// them, not on what these are.
    fn fix_sctp(&mut self, layout: &Layout, at: usize, new: &[u8]) -> Result<(), DropReason> {
        let Some(ip) = layout.ip.filter(|ip| ip.proto == ip_proto::SCTP) else {
            return Ok(());
        };
        let Transport::At(l4) = ip.l4 else {
            return Ok(());
        };
        // A fragment does not tell how many bytes follow in the others.
        let whole = !ip.fragment && ip.end as u32 <= self.frame_len();
        if !whole || ip.end < l4 + SCTP_HEADER_LEN || self.is_pending(l4, SCTP_CHECKSUM) {
            return Ok(());
        }
        let field = l4 + SCTP_CHECKSUM;
        let behind = ip.end - at - new.len();
        let old = &self.head()[at..at + new.len()];
        let change = crc32c::crc32c(old) ^ crc32c::crc32c(new);
        let change = crc32c::crc32c_combine(change, 0, behind);
        let Some(bytes) = self.head_mut().get_mut(field..) else {
            return Err(DropReason::RewriteDepth);
        };
        let Some(sum) = bytes.first_chunk_mut::<4>() else {
            return Err(DropReason::RewriteDepth);
        };
        *sum = (u32::from_le_bytes(*sum) ^ change).to_le_bytes();
        Ok(())
    }

    /// The sum over the frame, `skip` bytes at its start left out, as it will be once the checksum
    /// that is still to be finished is: from where that begins to the end, the bytes then add up
    /// to the complement of what its field holds now. So nobody has to look at the payload (the
    /// kernel's lco_csum). `None` if none is to be finished.
    pub(super) fn pending_sum(&self, skip: usize) -> Result<Option<Sum>, DropReason> {
        let Some(Csum { start, offset }) = self.offload().csum else {
            return Ok(None);
        };
        let start = usize::from(start);
        let field = start + usize::from(offset);
        let head = self.head();
        // Words of the inner sum must be words of the outer one.
        if start < skip || !(start - skip).is_multiple_of(2) || !offset.is_multiple_of(2) {
            return Err(DropReason::BadOffload);
        }
        if field + 2 > head.len() {
            return Err(DropReason::RewriteDepth);
        }
        let partial = u16::from_be_bytes([head[field], head[field + 1]]);
        Ok(Some(Sum::new().bytes(&head[skip..start]).word(!partial)))
    }

    /// Whether the checksum at this place is still to be finished.
    pub(super) fn is_pending(&self, l4: usize, offset: usize) -> bool {
        let want = Csum {
            start: l4 as u16,
            offset: offset as u16,
        };
        self.offload().csum == Some(want)
    }

    /// Replaces the 16-bit number at `at`, which is in the head.
    pub(super) fn change_word(&mut self, at: usize, change: impl FnOnce(u16) -> u16) {
        let bytes = &mut self.head_mut()[at..at + 2];
        let new = change(u16::from_be_bytes([bytes[0], bytes[1]]));
        bytes.copy_from_slice(&new.to_be_bytes());
    }
}
