//! Standard output: a table for people, or JSON.

use super::watch::Counted;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Where results go.
pub struct Out {
    json: bool,
    /// When it is shown again and again.
    rounds: Option<Counted>,
}

/// Something has been printed, or there was nothing to print.
pub struct Printed;

impl Out {
    pub fn new(json: bool) -> Self {
        let rounds = None;
        Self { json, rounds }
    }

    /// What follows is shown in the place of what was before, if that is a terminal's.
    pub fn next_round(&mut self) {
        self.rounds.get_or_insert_default();
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// As it is.
    pub fn text(&mut self, text: &str) -> io::Result<Printed> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(Printed)
    }

    /// One object.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<Printed> {
        let text = match self.rounds {
            None => serde_json::to_string_pretty(value),
            Some(_) => serde_json::to_string(value),
        };
        self.text(&(text.map_err(io::Error::other)? + "\n"))
    }

    /// A list: JSON as it is, or a table with this heading and a row for each item.
    pub fn list<T: Serialize, const N: usize>(
        &mut self,
        items: &[T],
        heading: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> io::Result<Printed> {
        if self.json {
            return self.json(&items);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(heading);
        let mut rows: Vec<_> = items.iter().map(|item| row(item).to_vec()).collect();
        if let Some(counted) = &mut self.rounds {
            counted.add_rates(&heading, &mut rows, Instant::now());
        }
        table.add_rows(rows);
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        let text = lines.join("\n") + "\n";
        match self.rounds {
            None => self.text(&text),
            // To the upper left corner of an empty screen (ECMA-48: CUP, ED).
            Some(_) if io::stdout().is_terminal() => self.text(&format!("\x1b[H\x1b[2J{text}")),
            Some(_) => self.text(&(text + "\n")),
        }
    }

    /// A result that people need not be told.
    pub fn done(&mut self, value: &impl Serialize) -> io::Result<Printed> {
        if self.json {
            self.json(value)
        } else {
            Ok(Printed)
        }
    }
}
