//! Descriptions that nobody wrote, and types that nobody should.

use super::*;

/// Tracing numbers variants from 0 on; what is stored may say otherwise.
#[test]
fn variants_are_their_numbers() {
    let numbered = |number| {
        let variants = BTreeMap::from([(number, ("V".to_owned(), Fields::Unit))]);
        IdShape(Knowledge::Complete(Schema {
            root: Shape::Type("A".to_owned()),
            types: BTreeMap::from([("A".to_owned(), Named::Enum(variants))]),
        }))
    };
    assert!(numbered(1).compatible(&numbered(1)));
    assert!(!numbered(1).compatible(&numbered(0)));
    check_text(&numbered(300), &300_u32, "V");
}

#[test]
fn hostile_descriptions() {
    assert!(IdShape::from_bytes(b"").is_err());
    assert!(IdShape::from_bytes(b"\x02\x02").is_err());
    assert!(IdShape::from_bytes(&vec![1; 64 * 1024 + 1]).is_err());
    let deep = |count: usize| {
        // version 1, complete, a root of so many tokens, the last one a bool, no types
        let mut bytes = vec![1, 0, 0xfb];
        bytes.extend(u16::try_from(count).unwrap().to_le_bytes());
        bytes.extend(std::iter::repeat_n(3, count - 1));
        bytes.extend([1, 1, 0]);
        bytes
    };
    assert!(IdShape::from_bytes(&deep(60_000)).unwrap_err().contains("too deep"));
    let schema = |root: Shape, types: Vec<(&str, Named)>| {
        let types = types.into_iter().map(|(name, named)| (name.to_owned(), named)).collect();
        IdShape(Knowledge::Complete(Schema { root, types }))
    };
    let me = || Shape::Type("A".to_owned());
    // Without end, in every way: nothing hangs, and every id prints as bytes.
    for shape in [
        schema(me(), vec![("A", Named::Struct(Fields::NewType(me())))]),
        schema(me(), vec![("A", Named::Struct(Fields::Tuple(vec![me(), me()])))]),
        schema(
            Shape::Array(
                Box::new(Shape::Array(Box::new(Shape::Plain(Plain::Unit)), 60_000)),
                60_000,
            ),
            vec![],
        ),
    ] {
        let shape = IdShape::from_bytes(&shape.to_bytes()).unwrap();
        assert!(shape.compatible(&shape));
        assert_eq!(shape.render(b"\x01"), r"\#01");
        assert!(shape.parse("A(").is_err());
        assert!(!shape.to_string().is_empty());
    }
    let missing = schema(me(), vec![]);
    assert!(IdShape::from_bytes(&missing.to_bytes()).is_err());
    assert!(missing.storable().is_opaque());
    let long = "n".repeat(MAX_NAME + 1);
    assert!(
        schema(Shape::Unknown, vec![(&long, Named::Struct(Fields::Unit))]).storable().is_opaque()
    );
    // Two variants that print alike.
    let twins =
        BTreeMap::from([(0, ("V".to_owned(), Fields::Unit)), (1, ("V".to_owned(), Fields::Unit))]);
    let twins = schema(me(), vec![("A", Named::Enum(twins))]);
    assert_eq!(twins.render(b"\x00"), "V");
    assert_eq!(twins.render(b"\x01"), r"\#01");
    // Names that would break the line.
    let shape = schema(
        me(),
        vec![("A", Named::Enum(BTreeMap::from([(0, ("\n\u{1b}".to_owned(), Fields::Unit))])))],
    );
    check_text(&shape, &0_u8, r#""\n\u{1b}""#);
    assert_eq!(shape.to_string(), r"enum A { \n\u{1b} }");
}

/// Each of these is two of the next: more parts than there is time to trace.
macro_rules! doubled {
    ($one:ident) => {
        #[derive(Deserialize)]
        struct $one;
    };
    ($one:ident $next:ident $($rest:ident)*) => {
        #[derive(Deserialize)]
        struct $one($next, $next);
        doubled!($next $($rest)*);
    };
}

#[test]
fn a_type_of_very_many_parts() {
    doubled!(A B C D E F G H I J K L M N O P Q R S T U V W X Y Z A0 B0 C0 D0 E0 F0 G0 H0);
    assert!(IdShape::of_type::<A>().is_opaque());
    assert!(!IdShape::of_type::<W>().is_opaque());
}
