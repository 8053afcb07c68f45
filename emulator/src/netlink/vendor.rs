//! What the driver of each kind of NIC shows of it and how it numbers its ports. Paths are below
//! drivers/net/ethernet of Linux 6.12.

use chanio_model::profile::Profile;

/// A NIC's driver, as far as it is played.
#[derive(Debug)]
pub struct Vendor {
    /// The driver, which messages begin with.
    pub driver: &'static str,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device of the physical function.
    pub device: u16,
    /// PCI device of virtual functions.
    pub vf_device: u16,
    /// The driver of virtual functions.
    pub vf_driver: &'static str,
    /// The auxiliary devices of subfunctions are `<this>.N`; `None`: there are no subfunctions.
    pub sf_device: Option<&'static str>,
    /// sriov_totalvfs.
    pub total_vfs: u16,
    /// devlink's index of the wire.
    pub uplink_port: u32,
    /// devlink's index of virtual function 0.
    pub first_vf_port: u32,
    /// devlink's index of the first subfunction.
    pub first_sf_port: u32,
    /// It has a switch to be set by devlink.
    pub eswitch: bool,
    /// The eswitch's inline and encapsulation mode can be asked for.
    pub inline_and_encap: bool,
    /// Functions have RoCE, event queues, and can be migrated.
    pub capabilities: bool,
    /// The least rate and what rates are multiples of, bytes per second.
    pub rate_unit: u64,
    /// Rates have priorities and weights.
    pub weighted_rates: bool,
    /// Queue pairs of the physical function's netdev.
    pub pf_queues: u16,
    /// Macvlan devices on it that the driver gives queues of their own; 0: it gives none any.
    pub macvlans: u16,
    /// Of the wire, Mbit/s.
    pub speed: u32,
    /// devlink's versions that never change.
    pub fixed: &'static [(&'static str, &'static str)],
    /// devlink's versions that run, and are stored.
    pub running: &'static [(&'static str, &'static str)],
    /// Words of its refusals.
    pub words: Words,
}

/// The words of a driver for what all of them refuse.
#[derive(Debug)]
pub struct Words {
    /// A port to be added that is no subfunction.
    pub only_sf: &'static str,
    /// An index for the new port.
    pub no_index: &'static str,
    /// A controller for the new port.
    pub no_controller: &'static str,
    /// Of another physical function, and the errno.
    pub wrong_pf: (&'static str, i32),
    /// The number is taken.
    pub sf_exists: &'static str,
    /// In legacy mode.
    pub sf_needs_switchdev: &'static str,
}

/// mlx5_core, ConnectX-6 Dx.
const MLX5: Vendor = Vendor {
    driver: "mlx5_core",
    vendor: 0x15b3,
    // mellanox/mlx5/core/main.c: mlx5_core_pci_table
    device: 0x101d,
    vf_device: 0x101e,
    vf_driver: "mlx5_core",
    // mellanox/mlx5/core/sf/dev/dev.c: MLX5_SF_DEV_ID_NAME
    sf_device: Some("mlx5_core.sf"),
    total_vfs: 127,
    // mellanox/mlx5/core/eswitch.h: mlx5_esw_vport_to_devlink_port_index; MLX5_VPORT_UPLINK; the
    // first vport of subfunctions as Documentation/networking/devlink/devlink-port.rst shows it
    uplink_port: 0xffff,
    first_vf_port: 1,
    first_sf_port: 0x8000,
    eswitch: true,
    inline_and_encap: true,
    capabilities: true,
    // mellanox/mlx5/core/esw/qos.c: MLX5_LINKSPEED_UNIT
    rate_unit: 125_000,
    weighted_rates: false,
    pf_queues: 1,
    macvlans: 0,
    speed: 100_000,
    // mellanox/mlx5/core/devlink.c: mlx5_devlink_info_get
    fixed: &[("fw.psid", "MT_0000000359")],
    running: &[("fw.version", "22.43.1014"), ("fw", "22.43.1014")],
    // mellanox/mlx5/core/sf/devlink.c: mlx5_sf_new_check_attr, mlx5_sf_alloc
    words: Words {
        only_sf: "Driver supports only SF port addition",
        no_index: "Driver does not support user defined port index assignment",
        no_controller: "External controller is unsupported",
        wrong_pf: ("Invalid pfnum supplied", libc::EOPNOTSUPP),
        sf_exists: "SF already exist. Choose different sfnum",
        sf_needs_switchdev: "SF ports are only supported in eswitch switchdev mode.",
    },
};

/// It, with its limits.
static CX6DX: Vendor = MLX5;

/// mlx5_core without its limits, of a board that says so.
static GENERIC: Vendor = Vendor {
    fixed: &[("board.id", "chanio-generic")],
    ..MLX5
};

/// ice, E810-C.
static ICE: Vendor = Vendor {
    driver: "ice",
    vendor: 0x8086,
    // intel/ice/ice_devids.h: ICE_DEV_ID_E810C_QSFP; intel/iavf/iavf_main.c: IAVF_DEV_ID_ADAPTIVE_VF
    device: 0x1592,
    vf_device: 0x1889,
    vf_driver: "iavf",
    // intel/ice/devlink/devlink_port.c: ice_activate_dynamic_port
    sf_device: Some("ice.sf"),
    total_vfs: 256,
    uplink_port: 0,
    first_vf_port: 1,
    first_sf_port: 1024,
    eswitch: true,
    inline_and_encap: false,
    capabilities: false,
    // intel/ice/devlink/devlink.c: ice_devlink_rate_leaf_tx_max_set takes kbit/s
    rate_unit: 125,
    weighted_rates: true,
    pf_queues: 1,
    // No ndo_dfwd_add_station in intel/ice/ice_main.c.
    macvlans: 0,
    speed: 100_000,
    // intel/ice/devlink/devlink.c: ice_devlink_versions
    fixed: &[("board.id", "K91258-000")],
    running: &[
        ("fw.mgmt", "7.6.4"),
        ("fw.mgmt.api", "1.7.11"),
        ("fw.bundle_id", "0x8001e0a2"),
        ("fw.app.name", "ICE OS Default Package"),
        ("fw.app", "1.3.36.0"),
    ],
    // intel/ice/devlink/devlink_port.c: ice_devlink_port_new_check_attr, ice_alloc_dynamic_port
    words: Words {
        only_sf: "Flavour other than pcisf is not supported",
        no_index: "Driver does not support user defined port index assignment",
        no_controller: "Setting controller is not supported",
        wrong_pf: ("Incorrect pfnum supplied", libc::EINVAL),
        sf_exists: "Subfunction with given sfnum already exists",
        sf_needs_switchdev: "SF ports are only supported in eswitch switchdev mode",
    },
};

/// i40e, X710: devlink tells what it is, and no more (intel/i40e/i40e_devlink.c).
static I40E: Vendor = Vendor {
    driver: "i40e",
    vendor: 0x8086,
    // intel/i40e/i40e_devids.h: I40E_DEV_ID_SFP_XL710; I40E_DEV_ID_VF
    device: 0x1572,
    vf_device: 0x154c,
    vf_driver: "iavf",
    sf_device: None,
    total_vfs: 64,
    uplink_port: 0,
    first_vf_port: 1,
    first_sf_port: 1024,
    eswitch: false,
    inline_and_encap: false,
    capabilities: false,
    // intel/i40e/i40e.h: I40E_BW_CREDIT_DIVISOR, 50 Mbit/s
    rate_unit: 6_250_000,
    weighted_rates: false,
    // As on a machine with 64 processors. intel/i40e/i40e_main.c: i40e_fwd_add gives a quarter of
    // so many vectors to the physical function, and two of the others to each macvlan device.
    pf_queues: 64,
    macvlans: (64 - 16) / 2,
    speed: 10_000,
    fixed: &[("board.id", "G63828-005")],
    running: &[
        ("fw.mgmt", "8.5.4"),
        ("fw.mgmt.api", "1.15"),
        ("fw.bundle_id", "0x8000b5e4"),
    ],
    words: Words {
        only_sf: "",
        no_index: "",
        no_controller: "",
        wrong_pf: ("", libc::EOPNOTSUPP),
        sf_exists: "",
        sf_needs_switchdev: "",
    },
};

/// The driver of a profile's NIC. A NIC without a vendor is one of mlx5_core's without its limits.
pub fn of(profile: &Profile) -> &'static Vendor {
    match profile.name {
        "intel-e810" => &ICE,
        "intel-x710" => &I40E,
        "mlx5-cx6dx" => &CX6DX,
        _ => &GENERIC,
    }
}
