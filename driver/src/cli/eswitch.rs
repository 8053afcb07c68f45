//! `chanio eswitch`

use super::out::Out;
use super::{Done, Switch};
use chanio::Nic;
use chanio::nic::{Eswitch, EswitchChange};

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
        Command::Set { mode, vepa, ageing } => {
            let change = EswitchChange {
                switchdev: mode.map(|m| matches!(m, Mode::Switchdev)),
                vepa: vepa.map(Switch::is_on),
                ageing_secs: ageing,
            };
            let now = nic.set_eswitch(change)?;
            Ok(out.done(&now)?)
        }
    }
}

fn print(eswitch: Eswitch, out: &mut Out) -> Done {
    let heading = ["MODE", "VEPA", "AGEING (s)", "FLOWS", "FDB ENTRIES"];
    Ok(out.list(&[eswitch], heading, |e| {
        [
            e.mode.into(),
            super::yes_no(e.vepa).into(),
            e.ageing_secs.to_string(),
            e.flows.to_string(),
            e.fdb_entries.to_string(),
        ]
    })?)
}
