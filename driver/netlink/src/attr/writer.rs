//! Attributes written one after the other.

use super::{Masked, Raw, Value};
use crate::{Error, Result};
use netlink_packet_core::{NLA_F_NESTED, NLA_HEADER_SIZE};

/// A message that grows at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    buffer: Vec<u8>,
    /// The size of the first attribute that was too long.
    overflow: Option<usize>,
}

impl Writer {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plain bytes: a fixed header, or a part of a value.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// An attribute with what `fill` writes in it.
    pub fn attr(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.bytes(&[0; NLA_HEADER_SIZE]);
        fill(self);
        let length = self.buffer.len() - start;
        // An attribute's length has 16 bits: finish() refuses the message where one does not fit.
        let length = u16::try_from(length).unwrap_or_else(|_| {
            self.overflow.get_or_insert(length);
            u16::MAX
        });
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.buffer[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        let end = self.buffer.len().next_multiple_of(NLA_HEADER_SIZE);
        self.buffer.resize(end, 0);
    }

    /// An attribute marked as holding others.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attr(kind | NLA_F_NESTED, fill);
    }

    /// An attribute with this value.
    pub fn put<T: Value>(&mut self, kind: u16, value: &T) {
        let flag = if value.is_nest() { NLA_F_NESTED } else { 0 };
        self.attr(kind | flag, |out| value.emit(out));
    }

    /// An attribute, if there is a value.
    pub fn put_some<T: Value>(&mut self, kind: u16, value: &Option<T>) {
        if let Some(value) = value {
            self.put(kind, value);
        }
    }

    /// A value and its mask, if there are.
    pub fn put_masked<T: Value>(&mut self, value: u16, mask: u16, masked: &Option<Masked<T>>) {
        if let Some(masked) = masked {
            self.put(value, &masked.value);
            self.put(mask, &masked.mask);
        }
    }

    /// A value and its mask, if there are, the mask only if not all of the value counts.
    pub fn put_partly_masked<T: Value + PartialEq>(
        &mut self,
        value: u16,
        mask: u16,
        masked: &Option<Masked<T>>,
    ) {
        match masked {
            Some(whole) if whole.mask == whole.value.all_ones() => self.put(value, &whole.value),
            partly => self.put_masked(value, mask, partly),
        }
    }

    /// Attributes as they once came.
    pub fn put_raw(&mut self, raw: &[Raw]) {
        for attr in raw {
            self.attr(attr.kind, |out| out.bytes(&attr.value));
        }
    }

    /// The bytes, if each attribute is at most 65535 bytes long.
    pub fn finish(self) -> Result<Vec<u8>> {
        match self.overflow {
            None => Ok(self.buffer),
            Some(got) => Err(Error::Length {
                what: "attribute",
                got,
                min: NLA_HEADER_SIZE,
                max: usize::from(u16::MAX),
            }),
        }
    }
}
