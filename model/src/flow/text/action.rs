//! What a rule does.

use super::line::{Line, Port};
use super::reader::{Read, Reader, bad};
use crate::flow::Action;
use std::fmt;

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
        other => bad("action", other, ALLOWED),
    }
}

/// What an action begins with, as a list with commas between.
pub const KINDS: &str = "drop, pass, trap, redirect, mirror, goto";

/// What may follow `action`, for whoever gave something else.
const ALLOWED: &str = "drop, pass, trap, redirect PORT, mirror PORT or goto chain N";

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
    }
}
