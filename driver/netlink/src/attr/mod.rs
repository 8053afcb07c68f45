//! Netlink attributes (linux/netlink.h, struct nlattr): read into a table, written one after the
//! other.

mod numbers;
mod record;
mod set;
mod table;
mod value;
mod writer;

pub(crate) use numbers::numbers;
pub(crate) use record::record;
pub use set::AttrSet;
pub(crate) use set::attributes;
pub use table::{Attr, Raw, Table};
pub use value::{Be, Bitfield32, Flag, Masked, Value};
pub use writer::Writer;
