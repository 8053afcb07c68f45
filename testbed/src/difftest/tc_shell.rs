//! A `tc` that runs all the time: starting one costs more than what it is told.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running `tc -batch -`, both of its outputs in one pipe.
pub struct TcShell {
    _tc: Tc,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// How many times it was asked whether it is done.
    asked: u64,
}

impl TcShell {
    /// Start it.
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", "exec tc -json -statistics -force -batch - 2>&1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let missing = || io::Error::other("tc has no pipes");
        Ok(Self {
            _tc: Tc(child),
            input: input.ok_or_else(missing)?,
            output: BufReader::new(output.ok_or_else(missing)?),
            asked: 0,
        })
    }

    /// Have it do these lines, and wait until it has: what it printed, and what it refused.
    pub fn run(&mut self, lines: &[String]) -> io::Result<(String, String)> {
        if lines.is_empty() {
            return Ok((String::new(), String::new()));
        }
        // It does not tell when it is done, but it complains about the first word that it does not
        // know, on the pipe where everything before has come out by then.
        self.asked += 1;
        let end = format!("done{}", self.asked);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.input.write_all(text.as_bytes())?;
        self.input.write_all(format!("{end}\n").as_bytes())?;
        self.input.flush()?;
        let (mut printed, mut refused) = (String::new(), String::new());
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                // Some words make it end instead of complain.
                let asked = self.asked;
                *self = Self {
                    asked,
                    ..Self::start()?
                };
                refused.push_str("tc ended\n");
                return Ok((printed, refused));
            }
            if line.contains(&format!("\"{end}\"")) {
                // The line with its number belongs to the complaint.
                self.output.read_line(&mut line)?;
                return Ok((printed, refused));
            }
            let json = line.starts_with('[') || line.trim().is_empty();
            if json { &mut printed } else { &mut refused }.push_str(&line);
        }
    }
}

/// Kept so that it ends with its handle.
struct Tc(Child);

impl Drop for Tc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
