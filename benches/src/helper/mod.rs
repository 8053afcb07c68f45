//! Clients of our own that run as processes beside the comparison: this program again, under
//! another command, so that they have a cpu, a niceness and a limit of open files to themselves.

pub mod hold;
pub mod rtt;

use crate::machine;
use std::path::PathBuf;

/// What a helper does.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Send one frame at a time from port to port
    #[command(hide = true)]
    Rtt {
        /// vhost-user sockets of two ports
        #[arg(num_args = 2)]
        sockets: Vec<PathBuf>,
    },
    /// Say how long a cache line takes between the two cpus and back, ns
    #[command(hide = true)]
    PingPong,
    /// Connect drivers that do nothing, until the input ends
    #[command(hide = true)]
    Hold {
        /// A file with vhost-user sockets, one a line
        sockets: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// What it could not do.
pub fn run(command: &Command) -> Result<(), String> {
    match command {
        Command::Rtt { sockets } => rtt::run(&sockets[0], &sockets[1]),
        Command::PingPong => {
            println!("{}", machine::ping_pong());
            Ok(())
        }
        Command::Hold { sockets } => hold::run(sockets),
    }
}
