//! What a device has a limited number of, as a tree.

use super::devlink;
use crate::attr::{Table, Writer, record};
use crate::{Error, Result};

record! {
    /// A resource's own attributes.
    pub struct ResourcePlain of devlink {
        /// Its name.
        name: String = RESOURCE_NAME;
        /// Its number.
        id: u64 = RESOURCE_ID;
        /// How many there are.
        size: u64 = RESOURCE_SIZE;
        /// How many there are after a reload.
        size_new: u64 = RESOURCE_SIZE_NEW;
        /// 1: the children's sizes add up.
        size_valid: u8 = RESOURCE_SIZE_VALID;
        /// The least size.
        size_min: u64 = RESOURCE_SIZE_MIN;
        /// The greatest size.
        size_max: u64 = RESOURCE_SIZE_MAX;
        /// Sizes are multiples of it.
        size_granularity: u64 = RESOURCE_SIZE_GRAN;
        /// What is counted: 0 entries.
        unit: u8 = RESOURCE_UNIT;
        /// How many are in use.
        occupied: u64 = RESOURCE_OCC;
    }
}

/// A resource and those that it is divided into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Resource {
    /// Its own attributes.
    pub plain: ResourcePlain,
    /// Its parts.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(with = shallow))]
    pub parts: Vec<Resource>,
}

/// How deep the tree can be: the kernel's are two deep, and a reader must end.
const MAX_DEPTH: usize = 8;

pub(super) fn read_list(table: &Table<'_>) -> Result<Vec<Resource>> {
    read_at(table, 0)
}

fn read_at(table: &Table<'_>, depth: usize) -> Result<Vec<Resource>> {
    let Some(list) = table.attr(devlink::RESOURCE_LIST) else {
        return Ok(Vec::new());
    };
    if depth == MAX_DEPTH {
        return Err(Error::Value {
            what: "the depth of DEVLINK_ATTR_RESOURCE_LIST",
            got: depth as u64 + 1,
            allowed: "1 to 8",
        });
    }
    let list = list.nest(&devlink::ALL)?;
    let resources = list.all(devlink::RESOURCE).map(|attr| {
        let table = attr.nest(&devlink::ALL)?;
        Ok(Resource {
            plain: ResourcePlain::read(&table)?,
            parts: read_at(&table, depth + 1)?,
        })
    });
    resources.collect()
}

pub(super) fn write_list(resources: &[Resource], out: &mut Writer) {
    if resources.is_empty() {
        return;
    }
    out.nest(devlink::RESOURCE_LIST, |out| {
        for resource in resources {
            out.nest(devlink::RESOURCE, |out| {
                resource.plain.write(out);
                write_list(&resource.parts, out);
            });
        }
    });
}

/// Parts without parts.
#[cfg(any(test, feature = "arbitrary"))]
fn shallow(bytes: &mut arbitrary::Unstructured<'_>) -> arbitrary::Result<Vec<Resource>> {
    let count = bytes.int_in_range(0..=3)?;
    (0..count)
        .map(|_| {
            Ok(Resource {
                plain: bytes.arbitrary()?,
                parts: Vec::new(),
            })
        })
        .collect()
}
