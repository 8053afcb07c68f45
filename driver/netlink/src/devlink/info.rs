//! What a device is, and its versions.

use super::devlink;
use crate::Result;
use crate::attr::{Table, Writer, record};

record! {
    /// The plain part of it.
    struct InfoPlain of devlink {
        /// The driver.
        driver: String = INFO_DRIVER_NAME;
        /// The device's serial number.
        serial_number: String = INFO_SERIAL_NUMBER;
        /// The board's serial number.
        board_serial_number: String = INFO_BOARD_SERIAL_NUMBER;
    }
}
record! {
    /// A version of something.
    pub struct Version of devlink {
        /// Of what.
        name: String = INFO_VERSION_NAME;
        /// Which.
        value: String = INFO_VERSION_VALUE;
    }
}

/// What a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct Info {
    /// The driver.
    pub driver: Option<String>,
    /// The device's serial number.
    pub serial_number: Option<String>,
    /// The board's serial number.
    pub board_serial_number: Option<String>,
    /// Versions that never change.
    pub fixed: Vec<Version>,
    /// Versions that run.
    pub running: Vec<Version>,
    /// Versions that run after the next reload.
    pub stored: Vec<Version>,
}

impl Info {
    pub(super) fn read(table: &Table<'_>) -> Result<Self> {
        let InfoPlain {
            driver,
            serial_number,
            board_serial_number,
        } = InfoPlain::read(table)?;
        Ok(Info {
            driver,
            serial_number,
            board_serial_number,
            fixed: versions(table, devlink::INFO_VERSION_FIXED)?,
            running: versions(table, devlink::INFO_VERSION_RUNNING)?,
            stored: versions(table, devlink::INFO_VERSION_STORED)?,
        })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        let plain = InfoPlain {
            driver: self.driver.clone(),
            serial_number: self.serial_number.clone(),
            board_serial_number: self.board_serial_number.clone(),
        };
        plain.write(out);
        for (kind, versions) in [
            (devlink::INFO_VERSION_FIXED, &self.fixed),
            (devlink::INFO_VERSION_RUNNING, &self.running),
            (devlink::INFO_VERSION_STORED, &self.stored),
        ] {
            for version in versions {
                out.nest(kind, |out| version.write(out));
            }
        }
    }
}

fn versions(table: &Table<'_>, kind: u16) -> Result<Vec<Version>> {
    table
        .all(kind)
        .map(|attr| Version::read(&attr.nest(&devlink::ALL)?))
        .collect()
}
