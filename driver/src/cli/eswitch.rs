//! `chanio eswitch`

use super::out::Out;
use super::{Done, Switch};
use chanio::Nic;
use chanio::nic::{Eswitch, EswitchChange};
use chanio_model::edit::TunnelPorts;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Mode and settings
    Show,
    /// Change them; another mode removes flow rules and learned addresses
    Set {
        /// legacy: learning bridge; switchdev: flow rules and representors
        #[arg(long)]
        mode: Option<Mode>,
        /// Send frames between channels over the wire (legacy mode)
        #[arg(long)]
        vepa: Option<Switch>,
        /// Seconds that a learned address lives without traffic, 10 to 1,000,000
        #[arg(long, value_name = "S")]
        ageing: Option<u32>,
        /// Which UDP ports are tunnels', as vxlan:4789,vxlan:8472,geneve:6081; or none
        #[arg(long, value_name = "KIND:PORT,…")]
        tunnel_ports: Option<TunnelPorts>,
        /// Share rules that match `block N` with the uplink, 1 to 65535; 0: with none
        #[arg(long, value_name = "N")]
        uplink_block: Option<u16>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Mode {
    Legacy,
    Switchdev,
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Show => print(nic.eswitch()?, out),
        Command::Set {
            mode,
            vepa,
            ageing,
            tunnel_ports,
            uplink_block,
        } => {
            let change = EswitchChange {
                switchdev: mode.map(|m| matches!(m, Mode::Switchdev)),
                vepa: vepa.map(Switch::is_on),
                ageing_secs: ageing,
                tunnel_ports,
                uplink_block,
            };
            let now = nic.set_eswitch(change)?;
            Ok(out.done(&now)?)
        }
    }
}

fn print(eswitch: Eswitch, out: &mut Out) -> Done {
    let heading = [
        "MODE",
        "VEPA",
        "AGEING (s)",
        "FLOWS",
        "FDB ENTRIES",
        "TUNNEL PORTS",
        "UPLINK BLOCK",
    ];
    Ok(out.list(&[eswitch], heading, |e| {
        [
            e.mode.into(),
            super::yes_no(e.vepa).into(),
            e.ageing_secs.to_string(),
            e.flows.to_string(),
            e.fdb_entries.to_string(),
            super::or_dash(e.tunnel_ports.as_deref()),
            super::or_dash(e.uplink_block.map(|block| block.to_string()).as_deref()),
        ]
    })?)
}
