//! Ids of any type, however hostile, are printed on one line and found again.

use crate::{fail, on, succeed, with};
use serde::{Deserialize, Serialize};
use taskledger::{ByteId, TaskId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    region: String,
    number: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Job {
    Nightly,
    Mail { to: String },
    Resize(u32, u32),
}

/// Prints all ids in every format; shows each by what was printed and by its bytes.
fn check<K: TaskId + Clone>(ids: &[K]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<K>(&path, async |ledger| {
        for (number, id) in (0..).zip(ids) {
            match number % 2 {
                0 => succeed(ledger, id.clone(), vec![number]).await,
                _ => fail(ledger, id.clone(), "no").await,
            }
        }
    });
    let json = on("dump", &path, &["--format", "json"]).expect(0);
    let printed: Vec<String> = json
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(printed.len(), ids.len(), "{json:?}");
    let table = on("dump", &path, &[]).expect(0);
    let log = on("log", &path, &[]).expect(0);
    for (line, id) in table.lines().iter().skip(1).zip(&printed) {
        assert!(line.ends_with(&format!(" {id}")), "{line:?} {id:?}");
    }
    for id in &printed {
        assert!(!id.contains(char::is_control), "{id:?}");
        assert!(log.out.contains(&format!("\t{id}\t")), "{id:?}");
        let shown = on("show", &path, &["--", id]).expect(0);
        let line = |name: &str| {
            let line = shown.out.lines().find(|line| line.starts_with(name)).unwrap();
            line.get(19..).unwrap().to_owned()
        };
        assert_eq!(line("id  "), *id);
        let by_bytes = on("show", &path, &["--hex", &line("id bytes")]).expect(0);
        assert_eq!(by_bytes.out, shown.out);
    }
    assert_eq!(on("verify", &path, &[]).expect(0).err, "");
    printed
}

#[test]
fn strings() {
    let ids = [
        "",
        " ",
        "a",
        "-x",
        "--hex",
        "a\nb",
        "\u{1b}[2Jx",
        "nul\0",
        "tab\t",
        "\\",
        "\\#00",
        "é\u{202e}",
        "\u{9b}",
    ];
    let printed = check(&ids.map(str::to_owned));
    assert!(printed.contains(&String::new()));
    assert!(printed.contains(&"\\u{1b}[2Jx".to_owned()));
    assert!(printed.contains(&"a\\nb".to_owned()));
}

#[test]
fn bytes() {
    let ids: [&[u8]; 6] = [b"", b"plain", b"\xff\xfe", b"/tmp/caf\xe9", b"\x1b\n\0", b"\\xff"];
    let printed = check(&ids.map(ByteId::from));
    assert!(printed.contains(&"/tmp/caf\\xe9".to_owned()));
}

#[test]
fn numbers_and_tuples() {
    assert_eq!(check(&[3_u64, 0, u64::MAX]), ["0", "3", "18446744073709551615"]);
    assert!(check(&[-1_i64, i64::MIN, 7]).contains(&"-1".to_owned()));
    assert!(check(&[(1_u8, "x".to_owned())]).contains(&"(1, \"x\")".to_owned()));
}

#[test]
fn structs_and_enums() {
    let order = |region: &str, number| Order { region: region.into(), number };
    let printed = check(&[order("eu", 7), order("\"\n", -1)]);
    assert!(printed.contains(&"Order { region: \"eu\", number: 7 }".to_owned()), "{printed:?}");
    let printed = check(&[Job::Nightly, Job::Mail { to: "a@b\u{7}".into() }, Job::Resize(1, 2)]);
    assert!(printed.contains(&"Resize(1, 2)".to_owned()), "{printed:?}");
}

#[test]
fn an_id_that_looks_like_an_option_needs_nothing_special() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<i64>(&path, async |ledger| succeed(ledger, -5, vec![]).await);
    on("show", &path, &["-5"]).expect(0);
}
