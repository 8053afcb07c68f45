//! Runs in a guest: see `chanio_testbed::difftest::agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (path, ports) = (args.next(), args.next().and_then(|n| n.parse().ok()));
    let (Some(path), Some(ports)) = (path, ports) else {
        eprintln!("usage: chanio-tc-agent CHARACTER-DEVICE PORTS");
        return ExitCode::from(2);
    };
    match chanio_testbed::difftest::agent::run(&path, ports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            println!("agent: {err}");
            ExitCode::FAILURE
        }
    }
}
