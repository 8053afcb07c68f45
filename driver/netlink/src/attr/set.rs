//! The attribute numbers of one nest, under the names of the uapi header.

/// The attributes of one nest: what number has which name.
#[derive(Debug)]
pub struct AttrSet {
    /// What all names begin with, as in the uapi header.
    pub prefix: &'static str,
    /// The names, by number.
    pub names: &'static [&'static str],
}

impl AttrSet {
    /// The attribute's name without the prefix; its number where the set does not know it.
    pub fn name(&self, kind: u16) -> String {
        match self.names.get(usize::from(kind)) {
            Some(name) => (*name).to_owned(),
            None => kind.to_string(),
        }
    }

    /// Whether the attribute only aligns the next one.
    pub fn is_padding(&self, kind: u16) -> bool {
        self.names.get(usize::from(kind)) == Some(&"PAD")
    }
}

/// Declares a module with one constant per attribute, numbered in order from 0, and `ALL` of them.
macro_rules! attributes {
    ($(#[$doc:meta])* $vis:vis mod $module:ident = $prefix:literal { $($name:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[allow(missing_docs, non_camel_case_types, dead_code, clippy::upper_case_acronyms)]
        $vis mod $module {
            enum Number { $($name),+ }
            $(pub const $name: u16 = Number::$name as u16;)+
            /// All of them.
            pub static ALL: $crate::attr::AttrSet = $crate::attr::AttrSet {
                prefix: $prefix,
                names: &[$(stringify!($name)),+],
            };
        }
    };
}
pub(crate) use attributes;
