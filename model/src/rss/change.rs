//! What is asked of a channel's settings, in part.

use super::{HashTypes, RssError, RssKey, RssSettings};

/// Settings as control asks for them; `None` leaves a field as it is, or as [`RssSettings::even`]
/// has it if there is nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssChange {
    /// No settings any more; the other fields are not looked at.
    pub off: bool,
    /// What is hashed.
    pub types: Option<HashTypes>,
    /// By which key.
    pub key: Option<RssKey>,
    /// Queue pairs by the low bits of the hash.
    pub table: Option<Vec<u16>>,
    /// The queue pair for packets of which nothing is hashed.
    pub unclassified: Option<u16>,
}

impl RssChange {
    /// All that is needed to make these settings out of any others.
    pub fn to(settings: Option<&RssSettings>) -> Self {
        match settings {
            None => Self {
                off: true,
                ..Self::default()
            },
            Some(settings) => Self {
                off: false,
                types: Some(settings.types()),
                key: Some(*settings.key()),
                table: Some(settings.table().to_vec()),
                unclassified: Some(settings.unclassified()),
            },
        }
    }

    /// What `before` becomes, for a channel with `queues` queue pairs.
    ///
    /// # Errors
    /// As [`RssSettings::new`].
    pub fn apply(
        &self,
        before: Option<&RssSettings>,
        queues: u16,
    ) -> Result<Option<RssSettings>, RssError> {
        if self.off {
            return Ok(None);
        }
        let even = RssSettings::even(RssKey::MICROSOFT, queues);
        let before = before.unwrap_or(&even);
        let types = self.types.unwrap_or(before.types());
        let key = self.key.unwrap_or(*before.key());
        let table = self.table.clone();
        let table = table.unwrap_or_else(|| before.table().to_vec());
        let unclassified = self.unclassified.unwrap_or(before.unclassified());
        RssSettings::new(types, key, table, unclassified, queues).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let table = Some(vec![3, 1]);
        let first = RssChange {
            table,
            ..RssChange::default()
        };
        let one = first.apply(None, 4).unwrap().unwrap();
        assert_eq!(one.table(), [3, 1]);
        assert_eq!(one.types(), HashTypes::USUAL);
        let second = RssChange {
            types: Some(HashTypes::TCP_V4),
            unclassified: Some(2),
            ..RssChange::default()
        };
        let two = second.apply(Some(&one), 4).unwrap().unwrap();
        assert_eq!((two.table(), two.unclassified()), (&[3, 1][..], 2));
        assert_eq!(two.types(), HashTypes::TCP_V4);
        assert!(first.apply(Some(&two), 3).is_err(), "queue 3 of 3");
        assert_eq!(
            RssChange::to(Some(&two)).apply(Some(&one), 4),
            Ok(Some(two))
        );
        assert_eq!(RssChange::to(None).apply(Some(&one), 4), Ok(None));
    }
}
