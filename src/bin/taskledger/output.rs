//! Stored outputs (MessagePack) as JSON.
//!
//! Whatever MessagePack can hold has a JSON value: bytes are a string of hexadecimal digits, keys
//! that are no strings are their JSON text, numbers that JSON lacks are their names, an extension
//! is `{"ext": type, "data": digits}`. What is no single MessagePack value, or is nested too
//! deeply, is none.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt;

/// How deep a value may be nested.
const MAX_DEPTH: usize = 64;

/// The value, or why there is none.
pub(crate) fn to_json(bytes: &[u8]) -> Result<Value, String> {
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

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        Ok(hex(value).into())
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
    use serde::Serialize;
    use std::collections::BTreeMap;

    fn json_of<T: Serialize>(value: &T) -> Value {
        to_json(&rmp_serde::to_vec_named(value).unwrap()).unwrap()
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
        assert_eq!(to_json(&[0xc4, 2, 0xff, 0x00]), Ok(json!("ff00")));
        assert_eq!(json_of(&f64::NAN), json!("NaN"));
        assert_eq!(json_of(&f64::NEG_INFINITY), json!("-inf"));
        assert_eq!(json_of(&f32::INFINITY), json!("inf"));
        let keys = BTreeMap::from([((1, 2), "a"), ((3, 4), "b")]);
        assert_eq!(json_of(&keys), json!({ "[1,2]": "a", "[3,4]": "b" }));
        assert_eq!(to_json(&[0xd4, 5, 0xab]), Ok(json!({ "ext": 5, "data": "ab" })));
    }

    #[test]
    fn what_is_no_value_is_none() {
        assert_eq!(to_json(&[0xc0, 0xc0]), Err("1 bytes too many".into()));
        for bytes in [&[][..], &[0xc1], &[0x91], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xa2, 0xff]] {
            assert!(to_json(bytes).is_err(), "{bytes:02x?}");
        }
        let nested = |depth| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(to_json(&nested(50)).is_ok());
        assert!(to_json(&nested(100_000)).is_err());
    }
}
