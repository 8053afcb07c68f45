//! What the kernel's own tc needs so that a rule means there what it means in a NIC, and what it
//! cannot say.

use super::ports::Ports;
use crate::DeviceError;
use chanio_model::edit::Csums;
use chanio_model::flow::{Action, RuleSpec, text};
use chanio_netlink::tc::action::{self as tc_action, Control, Csum, Kind, PeditHeader};
use chanio_netlink::tc::model::Surroundings;

/// The cookie of an action that was not asked for.
const ADDED: &[u8] = b"chanio: as asked";
/// Where the addresses begin in an IPv4 header (RFC 791) and in an IPv6 header (RFC 8200).
const IPV4_ADDRESSES: u32 = 12;
const IPV6_ADDRESSES: u32 = 8;

/// The keys of rules that it carries out. A filter has no time after which it goes; what came
/// through a tunnel is on a netdev of its own, if there is one.
pub(super) fn keys(ports: &Ports) -> Vec<&'static str> {
    let tunnels = ports.has_tunnels();
    let takes = |key: &&str| {
        let tunnel = key.starts_with("enc_") || key.ends_with("_opts");
        *key != "idle_timeout" && (tunnels || !tunnel)
    };
    text::KEYS.split(", ").filter(takes).collect()
}

/// The actions that it carries out. A trapped packet would be lost, and samples go to programs, not
/// to ports.
pub(super) fn actions(ports: &Ports) -> Vec<&'static str> {
    let tunnels = ports.has_tunnels();
    let takes = |action: &&str| match *action {
        "trap" | "sample" => false,
        "tunnel_key" => tunnels,
        _ => true,
    };
    text::ACTIONS.split(", ").filter(takes).collect()
}

/// Refuses what it cannot carry out, or would carry out in another way.
pub(super) fn check(spec: &RuleSpec, ports: &Ports) -> Result<(), DeviceError> {
    if spec.matches.tunnel().is_some() && spec.matches.in_port().is_some() {
        return Err(DeviceError::Refused {
            reason: "in_port with what came through a tunnel: the kernel takes tunnels apart on \
                     netdevs of their own; name enc_kind instead of in_port"
                .into(),
        });
    }
    for action in spec.actions.iter() {
        match action {
            Action::Trap => {
                return Err(DeviceError::Unsupported {
                    what: "action trap".into(),
                    why: "the kernel carries rules out itself, where every packet is at the host \
                          already and a trapped one would be lost; use pass"
                        .into(),
                });
            }
            Action::TunnelSet(set) if ports.tunnel_device(set.kind).is_none() => {
                return Err(DeviceError::Refused {
                    reason: format!(
                        "tunnel_key set: this machine has no netdev for tunnels of kind {} (ip link \
                         add … external)",
                        set.kind.name()
                    ),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds what a NIC does on its own: checksums follow what is rewritten (tc-pedit(8): the kernel
/// leaves that to csum).
pub(super) fn complete(actions: &mut Vec<tc_action::Action>) {
    let mut all = Vec::with_capacity(actions.len());
    for action in actions.drain(..) {
        let stale = match &action.kind {
            Kind::Pedit(words) => words.keys.iter().fold(0, |all, word| {
                let ipv4 = Csums::IPV4_HEADER.0;
                let transport = Csums::TCP.0 | Csums::UDP.0;
                all | match word.header {
                    PeditHeader::Ip4 if word.offset >= IPV4_ADDRESSES => ipv4 | transport,
                    PeditHeader::Ip4 => ipv4,
                    PeditHeader::Ip6 if word.offset >= IPV6_ADDRESSES => transport | Csums::ICMP.0,
                    PeditHeader::Tcp => Csums::TCP.0,
                    PeditHeader::Udp => Csums::UDP.0,
                    _ => 0,
                }
            }),
            _ => 0,
        };
        all.push(action);
        if stale != 0 {
            let update = Csum {
                update: stale.into(),
            };
            let mut csum = tc_action::Action::new(update, Control::Pipe);
            csum.common.cookie = Some(ADDED.to_vec());
            all.push(csum);
        }
    }
    *actions = all;
}

/// Whether an action was asked for, or added by [`complete`].
pub(super) fn asked_for(action: &tc_action::Action) -> bool {
    action.common.cookie.as_deref() != Some(ADDED)
}
