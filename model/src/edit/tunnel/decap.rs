//! Taking a tunnel's headers off.

use super::ecn;
use super::found::{FoundTunnel, TunnelPorts, find};
use super::set::Payload;
use crate::DropReason;
use crate::edit::{Field, FieldEdit, Packet};
use crate::offload::{MAX_OUTER, Outer};
use crate::wire::{ETH_HEADER_LEN, IpVersion, Layout};

impl Packet {
    /// The tunnel that the packet as it is now is in; see [`find`].
    pub fn tunnel(&self, ports: &TunnelPorts) -> Result<Option<FoundTunnel<'_>>, DropReason> {
        find(self.head(), self.frame_len(), ports)
    }

    /// Takes the packet out of its tunnel: what was inside is the packet from here on, its ECN
    /// field set as RFC 6040 says, and padding behind it gone. A bare IP packet gets an Ethernet
    /// header with zero addresses, for the rule's next actions to fill in.
    ///
    /// False, and nothing changed, if [`find`] finds no tunnel. `TunnelGso` if the tunnel's own
    /// UDP payload is still to be cut: only a look at each segment would tell what is inside.
    pub fn tunnel_unset(&mut self, ports: &TunnelPorts) -> Result<bool, DropReason> {
        let Some(found) = self.tunnel(ports)? else {
            return Ok(false);
        };
        let (inner, end, tos) = (found.inner, found.end, found.tos);
        let bare = (found.payload == Payload::Ip).then_some(found.payload_type);
        let ecn = self.ecn_inside(inner, bare, tos)?;
        let mut offload = self.offload();
        if offload.gso.is_some() && usize::from(offload.outer[0].len) != inner {
            return Err(DropReason::TunnelGso);
        }
        // A checksum still to be finished in the headers that go away was the outer one.
        offload.csum = offload.csum.filter(|csum| usize::from(csum.start) >= inner);
        let field = offload
            .csum
            .map(|csum| usize::from(csum.start) + usize::from(csum.offset));
        if field.is_some_and(|at| at + 2 > end) && offload.gso.is_none() {
            return Err(DropReason::BadOffload);
        }
        offload.data_valid = false;
        offload.outer.copy_within(1.., 0);
        offload.outer[MAX_OUTER - 1] = Outer::default();
        let gso = offload.gso.is_some();

        // The offsets that are left move; a tunnel further in does not.
        let deeper = offload.outer;
        offload.outer = [Outer::default(); MAX_OUTER];
        *self.offload_mut() = offload;
        if !gso {
            self.truncate(end as u32);
        }
        self.remove(0, inner);
        if let Some(eth_type) = bare {
            let header = self.insert(0, ETH_HEADER_LEN)?;
            header[..12].fill(0);
            header[12..].copy_from_slice(&eth_type.to_be_bytes());
        }
        self.offload_mut().outer = deeper;
        if deeper[0].len != 0 && bare.is_some() {
            self.offload_mut().outer[0].len += ETH_HEADER_LEN as u16;
        }
        if let Some(edit) = ecn {
            self.edit(&edit)?;
        }
        Ok(true)
    }

    /// What the inner ECN field becomes.
    fn ecn_inside(
        &self,
        inner: usize,
        bare: Option<u16>,
        outer_tos: u8,
    ) -> Result<Option<FieldEdit>, DropReason> {
        let head = self.head();
        let ip = match bare {
            Some(eth_type) => crate::wire::ip_at(head, inner, eth_type).map(|ip| (inner, ip)),
            None => Layout::of(&head[inner..])
                .and_then(|layout| layout.ip.map(|ip| (inner + layout.l3, ip))),
        };
        let Some((l3, ip)) = ip else {
            return Ok(None);
        };
        let (field, inner_tos) = match ip.version {
            IpVersion::V4 => (Field::Ipv4Tos, head[l3 + 1]),
            IpVersion::V6 => (Field::Ipv6TrafficClass, head[l3] << 4 | head[l3 + 1] >> 4),
        };
        let new = ecn::inner_tos(outer_tos, inner_tos)?;
        Ok(new.map(|tos| FieldEdit::set(field, u128::from(tos))))
    }
}
