//! A device's settings.

use super::devlink;
use crate::Result;
use crate::attr::{Flag, Table, Writer, numbers, record};

numbers! {
    /// What a setting holds (netlink's NLA_* types, as devlink uses them).
    pub enum ParamType: u8 {
        /// One byte.
        U8 = 1,
        /// Two bytes.
        U16 = 2,
        /// Four bytes.
        U32 = 3,
        /// Eight bytes.
        U64 = 4,
        /// Text.
        String = 5,
        /// Yes or no, as a flag that is there or not.
        Flag = 6,
    }
}
numbers! {
    /// enum devlink_param_cmode: from when on a value counts.
    pub enum ParamMode: u8 {
        /// At once.
        Runtime = 0,
        /// From the next reload on.
        DriverInit = 1,
        /// From the next start on, and for good.
        Permanent = 2,
    }
}

record! {
    /// One value that a setting has.
    pub struct ParamValue of devlink {
        /// Its bytes; none for a flag that is off.
        data: Vec<u8> = PARAM_VALUE_DATA;
        /// From when on it counts.
        mode: ParamMode as u8 = PARAM_VALUE_CMODE;
    }
}

record! {
    /// A setting as it is asked for or changed.
    pub struct ParamSetting of devlink {
        /// Its name.
        name: String = PARAM_NAME;
        /// What it holds.
        kind: ParamType as u8 = PARAM_TYPE;
        /// Its new value.
        data: Vec<u8> = PARAM_VALUE_DATA;
        /// From when on it counts.
        mode: ParamMode as u8 = PARAM_VALUE_CMODE;
    }
}

record! {
    /// The plain part of a setting as it is told.
    struct ParamPlain of devlink {
        /// Its name.
        name: String = PARAM_NAME;
        /// Whether all drivers mean the same by it.
        generic: Flag = PARAM_GENERIC;
        /// What it holds.
        kind: ParamType as u8 = PARAM_TYPE;
    }
}

/// A setting as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Param {
    /// Its name.
    pub name: Option<String>,
    /// Whether all drivers mean the same by it.
    pub generic: Option<Flag>,
    /// What it holds.
    pub kind: Option<ParamType>,
    /// Its values.
    pub values: Vec<ParamValue>,
}

impl Param {
    pub(super) fn read(message: &Table<'_>) -> Result<Option<Self>> {
        let Some(attr) = message.attr(devlink::PARAM) else {
            return Ok(None);
        };
        let table = attr.nest(&devlink::ALL)?;
        let ParamPlain {
            name,
            generic,
            kind,
        } = ParamPlain::read(&table)?;
        let values = match table.attr(devlink::PARAM_VALUES_LIST) {
            Some(list) => values(&list.nest(&devlink::ALL)?)?,
            None => Vec::new(),
        };
        Ok(Some(Param {
            name,
            generic,
            kind,
            values,
        }))
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.nest(devlink::PARAM, |out| {
            let plain = ParamPlain {
                name: self.name.clone(),
                generic: self.generic,
                kind: self.kind,
            };
            plain.write(out);
            out.nest(devlink::PARAM_VALUES_LIST, |out| {
                for value in &self.values {
                    out.nest(devlink::PARAM_VALUE, |out| value.write(out));
                }
            });
        });
    }
}

fn values(list: &Table<'_>) -> Result<Vec<ParamValue>> {
    let values = list.all(devlink::PARAM_VALUE);
    values
        .map(|attr| ParamValue::read(&attr.nest(&devlink::ALL)?))
        .collect()
}
