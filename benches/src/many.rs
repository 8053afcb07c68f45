//! What many channels cost: the program `scale`, as part of the comparison.

use crate::bed::Bed;
use crate::machine::{BACKEND_CPU, CLIENT_CPU};
use chanio_testbed::process::program;
use std::path::Path;

/// By which it is asked for, and the name of its file.
pub const NAME: &str = "scale";

/// Runs it and writes what it prints to `scale.md` in `dir`; whether it went well.
///
/// # Errors
/// It cannot be started, or the file not be written.
pub fn run(bed: &Bed, dir: &Path) -> std::io::Result<bool> {
    println!("{NAME}: takes about two minutes");
    let output = bed
        .command(&[BACKEND_CPU, CLIENT_CPU], program(NAME))
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    print!("{printed}");
    let mut text = format!(
        "# What many channels cost\n\nMade by `benches/compare.sh`: what its program `scale` \
         printed.\n\n```text\n{printed}```\n"
    );
    if !output.status.success() {
        eprintln!("{NAME}: {}: {failed}", output.status);
        text += &format!("\nIt did not come to its end: {}\n", output.status);
    }
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(format!("{NAME}.md")), text)?;
    Ok(output.status.success())
}
