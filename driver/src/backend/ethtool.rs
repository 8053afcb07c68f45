//! ethtool's commands that have no netlink form, or not in every kernel (linux/ethtool.h).

use super::wanted::invalid;
use crate::DeviceError;
use crate::transport::{Transport, TransportError};

const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;

/// struct ethtool_channels: the command, then most rx, tx, other and combined, then those now.
const CHANNELS_WORDS: usize = 9;
const MAX_COMBINED: usize = 4;
const COMBINED: usize = 8;

fn words(command: u32, count: usize) -> Vec<u8> {
    let mut data = vec![0; 4 * count];
    data[..4].copy_from_slice(&command.to_ne_bytes());
    data
}

fn word(data: &[u8], at: usize) -> u32 {
    let bytes = data.get(4 * at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Gives a netdev so many queue pairs, `has` being what the kernel says it has. A driver that
/// cannot change them is fine as long as there are as many.
pub(super) fn set_queues(
    transport: &dyn Transport,
    netdev: &str,
    has: u32,
    queues: u16,
) -> Result<(), DeviceError> {
    let wanted = u32::from(queues);
    let mut data = words(GCHANNELS, CHANNELS_WORDS);
    match transport.ethtool(netdev, &mut data) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return match has == wanted {
                true => Ok(()),
                false => Err(invalid(
                    "queues",
                    queues,
                    format!("{has}, which the driver gives"),
                )),
            };
        }
        told => told.map_err(|e| TransportError::from(e).at("asking for queues"))?,
    }
    let most = word(&data, MAX_COMBINED);
    if word(&data, COMBINED) == wanted {
        return Ok(());
    }
    if wanted > most {
        return Err(invalid(
            "queues",
            queues,
            format!("1 to {most}, which the driver gives"),
        ));
    }
    data[..4].copy_from_slice(&SCHANNELS.to_ne_bytes());
    data[4 * COMBINED..4 * COMBINED + 4].copy_from_slice(&wanted.to_ne_bytes());
    let set = transport.ethtool(netdev, &mut data);
    set.map_err(|e| TransportError::from(e).at("setting the number of queues"))
}
