//! The encoding is a promise: these bytes are ids in ledgers that exist.

use super::*;
use proptest::prelude::*;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
struct OrderId {
    region: String,
    number: u64,
}

#[derive(Serialize, serde::Deserialize)]
struct UserId(u64);

#[derive(Serialize, serde::Deserialize)]
struct Nothing;

#[derive(Serialize, serde::Deserialize)]
enum Payment {
    Cash,
    Card(u64),
    Transfer { iban: String, day: (u16, u8) },
}

fn golden<K: TaskId>(id: &K, hex: &str) {
    let encoded = EncodedId::encode::<K, K>(id).unwrap();
    let found: String = encoded.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, hex, "{}", std::any::type_name::<K>());
    encoded.check_round_trip::<K>().unwrap();
}

#[test]
fn golden_bytes() {
    golden(&(), "");
    golden(&Nothing, "");
    golden(&true, "01");
    golden(&250_u8, "fa");
    golden(&255_u8, "ff");
    golden(&250_u16, "fa");
    golden(&251_u16, "fbfb00");
    golden(&65_535_u32, "fbffff");
    golden(&65_536_u32, "fc00000100");
    golden(&4_294_967_296_u64, "fd0000000001000000");
    golden(&u64::MAX, "fdffffffffffffffff");
    golden(&(1_u128 << 64), "fe00000000000000000100000000000000");
    golden(&-1_i64, "01");
    golden(&1_i64, "02");
    golden(&-126_i32, "fbfb00");
    golden(&-1_i8, "ff");
    golden(&'é', "c3a9");
    golden(&1.5_f64, "000000000000f83f");
    golden(&String::new(), "00");
    golden(&"job é".to_owned(), "066a6f6220c3a9");
    golden(&ByteId::from(&b"\x00\xff"[..]), "0200ff");
    golden(&vec![0_u8, 255], "0200ff");
    golden(&[1_u8, 2], "0102");
    golden(&vec![300_u16, 1], "02fb2c0101");
    golden(&PathBuf::from("/a"), "022f61");
    golden(&(7_u32, "a".to_owned()), "070161");
    golden(&UserId(7), "07");
    golden(&OrderId { region: "eu".into(), number: 300 }, "026575fb2c01");
    golden(&None::<String>, "00");
    golden(&Some("a".to_owned()), "010161");
    golden(&Payment::Cash, "00");
    golden(&Payment::Card(1), "0101");
    golden(&Payment::Transfer { iban: "D".into(), day: (2026, 11) }, "020144fbea070b");
    golden(&BTreeMap::from([("b".to_owned(), 2_u8), ("a".into(), 1)]), "02016101016202");
}

fn same<K: TaskId, Q: Lookup<K> + ?Sized>(owned: &K, borrowed: &Q) {
    let as_itself = EncodedId::encode::<K, K>(owned).unwrap();
    let as_borrowed = EncodedId::encode::<K, Q>(borrowed).unwrap();
    assert_eq!(as_itself, as_borrowed, "{}", std::any::type_name::<Q>());
}

fn same_text(text: &str) {
    same(&text.to_owned(), text);
    same::<Box<str>, str>(&text.into(), text);
    same::<Arc<str>, str>(&text.into(), text);
    same::<Cow<'static, str>, str>(&Cow::Owned(text.to_owned()), text);
    same::<ByteId, str>(&text.into(), text);
    same(&PathBuf::from(text), Path::new(text));
    same::<Box<Path>, Path>(&Path::new(text).into(), Path::new(text));
    same::<Cow<'static, Path>, Path>(&Cow::Owned(text.into()), Path::new(text));
    same(&OsString::from(text), OsStr::new(text));
    // The path is looked up by what it is, the `ByteId` of a path by its bytes.
    same::<ByteId, [u8]>(&Path::new(text).into(), text.as_bytes());
}

fn same_list<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static>(list: &[T]) {
    same(&list.to_vec(), list);
    same::<Box<[T]>, [T]>(&list.into(), list);
    same::<Arc<[T]>, [T]>(&list.into(), list);
    same::<Cow<'static, [T]>, [T]>(&Cow::Owned(list.to_vec()), list);
}

#[test]
fn an_array_is_no_slice() {
    // Why there is no look-up of `[u8; 2]` by `[u8]`: a slice stands with its length.
    let array = EncodedId::encode::<[u8; 2], [u8; 2]>(&[1, 2]).unwrap();
    let slice = EncodedId::encode::<Vec<u8>, [u8]>(&[1, 2]).unwrap();
    assert_ne!(array, slice);
}

proptest! {
    #[test]
    fn borrowed_forms_encode_as_the_owned(text in ".{0,80}", list: [u16; 9], at in 0_usize..9) {
        same_text(&text);
        same_list(&list[..at]);
        same_list(text.as_bytes());
        same_list(&[text.clone(), text]);
        same::<ByteId, [u8]>(&ByteId::from(&[1, 255][..]), &[1, 255]);
    }

    #[test]
    fn bytes_that_are_no_id_are_refused(bytes: Vec<u8>) {
        let id = EncodedId::from_bytes(&bytes);
        let _ = id.check_round_trip::<Vec<OrderId>>();
        let _ = id.check_round_trip::<BTreeMap<String, Option<char>>>();
        if let Ok(text) = id.decode::<String>() {
            prop_assert!(text.len() < bytes.len());
        }
    }
}

#[test]
fn the_longest_id() {
    // Three bytes say the length.
    let longest = "a".repeat(MAX_ID_BYTES - 3);
    let id = EncodedId::encode::<String, str>(&longest).unwrap();
    assert_eq!(id.as_bytes().len(), MAX_ID_BYTES);
    id.check_round_trip::<String>().unwrap();
    let too_long = longest + "a";
    assert_eq!(
        EncodedId::encode::<String, str>(&too_long),
        Err(IdError::TooLong { len: 1025, max: 1024 })
    );
    // No one write of the encoding says it all.
    let pieces = ["b".repeat(600), "c".repeat(700)];
    assert_eq!(
        EncodedId::encode::<[String; 2], [String; 2]>(&pieces),
        Err(IdError::TooLong { len: 1306, max: 1024 })
    );
    let far_too_long = vec![0_u64; 100_000];
    assert_eq!(
        EncodedId::encode::<Vec<u64>, [u64]>(&far_too_long),
        Err(IdError::TooLong { len: 100_005, max: 1024 })
    );
}

/// Of all that an id can be made of, a `u128` takes the most memory for a byte on disk (16). If the
/// longest list of them decodes within the limit, so does every id of that length.
#[test]
fn no_legal_id_takes_too_much_memory() {
    let numbers = vec![0_u128; MAX_ID_BYTES - 3];
    let id = EncodedId::encode::<Vec<u128>, [u128]>(&numbers).unwrap();
    assert_eq!(id.as_bytes().len(), MAX_ID_BYTES);
    id.check_round_trip::<Vec<u128>>().unwrap();
    let texts = vec![String::new(); MAX_ID_BYTES - 3];
    EncodedId::encode::<Vec<String>, [String]>(&texts)
        .unwrap()
        .check_round_trip::<Vec<String>>()
        .unwrap();
    let lists = vec![Vec::<u128>::new(); MAX_ID_BYTES - 3];
    EncodedId::encode::<Vec<Vec<u128>>, [Vec<u128>]>(&lists)
        .unwrap()
        .check_round_trip::<Vec<Vec<u128>>>()
        .unwrap();
    let pairs: BTreeMap<u16, i128> = (0..250).map(|key| (key, 0)).collect();
    EncodedId::encode::<BTreeMap<u16, i128>, _>(&pairs)
        .unwrap()
        .check_round_trip::<BTreeMap<u16, i128>>()
        .unwrap();
}

#[test]
fn lengths_that_lie_are_refused_without_asking_for_memory() {
    let id = EncodedId::from_bytes(b"\xfd\xff\xff\xff\xff\xff\xff\xff\x7f");
    assert!(matches!(id.decode::<String>(), Err(IdError::NoRoundTrip(_))));
    assert!(matches!(id.decode::<ByteId>(), Err(IdError::NoRoundTrip(_))));
    assert!(matches!(id.decode::<Vec<u64>>(), Err(IdError::NoRoundTrip(_))));
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(OsStr::from_bytes(b"/\xff"));
    let refused = EncodedId::encode::<PathBuf, Path>(path);
    assert!(matches!(refused, Err(IdError::NotSerializable(_))), "{refused:?}");
    golden(&ByteId::from(path), "022fff");
    golden(&path.as_os_str().to_owned(), "00022fff");
}

/// Read back, it has lost its case.
#[derive(Debug, Serialize)]
struct Lowered(String);

impl<'de> Deserialize<'de> for Lowered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.to_lowercase()))
    }
}

/// Writes more than it reads.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Skipping {
    number: u8,
    #[serde(skip_deserializing)]
    note: u8,
}

#[test]
fn ids_that_do_not_come_back_are_refused() {
    let id = EncodedId::encode::<Lowered, Lowered>(&Lowered("eu".into())).unwrap();
    id.check_round_trip::<Lowered>().unwrap();
    let id = EncodedId::encode::<Lowered, Lowered>(&Lowered("EU".into())).unwrap();
    assert!(matches!(id.check_round_trip::<Lowered>(), Err(IdError::NoRoundTrip(_))));
    let id = EncodedId::encode::<Skipping, _>(&Skipping { number: 1, note: 2 }).unwrap();
    assert_eq!(
        id.check_round_trip::<Skipping>().unwrap_err().to_string(),
        "the id does not survive serialization: 1 of its 2 bytes are read"
    );
}

#[test]
fn the_empty_id_is_one() {
    let id = EncodedId::encode::<(), ()>(&()).unwrap();
    assert_eq!(id, EncodedId::from_bytes(b""));
    id.decode::<()>().unwrap();
    assert!(matches!(EncodedId::from_bytes(b"\0").decode::<()>(), Err(IdError::NoRoundTrip(_))));
}

/// A form of an id that is looked up says the same as the one that is kept, whatever it is written in.
#[test]
fn an_id_is_looked_up_as_what_it_is_kept_as() {
    use serde::Serializer;
    use serde::ser::{Error as _, SerializeTuple};

    /// Goes on after what does not fit.
    struct Swallows(usize);
    impl Serialize for Swallows {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut tuple = to.serialize_tuple(2)?;
            drop(tuple.serialize_element(&"x".repeat(self.0)));
            tuple.serialize_element(&7_u8)?;
            tuple.end()
        }
    }

    /// Fails when it has written so much.
    struct Fails(usize);
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut tuple = to.serialize_tuple(2)?;
            tuple.serialize_element(&"x".repeat(self.0))?;
            Err(S::Error::custom("no more"))
        }
    }

    fn told<T: Serialize>(id: &T) -> [Result<Vec<u8>, String>; 2] {
        let kept = EncodedId::encode::<T, T>(id).map(|id| id.as_bytes().to_vec());
        let looked = EncodedId::probe::<T, T, _>(id, |id| id.with_bytes(<[u8]>::to_vec));
        [kept, looked].map(|told| told.map_err(|error| error.to_string()))
    }

    for length in [0, 1, 7, 8, 38, 39, 40, 41, 62, 63, 64, 65, 1000, 1021, 1022, 1023, 1024, 2000] {
        for [kept, looked] in
            [told(&"x".repeat(length)), told(&Swallows(length)), told(&Fails(length))]
        {
            assert_eq!(kept, looked, "{length}");
        }
    }
    for [kept, looked] in [told(&()), told(&u128::MAX), told(&(7_u64, true, 'x', -1_i32))] {
        assert_eq!(kept, looked);
        assert!(kept.is_ok());
    }
}
