//! What follows when an action is done.

/// A verdict (linux/pkt_cls.h, TC_ACT_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub enum Control {
    /// The next filter, or what the qdisc does by itself.
    Unspec,
    /// Pass the packet: no further filter.
    Ok,
    /// All filters again.
    Reclassify,
    /// Drop it.
    Shot,
    /// The next action.
    #[default]
    Pipe,
    /// The action has it.
    Stolen,
    /// The action has queued it.
    Queued,
    /// The same action again.
    Repeat,
    /// Where the action said.
    Redirect,
    /// To the host, not further in hardware.
    Trap,
    /// So many actions on.
    Jump(#[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = value))] u32),
    /// The filters of this chain.
    GotoChain(#[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = value))] u32),
    /// None of those.
    Other(#[cfg_attr(any(test, feature = "arbitrary"), arbitrary(value = 0x7000_0000))] i32),
}

/// Extended verdicts keep their kind in the four upper bits and a value in the others.
const VALUE_MASK: u32 = 0x0fff_ffff;
const JUMP: u32 = 1 << 28;
const GOTO_CHAIN: u32 = 2 << 28;

impl From<i32> for Control {
    fn from(code: i32) -> Self {
        let bits = code.cast_unsigned();
        match code {
            -1 => Control::Unspec,
            0 => Control::Ok,
            1 => Control::Reclassify,
            2 => Control::Shot,
            3 => Control::Pipe,
            4 => Control::Stolen,
            5 => Control::Queued,
            6 => Control::Repeat,
            7 => Control::Redirect,
            8 => Control::Trap,
            _ if bits & !VALUE_MASK == JUMP => Control::Jump(bits & VALUE_MASK),
            _ if bits & !VALUE_MASK == GOTO_CHAIN => Control::GotoChain(bits & VALUE_MASK),
            other => Control::Other(other),
        }
    }
}

impl From<Control> for i32 {
    fn from(control: Control) -> Self {
        match control {
            Control::Unspec => -1,
            Control::Ok => 0,
            Control::Reclassify => 1,
            Control::Shot => 2,
            Control::Pipe => 3,
            Control::Stolen => 4,
            Control::Queued => 5,
            Control::Repeat => 6,
            Control::Redirect => 7,
            Control::Trap => 8,
            Control::Jump(value) => (JUMP | value & VALUE_MASK).cast_signed(),
            Control::GotoChain(chain) => (GOTO_CHAIN | chain & VALUE_MASK).cast_signed(),
            Control::Other(code) => code,
        }
    }
}

#[cfg(any(test, feature = "arbitrary"))]
fn value(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<u32> {
    bytes.int_in_range(0..=VALUE_MASK)
}
