//! What a rule does.
//!
//! | file | what lives there |
//! |---|---|
//! | `tags` | vlan, mpls |
//! | `pedit` | pedit, csum |
//! | `tunnel` | tunnel_key |
//! | `police` | police |
//! | `ct` | ct |

mod ct;
mod pedit;
mod police;
mod tags;
mod tunnel;

use super::line::{Line, Port};
use super::reader::{Read, Reader, bad};
use crate::flow::{Action, Sample};
use std::fmt;

/// What an action begins with, as a list with commas between.
pub const KINDS: &str = "drop, pass, trap, redirect, mirror, goto, vlan, mpls, pedit, csum, \
                         tunnel_key, police, ct, sample";

/// What may follow `action`, for whoever gave something else.
const ALLOWED: &str = "drop, pass, trap, redirect PORT, mirror PORT, goto chain N, vlan, mpls, \
                       pedit, csum, tunnel_key, police, ct or sample";

/// Reads what follows `action`.
pub(super) fn read(reader: &mut Reader<'_>) -> Read<Action> {
    match reader.value("action")? {
        "drop" => Ok(Action::Drop),
        "pass" => Ok(Action::Pass),
        "trap" => Ok(Action::Trap),
        "redirect" => Ok(Action::Redirect(reader.port("redirect")?)),
        "mirror" => Ok(Action::Mirror(reader.port("mirror")?)),
        "goto" => {
            let _ = reader.accept("chain");
            Ok(Action::Goto(reader.number("goto", super::parse::CHAIN)?))
        }
        "vlan" => tags::read_vlan(reader),
        "mpls" => tags::read_mpls(reader),
        "pedit" => pedit::read(reader),
        "csum" => pedit::read_csum(reader),
        "tunnel_key" => tunnel::read(reader),
        "police" => police::read(reader),
        "ct" => ct::read(reader),
        "sample" => read_sample(reader),
        other => bad("action", other, ALLOWED),
    }
}

fn read_sample(reader: &mut Reader<'_>) -> Read<Action> {
    const NUMBER: &str = "a number of at most 32 bits";
    let mut sample = Sample {
        rate: 1,
        group: 0,
        to: crate::VportId::UPLINK,
    };
    loop {
        match reader.value("sample to")? {
            "rate" => sample.rate = reader.number("sample rate", NUMBER)?,
            "group" => sample.group = reader.number("sample group", NUMBER)?,
            "to" => {
                sample.to = reader.port("sample to")?;
                return Ok(Action::Sample(sample));
            }
            other => return bad("sample", other, "rate N, group N or, at the end, to PORT"),
        }
    }
}

/// Writes it without the leading `action`.
pub(super) fn write(line: &mut Line<'_, '_>, action: &Action) -> fmt::Result {
    let names = line.names;
    match action {
        Action::Drop => line.word("drop"),
        Action::Pass => line.word("pass"),
        Action::Trap => line.word("trap"),
        Action::Redirect(vport) => line.put("redirect", Port(*vport, names)),
        Action::Mirror(vport) => line.put("mirror", Port(*vport, names)),
        Action::Goto(chain) => line.put("goto chain", chain),
        Action::VlanPush(tag) => tags::write_push(line, tag),
        Action::VlanPop => line.word("vlan pop"),
        Action::VlanModify(to) => tags::write_modify(line, to),
        Action::MplsPush(push) => tags::write_label(line, push),
        Action::MplsPop(proto) => line.put("mpls pop protocol", super::l2::EthType(*proto)),
        Action::MplsModify(to) => tags::write_relabel(line, to),
        Action::MplsDecTtl => line.word("mpls dec_ttl"),
        Action::Pedit(edits) => pedit::write(line, edits),
        Action::Csum(which) => pedit::write_csum(line, *which),
        Action::TunnelSet(set) => tunnel::write(line, set),
        Action::TunnelUnset => line.word("tunnel_key unset"),
        Action::Police(police) => police::write(line, police),
        Action::Ct(ct) => ct::write(line, ct),
        Action::Sample(Sample { rate, group, to }) => {
            line.put("sample rate", rate)?;
            line.put("group", group)?;
            line.put("to", Port(*to, names))
        }
    }
}
