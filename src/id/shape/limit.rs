//! A deserializer around another one that gives up on types without end.
//!
//! Tracing a recursive type whose first variant is the recursive one never comes to a leaf:
//! without this the stack overflows, which no `catch_unwind` catches.

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use std::cell::Cell;
use std::fmt;

/// What is left; shared by everything below one value.
pub(super) struct Budget {
    nodes: Cell<usize>,
}

impl Budget {
    pub(super) const fn new(nodes: usize) -> Self {
        Self { nodes: Cell::new(nodes) }
    }
}

/// Wraps a deserializer, a visitor, a seed, or an access; what it hands on is wrapped too.
pub(super) struct Limited<'b, T> {
    inner: T,
    depth: usize,
    budget: &'b Budget,
}

impl<'b, T> Limited<'b, T> {
    pub(super) const fn new(inner: T, depth: usize, budget: &'b Budget) -> Self {
        Self { inner, depth, budget }
    }

    const fn with<U>(&self, inner: U) -> Limited<'b, U> {
        Limited { inner, depth: self.depth, budget: self.budget }
    }

    fn split(self) -> (T, Limited<'b, ()>) {
        (self.inner, Limited { inner: (), depth: self.depth, budget: self.budget })
    }

    /// For what lies one level deeper.
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        let nodes = self.budget.nodes.get().checked_sub(1);
        self.budget.nodes.set(nodes.ok_or_else(|| E::custom("too many parts"))?);
        Ok(Self { depth, ..self })
    }
}

macro_rules! deserialize {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {
        $(
            fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
                let (inner, rest) = self.deeper()?.split();
                inner.$method($($arg,)* rest.with(visitor))
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Limited<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_seq() deserialize_map()
        deserialize_identifier() deserialize_ignored_any()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($($type:ty)?))*) => {
        $( visit!(@one $method $($type)?); )*
    };
    (@one $method:ident $type:ty) => {
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    };
    (@one $method:ident) => {
        fn $method<E: serde::de::Error>(self) -> Result<V::Value, E> {
            self.inner.$method()
        }
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Limited<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_f32(f32) visit_f64(f64) visit_char(char)
        visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
        visit_none() visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let (inner, rest) = self.split();
        inner.visit_some(rest.with(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let (inner, rest) = self.split();
        inner.visit_newtype_struct(rest.with(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.visit_seq(rest.with(access))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.visit_map(rest.with(access))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.visit_enum(rest.with(access))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Limited<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let (inner, rest) = self.split();
        inner.deserialize(rest.with(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Limited<'b, A> {
    type Error = A::Error;
    type Variant = Limited<'b, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        // The seed reads the variant's name or number, which has nothing below it.
        let (inner, rest) = self.split();
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, rest.with(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Limited<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.newtype_variant_seed(rest.with(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.tuple_variant(len, rest.with(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let (inner, rest) = self.split();
        inner.struct_variant(fields, rest.with(visitor))
    }
}
