//! Commands that are programs of their own beside this one, as git has them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Options that may stand in front of a command, and whether a value follows.
const LEADING: [(&str, bool); 3] = [("--device", true), ("--via", true), ("--json", false)];

/// The arguments for the command `name`, if that is the one asked for: those in front of it, then
/// those behind.
pub fn asked_for(args: impl Iterator<Item = OsString>, name: &str) -> Option<Vec<OsString>> {
    let mut leading = Vec::new();
    let mut args = args.skip(1);
    loop {
        let arg = args.next()?;
        if arg == OsStr::new(name) {
            leading.extend(args);
            return Some(leading);
        }
        let text = arg.to_str()?.to_owned();
        let (option, inline) = text
            .split_once('=')
            .map_or((text.as_str(), false), |(option, _)| (option, true));
        let (_, has_value) = *LEADING.iter().find(|(known, _)| *known == option)?;
        leading.push(arg);
        if has_value && !inline {
            leading.push(args.next()?);
        }
    }
}

/// Become the program beside this one.
pub fn run(program: &str, args: &[OsString]) -> ExitCode {
    let beside = std::env::current_exe().map(|own| own.with_file_name(program));
    let error = match beside {
        Ok(path) if path.exists() => {
            let error = Command::new(&path).args(args).exec();
            format!("{}: {error}", path.display())
        }
        Ok(path) => format!(
            "{} is missing; it is installed beside chanio (cargo build --workspace --bins)",
            path.display()
        ),
        Err(error) => format!("finding {program}: {error}"),
    };
    eprintln!("chanio: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<String> {
        let args = line.split(' ').map(OsString::from);
        let found = asked_for(args, "conform")?;
        let words = found.iter().map(|arg| arg.to_string_lossy().into_owned());
        Some(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_in_front_go_with_those_behind() {
        for (line, args) in [
            ("chanio conform", Some("")),
            ("chanio conform --list", Some("--list")),
            (
                "chanio --device emu:x --json conform --device y",
                Some("--device emu:x --json --device y"),
            ),
            ("chanio --device=emu:x conform", Some("--device=emu:x")),
            ("chanio --device conform", None),
            ("chanio channel add conform", None),
            ("chanio --help conform", None),
            ("chanio", None),
        ] {
            assert_eq!(asked(line).as_deref(), args, "{line}");
        }
    }
}
