//! An id's bytes as text: the shape is walked along the bytes.
//!
//! ```text
//! whole id is a string or bytes   escaped text, no quotes
//! numbers, bool, ()               as in Rust; floats so that they read back
//! char, string, bytes             'x'  "text"  b"text", escaped
//! Option                          None  Some(1)
//! sequence, array                 [1, 2]; of u8: 0x0102
//! map                             {1: 2}
//! tuple, struct                   (1, 2)  (1,)  Point(1, 2)  Point { x: 1 }  Point
//! newtype                         what it wraps
//! variant                         Name  Name(1)  Name { x: 1 }
//! ```
//!
//! Names that are not plain words stand in quotes. Whatever fails here prints as [`unfit`].

use super::{Fields, MAX_DEPTH, Named, Plain, Schema, Shape};
use crate::id::byte_id::{escape, escape_quoted};
use crate::journal::codec;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use std::fmt::{self, Write};

/// The longest text. Names make a text longer than its id, and parts of no bytes (a `Vec<()>`)
/// may be more than there is time for; as every part prints something, this ends them too.
const MAX_TEXT: usize = 256 * 1024;

/// `None` if the bytes do not fit.
pub(super) fn render(schema: &Schema, id: &[u8]) -> Option<String> {
    let mut printer = Printer { schema, text: String::new() };
    let bare =
        matches!(schema.resolved(&schema.root), Some(Shape::Plain(Plain::Str | Plain::Bytes)));
    let part =
        Part { printer: &mut printer, what: What::Shape(&schema.root), depth: MAX_DEPTH, bare };
    codec::decode_id_seed(part, id).ok()?;
    Some(printer.text)
}

/// The bytes of an id that does not fit. Escaped text never begins with `\#`.
pub(super) fn unfit(id: &[u8]) -> String {
    format!("\\#{}", Hex(id))
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name as it stands in a text: a word as it is, anything else in quotes.
pub(super) fn name(name: &str) -> String {
    let escaped = escape(name.as_bytes());
    let word = !name.is_empty() && escaped == name && name.chars().all(is_word);
    if word { escaped } else { format!("\"{}\"", escape_quoted(name.as_bytes(), '"')) }
}

/// Whether words of a text may contain it.
pub(super) fn is_word(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '-')
}

struct Printer<'a> {
    schema: &'a Schema,
    text: String,
}

impl Printer<'_> {
    fn print<E: Error>(&mut self, text: impl fmt::Display) -> Result<(), E> {
        write!(self.text, "{text}").map_err(E::custom)?;
        if self.text.len() > MAX_TEXT { Err(E::custom("the text is too long")) } else { Ok(()) }
    }
}

/// One part of the id, about to be read and printed.
struct Part<'a, 'p> {
    printer: &'p mut Printer<'a>,
    what: What<'a>,
    depth: usize,
    /// Whether it is the whole id, a string, and needs no quotes.
    bare: bool,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Shape(&'a Shape),
    Fields(&'a Fields),
    /// A variant: its number and its fields, which bincode writes one after the other.
    Enum(&'a std::collections::BTreeMap<u32, (String, Fields)>),
    /// Elements of a sequence or an array of `u8`.
    Bytes,
}

impl<'a> Part<'a, '_> {
    fn reborrow<'s>(&'s mut self, what: What<'a>) -> Part<'a, 's> {
        Part { printer: &mut *self.printer, what, depth: self.depth, bare: false }
    }

    fn shape<'s>(&'s mut self, shape: &'a Shape) -> Part<'a, 's> {
        self.reborrow(What::Shape(shape))
    }

    fn fields<'de, D: Deserializer<'de>>(
        self,
        fields: &'a Fields,
        deserializer: D,
    ) -> Result<(), D::Error> {
        let part = Self { what: What::Fields(fields), ..self };
        deserializer.deserialize_tuple(fields.shapes().len(), part)
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| D::Error::custom("too deep"))?;
        let shape = match self.what {
            What::Shape(shape) => shape,
            What::Fields(fields) => return self.fields(fields, deserializer),
            What::Enum(_) => return deserializer.deserialize_tuple(2, self),
            What::Bytes => return deserializer.deserialize_u8(self),
        };
        match shape {
            Shape::Unknown => Err(D::Error::custom("unknown")),
            Shape::Plain(plain) => plain_value(*plain, self, deserializer),
            Shape::Option(_) => deserializer.deserialize_option(self),
            Shape::Seq(_) => deserializer.deserialize_seq(self),
            Shape::Map(..) => deserializer.deserialize_map(self),
            Shape::Tuple(shapes) => deserializer.deserialize_tuple(shapes.len(), self),
            Shape::Array(_, len) => {
                let len = usize::try_from(*len).map_err(D::Error::custom)?;
                deserializer.deserialize_tuple(len, self)
            }
            Shape::Type(type_name) => match self.printer.schema.types.get(type_name) {
                None => Err(D::Error::custom("unknown")),
                Some(Named::Enum(variants)) => {
                    deserializer.deserialize_tuple(2, Self { what: What::Enum(variants), ..self })
                }
                Some(Named::Struct(Fields::NewType(inner))) => {
                    Self { what: What::Shape(inner), ..self }.deserialize(deserializer)
                }
                Some(Named::Struct(fields)) => {
                    self.printer.print(name(type_name))?;
                    self.fields(fields, deserializer)
                }
            },
        }
    }
}

fn plain_value<'de, D: Deserializer<'de>>(
    plain: Plain,
    part: Part<'_, '_>,
    deserializer: D,
) -> Result<(), D::Error> {
    match plain {
        Plain::Unit => deserializer.deserialize_unit(part),
        Plain::Bool => deserializer.deserialize_bool(part),
        Plain::I8 => deserializer.deserialize_i8(part),
        Plain::I16 => deserializer.deserialize_i16(part),
        Plain::I32 => deserializer.deserialize_i32(part),
        Plain::I64 => deserializer.deserialize_i64(part),
        Plain::I128 => deserializer.deserialize_i128(part),
        Plain::U8 => deserializer.deserialize_u8(part),
        Plain::U16 => deserializer.deserialize_u16(part),
        Plain::U32 => deserializer.deserialize_u32(part),
        Plain::U64 => deserializer.deserialize_u64(part),
        Plain::U128 => deserializer.deserialize_u128(part),
        Plain::F32 => deserializer.deserialize_f32(part),
        Plain::F64 => deserializer.deserialize_f64(part),
        Plain::Char => deserializer.deserialize_char(part),
        Plain::Str => deserializer.deserialize_str(part),
        Plain::Bytes => deserializer.deserialize_bytes(part),
    }
}

macro_rules! visit_display {
    ($($method:ident($type:ty) => $format:literal)*) => {
        $(
            fn $method<E: Error>(self, value: $type) -> Result<(), E> {
                self.printer.print(format_args!($format, value))
            }
        )*
    };
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id of the described shape")
    }

    visit_display! {
        visit_bool(bool) => "{}"
        visit_i8(i8) => "{}"
        visit_i16(i16) => "{}"
        visit_i32(i32) => "{}"
        visit_i64(i64) => "{}"
        visit_i128(i128) => "{}"
        visit_u16(u16) => "{}"
        visit_u32(u32) => "{}"
        visit_u64(u64) => "{}"
        visit_u128(u128) => "{}"
        visit_f32(f32) => "{:?}"
        visit_f64(f64) => "{:?}"
    }

    fn visit_u8<E: Error>(self, value: u8) -> Result<(), E> {
        match self.what {
            What::Bytes => self.printer.print(Hex(&[value])),
            What::Shape(_) | What::Fields(_) | What::Enum(_) => self.printer.print(value),
        }
    }

    fn visit_char<E: Error>(self, value: char) -> Result<(), E> {
        let text = escape_quoted(value.encode_utf8(&mut [0; 4]).as_bytes(), '\'');
        self.printer.print(format_args!("'{text}'"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.bare {
            return self.printer.print(escape(value.as_bytes()));
        }
        self.printer.print(format_args!("\"{}\"", escape_quoted(value.as_bytes(), '"')))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        if self.bare {
            return self.printer.print(escape(value));
        }
        self.printer.print(format_args!("b\"{}\"", escape_quoted(value, '"')))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.printer.print("()")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.printer.print("None")
    }

    fn visit_some<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let What::Shape(Shape::Option(inner)) = self.what else {
            return Err(D::Error::custom("not an option"));
        };
        self.printer.print("Some(")?;
        self.shape(inner).deserialize(deserializer)?;
        self.printer.print(")")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let shape = match self.what {
            What::Shape(shape) => shape,
            What::Fields(fields) => return self.print_fields(fields, &mut seq),
            What::Enum(variants) => {
                let number: u32 = seq.next_element()?.ok_or_else(missing)?;
                let (variant, fields) =
                    variants.get(&number).ok_or_else(|| A::Error::custom("no such variant"))?;
                self.printer.print(name(variant))?;
                return seq
                    .next_element_seed(self.reborrow(What::Fields(fields)))?
                    .ok_or_else(missing);
            }
            What::Bytes => return Err(A::Error::custom("not a sequence")),
        };
        match shape {
            Shape::Seq(inner) | Shape::Array(inner, _) if **inner == Shape::Plain(Plain::U8) => {
                self.printer.print("0x")?;
                while seq.next_element_seed(self.reborrow(What::Bytes))?.is_some() {}
                Ok(())
            }
            Shape::Seq(inner) | Shape::Array(inner, _) => {
                self.printer.print("[")?;
                for at in 0.. {
                    let before = self.printer.text.len();
                    self.printer.print(if at == 0 { "" } else { ", " })?;
                    if seq.next_element_seed(self.shape(inner))?.is_none() {
                        self.printer.text.truncate(before);
                        break;
                    }
                }
                self.printer.print("]")
            }
            Shape::Tuple(shapes) => {
                let shapes: Vec<&Shape> = shapes.iter().collect();
                self.print_tuple(&shapes, &mut seq)
            }
            Shape::Unknown
            | Shape::Plain(_)
            | Shape::Type(_)
            | Shape::Option(_)
            | Shape::Map(..) => Err(A::Error::custom("not a sequence")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let What::Shape(Shape::Map(key, value)) = self.what else {
            return Err(A::Error::custom("not a map"));
        };
        self.printer.print("{")?;
        for at in 0.. {
            let before = self.printer.text.len();
            self.printer.print(if at == 0 { "" } else { ", " })?;
            if map.next_key_seed(self.shape(key))?.is_none() {
                self.printer.text.truncate(before);
                break;
            }
            self.printer.print(": ")?;
            map.next_value_seed(self.shape(value))?;
        }
        self.printer.print("}")
    }
}

impl<'a> Part<'a, '_> {
    fn print_fields<'de, A: SeqAccess<'de>>(
        &mut self,
        fields: &'a Fields,
        seq: &mut A,
    ) -> Result<(), A::Error> {
        match fields {
            Fields::Unit => Ok(()),
            Fields::NewType(inner) => {
                self.printer.print("(")?;
                seq.next_element_seed(self.shape(inner))?.ok_or_else(missing)?;
                self.printer.print(")")
            }
            Fields::Tuple(shapes) => {
                let shapes: Vec<&Shape> = shapes.iter().collect();
                self.print_tuple(&shapes, seq)
            }
            Fields::Named(fields) => {
                self.printer.print(" {")?;
                for (at, (field, shape)) in fields.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    self.printer.print(format_args!("{comma} {}: ", name(field)))?;
                    seq.next_element_seed(self.shape(shape))?.ok_or_else(missing)?;
                }
                self.printer.print(" }")
            }
        }
    }

    fn print_tuple<'de, A: SeqAccess<'de>>(
        &mut self,
        shapes: &[&'a Shape],
        seq: &mut A,
    ) -> Result<(), A::Error> {
        self.printer.print("(")?;
        for (at, shape) in shapes.iter().enumerate() {
            self.printer.print(if at == 0 { "" } else { ", " })?;
            seq.next_element_seed(self.shape(shape))?.ok_or_else(missing)?;
        }
        self.printer.print(if shapes.len() == 1 { ",)" } else { ")" })
    }
}

fn missing<E: Error>() -> E {
    E::custom("a part is missing")
}
