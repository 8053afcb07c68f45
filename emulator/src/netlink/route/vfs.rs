//! Virtual functions as their physical function's netdev has them: `ip link set … vf N`
//! (net/core/rtnetlink.c: rtnl_fill_vfinfo, do_setvfinfo).

use crate::netlink::played::Played;
use crate::netlink::refuse;
use crate::netlink::table::Function;
use crate::nic::spec::{ChannelChange, ChannelInfo};
use chanio_model::rate::RateChange;
use chanio_model::{Mac, Vlan};
use chanio_netlink::attr::{Attr, AttrSet, Writer};
use chanio_netlink::kernel::Refusal;
use rtnetlink::packet_core::{Emitable, NlaBuffer, Parseable};
use rtnetlink::packet_route::link::{
    LinkVfInfo, VfInfo, VfInfoBroadcast, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoRssQueryEn,
    VfInfoSpoofCheck, VfInfoTrust, VfInfoTxRate, VfInfoVlan, VfLinkState, VfStats, VfVlan,
    VfVlanInfo, VlanProtocol,
};

/// IFLA_VF_INFO.
const VF_INFO: u16 = 1;
static VF_LIST: AttrSet = AttrSet {
    prefix: "IFLA_VF_",
    names: &["INFO_UNSPEC", "INFO"],
};

/// Bytes per second of one Mbit/s, in which rates of virtual functions are told.
const MBIT: u64 = 125_000;

/// A change of a virtual function.
#[derive(Default)]
struct Change {
    channel: ChannelChange,
    rate: RateChange,
    mac: Option<Mac>,
}

impl Played {
    /// IFLA_VFINFO_LIST's content.
    pub(super) fn vf_list(&self) -> Result<Vec<u8>, Refusal> {
        let rates = self.nic.rates();
        let mut out = Writer::new();
        for (number, (_, function)) in (0u32..).zip(self.vfs()) {
            let Ok(channel) = self.nic.channel(function.channel.as_str()) else {
                continue;
            };
            let rate = rates.iter().find(|rate| rate.name == function.channel);
            let rate = rate.map(|rate| &rate.rates);
            let in_mbit = |bytes: u64| u32::try_from(bytes / MBIT).unwrap_or(u32::MAX);
            let (min, max) = rate.map_or((0, 0), |r| (in_mbit(r.tx_share), in_mbit(r.tx_max)));
            let counted = self.nic.stats_of(function.vport);
            let mut list = told(number, function, &channel, min, max);
            if let Some(s) = counted {
                let lost = s.drops.iter().map(|(_, count)| count).sum();
                list.push(VfInfo::Stats(vec![
                    // As the function sees it.
                    VfStats::RxPackets(s.rx.packets),
                    VfStats::TxPackets(s.tx.packets),
                    VfStats::RxBytes(s.rx.bytes),
                    VfStats::TxBytes(s.tx.bytes),
                    VfStats::TxDropped(lost),
                ]));
            }
            let mut value = vec![0; list.as_slice().buffer_len()];
            list.as_slice().emit(&mut value);
            // Without the mark of a nest, which ip(8) would not know it with.
            out.attr(VF_INFO, |out| out.bytes(&value));
        }
        Ok(out.finish()?)
    }

    /// Carries out what IFLA_VFINFO_LIST asks for, one function after the other, as the kernel.
    pub(super) fn set_vfs_of(&mut self, list: &Attr<'_>) -> Result<(), Refusal> {
        for info in list.nest(&VF_LIST)?.iter() {
            let malformed = |error| refuse::text(libc::EINVAL, &format!("IFLA_VF_INFO: {error}"));
            // A header that LinkVfInfo wants to see, as it stands before the value.
            let buffer = NlaBuffer::new_checked(info.value).map_err(malformed)?;
            let LinkVfInfo(asked) = LinkVfInfo::parse(&buffer).map_err(malformed)?;
            for one in asked {
                self.set_vf(&one)?;
            }
        }
        Ok(())
    }

    fn set_vf(&mut self, asked: &VfInfo) -> Result<(), Refusal> {
        let mut change = Change::default();
        let legacy = !self.switchdev();
        let only_legacy = || match legacy {
            true => Ok(()),
            false => Err(refuse::unsupported()),
        };
        let number = match asked {
            VfInfo::Mac(info) => {
                let mac = Mac([0, 1, 2, 3, 4, 5].map(|i: usize| info.mac[i]));
                if mac.is_multicast() {
                    return Err(Refusal::errno(libc::EINVAL));
                }
                change.mac = Some(mac).filter(|mac| !mac.is_zero());
                info.vf_id
            }
            VfInfo::Vlan(info) => {
                change.channel.vlan = self.port_vlan(info.vlan_id, info.qos, legacy)?;
                info.vf_id
            }
            VfInfo::VlanList(list) => {
                let [VfVlan::Info(info)] = list.as_slice() else {
                    return Err(refuse::unsupported());
                };
                if info.protocol != VlanProtocol::Ieee8021Q {
                    return Err(Refusal::errno(libc::EPROTONOSUPPORT));
                }
                change.channel.vlan = self.port_vlan(info.vlan_id, info.qos, legacy)?;
                info.vf_id
            }
            VfInfo::Rate(info) => {
                if info.max_tx_rate != 0 && info.min_tx_rate > info.max_tx_rate {
                    return Err(Refusal::errno(libc::EINVAL));
                }
                self.check_speed(info.min_tx_rate.max(info.max_tx_rate))?;
                change.rate.tx_share = Some(u64::from(info.min_tx_rate) * MBIT);
                change.rate.tx_max = Some(u64::from(info.max_tx_rate) * MBIT);
                info.vf_id
            }
            VfInfo::TxRate(info) => {
                self.check_speed(info.rate)?;
                change.rate.tx_max = Some(u64::from(info.rate) * MBIT);
                info.vf_id
            }
            VfInfo::SpoofCheck(info) => {
                only_legacy()?;
                change.channel.spoofchk = Some(info.enabled);
                info.vf_id
            }
            VfInfo::Trust(info) => {
                only_legacy()?;
                change.channel.trust = Some(info.enabled);
                info.vf_id
            }
            VfInfo::LinkState(info) => {
                change.channel.link_up = Some(match info.state {
                    // The wire's link, which is up as long as there is an emulator.
                    VfLinkState::Auto | VfLinkState::Enable => true,
                    VfLinkState::Disable => false,
                    _ => return Err(Refusal::errno(libc::EINVAL)),
                });
                info.vf_id
            }
            _ => return Err(refuse::unsupported()),
        };
        self.change_vf(number, change)
    }

    /// mellanox/mlx5/core/eswitch.c: mlx5_eswitch_set_vport_vlan
    fn port_vlan(&self, id: u32, qos: u32, legacy: bool) -> Result<Option<Option<Vlan>>, Refusal> {
        if qos != 0 {
            let words = "qos: only 0 is supported";
            return Err(self.vendor.refuse(libc::EOPNOTSUPP, words));
        }
        match (u16::try_from(id).ok().filter(|id| *id < 4095), legacy) {
            (None, _) => Err(Refusal::errno(libc::EINVAL)),
            // Tools that clean up reset VLANs that were never set.
            (Some(0), false) => Ok(None),
            (Some(_), false) => Err(refuse::unsupported()),
            (Some(id), true) => Ok(Some(Vlan::new(id))),
        }
    }

    /// mellanox/mlx5/core/esw/qos.c: mlx5_esw_qos_link_speed_verify
    fn check_speed(&self, mbit: u32) -> Result<(), Refusal> {
        if mbit > self.vendor.speed {
            return Err(Refusal::errno(libc::EINVAL));
        }
        Ok(())
    }

    fn change_vf(&mut self, number: u32, change: Change) -> Result<(), Refusal> {
        let found = self.vfs().nth(number as usize);
        let (port, function) = found.ok_or_else(|| Refusal::errno(libc::EINVAL))?;
        let channel = function.channel.clone();
        if let Some(mac) = change.mac {
            self.set_hw_addr(port, mac)?;
        }
        let refusal = |refused| self.vendor.refusal(&refused);
        if change.channel != ChannelChange::default() {
            self.nic
                .set_channel(&channel, change.channel)
                .map_err(refusal)?;
        }
        if change.rate != RateChange::default() {
            self.nic.set_rate(&channel, &change.rate).map_err(refusal)?;
        }
        match self.uplink() {
            Some(uplink) => self.tell_link(uplink),
            None => Ok(()),
        }
    }
}

/// What is told of a function, in the kernel's order.
fn told(
    vf_id: u32,
    function: &Function,
    channel: &ChannelInfo,
    min_tx_rate: u32,
    max_tx_rate: u32,
) -> Vec<VfInfo> {
    let spec = &channel.spec;
    let vlan_id = spec.vlan.map_or(0, |vlan| vlan.id().into());
    let mac = function.hw_addr.unwrap_or_default().0;
    let state = match spec.link_up {
        true => VfLinkState::Auto,
        false => VfLinkState::Disable,
    };
    vec![
        VfInfo::Mac(VfInfoMac::new(vf_id, &mac)),
        VfInfo::Broadcast(VfInfoBroadcast::new(&Mac::BROADCAST.0)),
        VfInfo::Vlan(VfInfoVlan::new(vf_id, vlan_id, 0)),
        VfInfo::Rate(VfInfoRate::new(vf_id, min_tx_rate, max_tx_rate)),
        VfInfo::TxRate(VfInfoTxRate::new(vf_id, max_tx_rate)),
        VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf_id, spec.spoofchk)),
        VfInfo::LinkState(VfInfoLinkState::new(vf_id, state)),
        VfInfo::RssQueryEn(VfInfoRssQueryEn::new(vf_id, false)),
        VfInfo::Trust(VfInfoTrust::new(vf_id, spec.trust)),
        VfInfo::VlanList(vec![VfVlan::Info(VfVlanInfo::new(
            vf_id,
            vlan_id,
            0,
            VlanProtocol::Ieee8021Q,
        ))]),
    ]
}
