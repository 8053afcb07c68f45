//! Receive-side scaling of a netdev in a container: indirection table, key, and what is hashed
//! (linux/ethtool.h: struct ethtool_rxfh, struct ethtool_rxnfc). Kernels before 6.16 have no
//! netlink request that sets it.

use super::container::Inside;
use super::ethtool::{On, blank, put_word, word};
use super::undo::Undo;
use super::wanted::invalid;
use crate::nic::Rss;
use crate::transport::{Transport, TransportError};
use crate::{DeviceError, Feature};
use chanio_model::rss::{HashTypes, KEY_LEN, RssChange};
use std::fmt::Write as _;
use std::sync::Arc;

const GRXFH: u32 = 0x29;
const SRXFH: u32 = 0x2a;
const GRSSH: u32 = 0x46;
const SRSSH: u32 = 0x47;

// struct ethtool_rxfh: the command, the context, sizes of table and key, the function and reserved
// bytes; then the table, in words, and the key, in bytes.
const TABLE_SIZE: usize = 2;
const KEY_SIZE: usize = 3;
const RXFH_SIZE: usize = 24;
/// ETH_RXFH_INDIR_NO_CHANGE.
const NO_CHANGE: u32 = u32::MAX;

// struct ethtool_rxnfc: the command, the flow type, what is hashed in 64 bits.
const RXNFC_SIZE: usize = 192;
const FLOW_TYPE: usize = 1;
const DATA: std::ops::Range<usize> = 8..16;
/// RXH_IP_SRC and RXH_IP_DST; with RXH_L4_B_0_1 and RXH_L4_B_2_3.
const ADDRESSES: u64 = 1 << 4 | 1 << 5;
const PORTS: u64 = ADDRESSES | 1 << 6 | 1 << 7;

/// Flow types whose ports can be hashed (TCP_V4_FLOW and so on).
const FLOWS: [(u32, HashTypes); 4] = [
    (1, HashTypes::TCP_V4),
    (2, HashTypes::UDP_V4),
    (5, HashTypes::TCP_V6),
    (6, HashTypes::UDP_V6),
];

/// What a driver has by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    table: Vec<u32>,
    key: Vec<u8>,
}

impl Spread {
    /// The settings of a netdev; none where its driver has none.
    pub(super) fn read(transport: &dyn Transport, on: On<'_>) -> Result<Option<Self>, DeviceError> {
        let step = "asking how packets are spread over queues";
        let mut sizes = blank(GRSSH, RXFH_SIZE);
        if !on.ask(transport, &mut sizes, step)? {
            return Ok(None);
        }
        let (entries, key) = (word(&sizes, TABLE_SIZE), word(&sizes, KEY_SIZE));
        let (entries, key) = (entries as usize, key as usize);
        let mut data = blank(GRSSH, RXFH_SIZE + 4 * entries + key);
        put_word(&mut data, TABLE_SIZE, entries as u32);
        put_word(&mut data, KEY_SIZE, key as u32);
        on.ask(transport, &mut data, step)?;
        let (table, key) = data[RXFH_SIZE..].split_at(4 * entries);
        Ok(Some(Spread {
            table: (0..entries).map(|at| word(table, at)).collect(),
            key: key.to_vec(),
        }))
    }

    /// Has the driver take this table again, which it loses with another number of queues.
    pub(super) fn put_back(
        &self,
        transport: &dyn Transport,
        on: On<'_>,
    ) -> Result<(), DeviceError> {
        Self::write(transport, on, Some(&self.table), None)
    }

    /// Has the driver take these; what is none stays.
    fn write(
        transport: &dyn Transport,
        on: On<'_>,
        table: Option<&[u32]>,
        key: Option<&[u8]>,
    ) -> Result<(), DeviceError> {
        let mut data = blank(SRSSH, RXFH_SIZE);
        let entries = table.map_or(NO_CHANGE, |table| table.len() as u32);
        put_word(&mut data, TABLE_SIZE, entries);
        put_word(&mut data, KEY_SIZE, key.map_or(0, <[u8]>::len) as u32);
        for queue in table.unwrap_or_default() {
            data.extend(queue.to_ne_bytes());
        }
        data.extend(key.unwrap_or_default());
        let done = on.carry_out(transport, &mut data);
        done.map_err(|e| TransportError::from(e).at("setting how packets are spread over queues"))
    }
}

/// What is hashed of packets of a flow type; none where the driver does not tell.
fn hashed(
    transport: &dyn Transport,
    on: On<'_>,
    flow_type: u32,
) -> Result<Option<u64>, DeviceError> {
    let mut data = blank(GRXFH, RXNFC_SIZE);
    put_word(&mut data, FLOW_TYPE, flow_type);
    let told = on.ask(transport, &mut data, "asking what is hashed")?;
    let fields = data[DATA].first_chunk().map(|c| u64::from_ne_bytes(*c));
    Ok(fields.filter(|_| told))
}

fn set_hashed(
    transport: &dyn Transport,
    on: On<'_>,
    flow_type: u32,
    fields: u64,
) -> Result<(), DeviceError> {
    let mut data = blank(SRXFH, RXNFC_SIZE);
    put_word(&mut data, FLOW_TYPE, flow_type);
    data[DATA].copy_from_slice(&fields.to_ne_bytes());
    let done = on.carry_out(transport, &mut data);
    done.map_err(|e| TransportError::from(e).at("setting what is hashed"))
}

/// As `channel show` tells it; none where the driver has no such settings.
pub(super) fn tell(transport: &dyn Transport, inside: &Inside) -> Result<Option<Rss>, DeviceError> {
    let on = On::Inside(inside);
    let Some(spread) = Spread::read(transport, on)? else {
        return Ok(None);
    };
    let mut types = HashTypes::IP_V4.bits() | HashTypes::IP_V6.bits();
    for (flow_type, kind) in FLOWS {
        if hashed(transport, on, flow_type)? == Some(PORTS) {
            types |= kind.bits();
        }
    }
    let types = HashTypes::from_bits(types).unwrap_or(HashTypes::NONE);
    let mut key = String::new();
    for byte in &spread.key {
        let colon = if key.is_empty() { "" } else { ":" };
        // A String takes all.
        let _ = write!(key, "{colon}{byte:02x}");
    }
    Ok(Some(Rss {
        hash_types: types.to_string().split(',').map(str::to_owned).collect(),
        key,
        unclassified: spread.table.first().copied().unwrap_or(0),
        table: spread.table,
    }))
}

/// A table of the driver's size that spreads packets as this one does.
fn stretched(table: &[u16], entries: usize, queues: u32) -> Result<Vec<u32>, DeviceError> {
    if table.is_empty() || !entries.is_multiple_of(table.len()) {
        return Err(invalid(
            "rss-table",
            format!("a table of {}", table.len()),
            format!("one whose length divides {entries}, as long as the driver's is"),
        ));
    }
    if let Some(queue) = table.iter().find(|queue| u32::from(**queue) >= queues) {
        let most = queues.saturating_sub(1);
        return Err(invalid(
            "rss-table",
            format!("queue {queue}"),
            format!("0 to {most}"),
        ));
    }
    Ok(table
        .iter()
        .cycle()
        .take(entries)
        .map(|q| u32::from(*q))
        .collect())
}

/// The key in the driver's size. What is behind the key's end decides nothing: it takes part only
/// in the hash of more than IPv6 addresses and ports, of which there are no packets.
fn fitting(key: &[u8; KEY_LEN], size: usize) -> Result<Vec<u8>, DeviceError> {
    let used = KEY_LEN - key.iter().rev().take_while(|byte| **byte == 0).count();
    if used > size {
        let allowed = format!("at most {size}, as long as the driver's is");
        return Err(invalid("rss-key", format!("{used} bytes"), allowed));
    }
    let mut fitting = key.to_vec();
    fitting.resize(size, 0);
    Ok(fitting)
}

fn unsupported(what: &str, why: &str) -> DeviceError {
    DeviceError::Unsupported {
        what: what.into(),
        why: why.into(),
    }
}

/// Changes the settings of a netdev with so many queues.
pub(super) fn change<C>(
    transport: &Arc<dyn Transport>,
    inside: &Arc<Inside>,
    change: &RssChange,
    queues: u32,
    undo: &mut Undo<C>,
) -> Result<(), DeviceError> {
    if change.off {
        let why = "a driver always spreads packets; to have all in one queue: --rss-table 0";
        return Err(unsupported("rss off", why));
    }
    if change.unclassified.is_some() {
        let why = "a driver has no setting for packets of which nothing is hashed";
        return Err(unsupported("rss-unclassified", why));
    }
    let on = On::Inside(inside);
    let Some(old) = Spread::read(&**transport, on)? else {
        return Err(unsupported(
            Feature::Rss.name(),
            "the driver of the channel's netdev has no such setting (ethtool -x)",
        ));
    };
    let table = change.table.as_deref();
    let table = table
        .map(|table| stretched(table, old.table.len(), queues))
        .transpose()?;
    let key = change.key.as_ref();
    let key = key
        .map(|key| fitting(key.bytes(), old.key.len()))
        .transpose()?;
    let types = change.types.map(ports_hashed).transpose()?;
    if table.is_some() || key.is_some() {
        Spread::write(&**transport, on, table.as_deref(), key.as_deref())?;
        let (transport, inside) = (transport.clone(), inside.clone());
        undo.push("spreading packets as before", move |_| {
            let (table, key) = (
                table.is_some().then_some(&*old.table),
                key.is_some().then_some(&*old.key),
            );
            Spread::write(&*transport, On::Inside(&inside), table, key)
        });
    }
    for (flow_type, fields) in types.into_iter().flatten() {
        let Some(old) = hashed(&**transport, on, flow_type)? else {
            let why = "the driver of the channel's netdev has no such setting (ethtool -n)";
            return Err(unsupported("rss-hash", why));
        };
        if old != fields {
            set_hashed(&**transport, on, flow_type, fields)?;
            let (transport, inside) = (transport.clone(), inside.clone());
            undo.push("hashing what was hashed before", move |_| {
                set_hashed(&*transport, On::Inside(&inside), flow_type, old)
            });
        }
    }
    Ok(())
}

/// What is to be hashed of each flow type.
fn ports_hashed(types: HashTypes) -> Result<[(u32, u64); 4], DeviceError> {
    let has = |kind: HashTypes| types.bits() & kind.bits() == kind.bits();
    if !has(HashTypes::IP_V4) || !has(HashTypes::IP_V6) || types.bits() > HashTypes::USUAL.bits() {
        return Err(invalid(
            "rss-hash",
            types,
            "ip4 and ip6, which drivers always hash, with any of tcp4, udp4, tcp6, udp6",
        ));
    }
    Ok(FLOWS.map(|(flow_type, kind)| (flow_type, if has(kind) { PORTS } else { ADDRESSES })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_repeated_until_it_is_as_long_as_the_drivers() {
        assert_eq!(stretched(&[0, 1], 4, 2).unwrap(), [0, 1, 0, 1]);
        let refused = stretched(&[0, 1, 1, 0], 2, 2).unwrap_err().to_string();
        assert!(refused.contains("length divides 2"), "{refused}");
        let refused = stretched(&[0, 2], 4, 2).unwrap_err().to_string();
        assert!(
            refused.contains("rss-table: queue 2") && refused.contains("0 to 1"),
            "{refused}"
        );
    }

    #[test]
    fn a_key_fits_if_what_it_has_beyond_is_zero() {
        let mut key = [0; KEY_LEN];
        key[..10].fill(7);
        assert_eq!(fitting(&key, 52).unwrap().len(), 52);
        assert_eq!(fitting(&key, 10).unwrap(), [7; 10]);
        let refused = fitting(&key, 9).unwrap_err().to_string();
        assert!(
            refused.contains("10 bytes") && refused.contains("at most 9"),
            "{refused}"
        );
    }

    #[test]
    fn what_drivers_cannot_hash_is_refused() {
        let types = |text: &str| ports_hashed(text.parse().unwrap());
        let fields = types("ip4,ip6,tcp4").unwrap();
        assert_eq!(
            fields,
            [(1, PORTS), (2, ADDRESSES), (5, ADDRESSES), (6, ADDRESSES)]
        );
        for bad in ["ip4,tcp4", "ip4,ip6,ip6-ex", "none"] {
            assert!(types(bad).is_err(), "{bad}");
        }
    }
}
