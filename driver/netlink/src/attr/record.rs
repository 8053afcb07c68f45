//! Structs declared field by field beside the attribute that carries it.

/// Declares a struct whose fields are attributes of one set, all optional, with `read` and
/// `write`. A field is `name: Type = ATTR`, `name: Type as Wire = ATTR` where it travels as
/// another type, or `name: Type = ATTR & MASK_ATTR` for a value with a mask, followed
/// by `unless whole` where iproute2 leaves a mask of all ones out.
macro_rules! record {
    (@type $type:ty) => { Option<$type> };
    (@type $type:ty, $mask:ident) => { Option<$crate::attr::Masked<$type>> };
    (@wire $type:ty) => { $type };
    (@wire $type:ty, $wire:ty) => { $wire };
    (@read $table:ident, $set:ident, $type:ty, $wire:ty, $attr:ident) => {
        $table.get::<$wire>($set::$attr)?.map(<$type>::from)
    };
    (@read $table:ident, $set:ident, $type:ty, $wire:ty, $attr:ident, $mask:ident) => {
        $table.masked::<$wire>($set::$attr, $set::$mask)?.map(|masked| masked.map(<$type>::from))
    };
    (@write $out:ident, $set:ident, $field:expr, $wire:ty, $attr:ident) => {
        $out.put_some($set::$attr, &$field.clone().map(<$wire>::from))
    };
    (@write $out:ident, $set:ident, $field:expr, $wire:ty, $attr:ident, $mask:ident) => {
        $out.put_masked(
            $set::$attr,
            $set::$mask,
            &$field.clone().map(|masked| masked.map(<$wire>::from)),
        )
    };
    (@write $out:ident, $set:ident, $field:expr, $wire:ty, $attr:ident, $mask:ident, whole) => {
        $out.put_partly_masked(
            $set::$attr,
            $set::$mask,
            &$field.clone().map(|masked| masked.map(<$wire>::from)),
        )
    };
    (
        $(#[$doc:meta])*
        $vis:vis struct $name:ident of $set:ident {
            $(
                $(#[$field_doc:meta])*
                $field:ident: $type:ty $(as $wire:ty)? = $attr:ident $(& $mask:ident $(unless $whole:tt)?)?;
            )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
        $vis struct $name {
            $(
                $(#[$field_doc])*
                pub $field: $crate::attr::record!(@type $type $(, $mask)?),
            )+
        }

        impl $name {
            /// Reads what is there of it.
            pub fn read(table: &$crate::attr::Table<'_>) -> $crate::Result<Self> {
                Ok($name {
                    $(
                        $field: $crate::attr::record!(
                            @read table, $set, $type,
                            $crate::attr::record!(@wire $type $(, $wire)?), $attr $(, $mask)?
                        ),
                    )+
                })
            }

            /// Appends the attributes that it has.
            pub fn write(&self, out: &mut $crate::attr::Writer) {
                $(
                    $crate::attr::record!(
                        @write out, $set, self.$field,
                        $crate::attr::record!(@wire $type $(, $wire)?), $attr $(, $mask $(, $whole)?)?
                    );
                )+
            }
        }
    };
}
pub(crate) use record;
