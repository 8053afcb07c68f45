//! Generic netlink (linux/genetlink.h): the header of its messages, and the controller that tells
//! a family's number by its name.

use crate::attr::{AttrSet, Raw, Table, Writer, attributes, record};
use crate::message::Message;
use crate::{Error, Result};

/// The controller's own number (GENL_ID_CTRL).
pub const CONTROLLER: u16 = 0x10;
/// CTRL_CMD_NEWFAMILY: tells of a family.
pub const NEW_FAMILY: u8 = 1;
/// CTRL_CMD_GETFAMILY: asks for one.
pub const GET_FAMILY: u8 = 3;

attributes! {
    /// CTRL_ATTR_*
    pub mod ctrl = "CTRL_ATTR_" {
        UNSPEC, FAMILY_ID, FAMILY_NAME, VERSION, HDRSIZE, MAXATTR, OPS, MCAST_GROUPS, POLICY,
        OP_POLICY, OP,
    }
}
attributes! {
    /// CTRL_ATTR_MCAST_GRP_*
    pub mod group = "CTRL_ATTR_MCAST_GRP_" { UNSPEC, NAME, ID }
}

/// struct genlmsghdr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Header {
    /// What is asked, by the family's own numbers.
    pub command: u8,
    /// Of the family.
    pub version: u8,
}

impl Header {
    /// Reads it and tells what is behind it.
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8])> {
        match payload {
            [command, version, _, _, rest @ ..] => Ok((
                Header {
                    command: *command,
                    version: *version,
                },
                rest,
            )),
            _ => Err(Error::Short {
                what: "genlmsghdr",
                got: payload.len(),
                want: 4,
            }),
        }
    }

    /// Appends it.
    pub fn emit(&self, out: &mut Writer) {
        out.bytes(&[self.command, self.version, 0, 0]);
    }
}

record! {
    /// What the controller says of a family.
    pub struct FamilyMore of ctrl {
        /// The type of its messages.
        id: u16 = FAMILY_ID;
        /// Its name.
        name: String = FAMILY_NAME;
        /// Its version.
        version: u32 = VERSION;
        /// Bytes of a header of its own.
        header_size: u32 = HDRSIZE;
        /// Its highest attribute.
        max_attr: u32 = MAXATTR;
    }
}
record! {
    /// A multicast group.
    pub struct Group of group {
        /// Its name in the family.
        name: String = NAME;
        /// What NETLINK_ADD_MEMBERSHIP takes.
        id: u32 = ID;
    }
}

/// A family, or a request for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Family {
    /// The controller's command.
    pub header: Header,
    /// Its numbers.
    pub more: FamilyMore,
    /// Whom it notifies.
    pub groups: Vec<Group>,
    /// Attributes that are not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Family {
    /// A request for the family of this name.
    pub fn named(name: &str) -> Self {
        let header = Header {
            command: GET_FAMILY,
            version: 1,
        };
        let more = FamilyMore {
            name: Some(name.to_owned()),
            ..FamilyMore::default()
        };
        Family {
            header,
            more,
            ..Self::default()
        }
    }

    /// Reads the payload of a message to or from the controller.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let (header, attributes) = Header::parse(payload)?;
        let table = Table::new(&ctrl::ALL, attributes)?;
        let groups = match table.attr(ctrl::MCAST_GROUPS) {
            Some(attr) => {
                // A nest whose attributes are numbered from 1.
                static ORDER: AttrSet = AttrSet {
                    prefix: "CTRL_ATTR_MCAST_GROUPS_",
                    names: &[],
                };
                let list = attr.nest(&ORDER)?;
                list.iter()
                    .map(|attr| Group::read(&attr.nest(&group::ALL)?))
                    .collect::<Result<_>>()
            }
            None => Ok(Vec::new()),
        };
        Ok(Family {
            header,
            more: FamilyMore::read(&table)?,
            groups: groups?,
            unknown: table.rest(),
        })
    }

    /// A message to or from the controller.
    pub fn message(&self, flags: u16) -> Result<Message> {
        Message::new(CONTROLLER, flags, |out| {
            self.header.emit(out);
            self.more.write(out);
            if !self.groups.is_empty() {
                out.nest(ctrl::MCAST_GROUPS, |out| {
                    for (place, group) in (1u16..).zip(&self.groups) {
                        out.nest(place, |out| group.write(out));
                    }
                });
            }
            out.put_raw(&self.unknown);
        })
    }

    /// The number of a multicast group.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups
            .iter()
            .find(|group| group.name.as_deref() == Some(name))?
            .id
    }
}
