use super::*;
use crate::id::{ByteId, Lookup};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt::Debug;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderId {
    region: String,
    number: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct UserId(u64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct JobName(String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point(i32, u8);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Payment {
    CashOnDelivery,
    Card(u64),
    Transfer {
        iban: String,
        kind: Kind,
    },
    #[serde(rename = "in \"kind\"")]
    InKind(Kind, bool),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Named(JobName),
}

/// The leaf comes first: it can be traced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum List {
    End,
    More(u8, Box<Self>),
}

/// The recursion comes first: tracing never finds a leaf.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Endless {
    More(Box<Self>),
    End,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Nested(Vec<Self>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum CatchAll {
    A,
    B(u8),
    #[serde(other)]
    Other,
}

/// What stands within an option or a sequence of a struct is traced once only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parcel {
    kind: Option<Kind>,
}

/// Tracing it has no end: whatever the number of the variant, it is the first one.
#[derive(Clone, Debug, PartialEq, Serialize)]
enum Stubborn {
    First,
    Second,
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{EnumAccess, Error, VariantAccess, Visitor};
        use std::fmt;
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Stubborn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a variant")
            }
            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Stubborn, A::Error> {
                let (NumberOrName(stubborn), rest) = access.variant()?;
                rest.unit_variant()?;
                Ok(stubborn)
            }
        }
        struct NumberOrName(Stubborn);
        impl<'de> Deserialize<'de> for NumberOrName {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_identifier(Identifier).map(Self)
            }
        }
        struct Identifier;
        impl Visitor<'_> for Identifier {
            type Value = Stubborn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a variant")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Stubborn, E> {
                Ok(if name == "First" { Stubborn::First } else { Stubborn::Second })
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Stubborn, E> {
                Ok(Stubborn::First)
            }
        }
        deserializer.deserialize_enum("Stubborn", &["First", "Second"], Whole)
    }
}

/// Refuses what a tracer makes up.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct NotEmpty(String);

impl<'de> Deserialize<'de> for NotEmpty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Err(serde::de::Error::custom("empty")) } else { Ok(Self(text)) }
    }
}

/// Panics on what a tracer makes up.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Panicking(u8);

impl<'de> Deserialize<'de> for Panicking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        assert_ne!(number, 0, "this panic is part of the test");
        Ok(Self(number))
    }
}

/// Encodes and traces as `uuid::Uuid`, and types like it, do: text for people, bytes otherwise.
#[derive(Clone, Debug, PartialEq)]
struct Uuid([u8; 16]);

impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!serializer.is_human_readable());
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        assert!(!deserializer.is_human_readable());
        let bytes = ByteId::deserialize(deserializer)?.into_bytes();
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("not 16 bytes"))
    }
}

fn encoded<K: Lookup<K>>(id: &K) -> EncodedId {
    EncodedId::encode::<K, K>(id).unwrap()
}

/// Shown as `description`, known completely, and prints the id as `text`.
fn check<K: Serialize + DeserializeOwned + Debug>(id: K, description: &str, text: &str) {
    let shape = IdShape::of_type::<K>();
    assert_eq!(shape.to_string(), description);
    assert!(matches!(shape.0, Knowledge::Complete(_)), "{shape:?}");
    check_text(&shape, &id, text);
}

fn check_text<K: Serialize>(shape: &IdShape, id: &K, text: &str) {
    let id = encoded(id);
    assert_eq!(shape.render(id.as_bytes()), text);
    assert_eq!(shape.parse(text), Ok(id), "{text}");
    assert_eq!(IdShape::from_bytes(&shape.to_bytes()).as_ref(), Ok(shape));
}

#[test]
fn plain_ids() {
    check("a \"b\"\n".to_owned(), "String", r#"a "b"\n"#);
    check(String::new(), "String", "");
    check(PathBuf::from("/tmp/a"), "String", "/tmp/a");
    check(ByteId::from(&b"a\xff"[..]), "bytes", r"a\xff");
    check(7_u8, "u8", "7");
    check(u128::MAX, "u128", "340282366920938463463374607431768211455");
    check(i128::MIN, "i128", "-170141183460469231731687303715884105728");
    check(true, "bool", "true");
    check((), "()", "()");
    check('\'', "char", r"'\''");
    check('"', "char", "'\"'");
    check('\u{202e}', "char", r"'\u{202e}'");
    check(1.5_f32, "f32", "1.5");
    check(-0.0_f64, "f64", "-0.0");
    check(f64::INFINITY, "f64", "inf");
    check(f64::MIN_POSITIVE, "f64", "2.2250738585072014e-308");
}

#[test]
fn compound_ids() {
    check((7_u32, "a\"\\".to_owned()), "(u32, String)", r#"(7, "a\"\\")"#);
    check((7_u32,), "(u32,)", "(7,)");
    check((7_u32, 8_u32), "(u32, u32)", "(7, 8)");
    check([1_u16, 2, 3, 4], "[u16; 4]", "[1, 2, 3, 4]");
    check([1_u8, 2, 3, 255], "[u8; 4]", "0x010203ff");
    check(vec![1_u8, 2], "Vec<u8>", "0x0102");
    check(Vec::<u8>::new(), "Vec<u8>", "0x");
    check(vec![(1_u16, "x".to_owned())], "Vec<(u16, String)>", r#"[(1, "x")]"#);
    check(Vec::<bool>::new(), "Vec<bool>", "[]");
    check(Some("a".to_owned()), "Option<String>", r#"Some("a")"#);
    check(None::<String>, "Option<String>", "None");
    check(Some(Some(())), "Option<Option<()>>", "Some(Some(()))");
    check((1_u8, ByteId::from("b")), "(u8, bytes)", r#"(1, b"b")"#);
    check(
        BTreeMap::from([("a".to_owned(), 1_u8), ("b".to_owned(), 2)]),
        "Map<String, u8>",
        r#"{"a": 1, "b": 2}"#,
    );
}

#[test]
fn named_ids() {
    check(
        OrderId { region: "eu".to_owned(), number: 7 },
        "struct OrderId { region: String, number: u64 }",
        r#"OrderId { region: "eu", number: 7 }"#,
    );
    check(UserId(7), "struct UserId(u64)", "7");
    check(JobName("nightly".to_owned()), "struct JobName(String)", "nightly");
    check(Point(-1, 2), "struct Point(i32, u8)", "Point(-1, 2)");
    check(Nothing, "struct Nothing", "Nothing");
    check(
        vec![(Nothing, JobName("x".to_owned()))],
        "Vec<(Nothing, JobName)>",
        r#"[(Nothing, "x")]"#,
    );
}

#[test]
fn enums() {
    let description = concat!(
        "enum Payment { cash-on-delivery, card(u64), transfer { iban: String, kind: Kind }, ",
        "in \"kind\"(Kind, bool) }"
    );
    check(Payment::CashOnDelivery, description, "cash-on-delivery");
    check(Payment::Card(7), description, "card(7)");
    let named = Kind::Named(JobName("n".to_owned()));
    check(
        Payment::Transfer { iban: "DE".to_owned(), kind: named },
        description,
        r#"transfer { iban: "DE", kind: Named("n") }"#,
    );
    check(Payment::InKind(Kind::Plain, true), description, r#""in \"kind\""(Plain, true)"#);
    let list = List::More(1, Box::new(List::More(2, Box::new(List::End))));
    check(list, "enum List { End, More(u8, List) }", "More(1, More(2, End))");
}

#[test]
fn types_that_cannot_be_traced() {
    for shape in [
        IdShape::of_type::<Endless>(),
        IdShape::of_type::<Nested>(),
        IdShape::of_type::<NotEmpty>(),
        IdShape::of_type::<Panicking>(),
        IdShape::of_type::<Uuid>(),
    ] {
        assert_eq!(shape.to_string(), "unknown");
        assert!(shape.is_opaque());
        assert_eq!(shape.render(b"\x01a\xff"), r"\u{1}a\xff");
        assert_eq!(shape.parse(r"\u{1}a\xff").unwrap().as_bytes(), b"\x01a\xff");
    }
}

#[test]
fn types_that_are_traced_in_part() {
    let shape = IdShape::of_type::<Stubborn>();
    assert!(matches!(shape.0, Knowledge::Sampled(_)), "{shape:?}");
    assert_eq!(shape.render(b"\x00"), "First");
    assert_eq!(shape.render(b"\x01"), r"\#01");
    let shape = IdShape::of_type::<Parcel>();
    assert!(matches!(shape.0, Knowledge::Sampled(_)), "{shape:?}");
    assert_eq!(shape.render(b"\x00"), "Parcel { kind: None }");
    assert_eq!(shape.render(b"\x01\x00"), r"\#0100");
    check_text(
        &IdShape::of_value(&Parcel { kind: Some(Kind::Plain) }),
        &Parcel { kind: Some(Kind::Plain) },
        "Parcel { kind: Some(Plain) }",
    );
    check(CatchAll::Other, "enum CatchAll { A, B(u8), Other }", "Other");
    check(Some(Kind::Plain), "Option<Kind>", "Some(Plain)");
}

#[test]
fn values_teach() {
    let id = NotEmpty("a\n".to_owned());
    let shape = IdShape::of_value(&id);
    assert_eq!(shape.to_string(), "struct NotEmpty(String)");
    check_text(&shape, &id, r"a\n");
    let id = Uuid(*b"0123456789abcde\xff");
    check_text(&IdShape::of_value(&id), &id, r"0123456789abcde\xff");
    let id = Endless::More(Box::new(Endless::End));
    check_text(&IdShape::of_value(&id), &id, "More(End)");
    // Another value may hold what the first one did not.
    let shape = IdShape::of_value(&(1_u8, Vec::<u16>::new(), None::<u8>));
    assert_eq!(shape.to_string(), "(u8, Vec<_>, _)");
    let other = encoded(&(1_u8, vec![7_u16], None::<u8>));
    assert_eq!(shape.render(other.as_bytes()), r"\#01010700");
    assert_eq!(shape.parse(r"\#01010700"), Ok(other));
}

#[test]
fn misfits_print_their_bytes() {
    let shape = IdShape::of_type::<u64>();
    for (bytes, text) in [
        (&b""[..], r"\#"),
        (b"\x07\x07", r"\#0707"),
        // 7 in more bytes than it needs: another id, should not print as 7.
        (b"\xfb\x07\x00", r"\#fb0700"),
    ] {
        assert_eq!(shape.render(bytes), text);
        assert_eq!(shape.parse(text).unwrap().as_bytes(), bytes);
    }
    let nan = encoded(&f64::from_bits(0x7ff8_0000_0000_0001));
    assert_eq!(IdShape::of_type::<f64>().render(nan.as_bytes()), r"\#010000000000f87f");
    // No time and no memory for a length that nothing stands behind.
    let endless = b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff";
    for shape in [
        IdShape::of_type::<Vec<()>>(),
        IdShape::of_type::<Vec<u8>>(),
        IdShape::of_type::<String>(),
        IdShape::of_type::<BTreeMap<(), ()>>(),
    ] {
        assert_eq!(shape.render(endless), r"\#fdffffffffffffffff");
    }
}

#[test]
fn texts_that_are_no_ids() {
    let order = IdShape::of_type::<OrderId>();
    for (text, says) in [
        ("", "expected OrderId at byte 0"),
        ("OrderId { region: 7", "expected \"\"\" at byte 17"),
        ("OrderId { region: \"e", "expected a closing \" at byte 19"),
        ("OrderId { region: \"e\", number: +7 }", "expected u64 at byte 30"),
        ("OrderId { region: \"e\", number: 7 } x", "expected the end at byte 34"),
    ] {
        assert_eq!(order.parse(text), Err(says.to_owned()), "{text}");
    }
    assert!(order.parse("OrderId{region:\"e\",number:7,}").is_ok());
    let text = IdShape::of_type::<String>();
    assert!(text.parse(r"\xff").is_err());
    assert!(text.parse(r"\#0").is_err());
    assert!(text.parse(r"\#é0").is_err());
    assert!(text.parse(&"a".repeat(2000)).unwrap_err().contains("at most 1024"));
    assert!(IdShape::of_type::<char>().parse("'ab'").is_err());
    assert!(IdShape::of_type::<[u8; 4]>().parse("0x01").is_err());
    assert!(IdShape::of_type::<[u16; 4]>().parse("[1, 2, 3]").is_err());
    assert!(IdShape::of_type::<Payment>().parse("cheque").is_err());
}

fn alike<A: DeserializeOwned, B: DeserializeOwned>() -> bool {
    let (a, b) = (IdShape::of_type::<A>(), IdShape::of_type::<B>());
    assert_eq!(a.compatible(&b), b.compatible(&a));
    assert!(a.compatible(&a) && b.compatible(&b));
    a.compatible(&b)
}

#[test]
fn what_is_written_alike_is_compatible() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its description is looked at")]
    struct Invoice {
        area: JobName,
        serial: u64,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its description is looked at")]
    enum Chain {
        Stop,
        Link { value: u8, next: Box<Self> },
    }
    assert!(alike::<UserId, u64>());
    assert!(alike::<OrderId, Invoice>());
    assert!(alike::<OrderId, (String, u64)>());
    assert!(alike::<[u8; 2], (u8, u8)>());
    assert!(alike::<[u8; 4], (u8, u8, u8, u8)>());
    assert!(alike::<Nothing, ()>());
    assert!(alike::<PathBuf, String>());
    assert!(alike::<List, Chain>());
    // Not known well enough to refuse anything.
    assert!(alike::<Uuid, u64>());
    assert!(alike::<Parcel, u64>());
}

#[test]
fn what_is_written_differently_is_not() {
    #[derive(Deserialize)]
    enum Swapped {
        #[expect(dead_code, reason = "only its description is looked at")]
        Named(JobName),
        Plain,
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its description is looked at")]
    enum Wider {
        End,
        More(u16, Box<Self>),
    }
    assert!(!alike::<u64, String>());
    assert!(!alike::<u64, u32>());
    assert!(!alike::<u64, i64>());
    assert!(!alike::<String, ByteId>());
    assert!(!alike::<Vec<u8>, ByteId>());
    assert!(!alike::<[u8; 4], Vec<u8>>());
    assert!(!alike::<[u8; 4], [u8; 5]>());
    assert!(!alike::<Option<u8>, u8>());
    assert!(!alike::<(u8, String), (String, u8)>());
    assert!(!alike::<BTreeMap<u8, u8>, Vec<(u8, u16)>>());
    assert!(!alike::<Kind, Swapped>());
    assert!(!alike::<List, Wider>());
    assert!(!alike::<OrderId, Payment>());
}

mod hostile;
mod random;
