//! Numbers that stand for something.

/// Declares an enum for an attribute's numbers, with `Other` for those that have no name here.
macro_rules! numbers {
    (
        $(#[$doc:meta])*
        $vis:vis enum $name:ident: $int:ty {
            $($(#[$variant_doc:meta])* $variant:ident = $number:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// None of those.
            Other($int),
        }

        impl From<$int> for $name {
            fn from(number: $int) -> Self {
                match number {
                    $($number => $name::$variant,)+
                    other => $name::Other(other),
                }
            }
        }

        impl From<$name> for $int {
            fn from(name: $name) -> Self {
                match name {
                    $($name::$variant => $number,)+
                    $name::Other(other) => other,
                }
            }
        }

        #[cfg(any(test, feature = "arbitrary"))]
        impl<'a> arbitrary::Arbitrary<'a> for $name {
            fn arbitrary(bytes: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                let one_of = [$($number),+];
                let number = *bytes.choose(&one_of)?;
                Ok(if bytes.ratio(1, 8)? { bytes.arbitrary::<$int>()? } else { number }.into())
            }
        }
    };
}
pub(crate) use numbers;
