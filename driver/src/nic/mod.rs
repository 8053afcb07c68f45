//! What can be asked of a device, whatever it is; and the plain data it answers with, which is
//! also what `--json` prints (docs/json.md).
//!
//! | file | what lives there |
//! |---|---|
//! | `device` | the device, what it can do, its eswitch |
//! | `channel` | channels and their rates |
//! | `flow` | flow rules, the kernel's, and tracked connections |
//! | `port` | representors, addresses, counters |
//! | `seen` | traces and captures |

mod channel;
mod device;
mod flow;
mod port;
mod seen;

pub use channel::{Channel, ChannelChange, ChannelSpec, FunctionKind, Rate, Rss};
pub use device::{Capabilities, Eswitch, EswitchChange, NicInfo};
pub use flow::{Connection, ConnectionSide, Flow, FlowAction, KernelRule};
pub use port::{FdbEntry, Representor, RepresentorStats, VportStats};
pub use seen::{CaptureFilter, CapturedFrame, TraceStep};

use crate::DeviceError;
use crate::feature::{Feature, refuse};
use chanio_model::rate::RateChange;

/// A NIC. Calls may block; each does all it says or, on an error, nothing. What a backend leaves
/// out is refused with [`Nic::why_not`]'s reason.
pub trait Nic {
    /// Why the device cannot do this; `None`: it can.
    fn why_not(&self, feature: Feature) -> Option<String> {
        let _ = feature;
        None
    }
    /// The device and what it can do.
    fn info(&mut self) -> Result<NicInfo, DeviceError>;
    /// The eswitch's settings.
    fn eswitch(&mut self) -> Result<Eswitch, DeviceError>;
    /// Change settings of the eswitch. Another mode removes rules and learned addresses.
    fn set_eswitch(&mut self, change: EswitchChange) -> Result<Eswitch, DeviceError>;
    /// Make channels, all or none.
    fn add_channels(&mut self, specs: Vec<ChannelSpec>) -> Result<Vec<Channel>, DeviceError>;
    /// Remove channels, all or none, with the rules that name them.
    fn del_channels(&mut self, names: &[String]) -> Result<(), DeviceError>;
    /// Change a running channel.
    fn set_channel(&mut self, name: &str, change: ChannelChange) -> Result<Channel, DeviceError>;
    /// These channels, or all if `names` is empty.
    fn channels(&mut self, names: &[String]) -> Result<Vec<Channel>, DeviceError>;
    /// Representors that exist.
    fn representors(&mut self) -> Result<Vec<Representor>, DeviceError> {
        Err(refuse(self, Feature::Representors))
    }
    /// Add flow rules in their text form, all or none; with `replace`, each in the place of the
    /// one of its chain and priority that matches the same.
    fn add_flows(&mut self, rules: Vec<String>, replace: bool) -> Result<Vec<u64>, DeviceError> {
        let _ = (rules, replace);
        Err(refuse(self, Feature::Flows))
    }
    /// Remove flow rules, all or none.
    fn del_flows(&mut self, ids: &[u64]) -> Result<(), DeviceError> {
        let _ = ids;
        Err(refuse(self, Feature::Flows))
    }
    /// Remove every flow rule; how many.
    fn flush_flows(&mut self) -> Result<u64, DeviceError> {
        Err(refuse(self, Feature::Flows))
    }
    /// Flow rules, in the order they were added.
    fn flows(&mut self) -> Result<Vec<Flow>, DeviceError> {
        Err(refuse(self, Feature::Flows))
    }
    /// What tc and bridges of the kernel have for representors, and whether it is in hardware.
    fn kernel_rules(&mut self) -> Result<Vec<KernelRule>, DeviceError> {
        Err(DeviceError::Unsupported {
            what: "flow show --kernel".into(),
            why: "only an emulator that runs with --offload has it; ask tc -s filter show".into(),
        })
    }
    /// The address table.
    fn fdb(&mut self) -> Result<Vec<FdbEntry>, DeviceError> {
        Err(refuse(self, Feature::Fdb))
    }
    /// Add a static address; VLAN 0 is untagged.
    fn add_fdb(&mut self, vlan: u16, mac: &str, port: &str) -> Result<(), DeviceError> {
        let _ = (vlan, mac, port);
        Err(refuse(self, Feature::Fdb))
    }
    /// Remove an added static address.
    fn del_fdb(&mut self, vlan: u16, mac: &str) -> Result<(), DeviceError> {
        let _ = (vlan, mac);
        Err(refuse(self, Feature::Fdb))
    }
    /// Forget learned addresses; how many.
    fn flush_fdb(&mut self) -> Result<u64, DeviceError> {
        Err(refuse(self, Feature::Fdb))
    }
    /// Tracked connections of a zone, or of all.
    fn connections(&mut self, zone: Option<u16>) -> Result<Vec<Connection>, DeviceError> {
        let _ = zone;
        Err(refuse(self, Feature::Connections))
    }
    /// Forget the connections of a zone, or all; how many.
    fn flush_connections(&mut self, zone: Option<u16>) -> Result<u64, DeviceError> {
        let _ = zone;
        Err(refuse(self, Feature::Connections))
    }
    /// Rate nodes and channels' leaves: these, or all if `names` is empty.
    fn rates(&mut self, names: &[String]) -> Result<Vec<Rate>, DeviceError> {
        let _ = names;
        Err(refuse(self, Feature::TxMax))
    }
    /// Make a rate node.
    fn add_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let _ = (name, change);
        Err(refuse(self, Feature::RateNodes))
    }
    /// Change a rate node, or the leaf of a channel.
    fn set_rate(&mut self, name: &str, change: RateChange) -> Result<Rate, DeviceError> {
        let _ = (name, change);
        Err(refuse(self, Feature::TxMax))
    }
    /// Remove a rate node that nothing is below.
    fn del_rate(&mut self, name: &str) -> Result<(), DeviceError> {
        let _ = name;
        Err(refuse(self, Feature::RateNodes))
    }
    /// Counters of these vports, or of all if `names` is empty.
    /// With `queues`, of each queue pair as well.
    fn stats(&mut self, names: &[String], queues: bool) -> Result<Vec<VportStats>, DeviceError>;
    /// What would become of a finished frame that comes in at a port, or that the host sends on
    /// its representor. Nothing comes of it.
    fn trace(
        &mut self,
        port: &str,
        from_host: bool,
        frame: Vec<u8>,
    ) -> Result<Vec<TraceStep>, DeviceError> {
        let _ = (port, from_host, frame);
        Err(refuse(self, Feature::Trace))
    }
    /// Show frames to `each` as they pass or are lost, until it has seen enough (`false`), the
    /// time given is over, or the process is interrupted.
    fn capture(
        &mut self,
        what: CaptureFilter,
        each: &mut dyn FnMut(CapturedFrame) -> bool,
    ) -> Result<(), DeviceError> {
        let _ = (what, each);
        Err(refuse(self, Feature::Capture))
    }
}

/// Bytes as `--json` has them.
fn hex<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    to.serialize_str(&digits)
}
