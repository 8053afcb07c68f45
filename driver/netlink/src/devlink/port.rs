//! Ports and the functions behind them.

use super::devlink;
use super::function;
use crate::Result;
use crate::attr::{Attr, Bitfield32, Value, Writer, numbers, record};

numbers! {
    /// enum devlink_port_type
    pub enum PortType: u16 {
        /// None yet.
        NotSet = 0,
        /// Whatever is plugged in.
        Auto = 1,
        /// Ethernet.
        Eth = 2,
        /// InfiniBand.
        Ib = 3,
    }
}
numbers! {
    /// enum devlink_port_flavour
    pub enum Flavour: u16 {
        /// The wire.
        Physical = 0,
        /// The switch's own processor.
        Cpu = 1,
        /// A link between switches.
        Dsa = 2,
        /// Represents a physical function.
        PciPf = 3,
        /// Represents a virtual function.
        PciVf = 4,
        /// Of no hardware.
        Virtual = 5,
        /// Not in use.
        Unused = 6,
        /// Represents a subfunction.
        PciSf = 7,
    }
}
numbers! {
    /// enum devlink_port_fn_state
    pub enum FunctionState: u8 {
        /// Being configured.
        Inactive = 0,
        /// In use.
        Active = 1,
    }
}
numbers! {
    /// enum devlink_port_fn_opstate
    pub enum OperationalState: u8 {
        /// No driver has it.
        Detached = 0,
        /// A driver has it.
        Attached = 1,
    }
}

/// Bits of [`Function::capabilities`] (enum devlink_port_fn_attr_cap).
pub mod capability {
    /// RDMA over Ethernet.
    pub const ROCE: u32 = 1 << 0;
    /// Can be moved to another host.
    pub const MIGRATABLE: u32 = 1 << 1;
    /// IPsec encryption in hardware.
    pub const IPSEC_CRYPTO: u32 = 1 << 2;
    /// All of IPsec in hardware.
    pub const IPSEC_PACKET: u32 = 1 << 3;
}

record! {
    /// The function behind a port.
    pub struct Function of function {
        /// Its MAC address.
        hw_addr: Vec<u8> = HW_ADDR;
        /// Whether it may be used.
        state: FunctionState as u8 = STATE;
        /// Whether it is used.
        operational_state: OperationalState as u8 = OPSTATE;
        /// What it can do: of [`capability`].
        capabilities: Bitfield32 = CAPS;
        /// How many event queues its driver may make.
        max_io_eqs: u32 = MAX_IO_EQS;
    }
}

impl Value for Function {
    fn parse(attr: &Attr<'_>) -> Result<Self> {
        Self::read(&attr.nest(&function::ALL)?)
    }
    fn emit(&self, out: &mut Writer) {
        self.write(out);
    }
    fn is_nest(&self) -> bool {
        true
    }
    fn all_ones(&self) -> Self {
        self.clone()
    }
}

record! {
    /// A port.
    pub struct Port of devlink {
        /// Its number on the device.
        index: u32 = PORT_INDEX;
        /// What it carries.
        kind: PortType as u16 = PORT_TYPE;
        /// What it should carry.
        desired_kind: PortType as u16 = PORT_DESIRED_TYPE;
        /// Its netdev.
        netdev_ifindex: u32 = PORT_NETDEV_IFINDEX;
        /// Its netdev.
        netdev_name: String = PORT_NETDEV_NAME;
        /// Its RDMA device.
        ibdev_name: String = PORT_IBDEV_NAME;
        /// Into how many it is, or should be, split.
        split_count: u32 = PORT_SPLIT_COUNT;
        /// Those that were one.
        split_group: u32 = PORT_SPLIT_GROUP;
        /// What kind of port it is.
        flavour: Flavour as u16 = PORT_FLAVOUR;
        /// As printed on the case.
        number: u32 = PORT_NUMBER;
        /// Of those that were one.
        split_subport: u32 = PORT_SPLIT_SUBPORT_NUMBER;
        /// Whose functions these are, where there are several hosts.
        controller: u32 = PORT_CONTROLLER_NUMBER;
        /// The physical function.
        pf: u16 = PORT_PCI_PF_NUMBER;
        /// Its virtual function.
        vf: u16 = PORT_PCI_VF_NUMBER;
        /// Its subfunction.
        sf: u32 = PORT_PCI_SF_NUMBER;
        /// 1: the function is another host's.
        external: u8 = PORT_EXTERNAL;
        /// Of the wire.
        lanes: u32 = PORT_LANES;
        /// 1: it can be split.
        splittable: u8 = PORT_SPLITTABLE;
        /// The function behind it.
        function: Function = PORT_FUNCTION;
    }
}
