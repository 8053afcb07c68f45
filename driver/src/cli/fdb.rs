//! `chanio fdb`

use super::out::Out;
use super::watch::Watch;
use super::{Done, idle};
use chanio::Nic;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Addresses, learned and static
    Show {
        #[command(flatten)]
        watch: Watch,
    },
    /// Add a static address
    Add {
        /// The address
        mac: String,
        /// A channel's name, a representor, or `uplink`
        port: String,
        /// VLAN, 1 to 4094; 0: untagged
        #[arg(long, default_value_t = 0, value_name = "V")]
        vlan: u16,
    },
    /// Remove an added address
    Del {
        /// The address
        mac: String,
        /// VLAN, 1 to 4094; 0: untagged
        #[arg(long, default_value_t = 0, value_name = "V")]
        vlan: u16,
    },
    /// Forget learned addresses
    Flush,
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Show { watch } => watch.show(out, |out| {
            let heading = ["MAC", "VLAN", "PORT", "KIND", "IDLE (s)"];
            Ok(out.list(&nic.fdb()?, heading, |e| {
                [
                    e.mac.clone(),
                    e.vlan.to_string(),
                    e.port.clone(),
                    if e.is_static { "static" } else { "learned" }.into(),
                    idle(e.idle_ns),
                ]
            })?)
        }),
        Command::Add { mac, port, vlan } => {
            nic.add_fdb(vlan, &mac, &port)?;
            Ok(out.done(&serde_json::json!({ "added": 1 }))?)
        }
        Command::Del { mac, vlan } => {
            nic.del_fdb(vlan, &mac)?;
            Ok(out.done(&serde_json::json!({ "deleted": 1 }))?)
        }
        Command::Flush => {
            let flushed = nic.flush_fdb()?;
            Ok(out.done(&serde_json::json!({ "deleted": flushed }))?)
        }
    }
}
