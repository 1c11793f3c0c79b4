//! The description of an id type, kept in the ledger so that its ids print without the type.
//!
//! ```text
//! IdShape = Complete(Schema)   every byte of every id is understood
//!         | Sampled(Schema)    made from one value, or with variants unseen: fits some ids
//!         | Opaque             nothing is known
//! Schema  = root Shape + named types (structs and enums, which may refer to each other)
//! ```
//!
//! It is best effort and nothing but the refusal of another id type rests on it: an id that does
//! not fit prints as escaped bytes. [`render`](IdShape::render) and [`parse`](IdShape::parse) are
//! inverse for every shape and all bytes, however hostile.

mod limit;
mod parse;
mod render;
mod trace;
mod wire;

use crate::id::EncodedId;
use crate::id::byte_id::escape;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How deep the description of a type, and a value printed with it, may be nested. Real ids nest a
/// few times; a hostile description must not exhaust the stack.
const MAX_DEPTH: usize = 64;

/// How many parts of a type are looked at.
const MAX_NODES: usize = 64 * 1024;

/// The longest name of a type, variant or field.
const MAX_NAME: usize = 255;

/// What the ids of a ledger look like.
///
/// The ledger keeps it so that the dump tool can print ids, and read them from the command line,
/// without knowing their type. [`Display`](fmt::Display) gives a short text for people, such as
/// `String`, `(u32, String)` or `struct OrderId { region: String, number: u64 }`; `unknown` when
/// nothing is known of the type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdShape(Knowledge);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Knowledge {
    Complete(Schema),
    Sampled(Schema),
    #[default]
    Opaque,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Schema {
    root: Shape,
    types: BTreeMap<String, Named>,
}

/// A struct or an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Struct(Fields),
    /// By the number that stands for the variant on disk.
    Enum(BTreeMap<u32, (String, Fields)>),
}

/// What a struct or a variant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fields {
    Unit,
    NewType(Shape),
    Tuple(Vec<Shape>),
    Named(Vec<(String, Shape)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// Never seen: the element of a sequence that was empty, for one.
    Unknown,
    Plain(Plain),
    Type(String),
    Option(Box<Self>),
    Seq(Box<Self>),
    Map(Box<Self>, Box<Self>),
    Tuple(Vec<Self>),
    Array(Box<Self>, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Plain {
    Unit,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
}

impl IdShape {
    /// What can be learned of the type without a value of it. Opaque for types whose
    /// `Deserialize` refuses made-up values.
    pub(crate) fn of_type<K: DeserializeOwned>() -> Self {
        Self(trace::of_type::<K>()).storable()
    }

    /// What can be learned from one id.
    pub(crate) fn of_value<K: Serialize + ?Sized>(id: &K) -> Self {
        Self(trace::of_value(id)).storable()
    }

    /// A description that could not be read back (too long, too deep) is none.
    fn storable(self) -> Self {
        match Self::from_bytes(&self.to_bytes()) {
            Ok(stored) if stored == self => self,
            Ok(_) | Err(_) => Self(Knowledge::Opaque),
        }
    }

    /// Whether nothing is known, so that a value may teach something.
    pub(crate) const fn is_opaque(&self) -> bool {
        matches!(self.0, Knowledge::Opaque)
    }

    /// For the manifest.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        wire::encode(&self.0)
    }

    /// From the manifest.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes, in words.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        wire::decode(bytes).map(Self)
    }

    /// Whether ids of the one type could be ids of the other: `false` only when both are known
    /// completely and the same bytes do not mean the same.
    ///
    /// Names do not stand in the bytes, so they may differ, and a newtype is what it wraps.
    pub(crate) fn compatible(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Knowledge::Complete(a), Knowledge::Complete(b)) => {
                let assumed = BTreeSet::new();
                Comparison { a, b, assumed, steps: MAX_NODES }.shapes(&a.root, &b.root, MAX_DEPTH)
            }
            (Knowledge::Sampled(_) | Knowledge::Opaque, _)
            | (_, Knowledge::Sampled(_) | Knowledge::Opaque) => true,
        }
    }

    /// The id as one line of text without control characters, as the command prints it.
    #[must_use]
    pub fn text(&self, id: &EncodedId) -> String {
        self.render(id.as_bytes())
    }

    /// The id with these bytes as one line of text without control characters. An id that does not
    /// fit is `\#` and its bytes in hexadecimal; if nothing is known of the type, escaped bytes.
    pub(crate) fn render(&self, id: &[u8]) -> String {
        match &self.0 {
            Knowledge::Complete(schema) | Knowledge::Sampled(schema) => render::render(schema, id)
                // What would not read back (a number in more bytes than it needs, two variants of
                // the same name) must not print as if it would.
                .filter(|text| parse::parse(schema, text).as_deref() == Ok(id))
                .unwrap_or_else(|| render::unfit(id)),
            Knowledge::Opaque => escape(id),
        }
    }

    /// The id that [`render`](Self::render) printed as this text.
    ///
    /// # Errors
    ///
    /// What was expected and where, in words.
    pub(crate) fn parse(&self, text: &str) -> Result<EncodedId, String> {
        let bytes = match (text.strip_prefix("\\#"), &self.0) {
            (Some(digits), _) => parse::unfit(digits)?,
            (None, Knowledge::Complete(schema) | Knowledge::Sampled(schema)) => {
                parse::parse(schema, text)?
            }
            (None, Knowledge::Opaque) => {
                crate::id::byte_id::unescape(text).map_err(|error| error.to_string())?
            }
        };
        if bytes.len() > crate::id::MAX_ID_BYTES {
            return Err(format!(
                "that id has {} bytes, at most {} are allowed",
                bytes.len(),
                crate::id::MAX_ID_BYTES
            ));
        }
        Ok(EncodedId::from_bytes(&bytes))
    }
}

impl Schema {
    /// The shape behind newtypes, which have no bytes of their own. `None` if that has no end.
    fn resolved<'a>(&'a self, mut shape: &'a Shape) -> Option<&'a Shape> {
        for _ in 0..MAX_DEPTH {
            match shape {
                Shape::Type(name) => match self.types.get(name)? {
                    Named::Struct(Fields::NewType(inner)) => shape = inner,
                    Named::Struct(Fields::Unit | Fields::Tuple(_) | Fields::Named(_))
                    | Named::Enum(_) => return Some(shape),
                },
                Shape::Unknown
                | Shape::Plain(_)
                | Shape::Option(_)
                | Shape::Seq(_)
                | Shape::Map(..)
                | Shape::Tuple(_)
                | Shape::Array(..) => return Some(shape),
            }
        }
        None
    }
}

impl Fields {
    /// What stands in the bytes one after the other.
    fn shapes(&self) -> Vec<&Shape> {
        match self {
            Self::Unit => Vec::new(),
            Self::NewType(shape) => vec![shape],
            Self::Tuple(shapes) => shapes.iter().collect(),
            Self::Named(fields) => fields.iter().map(|(_, shape)| shape).collect(),
        }
    }
}

/// Two shapes brought down to what tells their bytes apart.
enum Essence<'a> {
    Plain(Plain),
    Option(&'a Shape),
    Seq(&'a Shape),
    Map(&'a Shape, &'a Shape),
    /// One after the other, without a length: structs, tuples, arrays, and nothing at all.
    Product(Vec<&'a Shape>),
    Enum(&'a BTreeMap<u32, (String, Fields)>),
}

struct Comparison<'a> {
    a: &'a Schema,
    b: &'a Schema,
    /// Pairs of types under comparison further up: a recursive type is equal to another one if
    /// nothing says otherwise.
    assumed: BTreeSet<(&'a str, &'a str)>,
    /// How many more pairs are looked at: arrays of arrays can have more elements than there is
    /// time.
    steps: usize,
}

impl<'a> Comparison<'a> {
    /// Equal until proved different: what is too deep or too much to tell counts as equal.
    fn shapes(&mut self, a: &'a Shape, b: &'a Shape, depth: usize) -> bool {
        if depth == 0 || self.steps == 0 {
            return true;
        }
        self.steps -= 1;
        let (Some(a), Some(b)) = (self.a.resolved(a), self.b.resolved(b)) else {
            return true;
        };
        if let (Shape::Type(a), Shape::Type(b)) = (a, b) {
            if !self.assumed.insert((a, b)) {
                return true;
            }
        }
        let (Some(a), Some(b)) = (essence(self.a, a), essence(self.b, b)) else {
            return true;
        };
        let depth = depth - 1;
        match (a, b) {
            (Essence::Plain(a), Essence::Plain(b)) => a == b,
            (Essence::Option(a), Essence::Option(b)) | (Essence::Seq(a), Essence::Seq(b)) => {
                self.shapes(a, b, depth)
            }
            (Essence::Map(a, x), Essence::Map(b, y)) => {
                self.shapes(a, b, depth) && self.shapes(x, y, depth)
            }
            (Essence::Product(a), Essence::Product(b)) => self.products(&a, &b, depth),
            (Essence::Enum(a), Essence::Enum(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((a, (_, x)), (b, (_, y)))| {
                        a == b && self.products(&x.shapes(), &y.shapes(), depth)
                    })
            }
            (
                Essence::Plain(_)
                | Essence::Option(_)
                | Essence::Seq(_)
                | Essence::Map(..)
                | Essence::Product(_)
                | Essence::Enum(_),
                _,
            ) => false,
        }
    }

    fn products(&mut self, a: &[&'a Shape], b: &[&'a Shape], depth: usize) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.shapes(a, b, depth))
    }
}

/// `None` for the unknown.
fn essence<'a>(schema: &'a Schema, shape: &'a Shape) -> Option<Essence<'a>> {
    Some(match shape {
        Shape::Unknown => return None,
        Shape::Plain(Plain::Unit) => Essence::Product(Vec::new()),
        Shape::Plain(plain) => Essence::Plain(*plain),
        Shape::Option(inner) => Essence::Option(inner),
        Shape::Seq(inner) => Essence::Seq(inner),
        Shape::Map(key, value) => Essence::Map(key, value),
        Shape::Tuple(shapes) => Essence::Product(shapes.iter().collect()),
        Shape::Array(inner, len) => {
            Essence::Product(std::iter::repeat_n(&**inner, usize::try_from(*len).ok()?).collect())
        }
        Shape::Type(name) => match schema.types.get(name)? {
            Named::Struct(fields) => Essence::Product(fields.shapes()),
            Named::Enum(variants) => Essence::Enum(variants),
        },
    })
}

impl fmt::Display for IdShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = match &self.0 {
            Knowledge::Complete(schema) | Knowledge::Sampled(schema) => schema,
            Knowledge::Opaque => return f.write_str("unknown"),
        };
        let Shape::Type(name) = &schema.root else {
            return f.write_str(&shape_text(&schema.root));
        };
        let shown = escape(name.as_bytes());
        match schema.types.get(name) {
            Some(Named::Struct(fields)) => write!(f, "struct {shown}{}", fields_text(fields)),
            Some(Named::Enum(variants)) => {
                let variants: Vec<String> = variants
                    .values()
                    .map(|(name, fields)| escape(name.as_bytes()) + &fields_text(fields))
                    .collect();
                write!(f, "enum {shown} {{ {} }}", variants.join(", "))
            }
            None => f.write_str(&shown),
        }
    }
}

fn shape_text(shape: &Shape) -> String {
    match shape {
        Shape::Unknown => "_".to_owned(),
        Shape::Plain(plain) => plain.name().to_owned(),
        Shape::Type(name) => escape(name.as_bytes()),
        Shape::Option(inner) => format!("Option<{}>", shape_text(inner)),
        Shape::Seq(inner) => format!("Vec<{}>", shape_text(inner)),
        Shape::Map(key, value) => format!("Map<{}, {}>", shape_text(key), shape_text(value)),
        Shape::Tuple(shapes) => tuple_text(shapes),
        Shape::Array(inner, len) => format!("[{}; {len}]", shape_text(inner)),
    }
}

fn tuple_text(shapes: &[Shape]) -> String {
    let texts: Vec<String> = shapes.iter().map(shape_text).collect();
    match texts.as_slice() {
        [one] => format!("({one},)"),
        _ => format!("({})", texts.join(", ")),
    }
}

fn fields_text(fields: &Fields) -> String {
    match fields {
        Fields::Unit => String::new(),
        Fields::NewType(shape) => format!("({})", shape_text(shape)),
        Fields::Tuple(shapes) => {
            format!("({})", shapes.iter().map(shape_text).collect::<Vec<_>>().join(", "))
        }
        Fields::Named(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, shape)| format!("{}: {}", escape(name.as_bytes()), shape_text(shape)))
                .collect();
            format!(" {{ {} }}", fields.join(", "))
        }
    }
}

impl Plain {
    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "()",
            Self::Bool => "bool",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I128 => "i128",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::U128 => "u128",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "char",
            Self::Str => "String",
            Self::Bytes => "bytes",
        }
    }
}

#[cfg(test)]
mod tests;
