//! The feature l2-fwd-offload of the physical function's netdev, which the TAP has not: all other
//! features are the TAP's, and the kernel's to change.

use crate::netlink::host::Host;
use crate::netlink::played::{Played, Role};
use crate::netlink::refuse;
use chanio_netlink::attr::Flag;
use chanio_netlink::ethtool::{Bit, Bitset, Ethtool, Features, Nothing, command};
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_REQUEST};
use nix::net::if_::if_nametoindex;

/// Its name (net/ethtool/common.c: netdev_features_strings).
const NAME: &str = "l2-fwd-offload";

/// Its number, which is another in each kernel: out of those of a netdev that is always there.
pub fn number(generic: &mut Host, family: u16) -> Option<u32> {
    let asked = Ethtool::<Nothing>::new(command::FEATURES_GET, "lo");
    let asked = asked.message(family, NLM_F_REQUEST).ok()?;
    let Reply::Answers(told) = generic.ask(&asked, false).ok()? else {
        return None;
    };
    let told = Ethtool::<Features>::parse(&told.first()?.payload).ok()?;
    let all = told.body.hardware?.bits.into_iter();
    all.filter(|bit| bit.name.as_deref() == Some(NAME))
        .find_map(|bit| bit.index)
}

/// A switch of a set without names: its word and its bit there.
fn place(number: u32) -> (usize, u32) {
    (4 * (number / 32) as usize, 1 << (number % 32))
}

fn word(words: &[u8], at: usize) -> Option<u32> {
    let bytes = words.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// Has a set of all switches say this of one.
fn put(set: &mut Bitset, number: u32, on: bool) {
    let (at, bit) = place(number);
    if let Some(words) = &mut set.value
        && let Some(old) = word(words, at)
    {
        let new = if on { old | bit } else { old & !bit };
        words[at..at + 4].copy_from_slice(&new.to_ne_bytes());
        return;
    }
    let is_it = |one: &Bit| one.name.as_deref() == Some(NAME) || one.index == Some(number);
    match set.bits.iter_mut().find(|one| is_it(one)) {
        // With a mask all are there, and say whether they are on.
        Some(one) if !set.no_mask => one.value = on.then_some(Flag),
        Some(_) if on => {}
        _ => {
            set.bits.retain(|one| !is_it(one));
            if on {
                set.bits.push(Bit {
                    index: Some(number),
                    name: Some(NAME.to_owned()),
                    value: (!set.no_mask).then_some(Flag),
                });
            }
        }
    }
}

/// Takes what a set asks of one switch out of it.
fn take(set: &mut Bitset, number: u32) -> Option<bool> {
    let (at, bit) = place(number);
    if let (Some(value), Some(mask)) = (&set.value, &mut set.mask)
        && let (Some(on), Some(meant)) = (word(value, at), word(mask, at))
    {
        mask[at..at + 4].copy_from_slice(&(meant & !bit).to_ne_bytes());
        return (meant & bit != 0).then_some(on & bit != 0);
    }
    let is_it = |one: &Bit| one.name.as_deref() == Some(NAME) || one.index == Some(number);
    let asked = set.bits.iter().find(|one| is_it(one));
    let asked = asked.map(|one| one.value.is_some() || set.no_mask);
    set.bits.retain(|one| !is_it(one));
    asked
}

/// Has a set of changes say that this switch is now so.
fn mark(set: &mut Bitset, number: u32, on: bool) {
    let (at, bit) = place(number);
    match (&mut set.value, &mut set.mask) {
        (Some(value), Some(mask)) => {
            for (words, on) in [(value, on), (mask, true)] {
                if let Some(old) = word(words, at) {
                    let new = if on { old | bit } else { old & !bit };
                    words[at..at + 4].copy_from_slice(&new.to_ne_bytes());
                }
            }
        }
        _ => set.bits.push(Bit {
            index: Some(number),
            name: Some(NAME.to_owned()),
            value: on.then_some(Flag),
        }),
    }
}

/// A request for no switch.
fn nothing() -> Bitset {
    Bitset {
        size: Some(32),
        value: Some(vec![0; 4]),
        mask: Some(vec![0; 4]),
        ..Bitset::default()
    }
}

/// Whether a request is for no switch.
fn is_empty(set: &Bitset) -> bool {
    let none = |mask: &Vec<u8>| mask.iter().all(|byte| *byte == 0);
    set.bits.is_empty() && set.mask.as_ref().is_none_or(none) && !set.no_mask
}

impl Played {
    /// The number of the feature, if this netdev has it.
    fn l2_forwarding_number(&self, name: Option<&str>, ifindex: Option<u32>) -> Option<u32> {
        let ifindex = match (ifindex, name) {
            (Some(index), _) => index,
            (None, Some(name)) => if_nametoindex(name).ok()?,
            (None, None) => return None,
        };
        let is_uplink = self.visible_role(ifindex) == Some(Role::Uplink);
        let number = self.l2_forwarding_number?;
        (is_uplink && self.vendor.macvlans > 0).then_some(number)
    }

    /// ETHTOOL_MSG_FEATURES_GET, a listing as well.
    pub(super) fn tell_features(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let told = self.generic.ask(request, client.strict)?;
        let is_dump = matches!(told, Reply::Dump(_));
        let (Reply::Answers(told) | Reply::Dump(told)) = told;
        let mut answers = Vec::new();
        for message in told {
            answers.push(self.with_l2_forwarding(message)?);
        }
        Ok(match is_dump {
            true => Reply::Dump(answers),
            false => Reply::Answers(answers),
        })
    }

    fn with_l2_forwarding(&self, message: Message) -> Result<Message, Refusal> {
        let mut told = Ethtool::<Features>::parse(&message.payload)?;
        let header = &told.header;
        let Some(number) = self.l2_forwarding_number(header.name.as_deref(), header.index) else {
            return Ok(message);
        };
        let on = self.l2_forwarding;
        let body = &mut told.body;
        let sets = [
            (&mut body.hardware, true),
            (&mut body.wanted, on),
            (&mut body.active, on),
            (&mut body.never, false),
        ];
        for (set, on) in sets {
            if let Some(set) = set {
                put(set, number, on);
            }
        }
        let changed = told.message(message.kind, message.flags)?;
        Ok(Message {
            payload: changed.payload,
            ..message
        })
    }

    /// ETHTOOL_MSG_FEATURES_SET (net/ethtool/features.c: ethnl_set_features): the rest of it is the
    /// kernel's.
    pub(super) fn set_features(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let mut asked = Ethtool::<Features>::parse(&request.payload)?;
        let header = &asked.header;
        let number = self.l2_forwarding_number(header.name.as_deref(), header.index);
        let wanted = asked.body.wanted.as_mut();
        let change = match (number, wanted) {
            (Some(number), Some(wanted)) => take(wanted, number).map(|on| (number, on)),
            _ => None,
        };
        let Some((number, on)) = change else {
            return self.generic.ask(request, client.strict);
        };
        if !on && self.macvlans().next().is_some() {
            let words = "l2-fwd-offload: a macvlan device of an emulator cannot lose its queues; \
                         remove those that there are";
            return Err(refuse::text(libc::EBUSY, words));
        }
        let changed = on != self.l2_forwarding;
        // The kernel answers in the form that is asked for, also when nothing is left to change.
        asked.body.wanted = asked.body.wanted.map(|rest| match is_empty(&rest) {
            true => nothing(),
            false => rest,
        });
        let rest = asked.message(request.kind, request.flags)?;
        let reply = self.generic.ask(&rest, client.strict)?;
        self.l2_forwarding = on;
        let Reply::Answers(told) = reply else {
            return Ok(reply);
        };
        let mut answers = Vec::new();
        for message in told {
            let mut told = Ethtool::<Features>::parse(&message.payload)?;
            if changed && let Some(active) = &mut told.body.active {
                mark(active, number, on);
            }
            let payload = told.message(message.kind, message.flags)?.payload;
            answers.push(Message { payload, ..message });
        }
        Ok(Reply::Answers(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(value: u32, mask: Option<u32>) -> Bitset {
        let words = |word: u32| [0u32, word].map(u32::to_ne_bytes).concat();
        Bitset {
            size: Some(64),
            no_mask: mask.is_none(),
            value: Some(words(value)),
            mask: mask.map(words),
            ..Bitset::default()
        }
    }

    #[test]
    fn one_switch_is_told_in_either_form() {
        let mut set = compact(0b100, None);
        put(&mut set, 33, true);
        assert_eq!(set, compact(0b110, None));
        put(&mut set, 33, false);
        assert_eq!(set, compact(0b100, None));
        // All of them with a mask, and those that are on without.
        let mut set = Bitset::named(&[("tls", true), (NAME, false)]);
        put(&mut set, 33, true);
        assert_eq!(set, Bitset::named(&[("tls", true), (NAME, true)]));
        let mut set = Bitset {
            no_mask: true,
            ..Bitset::default()
        };
        put(&mut set, 33, true);
        put(&mut set, 33, true);
        assert_eq!(set.bits.len(), 1);
        put(&mut set, 33, false);
        assert!(set.bits.is_empty());
    }

    #[test]
    fn what_is_asked_of_one_switch_is_taken_out() {
        let mut set = Bitset::named(&[(NAME, true), ("tls", false)]);
        assert_eq!(take(&mut set, 33), Some(true));
        assert_eq!(set, Bitset::named(&[("tls", false)]));
        assert_eq!(take(&mut set, 33), None);
        assert!(!is_empty(&set));
        let mut set = compact(0b000, Some(0b010));
        assert_eq!(take(&mut set, 33), Some(false));
        assert!(is_empty(&set));
        let mut set = compact(0b010, Some(0b100));
        assert_eq!(take(&mut set, 33), None);
        assert!(!is_empty(&set));
    }
}
