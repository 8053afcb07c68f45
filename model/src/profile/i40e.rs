//! Intel X710, driver i40e. Paths are below drivers/net/ethernet/intel/i40e of Linux 6.1.

use super::{Limit, Profile};

/// X710. Its driver has no switchdev mode and takes tc filters only to choose a traffic class, so
/// no flow rule can ever be added.
pub static X710: Profile = Profile {
    name: "intel-x710",
    about: "Intel X710, i40e, legacy mode only, macvlan offload",
    channels: Limit::new(128, "i40e.h: I40E_MAX_MACVLANS"),
    rules: Limit::new(
        0,
        "i40e_main.c: i40e_configure_clsflower only chooses a traffic class",
    ),
    masks: None,
    chain: Limit::new(
        0,
        "i40e_main.c: i40e_setup_tc_block_cb, tc_cls_can_offload_and_chain0",
    ),
    priority: Limit::new(u16::MAX as u64, "tc's"),
    no_switchdev: Some((
        "Operation not supported",
        "the driver registers no devlink eswitch operations",
    )),
    checks: &[],
};
