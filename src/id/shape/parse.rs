//! The inverse of [`render`](super::render): text to an id's bytes, along the shape.
//!
//! Blanks between the parts are optional, and a comma may follow the last part; otherwise the text
//! is exactly as printed. bincode writes the parts of a value one after the other, so each part
//! appends its bytes as soon as it is read.

use super::render::{is_word, name};
use super::{Fields, MAX_DEPTH, Named, Plain, Schema, Shape};
use crate::id::MAX_ID_BYTES;
use crate::id::byte_id::unescape;
use crate::journal::codec::encode_into;
use std::collections::BTreeMap;
use std::str::FromStr;

pub(super) fn parse(schema: &Schema, text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match schema.resolved(&schema.root) {
        Some(Shape::Plain(plain @ (Plain::Str | Plain::Bytes))) => {
            push_text(*plain, text, &mut bytes)?;
        }
        Some(shape) => {
            let mut parser = Parser { schema, text, rest: text };
            parser.shape(shape, MAX_DEPTH, &mut bytes)?;
            if !parser.rest.trim_start().is_empty() {
                return Err(parser.expected("the end"));
            }
        }
        None => return Err("the description of the id type has no end".to_owned()),
    }
    Ok(bytes)
}

/// Reads what follows `\#`.
pub(super) fn unfit(digits: &str) -> Result<Vec<u8>, String> {
    hex(digits).ok_or_else(|| "after \\# stand pairs of hexadecimal digits".to_owned())
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks(2).map(|pair| Some(value(pair.first()?)? * 16 + value(pair.get(1)?)?)).collect()
}

fn push_text(plain: Plain, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let bytes = unescape(text).map_err(|error| error.to_string())?;
    if plain == Plain::Str && std::str::from_utf8(&bytes).is_err() {
        return Err("a string must be UTF-8".to_owned());
    }
    // Text, bytes and a sequence of u8 are all a length and the bytes themselves.
    encode_into(out, &bytes.len());
    out.extend_from_slice(&bytes);
    Ok(())
}

struct Parser<'a> {
    schema: &'a Schema,
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn expected(&self, what: &str) -> String {
        format!("expected {what} at byte {}", self.text.len() - self.rest.len())
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn must(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(self.expected(&format!("\"{token}\""))) }
    }

    /// Takes the longest run of such characters.
    fn run(&mut self, of: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|char| !of(char)).unwrap_or(rest.len());
        let (run, rest) = rest.split_at(end);
        self.rest = rest;
        run
    }

    /// Takes escaped text up to the quote, after the opening one.
    fn quoted(&mut self, quote: char) -> Result<&'a str, String> {
        let mut escaped = false;
        for (at, char) in self.rest.char_indices() {
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if char == quote => {
                    let (text, rest) = self.rest.split_at(at);
                    self.rest = rest.get(quote.len_utf8()..).unwrap_or_default();
                    return Ok(text);
                }
                _ => {}
            }
        }
        Err(self.expected(&format!("a closing {quote}")))
    }

    /// Takes a name, and returns it as it is printed.
    fn printed_name(&mut self) -> Result<String, String> {
        if self.take("\"") {
            return Ok(format!("\"{}\"", self.quoted('"')?));
        }
        match self.run(is_word) {
            "" => Err(self.expected("a name")),
            word => Ok(word.to_owned()),
        }
    }

    fn must_name(&mut self, wanted: &str) -> Result<(), String> {
        let wanted = name(wanted);
        let before = self.rest;
        if self.printed_name().is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        self.rest = before;
        Err(self.expected(&wanted))
    }

    fn shape(&mut self, shape: &Shape, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or("nested too deep")?;
        if out.len() > MAX_ID_BYTES {
            return Err("that is longer than an id may be".to_owned());
        }
        match shape {
            Shape::Unknown => Err("this part of the id type is not known".to_owned()),
            Shape::Plain(plain) => self.plain(*plain, out),
            Shape::Option(inner) => {
                if self.take("None") {
                    encode_into(out, &0_u8);
                    return Ok(());
                }
                self.must("Some")?;
                self.must("(")?;
                encode_into(out, &1_u8);
                self.shape(inner, depth, out)?;
                self.must(")")
            }
            Shape::Seq(inner) if **inner == Shape::Plain(Plain::U8) => {
                let bytes = self.hex_bytes()?;
                encode_into(out, &bytes.len());
                out.extend(bytes);
                Ok(())
            }
            Shape::Array(inner, len) if **inner == Shape::Plain(Plain::U8) => {
                let bytes = self.hex_bytes()?;
                if u32::try_from(bytes.len()) != Ok(*len) {
                    return Err(format!("expected {len} bytes, not {}", bytes.len()));
                }
                out.extend(bytes);
                Ok(())
            }
            Shape::Seq(inner) => {
                self.must("[")?;
                let mut elements = Vec::new();
                let count = self.list("]", &mut elements, |it, out| it.shape(inner, depth, out))?;
                encode_into(out, &count);
                out.extend(elements);
                Ok(())
            }
            Shape::Array(inner, len) => {
                self.must("[")?;
                let count = self.list("]", out, |it, out| it.shape(inner, depth, out))?;
                if u32::try_from(count) == Ok(*len) {
                    Ok(())
                } else {
                    Err(format!("expected {len} elements, not {count}"))
                }
            }
            Shape::Map(key, value) => {
                self.must("{")?;
                let mut pairs = Vec::new();
                let count = self.list("}", &mut pairs, |it, out| {
                    it.shape(key, depth, out)?;
                    it.must(":")?;
                    it.shape(value, depth, out)
                })?;
                encode_into(out, &count);
                out.extend(pairs);
                Ok(())
            }
            Shape::Tuple(shapes) => self.tuple(shapes, depth, out),
            Shape::Type(type_name) => match self.schema.types.get(type_name) {
                None => Err("this part of the id type is not known".to_owned()),
                Some(Named::Struct(Fields::NewType(inner))) => self.shape(inner, depth, out),
                Some(Named::Struct(fields)) => {
                    self.must_name(type_name)?;
                    self.fields(fields, depth, out)
                }
                Some(Named::Enum(variants)) => self.variant(variants, depth, out),
            },
        }
    }

    /// Takes parts with commas between them until `end`; returns how many.
    fn list(
        &mut self,
        end: &str,
        out: &mut Vec<u8>,
        mut part: impl FnMut(&mut Self, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut count = 0;
        while !self.take(end) {
            part(self, out)?;
            count += 1;
            if !self.take(",") {
                self.must(end)?;
                break;
            }
        }
        Ok(count)
    }

    fn variant(
        &mut self,
        variants: &BTreeMap<u32, (String, Fields)>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let before = self.rest;
        let found = self.printed_name()?;
        match variants.iter().find(|(_, (variant, _))| name(variant) == found) {
            Some((number, (_, fields))) => {
                encode_into(out, number);
                self.fields(fields, depth, out)
            }
            None => {
                self.rest = before;
                Err(self.expected("the name of a variant"))
            }
        }
    }

    fn fields(&mut self, fields: &Fields, depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match fields {
            Fields::Unit => Ok(()),
            Fields::NewType(inner) => {
                self.must("(")?;
                self.shape(inner, depth, out)?;
                self.must(")")
            }
            Fields::Tuple(shapes) => self.tuple(shapes, depth, out),
            Fields::Named(fields) => {
                self.must("{")?;
                for (at, (field, shape)) in fields.iter().enumerate() {
                    if at > 0 {
                        self.must(",")?;
                    }
                    self.must_name(field)?;
                    self.must(":")?;
                    self.shape(shape, depth, out)?;
                }
                self.take(",");
                self.must("}")
            }
        }
    }

    fn tuple(&mut self, shapes: &[Shape], depth: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.must("(")?;
        for (at, shape) in shapes.iter().enumerate() {
            if at > 0 {
                self.must(",")?;
            }
            self.shape(shape, depth, out)?;
        }
        self.take(",");
        self.must(")")
    }

    fn hex_bytes(&mut self) -> Result<Vec<u8>, String> {
        self.must("0x")?;
        // No blank may stand within the digits.
        let end = self.rest.find(|char: char| !char.is_ascii_hexdigit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let bytes = hex(digits).ok_or_else(|| self.expected("pairs of hexadecimal digits"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn plain(&mut self, plain: Plain, out: &mut Vec<u8>) -> Result<(), String> {
        match plain {
            Plain::Unit => {
                self.must("(")?;
                self.must(")")
            }
            Plain::Bool => self.number::<bool>(plain, out),
            Plain::I8 => self.number::<i8>(plain, out),
            Plain::I16 => self.number::<i16>(plain, out),
            Plain::I32 => self.number::<i32>(plain, out),
            Plain::I64 => self.number::<i64>(plain, out),
            Plain::I128 => self.number::<i128>(plain, out),
            Plain::U8 => self.number::<u8>(plain, out),
            Plain::U16 => self.number::<u16>(plain, out),
            Plain::U32 => self.number::<u32>(plain, out),
            Plain::U64 => self.number::<u64>(plain, out),
            Plain::U128 => self.number::<u128>(plain, out),
            Plain::F32 => self.number::<f32>(plain, out),
            Plain::F64 => self.number::<f64>(plain, out),
            Plain::Char => {
                self.must("'")?;
                let bytes = unescape(self.quoted('\'')?).map_err(|error| error.to_string())?;
                let mut chars = std::str::from_utf8(&bytes).unwrap_or_default().chars();
                match (chars.next(), chars.next()) {
                    (Some(char), None) => encode_into(out, &char),
                    _ => return Err(self.expected("one character before the quote")),
                }
                Ok(())
            }
            Plain::Str => {
                self.must("\"")?;
                push_text(plain, self.quoted('"')?, out)
            }
            Plain::Bytes => {
                self.must("b\"")?;
                push_text(plain, self.quoted('"')?, out)
            }
        }
    }

    fn number<T: FromStr + serde::Serialize>(
        &mut self,
        plain: Plain,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let before = self.rest;
        match self.run(|char| is_word(char) || char == '.').parse::<T>() {
            Ok(value) => {
                encode_into(out, &value);
                Ok(())
            }
            Err(_) => {
                self.rest = before;
                Err(self.expected(plain.name()))
            }
        }
    }
}
