//! `chanio run`: an unmodified program on an emulator that plays the kernel.

use super::CliError;
use clap::builder::ValueHint;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM",
          value_hint = ValueHint::CommandWithArguments)]
    command: Vec<String>,
}

/// Runs it with the emulator of this run directory in the kernel's place; its exit code is ours.
pub fn run(args: &Args, via: Option<&Path>) -> Result<ExitCode, CliError> {
    let Some(run_dir) = via else {
        return Err(CliError::Usage(
            "via: name the run directory of an emulator that plays the kernel with --via DIR or \
             $CHANIO_VIA"
                .into(),
        ));
    };
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(CliError::Usage("no program to run".into()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let running = chanio_run::spawn_via(command, run_dir)?;
    let (status, _) = running.wait()?;
    // As shells tell of a program that a signal ended.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)))
}
