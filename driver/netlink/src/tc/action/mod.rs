//! tc's actions (linux/pkt_cls.h, TCA_ACT_*; linux/tc_act/*.h): one file per kind.

mod control;
mod csum;
mod ct;
mod gact;
mod kind;
mod mirred;
mod mpls;
mod pedit;
mod police;
mod sample;
mod skbedit;
mod stats;
mod tunnel_key;
mod vlan;

pub use control::Control;
pub use csum::Csum;
pub use ct::Ct;
pub use gact::{Gact, Random};
pub use kind::Kind;
pub use mirred::{Mirred, MirredWhat};
pub use mpls::{Mpls, MplsLabel, MplsWhat};
pub use pedit::{Pedit, PeditCommand, PeditHeader, PeditKey};
pub use police::{Police, PoliceMore, Rate};
pub use sample::Sample;
pub use skbedit::Skbedit;
pub use stats::{Basic, Queue, Stats};
pub use tunnel_key::{TunnelKey, TunnelKeyWhat, TunnelMetadata};
pub use vlan::{Vlan, VlanTag, VlanWhat};

use crate::attr::{Attr, Bitfield32, Raw, Table, Value, Writer, attributes, record};
use crate::{Error, Result};

attributes! {
    /// TCA_ACT_*
    pub mod act = "TCA_ACT_" {
        UNSPEC, KIND, OPTIONS, INDEX, STATS, PAD, COOKIE, FLAGS, HW_STATS, USED_HW_STATS,
        IN_HW_COUNT,
    }
}

/// TCA_ACT_HW_STATS_IMMEDIATE: counters are read from the hardware when asked for.
pub const HW_STATS_IMMEDIATE: u32 = 1 << 0;
/// TCA_ACT_HW_STATS_DELAYED: counters may be some seconds old.
pub const HW_STATS_DELAYED: u32 = 1 << 1;
/// How many actions a filter can have (TCA_ACT_MAX_PRIO).
pub const MAX_ACTIONS: usize = 32;

record! {
    /// What an action has whatever it does.
    pub struct Common of act {
        /// The caller's mark, up to 16 bytes.
        cookie: Vec<u8> = COOKIE;
        /// TCA_ACT_FLAGS_*: skip_hw, skip_sw, no percpu counters.
        flags: Bitfield32 = FLAGS;
        /// Which kinds of hardware counters the caller accepts.
        hw_stats: Bitfield32 = HW_STATS;
        /// Which kind the driver gave.
        used_hw_stats: Bitfield32 = USED_HW_STATS;
        /// How many devices have it in hardware.
        in_hw_count: u32 = IN_HW_COUNT;
    }
}

/// The fields that all actions' structs share (linux/pkt_cls.h, tc_gen).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Generic {
    /// Names an action that several filters share; 0 makes a new one.
    pub index: u32,
    /// Unused.
    pub capab: u32,
    /// What follows when it is done.
    pub control: Control,
    /// Who holds it.
    pub refs: i32,
    /// Filters that use it.
    pub binds: i32,
}

impl Generic {
    const SIZE: usize = 20;

    fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |i: usize| [bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]];
        Generic {
            index: u32::from_ne_bytes(word(0)),
            capab: u32::from_ne_bytes(word(4)),
            control: Control::from(i32::from_ne_bytes(word(8))),
            refs: i32::from_ne_bytes(word(12)),
            binds: i32::from_ne_bytes(word(16)),
        }
    }

    fn emit(&self, out: &mut Writer) {
        out.bytes(&self.index.to_ne_bytes());
        out.bytes(&self.capab.to_ne_bytes());
        out.bytes(&i32::from(self.control).to_ne_bytes());
        out.bytes(&self.refs.to_ne_bytes());
        out.bytes(&self.binds.to_ne_bytes());
    }
}

/// When an action was made and used, in jiffies' USER_HZ (linux/pkt_cls.h, struct tcf_t).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Times {
    /// Ago it was made.
    pub install: u64,
    /// Ago it was last used.
    pub last_use: u64,
    /// When it expires, 0 for never.
    pub expires: u64,
    /// Ago it was first used; 0 for never used.
    pub first_use: u64,
}

impl Value for Times {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let bytes: [u8; 32] = attr.exactly()?;
        let (words, _) = bytes.as_chunks();
        let word = |i: usize| u64::from_ne_bytes(words[i]);
        Ok(Times {
            install: word(0),
            last_use: word(1),
            expires: word(2),
            first_use: word(3),
        })
    }
    fn emit(&self, out: &mut Writer) {
        for word in [self.install, self.last_use, self.expires, self.first_use] {
            out.bytes(&word.to_ne_bytes());
        }
    }
    fn all_ones(&self) -> Self {
        Times {
            install: !0,
            last_use: !0,
            expires: !0,
            first_use: !0,
        }
    }
}

/// One action of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Action {
    /// What it does.
    pub kind: Kind,
    /// Its index, and what follows.
    pub generic: Generic,
    /// Its cookie and hardware state.
    pub common: Common,
    /// Its age, in listings.
    pub times: Option<Times>,
    /// Its counters, in listings.
    pub stats: Option<Stats>,
    /// Attributes of TCA_ACT_OPTIONS that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Action {
    /// An action of this kind, followed by `control`.
    pub fn new(kind: impl Into<Kind>, control: Control) -> Self {
        let generic = Generic {
            control,
            ..Generic::default()
        };
        Action {
            kind: kind.into(),
            generic,
            ..Self::default()
        }
    }

    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let table = attr.nest(&act::ALL)?;
        let name: String = table.need(act::KIND)?;
        let stats = table
            .attr(act::STATS)
            .map(|attr| Stats::parse(&attr))
            .transpose()?;
        let common = Common::read(&table)?;
        // An action that is only referred to, by its index, has no options.
        let options = table.attr(act::OPTIONS);
        let (mut generic, times, kind, unknown) = match options {
            Some(options) => Kind::parse(&name, &options)?,
            None => (Generic::default(), None, Kind::by_name(&name), Vec::new()),
        };
        if let Some(index) = table.get(act::INDEX)? {
            generic.index = index;
        }
        Ok(Action {
            kind,
            generic,
            common,
            times,
            stats,
            unknown,
        })
    }

    fn write(&self, out: &mut Writer) {
        out.put(act::KIND, &self.kind.name().to_owned());
        self.common.write(out);
        out.nest(act::OPTIONS, |out| {
            self.kind
                .write_options(&self.generic, self.times.as_ref(), out);
            out.put_raw(&self.unknown);
        });
        if let Some(stats) = &self.stats {
            out.nest(act::STATS, |out| stats.write(out));
        }
    }
}

/// The list of a filter's actions: a nest whose attributes are numbered from 1 in the order in
/// which they are carried out.
pub fn parse_list(attr: &Attr<'_>) -> Result<Vec<Action>> {
    static ORDER: crate::attr::AttrSet = crate::attr::AttrSet {
        prefix: "TCA_ACT_",
        names: &[],
    };
    let table: Table<'_> = attr.nest(&ORDER)?;
    let mut attrs: Vec<Attr<'_>> = table.iter().collect();
    if let Some(far) = attrs
        .iter()
        .find(|a| !(1..=MAX_ACTIONS).contains(&usize::from(a.kind)))
    {
        return Err(Error::Value {
            what: "an action's place in its list",
            got: far.kind.into(),
            allowed: "1 to 32",
        });
    }
    attrs.sort_by_key(|attr| attr.kind);
    attrs.iter().map(Action::parse).collect()
}

/// Appends the attributes of such a list.
pub fn write_list(actions: &[Action], out: &mut Writer) {
    for (place, action) in (1u16..).zip(actions) {
        out.attr(place, |out| action.write(out));
    }
}
