//! ethtool's commands that have no netlink form, or not in every kernel (linux/ethtool.h).

use super::container::Inside;
use super::wanted::invalid;
use crate::DeviceError;
use crate::transport::{Netns, Transport, TransportError};
use std::io;

const GDRVINFO: u32 = 0x03;
const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;

/// struct ethtool_channels: the command, then most rx, tx, other and combined, then those now.
const CHANNELS_WORDS: usize = 9;
const MAX_COMBINED: usize = 4;
const COMBINED: usize = 8;

/// struct ethtool_drvinfo, and the driver's name there.
const DRVINFO_SIZE: usize = 196;
const DRIVER: std::ops::Range<usize> = 4..36;

/// The struct of a command, as long as it says, all zero behind its number.
pub(super) fn blank(command: u32, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    data[..4].copy_from_slice(&command.to_ne_bytes());
    data
}

pub(super) fn word(data: &[u8], at: usize) -> u32 {
    let bytes = data.get(4 * at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn put_word(data: &mut [u8], at: usize, word: u32) {
    data[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
}

/// Where a netdev is that a command is for.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    /// In the namespace of the devices, by this name.
    Here(&'a str),
    /// In a container.
    Inside(&'a Inside),
}

impl On<'_> {
    /// Carries out a command.
    pub(super) fn carry_out(self, transport: &dyn Transport, data: &mut Vec<u8>) -> io::Result<()> {
        match self {
            On::Here(name) => transport.ethtool(name, data),
            On::Inside(at) => {
                let netns = Netns::open(&at.netns).map_err(io::Error::other)?;
                transport.ethtool_in(&netns, &at.link.name, data)
            }
        }
    }

    /// The same of a question that not every driver has an answer to; whether this one has.
    pub(super) fn ask(
        self,
        transport: &dyn Transport,
        data: &mut Vec<u8>,
        what: &str,
    ) -> Result<bool, DeviceError> {
        match self.carry_out(transport, data) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            told => told
                .map(|()| true)
                .map_err(|e| TransportError::from(e).at(what)),
        }
    }
}

/// Queue pairs of a netdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) most: u32,
    pub(super) used: u32,
}

/// How many queue pairs a netdev has; none of a driver that does not tell.
pub(super) fn queues(transport: &dyn Transport, on: On<'_>) -> Result<Option<Queues>, DeviceError> {
    let mut data = blank(GCHANNELS, 4 * CHANNELS_WORDS);
    let told = on.ask(transport, &mut data, "asking for queues")?;
    Ok(told.then(|| Queues {
        most: word(&data, MAX_COMBINED),
        used: word(&data, COMBINED),
    }))
}

/// Gives a netdev so many queue pairs, `has` being what the kernel says it has. A driver that
/// cannot change them is fine as long as there are as many. What there were before is returned, if
/// it was changed.
pub(super) fn set_queues(
    transport: &dyn Transport,
    on: On<'_>,
    has: u32,
    queues: u16,
) -> Result<Option<u16>, DeviceError> {
    let wanted = u32::from(queues);
    let mut data = blank(GCHANNELS, 4 * CHANNELS_WORDS);
    if !on.ask(transport, &mut data, "asking for queues")? {
        return match has == wanted {
            true => Ok(None),
            false => Err(invalid(
                "queues",
                queues,
                format!("{has}, which the driver gives"),
            )),
        };
    }
    let (most, used) = (word(&data, MAX_COMBINED), word(&data, COMBINED));
    if used == wanted {
        return Ok(None);
    }
    if wanted == 0 || wanted > most {
        return Err(invalid(
            "queues",
            queues,
            format!("1 to {most}, which the driver gives"),
        ));
    }
    put_word(&mut data, 0, SCHANNELS);
    put_word(&mut data, COMBINED, wanted);
    let set = on.carry_out(transport, &mut data);
    set.map_err(|e| TransportError::from(e).at("setting the number of queues"))?;
    Ok(u16::try_from(used).ok())
}

/// The driver of a netdev in a container; none of one that does not tell.
pub(super) fn driver_in(
    transport: &dyn Transport,
    inside: &Inside,
) -> Result<Option<String>, DeviceError> {
    let mut data = blank(GDRVINFO, DRVINFO_SIZE);
    let told = On::Inside(inside).ask(transport, &mut data, "asking for a netdev's driver")?;
    let name = data[DRIVER].split(|byte| *byte == 0).next();
    let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
    Ok(name.filter(|_| told))
}
