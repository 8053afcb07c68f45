//! The file's text, to say where in it something is wrong.

use super::{ConfigError, Place};
use crate::nic::edge::shown;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// A file.
pub(super) struct Source<'a> {
    pub text: &'a str,
    /// For messages.
    pub path: &'a Path,
}

impl Source<'_> {
    /// The line of a place.
    pub fn line(&self, span: &Range<usize>) -> Place {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|b| **b == b'\n').count();
        Place::Line(self.path.to_owned(), line)
    }

    /// What the TOML reader does not take.
    pub fn syntax(&self, mut error: toml::de::Error) -> ConfigError {
        let place = self.line(&error.span().unwrap_or_default());
        let message = error.message().trim_end().replace('\n', ", ");
        // Without the input, the text form tells the key instead of the line.
        error.set_input(None);
        let text = error.to_string();
        let field = text
            .lines()
            .rev()
            .find_map(|l| l.strip_prefix("in `")?.strip_suffix('`'));
        let field = field.map(str::to_owned);
        ConfigError::Syntax {
            place,
            field,
            message,
        }
    }

    /// A value that is not taken; `what` starts with the key.
    pub fn value(
        &self,
        section: &'static str,
        at: &Range<usize>,
        what: impl Display,
    ) -> ConfigError {
        ConfigError::Value {
            place: self.line(at),
            section,
            what: what.to_string(),
        }
    }

    /// The value of a word.
    pub fn one_of<T, const N: usize>(
        &self,
        section: &'static str,
        field: &str,
        text: &Spanned<String>,
        choices: [(&str, T); N],
    ) -> Result<T, ConfigError> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let allowed = names.join(" or ");
        let mut choices = choices.into_iter();
        let found = choices.find(|(name, _)| name == text.get_ref());
        found.map(|(_, value)| value).ok_or_else(|| {
            let value = shown(text.get_ref());
            let what = format!("{field}: `{value}` is not allowed, must be {allowed}");
            self.value(section, &text.span(), what)
        })
    }
}
