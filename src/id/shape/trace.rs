//! Learning a shape with `serde-reflection`.
//!
//! Tracing runs the `Deserialize` or `Serialize` of the id type, and of types within it, on
//! made-up input. It may fail, and may panic (so may `serde-reflection`, which holds some of its
//! assumptions by `unreachable!` and by `RefCell`): a panic is caught and means that nothing was
//! learned. Its message still goes to the process's panic hook, which is not ours to silence.

use super::limit::{Budget, Limited};
use super::{Fields, Knowledge, MAX_DEPTH, MAX_NODES, Named, Plain, Schema, Shape};
use crate::foreign::caught;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserializer, Serialize};
use serde_reflection::{
    ContainerFormat, Format, Named as NamedFormat, Registry, Samples, Tracer, TracerConfig,
    VariantFormat,
};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

/// How often a type is traced: each time shows one more variant of each enum, twice. An enum that
/// does not tell its variants apart by their numbers would otherwise be traced for ever.
const MAX_ROUNDS: usize = 1024;

/// Numbers above this are no variants: while it has not found out a variant's number,
/// `serde-reflection` counts down from `u32::MAX`.
const MAX_VARIANT: u32 = u32::MAX / 2;

pub(super) fn of_type<K: DeserializeOwned>() -> Knowledge {
    // What a panic leaves behind half done is dropped here.
    caught(trace_type::<K>).ok().flatten().unwrap_or(Knowledge::Opaque)
}

pub(super) fn of_value<K: Serialize + ?Sized>(id: &K) -> Knowledge {
    let traced = caught(|| {
        let mut tracer = Tracer::new(config());
        let (format, _) = tracer.trace_value(&mut Samples::new(), id).ok()?;
        Conversion::default().schema(&format, &tracer.registry_unchecked())
    });
    traced.ok().flatten().map_or(Knowledge::Opaque, Knowledge::Sampled)
}

/// As bincode is not human-readable, types that ask see the same here.
fn config() -> TracerConfig {
    TracerConfig::default().is_human_readable(false)
}

/// Traces again and again until no enum has variants left to show. The tracer does not tell the
/// names of the enums that it waits for, only whether it waits for one of a given name: whenever
/// the result shows an unfinished enum of a new name, the trace begins anew knowing it.
fn trace_type<K: DeserializeOwned>() -> Option<Knowledge> {
    let samples = Samples::new();
    let mut unfinished = BTreeSet::new();
    let mut rounds = MAX_ROUNDS;
    loop {
        let mut tracer = Tracer::new(config());
        let format = loop {
            rounds = rounds.checked_sub(1)?;
            let seed = WithLimit(PhantomData::<K>);
            let (format, _) = tracer.trace_type_once_with_seed(&samples, seed).ok()?;
            let waiting = unfinished
                .iter()
                .filter(|name: &&String| tracer.check_incomplete_enum(name).is_some())
                .count();
            if waiting == 0 || rounds == 0 {
                break format;
            }
        };
        let registry = tracer.registry_unchecked();
        let mut found_new = false;
        for (name, container) in &registry {
            if is_unfinished(container) {
                found_new |= unfinished.insert(name.clone());
            }
        }
        if found_new && rounds > 0 {
            continue;
        }
        let mut conversion = Conversion::default();
        let schema = conversion.schema(&format, &registry)?;
        return Some(if conversion.incomplete {
            Knowledge::Sampled(schema)
        } else {
            Knowledge::Complete(schema)
        });
    }
}

struct WithLimit<K>(PhantomData<K>);

impl<'de, K: DeserializeOwned> DeserializeSeed<'de> for WithLimit<K> {
    type Value = K;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K, D::Error> {
        K::deserialize(Limited::new(deserializer, MAX_DEPTH, &Budget::new(MAX_NODES)))
    }
}

fn is_unfinished(container: &ContainerFormat) -> bool {
    match container {
        ContainerFormat::Enum(variants) => variants.keys().any(|number| *number > MAX_VARIANT),
        ContainerFormat::UnitStruct
        | ContainerFormat::NewTypeStruct(_)
        | ContainerFormat::TupleStruct(_)
        | ContainerFormat::Struct(_) => false,
    }
}

/// From the types of `serde-reflection` to ours. `None` is a shape too deep.
#[derive(Default)]
struct Conversion {
    /// Whether something was left out or is unknown.
    incomplete: bool,
}

impl Conversion {
    fn schema(&mut self, root: &Format, registry: &Registry) -> Option<Schema> {
        let root = self.shape(root, MAX_DEPTH)?;
        let types = registry
            .iter()
            .map(|(name, container)| Some((name.clone(), self.named(container)?)))
            .collect::<Option<BTreeMap<_, _>>>()?;
        Some(Schema { root, types })
    }

    fn named(&mut self, container: &ContainerFormat) -> Option<Named> {
        Some(match container {
            ContainerFormat::UnitStruct => Named::Struct(Fields::Unit),
            ContainerFormat::NewTypeStruct(format) => {
                Named::Struct(Fields::NewType(self.shape(format, MAX_DEPTH)?))
            }
            ContainerFormat::TupleStruct(formats) => {
                Named::Struct(Fields::Tuple(self.shapes(formats, MAX_DEPTH)?))
            }
            ContainerFormat::Struct(fields) => {
                Named::Struct(Fields::Named(self.fields(fields, MAX_DEPTH)?))
            }
            ContainerFormat::Enum(variants) => {
                let mut known = BTreeMap::new();
                for (number, variant) in variants {
                    match self.variant(&variant.value, MAX_DEPTH)? {
                        Some(fields) if *number <= MAX_VARIANT => {
                            known.insert(*number, (variant.name.clone(), fields));
                        }
                        Some(_) | None => self.incomplete = true,
                    }
                }
                Named::Enum(known)
            }
        })
    }

    /// `Some(None)` is a variant of which only the name is known.
    fn variant(&mut self, format: &VariantFormat, depth: usize) -> Option<Option<Fields>> {
        let depth = depth.checked_sub(1)?;
        Some(Some(match format {
            VariantFormat::Variable(variable) => match variable.borrow().as_ref() {
                Some(known) => return self.variant(known, depth),
                None => return Some(None),
            },
            VariantFormat::Unit => Fields::Unit,
            VariantFormat::NewType(format) => Fields::NewType(self.shape(format, depth)?),
            VariantFormat::Tuple(formats) => Fields::Tuple(self.shapes(formats, depth)?),
            VariantFormat::Struct(fields) => Fields::Named(self.fields(fields, depth)?),
        }))
    }

    fn fields(
        &mut self,
        fields: &[NamedFormat<Format>],
        depth: usize,
    ) -> Option<Vec<(String, Shape)>> {
        fields
            .iter()
            .map(|field| Some((field.name.clone(), self.shape(&field.value, depth)?)))
            .collect()
    }

    fn shapes(&mut self, formats: &[Format], depth: usize) -> Option<Vec<Shape>> {
        formats.iter().map(|format| self.shape(format, depth)).collect()
    }

    fn shape(&mut self, format: &Format, depth: usize) -> Option<Shape> {
        let depth = depth.checked_sub(1)?;
        Some(match format {
            Format::Variable(variable) => match variable.borrow().as_ref() {
                Some(known) => self.shape(known, depth)?,
                None => {
                    self.incomplete = true;
                    Shape::Unknown
                }
            },
            Format::TypeName(name) => Shape::Type(name.clone()),
            Format::Option(inner) => Shape::Option(Box::new(self.shape(inner, depth)?)),
            Format::Seq(inner) => Shape::Seq(Box::new(self.shape(inner, depth)?)),
            Format::Map { key, value } => {
                Shape::Map(Box::new(self.shape(key, depth)?), Box::new(self.shape(value, depth)?))
            }
            Format::Tuple(formats) => tuple(self.shapes(formats, depth)?),
            Format::TupleArray { content, size } => tuple(vec![self.shape(content, depth)?; *size]),
            Format::Unit => Shape::Plain(Plain::Unit),
            Format::Bool => Shape::Plain(Plain::Bool),
            Format::I8 => Shape::Plain(Plain::I8),
            Format::I16 => Shape::Plain(Plain::I16),
            Format::I32 => Shape::Plain(Plain::I32),
            Format::I64 => Shape::Plain(Plain::I64),
            Format::I128 => Shape::Plain(Plain::I128),
            Format::U8 => Shape::Plain(Plain::U8),
            Format::U16 => Shape::Plain(Plain::U16),
            Format::U32 => Shape::Plain(Plain::U32),
            Format::U64 => Shape::Plain(Plain::U64),
            Format::U128 => Shape::Plain(Plain::U128),
            Format::F32 => Shape::Plain(Plain::F32),
            Format::F64 => Shape::Plain(Plain::F64),
            Format::Char => Shape::Plain(Plain::Char),
            Format::Str => Shape::Plain(Plain::Str),
            Format::Bytes => Shape::Plain(Plain::Bytes),
        })
    }
}

/// serde does not tell arrays from tuples. Four or more of the same are taken for an array; two
/// or three are more often a tuple.
fn tuple(shapes: Vec<Shape>) -> Shape {
    match (shapes.first(), u32::try_from(shapes.len())) {
        (Some(first), Ok(len)) if len >= 4 && shapes.iter().all(|shape| shape == first) => {
            Shape::Array(Box::new(first.clone()), len)
        }
        _ => Shape::Tuple(shapes),
    }
}
