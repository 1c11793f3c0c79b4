//! What holds for every id, every text and every description.

use super::*;
use proptest::prelude::*;

fn any_shape() -> impl Strategy<Value = IdShape> {
    let shapes = [
        IdShape::of_type::<u8>(),
        IdShape::of_type::<u64>(),
        IdShape::of_type::<i128>(),
        IdShape::of_type::<f32>(),
        IdShape::of_type::<char>(),
        IdShape::of_type::<bool>(),
        IdShape::of_type::<String>(),
        IdShape::of_type::<ByteId>(),
        IdShape::of_type::<Vec<u8>>(),
        IdShape::of_type::<Vec<String>>(),
        IdShape::of_type::<Vec<(u16, String)>>(),
        IdShape::of_type::<BTreeMap<String, u8>>(),
        IdShape::of_type::<Option<Option<ByteId>>>(),
        IdShape::of_type::<OrderId>(),
        IdShape::of_type::<Payment>(),
        IdShape::of_type::<List>(),
        IdShape::of_type::<Option<Kind>>(),
        IdShape::of_type::<Parcel>(),
        IdShape::of_type::<[u8; 4]>(),
        IdShape::of_type::<Nothing>(),
        IdShape::of_type::<Uuid>(),
    ];
    prop::sample::select(shapes.to_vec())
}

fn comes_back<K: Serialize + DeserializeOwned>(id: &K) -> Result<(), TestCaseError> {
    let id = encoded(id);
    for shape in [IdShape::of_type::<K>(), IdShape::default()] {
        let text = shape.render(id.as_bytes());
        prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
        prop_assert_eq!(shape.parse(&text), Ok(id.clone()), "{}", text);
    }
    let fits = IdShape::of_type::<K>().render(id.as_bytes());
    prop_assert!(!fits.starts_with("\\#"), "{}", fits);
    Ok(())
}

fn payment() -> impl Strategy<Value = Payment> {
    let kind = || {
        prop_oneof![Just(Kind::Plain), any::<String>().prop_map(|name| Kind::Named(JobName(name)))]
    };
    prop_oneof![
        Just(Payment::CashOnDelivery),
        any::<u64>().prop_map(Payment::Card),
        (any::<String>(), kind()).prop_map(|(iban, kind)| Payment::Transfer { iban, kind }),
        (kind(), any::<bool>()).prop_map(|(kind, good)| Payment::InKind(kind, good)),
    ]
}

proptest! {
    #[test]
    fn plain_ids_come_back(
        unsigned: (u8, u16, u32, u64, u128), signed: (i8, i16, i32, i64, i128),
        bool: bool, char: char, text in any::<String>(), bytes: Vec<u8>, floats: (f32, f64),
    ) {
        comes_back(&unsigned)?;
        comes_back(&unsigned.4)?;
        comes_back(&signed)?;
        comes_back(&signed.3)?;
        comes_back(&bool)?;
        comes_back(&char)?;
        comes_back(&text)?;
        comes_back(&ByteId::from(bytes.clone()))?;
        comes_back(&bytes)?;
        comes_back(&floats)?;
        comes_back(&Nothing)?;
        comes_back(&(char, text, ByteId::from(bytes)))?;
    }

    #[test]
    fn compound_ids_come_back(
        pair: (u32, String), option: Option<String>, array: [u8; 4],
        list in prop::collection::vec(any::<(u16, String)>(), 0..4),
        map in prop::collection::btree_map(any::<String>(), any::<u8>(), 0..4),
        payment in payment(),
    ) {
        comes_back(&OrderId { region: pair.1.clone(), number: pair.0.into() })?;
        comes_back(&pair)?;
        comes_back(&option)?;
        comes_back(&array)?;
        comes_back(&list)?;
        comes_back(&map)?;
        comes_back(&payment)?;
        comes_back(&vec![payment])?;
    }

    #[test]
    fn any_bytes_come_back_from_any_shape(
        shape in any_shape(),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::collection::vec(0_u8..4, 0..12),
        ],
    ) {
        let text = shape.render(&bytes);
        prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
        prop_assert_eq!(shape.parse(&text), Ok(EncodedId::from_bytes(&bytes)), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(shape in any_shape(), text: String, like in r#"[\[({"'b0-9a-fx, :}\])Some]{0,20}"#) {
        let _ = shape.parse(&text);
        let _ = shape.parse(&like);
    }

    #[test]
    fn any_description_is_read_or_refused(
        shape in any_shape(), at: prop::sample::Index, value: u8, cut: prop::sample::Index,
        bytes: Vec<u8>, id: Vec<u8>,
    ) {
        let _ = IdShape::from_bytes(&bytes);
        let mut hurt = shape.to_bytes();
        let at = at.index(hurt.len());
        hurt[at] = value;
        if let Ok(other) = IdShape::from_bytes(&hurt) {
            let _ = other.compatible(&shape);
            prop_assert_eq!(other.parse(&other.render(&id)), Ok(EncodedId::from_bytes(&id)));
            prop_assert!(!other.to_string().chars().any(char::is_control));
        }
        let whole = shape.to_bytes();
        prop_assert!(IdShape::from_bytes(&whole[..cut.index(whole.len())]).is_err());
    }
}
