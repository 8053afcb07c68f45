//! A virtual function's settings, which the physical one's netdev has (linux/if_link.h,
//! IFLA_VFINFO_LIST): told, and changed by `ip link set … vf N`.

use super::super::link::Link;
use chanio_model::Mac;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck,
    VfInfoTrust, VfInfoVlan, VfLinkState,
};

/// What the physical function's netdev says of a virtual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) mac: Mac,
    pub(super) vlan: Option<u32>,
    pub(super) spoofchk: bool,
    pub(super) trust: bool,
    pub(super) link_up: bool,
    /// Mbit/s; 0: nothing.
    pub(super) min_rate: u32,
    /// Mbit/s; 0: no ceiling.
    pub(super) max_rate: u32,
}

impl Settings {
    /// Of what has no such settings.
    pub(super) const NONE: Settings = Settings {
        mac: Mac([0; 6]),
        vlan: None,
        spoofchk: false,
        trust: true,
        link_up: true,
        min_rate: 0,
        max_rate: 0,
    };

    /// Of this function, from IFLA_VFINFO_LIST.
    pub(super) fn of(uplink: Option<&Link>, number: u32) -> Option<Self> {
        let attributes = uplink?.message.attributes.iter();
        let list = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::VfInfoList(list) => Some(list),
            _ => None,
        });
        let mut settings = Settings::NONE;
        let mut found = false;
        for info in list.flatten().flat_map(|LinkVfInfo(infos)| infos) {
            match info {
                VfInfo::Mac(told) if told.vf_id == number => {
                    found = true;
                    settings.mac = Mac(std::array::from_fn(|i| told.mac[i]));
                }
                VfInfo::Vlan(told) if told.vf_id == number => {
                    settings.vlan = Some(told.vlan_id).filter(|vlan| *vlan != 0);
                }
                VfInfo::SpoofCheck(told) if told.vf_id == number => {
                    settings.spoofchk = told.enabled;
                }
                VfInfo::Trust(told) if told.vf_id == number => settings.trust = told.enabled,
                VfInfo::LinkState(told) if told.vf_id == number => {
                    settings.link_up = told.state != VfLinkState::Disable;
                }
                VfInfo::Rate(told) if told.vf_id == number => {
                    (settings.min_rate, settings.max_rate) = (told.min_tx_rate, told.max_tx_rate);
                }
                _ => {}
            }
        }
        found.then_some(settings)
    }

    /// What makes these of those: one request each, as `ip link set` sends them.
    pub(super) fn requests(self, old: Settings, number: u32) -> Vec<(&'static str, VfInfo)> {
        let link = |up| match up {
            true => VfLinkState::Auto,
            false => VfLinkState::Disable,
        };
        let all = [
            (
                "mac",
                self.mac != old.mac,
                VfInfo::Mac(VfInfoMac::new(number, &self.mac.0)),
            ),
            (
                "vlan",
                self.vlan != old.vlan,
                VfInfo::Vlan(VfInfoVlan::new(number, self.vlan.unwrap_or(0), 0)),
            ),
            (
                "spoofchk",
                self.spoofchk != old.spoofchk,
                VfInfo::SpoofCheck(VfInfoSpoofCheck::new(number, self.spoofchk)),
            ),
            (
                "trust",
                self.trust != old.trust,
                VfInfo::Trust(VfInfoTrust::new(number, self.trust)),
            ),
            (
                "link state",
                self.link_up != old.link_up,
                VfInfo::LinkState(VfInfoLinkState::new(number, link(self.link_up))),
            ),
            (
                "rate",
                (self.min_rate, self.max_rate) != (old.min_rate, old.max_rate),
                VfInfo::Rate(VfInfoRate::new(number, self.min_rate, self.max_rate)),
            ),
        ];
        let wanted = all.into_iter().filter(|(_, changed, _)| *changed);
        wanted.map(|(what, _, info)| (what, info)).collect()
    }
}
