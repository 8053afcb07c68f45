//! Standard output: a table for people, or JSON.

use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Where results go.
pub struct Out {
    json: bool,
}

/// Something has been printed, or there was nothing to print.
pub struct Printed;

impl Out {
    pub fn new(json: bool) -> Self {
        Self { json }
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
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.text(&(text + "\n"))
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
        for item in items {
            table.add_row(row(item));
        }
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        self.text(&(lines.join("\n") + "\n"))
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
