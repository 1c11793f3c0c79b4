//! What is stored, as JSON that can be shown.
//!
//! Outputs are MessagePack. Whatever MessagePack can hold has a JSON value: bytes are a string of hexadecimal digits, keys
//! that are no strings are their JSON text, numbers that JSON lacks are their names, an extension
//! is `{"ext": type, "data": digits}`. What is no single MessagePack value, is nested too deeply, or
//! has keys that would become too long, is none.

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt;

/// How deep a value may be nested.
const MAX_DEPTH: usize = 64;

/// The longest key that is made of something else than a string. Escaped in a key around it, its quotes
/// double: nested keys would grow without end.
const MAX_KEY: usize = 4 * 1024;

/// The output of a success, as it is stored ([`Output::Kept`](crate::Output::Kept)), as JSON.
///
/// # Errors
///
/// Why it has none, in words: it is no single MessagePack value, for one.
///
/// # Examples
///
/// ```
/// # use taskledger::dump::output_json;
/// assert_eq!(output_json(&[0x92, 0x01, 0xc0])?.to_string(), "[1,null]");
/// assert!(output_json(&[0x92, 0x01]).is_err());
/// # Ok::<(), String>(())
/// ```
pub fn output_json(bytes: &[u8]) -> Result<Value, String> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(MAX_DEPTH);
    let Json(value) = Json::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    drop(deserializer);
    match rest.len() {
        0 => Ok(value),
        more => Err(format!("{more} bytes too many")),
    }
}

/// JSON on one line that is harmless on a terminal: besides what JSON itself wants escaped, all that
/// controls or hides. It reads as the same value.
///
/// # Errors
///
/// That the value has no JSON, such as a map whose keys are no strings.
///
/// # Examples
///
/// ```
/// # use taskledger::dump::json_line;
/// assert_eq!(json_line("a\u{1b}[2J\u{202e}b")?, r#""a\u001b[2J\u202eb""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    let mut tame = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            // Outside of its strings JSON has none of them.
            '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => tame.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => tame.push(char),
        }
    }
    Ok(tame)
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Self)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f32<E>(self, value: f32) -> Result<Value, E> {
        Ok(float(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(HEXLOWER.encode(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((Json(key), Json(value))) = map.next_entry()? {
            let key = match key {
                Value::String(key) => key,
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => key.to_string(),
            };
            if key.len() > MAX_KEY {
                return Err(A::Error::custom("a key of more than 4 KiB, which is no string"));
            }
            values.insert(key, value);
        }
        Ok(values.into())
    }

    /// An extension: its type, then its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Value, D::Error> {
        let Json(parts) = Json::deserialize(ext)?;
        match parts.as_array().map(Vec::as_slice) {
            Some([kind, data]) => Ok(json!({ "ext": kind, "data": data })),
            _ => Err(D::Error::custom("not an extension")),
        }
    }
}

/// What is not finite has no number in JSON.
fn float(value: f64) -> Value {
    if value.is_finite() { value.into() } else { value.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn json_of<T: Serialize>(value: &T) -> Value {
        output_json(&rmp_serde::to_vec_named(value).unwrap()).unwrap()
    }

    #[test]
    fn plain_values_are_themselves() {
        #[derive(Serialize)]
        struct Receipt {
            number: u64,
            names: Vec<&'static str>,
            paid: Option<bool>,
        }
        let receipt = Receipt { number: u64::MAX, names: vec!["a", "ü"], paid: None };
        let expected = json!({ "number": u64::MAX, "names": ["a", "ü"], "paid": null });
        assert_eq!(json_of(&receipt), expected);
        assert_eq!(json_of(&()), Value::Null);
        assert_eq!(json_of(&(i64::MIN, 1.5, true)), json!([i64::MIN, 1.5, true]));
    }

    #[test]
    fn what_json_lacks_has_a_form_all_the_same() {
        assert_eq!(output_json(&[0xc4, 2, 0xff, 0x00]), Ok(json!("ff00")));
        assert_eq!(json_of(&f64::NAN), json!("NaN"));
        assert_eq!(json_of(&f64::NEG_INFINITY), json!("-inf"));
        assert_eq!(json_of(&f32::INFINITY), json!("inf"));
        let keys = BTreeMap::from([((1, 2), "a"), ((3, 4), "b")]);
        assert_eq!(json_of(&keys), json!({ "[1,2]": "a", "[3,4]": "b" }));
        assert_eq!(output_json(&[0xd4, 5, 0xab]), Ok(json!({ "ext": 5, "data": "ab" })));
    }

    #[test]
    fn what_is_no_value_is_none() {
        assert_eq!(output_json(&[0xc0, 0xc0]), Err("1 bytes too many".into()));
        for bytes in [&[][..], &[0xc1], &[0x91], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xa2, 0xff]] {
            assert!(output_json(bytes).is_err(), "{bytes:02x?}");
        }
        let nested = |depth| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(output_json(&nested(50)).is_ok());
        assert!(output_json(&nested(100_000)).is_err());
    }

    /// Quotes in a key are escaped in the key around it: 100 bytes of nested keys would take more memory
    /// than there is.
    #[test]
    fn keys_of_keys_of_keys_do_not_grow_without_end() {
        let nested = |depth: usize| {
            let mut value = vec![0xc0];
            for _ in 0..depth {
                value = [vec![0x81], value, vec![0xc0]].concat();
            }
            output_json(&value)
        };
        assert!(nested(3).is_ok());
        assert!(nested(60).unwrap_err().contains("a key"));
    }

    #[test]
    fn nothing_that_controls_a_terminal_is_left() {
        let hostile = "a\u{1b}[2J\u{9b}2J\n\u{202e}\u{7f}é";
        let line = json_line(hostile).unwrap();
        assert_eq!(line, "\"a\\u001b[2J\\u009b2J\\n\\u202e\\u007fé\"");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }
}
