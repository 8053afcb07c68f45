//! `chanio rate`

use super::out::Out;
use super::watch::Watch;
use super::{CliError, Done, or_dash};
use chanio::Nic;
use chanio::nic::Rate;
use chanio_model::rate::{RateChange, RateText};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Nodes, and the leaves of channels: these, or all
    Show {
        /// Which
        names: Vec<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change a channel's leaf, or a node
    Set {
        /// A channel's name, or a node's
        name: String,
        /// tx_share RATE, tx_max RATE (as 10mbit; 0: none), tx_priority 0..255,
        /// tx_weight 1..1000, parent NODE, noparent
        #[arg(required = true, value_name = "SETTING")]
        settings: Vec<String>,
    },
    /// Make a node
    Add {
        /// Its name, which no channel has
        node: String,
        /// As for `set`
        #[arg(value_name = "SETTING")]
        settings: Vec<String>,
    },
    /// Remove a node that nothing is below
    Del {
        /// Which
        node: String,
    },
}

fn change(settings: &[String]) -> Result<RateChange, CliError> {
    RateChange::from_words(settings).map_err(|error| CliError::Usage(error.to_string()))
}

pub fn run(command: Command, nic: &mut dyn Nic, out: &mut Out) -> Done {
    match command {
        Command::Show { names, watch } => watch.show(out, |out| print(&nic.rates(&names)?, out)),
        Command::Set { name, settings } => {
            let rate = nic.set_rate(&name, change(&settings)?)?;
            Ok(out.done(&rate)?)
        }
        Command::Add { node, settings } => {
            let rate = nic.add_rate(&node, change(&settings)?)?;
            Ok(out.done(&rate)?)
        }
        Command::Del { node } => {
            nic.del_rate(&node)?;
            Ok(out.done(&serde_json::json!({ "deleted": 1 }))?)
        }
    }
}

fn print(rates: &[Rate], out: &mut Out) -> Done {
    let heading = [
        "NAME",
        "TYPE",
        "TX_SHARE",
        "TX_MAX",
        "TX_PRIORITY",
        "TX_WEIGHT",
        "PARENT",
    ];
    let rate = |bytes: u64| match bytes {
        0 => "-".to_owned(),
        bytes => RateText(bytes).to_string(),
    };
    Ok(out.list(rates, heading, |r: &Rate| {
        [
            r.name.clone(),
            r.kind.into(),
            rate(r.tx_share),
            rate(r.tx_max),
            r.tx_priority.to_string(),
            r.tx_weight.to_string(),
            or_dash(r.parent.as_deref()),
        ]
    })?)
}
