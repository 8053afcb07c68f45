//! What can be asked of a leaf or node.

use super::text::{RateText, RateTextError};
use super::tree::RateName;

/// Highest `tx_priority`.
pub const MAX_PRIORITY: u32 = 255;
/// Highest `tx_weight`.
pub const MAX_WEIGHT: u32 = 1000;

/// Settings of a leaf or node, in devlink-rate's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Guaranteed within the parent, bytes per second; 0: nothing.
    pub tx_share: u64,
    /// Ceiling, bytes per second; 0: none.
    pub tx_max: u64,
    /// Among siblings, the highest goes first; 0 to [`MAX_PRIORITY`].
    pub tx_priority: u32,
    /// Among siblings of one priority, 1 to [`MAX_WEIGHT`].
    pub tx_weight: u32,
    /// The node above.
    pub parent: Option<RateName>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            tx_share: 0,
            tx_max: 0,
            tx_priority: 0,
            tx_weight: 1,
            parent: None,
        }
    }
}

/// What to change; `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateChange {
    /// See [`Rates::tx_share`].
    pub tx_share: Option<u64>,
    /// See [`Rates::tx_max`].
    pub tx_max: Option<u64>,
    /// See [`Rates::tx_priority`].
    pub tx_priority: Option<u32>,
    /// See [`Rates::tx_weight`].
    pub tx_weight: Option<u32>,
    /// `Some(None)`: none.
    pub parent: Option<Option<RateName>>,
}

impl RateChange {
    /// All that is needed to make these settings out of any others.
    pub fn to(rates: &Rates) -> Self {
        Self {
            tx_share: Some(rates.tx_share),
            tx_max: Some(rates.tx_max),
            tx_priority: Some(rates.tx_priority),
            tx_weight: Some(rates.tx_weight),
            parent: Some(rates.parent.clone()),
        }
    }

    /// In devlink's words: `tx_share RATE`, `tx_max RATE`, `tx_priority N`, `tx_weight N`,
    /// `parent NODE`, `noparent`, in any order, each once. A rate of 0 is none.
    ///
    /// # Errors
    /// [`RateWordsError`]
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, RateWordsError> {
        let mut change = Self::default();
        let mut words = words.iter().map(AsRef::as_ref);
        while let Some(word) = words.next() {
            let mut value = || {
                let word = shown(word);
                words.next().ok_or(RateWordsError::NoValue { word })
            };
            let set_before = match word {
                "tx_share" => change.tx_share.replace(rate(word, value()?)?).is_some(),
                "tx_max" => change.tx_max.replace(rate(word, value()?)?).is_some(),
                "tx_priority" => change
                    .tx_priority
                    .replace(number(word, value()?)?)
                    .is_some(),
                "tx_weight" => change.tx_weight.replace(number(word, value()?)?).is_some(),
                "parent" => {
                    let name = value()?;
                    let name = name.parse().map_err(|_| RateWordsError::Value {
                        word: shown(word),
                        value: shown(name),
                        allowed: "a node's name",
                    })?;
                    change.parent.replace(Some(name)).is_some()
                }
                "noparent" => change.parent.replace(None).is_some(),
                _ => return Err(RateWordsError::Unknown { word: shown(word) }),
            };
            if set_before {
                return Err(RateWordsError::Twice { word: shown(word) });
            }
        }
        Ok(change)
    }

    /// What settings become.
    pub fn apply(&self, before: &Rates) -> Rates {
        Rates {
            tx_share: self.tx_share.unwrap_or(before.tx_share),
            tx_max: self.tx_max.unwrap_or(before.tx_max),
            tx_priority: self.tx_priority.unwrap_or(before.tx_priority),
            tx_weight: self.tx_weight.unwrap_or(before.tx_weight),
            parent: self.parent.clone().unwrap_or(before.parent.clone()),
        }
    }
}

/// Why words are no change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateWordsError {
    /// Not one of the words.
    #[error("`{word}` is not tx_share, tx_max, tx_priority, tx_weight, parent or noparent")]
    Unknown {
        /// As given, at most 100 characters of it.
        word: String,
    },
    /// Nothing behind a word.
    #[error("{word}: a value is missing")]
    NoValue {
        /// Which.
        word: String,
    },
    /// Something else behind it.
    #[error("{word}: `{value}` is not {allowed}")]
    Value {
        /// Which.
        word: String,
        /// As given, at most 100 characters of it.
        value: String,
        /// What would be taken.
        allowed: &'static str,
    },
    /// Not a rate behind it.
    #[error("{word}: {source}")]
    Rate {
        /// Which.
        word: String,
        /// What is wrong with it.
        source: RateTextError,
    },
    /// The same word again.
    #[error("{word} is there twice")]
    Twice {
        /// Which.
        word: String,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

fn rate(word: &str, text: &str) -> Result<u64, RateWordsError> {
    let rate = text.parse::<RateText>();
    rate.map(|rate| rate.0).map_err(|source| {
        let word = shown(word);
        RateWordsError::Rate { word, source }
    })
}

fn number(word: &str, text: &str) -> Result<u32, RateWordsError> {
    text.parse().map_err(|_| RateWordsError::Value {
        word: shown(word),
        value: shown(text),
        allowed: "a number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_devlink() {
        let words = "tx_max 10mbit parent gold tx_weight 3";
        let words: Vec<_> = words.split(' ').collect();
        let change = RateChange::from_words(&words).unwrap();
        let expected = RateChange {
            tx_max: Some(1_250_000),
            tx_weight: Some(3),
            parent: Some("gold".parse().ok()),
            ..RateChange::default()
        };
        assert_eq!(change, expected);
        let before = change.apply(&Rates::default());
        let none = RateChange::from_words(&["noparent", "tx_max", "0"]).unwrap();
        let after = none.apply(&before);
        assert_eq!((after.parent, after.tx_max, after.tx_weight), (None, 0, 3));
        assert_eq!(RateChange::to(&before).apply(&Rates::default()), before);
        for (words, why) in [
            (&["max"][..], "`max` is not tx_share, tx_max,"),
            (&["tx_max"], "tx_max: a value is missing"),
            (&["tx_max", "fast"], "tx_max: `fast` is not a rate"),
            (&["tx_weight", "-1"], "tx_weight: `-1` is not a number"),
            (&["parent", "a/b"], "parent: `a/b` is not a node's name"),
            (&["noparent", "parent", "a"], "parent is there twice"),
        ] {
            let error = RateChange::from_words(words).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
