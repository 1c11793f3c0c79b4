//! How an [`IdShape`](super::IdShape) is stored.
//!
//! ```text
//! version  1 byte, 1
//! body     bincode: knowledge, root, types in order of their names
//! ```
//!
//! A shape is a list of tokens in preorder (`Option<u8>` is `Option Plain(U8)`), so that decoding
//! does not recurse where hostile bytes choose the depth. A description is valid if and only if
//! it has at most [`MAX_BYTES`], every shape is whole and at most [`MAX_DEPTH`] deep, every name
//! is at most [`MAX_NAME`] long, no name of a type or number of a variant stands twice, and every
//! type that is referred to is there.

use super::{Fields, Knowledge, MAX_DEPTH, MAX_NAME, Named, Plain, Schema, Shape};
use crate::journal::codec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u8 = 1;

/// The longest description. It stands in the manifest, which is read whole.
const MAX_BYTES: usize = 64 * 1024;

/// Memory that decoding may ask for, as bincode counts it: at most 16 for each byte.
const DECODE_LIMIT: usize = 16 * MAX_BYTES;

#[derive(Serialize, Deserialize)]
enum WireKnowledge {
    Complete(WireSchema),
    Sampled(WireSchema),
    Opaque,
}

#[derive(Serialize, Deserialize)]
struct WireSchema {
    root: Vec<Token>,
    types: Vec<(String, WireNamed)>,
}

#[derive(Serialize, Deserialize)]
enum WireNamed {
    Struct(WireFields),
    Enum(Vec<(u32, String, WireFields)>),
}

#[derive(Serialize, Deserialize)]
enum WireFields {
    Unit,
    NewType(Vec<Token>),
    Tuple(Vec<Vec<Token>>),
    Named(Vec<(String, Vec<Token>)>),
}

/// A node of a shape; its children follow.
#[derive(Serialize, Deserialize)]
enum Token {
    Unknown,
    Plain(Plain),
    Type(String),
    Option,
    Seq,
    Map,
    Tuple(u32),
    Array(u32),
}

pub(super) fn encode(knowledge: &Knowledge) -> Vec<u8> {
    let wire = match knowledge {
        Knowledge::Complete(schema) => WireKnowledge::Complete(schema_out(schema)),
        Knowledge::Sampled(schema) => WireKnowledge::Sampled(schema_out(schema)),
        Knowledge::Opaque => WireKnowledge::Opaque,
    };
    let mut bytes = vec![VERSION];
    codec::encode_into(&mut bytes, &wire);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Knowledge, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("{} bytes, more than {MAX_BYTES}", bytes.len()));
    }
    let body = match bytes.split_first() {
        Some((&VERSION, body)) => body,
        Some((version, _)) => return Err(format!("version {version} is not known")),
        None => return Err("it is empty".to_owned()),
    };
    Ok(match codec::decode::<WireKnowledge, DECODE_LIMIT>(body)? {
        WireKnowledge::Complete(schema) => Knowledge::Complete(schema_in(schema)?),
        WireKnowledge::Sampled(schema) => Knowledge::Sampled(schema_in(schema)?),
        WireKnowledge::Opaque => Knowledge::Opaque,
    })
}

fn schema_out(schema: &Schema) -> WireSchema {
    let types = schema.types.iter().map(|(name, named)| (name.clone(), named_out(named)));
    WireSchema { root: tokens(&schema.root), types: types.collect() }
}

fn named_out(named: &Named) -> WireNamed {
    match named {
        Named::Struct(fields) => WireNamed::Struct(fields_out(fields)),
        Named::Enum(variants) => WireNamed::Enum(
            variants
                .iter()
                .map(|(number, (name, fields))| (*number, name.clone(), fields_out(fields)))
                .collect(),
        ),
    }
}

fn fields_out(fields: &Fields) -> WireFields {
    match fields {
        Fields::Unit => WireFields::Unit,
        Fields::NewType(shape) => WireFields::NewType(tokens(shape)),
        Fields::Tuple(shapes) => WireFields::Tuple(shapes.iter().map(tokens).collect()),
        Fields::Named(fields) => WireFields::Named(
            fields.iter().map(|(name, shape)| (name.clone(), tokens(shape))).collect(),
        ),
    }
}

fn tokens(shape: &Shape) -> Vec<Token> {
    let mut tokens = Vec::new();
    push_tokens(shape, &mut tokens);
    tokens
}

fn push_tokens(shape: &Shape, out: &mut Vec<Token>) {
    match shape {
        Shape::Unknown => out.push(Token::Unknown),
        Shape::Plain(plain) => out.push(Token::Plain(*plain)),
        Shape::Type(name) => out.push(Token::Type(name.clone())),
        Shape::Option(inner) => {
            out.push(Token::Option);
            push_tokens(inner, out);
        }
        Shape::Seq(inner) => {
            out.push(Token::Seq);
            push_tokens(inner, out);
        }
        Shape::Map(key, value) => {
            out.push(Token::Map);
            push_tokens(key, out);
            push_tokens(value, out);
        }
        Shape::Tuple(shapes) => {
            // A length that does not fit is one that does not read back: no shape at all.
            out.push(Token::Tuple(u32::try_from(shapes.len()).unwrap_or(u32::MAX)));
            shapes.iter().for_each(|shape| push_tokens(shape, out));
        }
        Shape::Array(inner, len) => {
            out.push(Token::Array(*len));
            push_tokens(inner, out);
        }
    }
}

fn schema_in(wire: WireSchema) -> Result<Schema, String> {
    let names: Vec<String> = wire.types.iter().map(|(name, _)| name.clone()).collect();
    let shapes = Shapes { names: names.iter().map(String::as_str).collect() };
    let mut types = BTreeMap::new();
    for (type_name, named) in wire.types {
        if types.insert(name(type_name)?, shapes.named(named)?).is_some() {
            return Err("a type stands twice".to_owned());
        }
    }
    Ok(Schema { root: shapes.whole(wire.root)?, types })
}

/// Reads shapes that may refer to these types.
struct Shapes<'a> {
    names: std::collections::BTreeSet<&'a str>,
}

impl Shapes<'_> {
    fn named(&self, wire: WireNamed) -> Result<Named, String> {
        let variants = match wire {
            WireNamed::Struct(fields) => return Ok(Named::Struct(self.fields(fields)?)),
            WireNamed::Enum(variants) => variants,
        };
        let mut known = BTreeMap::new();
        for (number, variant, fields) in variants {
            if known.insert(number, (name(variant)?, self.fields(fields)?)).is_some() {
                return Err("a variant stands twice".to_owned());
            }
        }
        Ok(Named::Enum(known))
    }

    fn fields(&self, wire: WireFields) -> Result<Fields, String> {
        Ok(match wire {
            WireFields::Unit => Fields::Unit,
            WireFields::NewType(tokens) => Fields::NewType(self.whole(tokens)?),
            WireFields::Tuple(shapes) => Fields::Tuple(
                shapes.into_iter().map(|tokens| self.whole(tokens)).collect::<Result<_, _>>()?,
            ),
            WireFields::Named(fields) => Fields::Named(
                fields
                    .into_iter()
                    .map(|(field, tokens)| Ok((name(field)?, self.whole(tokens)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }

    fn whole(&self, tokens: Vec<Token>) -> Result<Shape, String> {
        let mut tokens = tokens.into_iter();
        let shape = self.one(&mut tokens, MAX_DEPTH)?;
        match tokens.next() {
            None => Ok(shape),
            Some(_) => Err("something follows the end of a shape".to_owned()),
        }
    }

    fn one(&self, tokens: &mut impl Iterator<Item = Token>, depth: usize) -> Result<Shape, String> {
        let depth = depth.checked_sub(1).ok_or("a shape is nested too deep")?;
        let token = tokens.next().ok_or("a shape ends too early")?;
        Ok(match token {
            Token::Unknown => Shape::Unknown,
            Token::Plain(plain) => Shape::Plain(plain),
            Token::Type(name) if self.names.contains(name.as_str()) => Shape::Type(name),
            Token::Type(_) => return Err("a type is referred to that is not there".to_owned()),
            Token::Option => Shape::Option(Box::new(self.one(tokens, depth)?)),
            Token::Seq => Shape::Seq(Box::new(self.one(tokens, depth)?)),
            Token::Map => {
                let key = self.one(tokens, depth)?;
                Shape::Map(Box::new(key), Box::new(self.one(tokens, depth)?))
            }
            // Nothing is allocated ahead: a hostile length ends with the tokens.
            Token::Tuple(len) => {
                Shape::Tuple((0..len).map(|_| self.one(tokens, depth)).collect::<Result<_, _>>()?)
            }
            Token::Array(len) if usize::try_from(len).is_ok_and(|len| len <= MAX_BYTES) => {
                Shape::Array(Box::new(self.one(tokens, depth)?), len)
            }
            Token::Array(_) => return Err("an array is too long".to_owned()),
        })
    }
}

fn name(name: String) -> Result<String, String> {
    if name.len() <= MAX_NAME { Ok(name) } else { Err("a name is too long".to_owned()) }
}
