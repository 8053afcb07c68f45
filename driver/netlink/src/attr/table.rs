//! The attributes of one nest, by number, in whatever order they came.

use super::{AttrSet, Masked, Value};
use crate::{Error, Result};
use netlink_packet_core::{NLA_HEADER_SIZE, NlaBuffer};
use std::cell::Cell;

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// Whose attribute.
    pub set: &'static AttrSet,
    /// Its number.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The value, if it has this size.
    pub fn exactly<const N: usize>(&self) -> Result<[u8; N]> {
        self.value.try_into().map_err(|_| self.size(N))
    }

    /// The value's first bytes, if it has that many. The kernel lets structs grow at their end.
    pub fn at_least<const N: usize>(&self) -> Result<&'a [u8; N]> {
        self.value.first_chunk().ok_or_else(|| self.size(N))
    }

    /// The error that says which size the value must have.
    pub fn size(&self, want: usize) -> Error {
        Error::Size {
            family: self.set.prefix,
            attr: self.set.name(self.kind),
            got: self.value.len(),
            want,
        }
    }

    /// The attributes in the value.
    pub fn nest(&self, set: &'static AttrSet) -> Result<Table<'a>> {
        Table::new(set, self.value)
    }
}

/// An attribute that is carried along as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Raw {
    /// Its number.
    pub kind: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// The attributes of one nest. Where one is given twice the last counts, as in the kernel.
#[derive(Debug)]
pub struct Table<'a> {
    set: &'static AttrSet,
    attrs: Vec<(Attr<'a>, Cell<bool>)>,
}

impl<'a> Table<'a> {
    /// Reads attributes until the bytes end.
    pub fn new(set: &'static AttrSet, bytes: &'a [u8]) -> Result<Self> {
        let mut attrs = Vec::new();
        let mut offset = 0;
        while offset < bytes.len() {
            let malformed = |_| Error::Attributes {
                family: set.prefix,
                offset,
            };
            let attr = NlaBuffer::new_checked(&bytes[offset..]).map_err(malformed)?;
            let length = usize::from(attr.length());
            let value = &bytes[offset + NLA_HEADER_SIZE..offset + length];
            attrs.push((
                Attr {
                    set,
                    kind: attr.kind(),
                    value,
                },
                Cell::new(false),
            ));
            offset += length.next_multiple_of(NLA_HEADER_SIZE);
        }
        Ok(Table { set, attrs })
    }

    /// Whose attributes they are.
    pub fn set(&self) -> &'static AttrSet {
        self.set
    }

    /// All attributes in the order they came; each counts as read.
    pub fn iter(&self) -> impl Iterator<Item = Attr<'a>> {
        self.attrs.iter().map(|(attr, read)| {
            read.set(true);
            *attr
        })
    }

    /// All attributes of this number.
    pub fn all(&self, kind: u16) -> impl Iterator<Item = Attr<'a>> {
        let of_kind = self.attrs.iter().filter(move |(attr, _)| attr.kind == kind);
        of_kind.map(|(attr, read)| {
            read.set(true);
            *attr
        })
    }

    /// The attribute of this number.
    pub fn attr(&self, kind: u16) -> Option<Attr<'a>> {
        self.all(kind).last()
    }

    /// Its value.
    pub fn get<T: Value>(&self, kind: u16) -> Result<Option<T>> {
        self.attr(kind).map(|attr| T::parse(&attr)).transpose()
    }

    /// Its value, which must be there.
    pub fn need<T: Value>(&self, kind: u16) -> Result<T> {
        self.get(kind)?.ok_or(Error::Missing {
            family: self.set.prefix,
            attr: self
                .set
                .names
                .get(usize::from(kind))
                .copied()
                .unwrap_or("?"),
        })
    }

    /// A value and its mask; a missing mask is all ones, as in cls_flower.c.
    pub fn masked<T: Value>(&self, value: u16, mask: u16) -> Result<Option<Masked<T>>> {
        let (Some(value), mask) = (self.get(value)?, self.get(mask)?) else {
            return Ok(None);
        };
        Ok(Some(match mask {
            Some(mask) => Masked { value, mask },
            None => Masked {
                mask: value.all_ones(),
                value,
            },
        }))
    }

    /// What nobody has read yet, padding aside: attributes that this program does not know.
    pub fn rest(&self) -> Vec<Raw> {
        let rest = self
            .attrs
            .iter()
            .filter(|(attr, read)| !read.get() && !self.set.is_padding(attr.kind));
        rest.map(|(attr, _)| Raw {
            kind: attr.kind,
            value: attr.value.to_vec(),
        })
        .collect()
    }
}
