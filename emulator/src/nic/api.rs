//! The NIC's requests as a trait, so that the control API can be served for a stand-in in tests.

use super::{Nic, Refused, spec::*};
use crate::capture::{Capture, Filter};
use crate::datapath::Step;
use chanio_model::ct::CtEntry;
use chanio_model::flow::RuleSpec;
use chanio_model::rate::{RateChange, RateName, Rates};
use chanio_model::{ChannelName, Mac, RuleId, VportId};

macro_rules! nic_api {
    ($($(#[$doc:meta])* fn $name:ident(&self $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?;)*) => {
        /// What can be asked of a NIC. Every call may block, and does all it says or, on an error,
        /// nothing.
        pub trait NicApi: Send + Sync {
            $($(#[$doc])* fn $name(&self $(, $arg: $ty)*) $(-> $ret)?;)*
        }

        impl NicApi for Nic {
            $(fn $name(&self $(, $arg: $ty)*) $(-> $ret)? { Nic::$name(self $(, $arg)*) })*
        }
    };
}

nic_api! {
    /// The whole NIC.
    fn info(&self) -> NicInfo;
    /// The eswitch's settings.
    fn eswitch(&self) -> EswitchInfo;
    /// Change settings of the eswitch; another mode removes rules and learned addresses.
    fn set_eswitch(&self, change: EswitchChange) -> Result<EswitchInfo, Refused>;
    /// Make channels.
    fn add_channels(&self, specs: Vec<ChannelSpec>) -> Result<Vec<ChannelInfo>, Refused>;
    /// Remove channels, with the flow rules that name them.
    fn del_channels(&self, names: &[ChannelName]) -> Result<(), Refused>;
    /// Change a running channel.
    fn set_channel(
        &self,
        name: &ChannelName,
        change: ChannelChange
    ) -> Result<ChannelInfo, Refused>;
    /// All channels, by name.
    fn channels(&self) -> Vec<ChannelInfo>;
    /// One channel.
    fn channel(&self, name: &str) -> Result<ChannelInfo, Refused>;
    /// Representors, by vport.
    fn representors(&self) -> Vec<RepresentorInfo>;
    /// Add flow rules.
    fn add_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused>;
    /// Add flow rules, or replace those of the same chain and priority that match the same.
    fn replace_rules(&self, specs: Vec<RuleSpec>) -> Result<Vec<RuleId>, Refused>;
    /// Remove flow rules.
    fn del_rules(&self, ids: &[RuleId]) -> Result<(), Refused>;
    /// Remove all flow rules; how many.
    fn flush_rules(&self) -> usize;
    /// Flow rules, in the order they were added.
    fn rules(&self) -> Vec<RuleInfo>;
    /// What tc and bridges of the kernel have for representors, and whether it is in hardware.
    fn kernel_rules(&self) -> Result<Vec<KernelRule>, Refused>;
    /// The rules that are in hardware for the kernel, by id.
    fn offloaded_rules(&self) -> Vec<RuleInfo>;
    /// The address table, by VLAN and address.
    fn fdb(&self) -> Vec<FdbInfo>;
    /// Add a static address; VLAN 0 is untagged.
    fn add_fdb(&self, vid: u16, mac: Mac, vport: VportId) -> Result<(), Refused>;
    /// Remove an added static address.
    fn del_fdb(&self, vid: u16, mac: Mac) -> Result<(), Refused>;
    /// Forget learned addresses; how many.
    fn flush_fdb(&self) -> usize;
    /// Tracked connections of a zone, or of all.
    fn connections(&self, zone: Option<u16>) -> Vec<CtEntry>;
    /// Forget the connections of a zone, or all; how many.
    fn flush_connections(&self, zone: Option<u16>) -> u32;
    /// Rate nodes and the leaves of all channels, by name.
    fn rates(&self) -> Vec<RateInfo>;
    /// Make a rate node.
    fn add_rate(&self, name: &RateName, change: &RateChange) -> Result<RateInfo, Refused>;
    /// Change a rate node, or the leaf of a channel.
    fn set_rate(&self, name: &RateName, change: &RateChange) -> Result<RateInfo, Refused>;
    /// Remove a rate node that nothing is below.
    fn del_rate(&self, name: &RateName) -> Result<(), Refused>;
    /// Have these rates and no others; returns those of before.
    fn replace_rates(
        &self,
        rates: Vec<(RateName, Rates)>
    ) -> Result<Vec<(RateName, Rates)>, Refused>;
    /// Counters of every vport.
    fn stats(&self) -> Vec<VportStats>;
    /// Show frames from now on.
    fn capture(&self, filter: Filter) -> Capture;
    /// What would become of a finished frame that comes in at a vport, or that the host sends on
    /// its representor.
    fn trace(&self, vport: VportId, from_host: bool, frame: &[u8]) -> Vec<Step>;
    /// The vport of a channel's name, a representor's netdev, or `uplink`.
    fn vport_by_name(&self, name: &str) -> Option<VportId>;
}
