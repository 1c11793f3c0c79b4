//! The path holds something else than a ledger that this program may open.
//!
//! Each is refused with an error of its own, and nothing is changed: the directory is compared byte
//! by byte.

use crate::lab::{self, builder, is_root, skipped};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use taskledger::{ByteId, Ledger, OpenError};
use xxhash_rust::xxh3::xxh3_64;

/// Opens with ids of type `K`, which must fail and change nothing.
async fn refused<K: taskledger::TaskId>(path: &Path) -> OpenError {
    let before = path.is_dir().then(|| lab::image(path));
    let builder = Ledger::<K, String>::builder().ballast_bytes(0);
    let opened = tokio::time::timeout(lab::NEVER, builder.open(path)).await.unwrap();
    let error = opened.unwrap_err();
    if let Some(before) = before {
        assert_eq!(lab::difference(&before, &lab::image(path)), None, "{error}");
    }
    error
}

async fn made(path: &Path) {
    let ledger = lab::open(builder(), path).await.unwrap();
    ledger.mark_succeeded("a".to_owned()).await.unwrap();
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_file() {
    let dir = lab::scratch();
    let path = dir.path().join("file");
    std::fs::write(&path, "text").unwrap();
    let error = refused::<String>(&path).await;
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
    // Neither is anything below it.
    let error = refused::<String>(&path.join("below")).await;
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
}

#[tokio::test]
async fn a_directory_of_something_else() {
    let dir = lab::scratch();
    let path = dir.path().join("photos");
    std::fs::create_dir_all(path.join("2024")).unwrap();
    std::fs::write(path.join("2024/a.jpg"), "jpg").unwrap();
    let error = refused::<String>(&path).await;
    let OpenError::NotALedger { found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(found, "2024");
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "not even a lock");
}

#[tokio::test]
async fn a_store_of_sled_that_is_not_ours() {
    let dir = lab::scratch();
    let path = dir.path().join("store");
    std::fs::create_dir_all(path.join("blobs")).unwrap();
    std::fs::write(path.join("conf"), "segment_size: 524288").unwrap();
    std::fs::write(path.join("db"), vec![0; 4096]).unwrap();
    let error = refused::<String>(&path).await;
    assert!(matches!(error, OpenError::NotALedger { .. }), "{error:?}");
    assert!(!path.join("lock").exists());
}

#[tokio::test]
async fn a_newer_format() {
    let dir = lab::scratch();
    let path = dir.path().join("ledger");
    made(&path).await;
    let manifest = path.join("manifest");
    let mut bytes = std::fs::read(&manifest).unwrap();
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    bytes[8..10].copy_from_slice(&(version + 1).to_le_bytes());
    let summed = bytes.len() - 8;
    let checksum = xxh3_64(&bytes[..summed]);
    bytes[summed..].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&manifest, bytes).unwrap();
    let error = refused::<String>(&path).await;
    let OpenError::Newer { found, supported, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*found, *supported), (version + 1, version));
}

#[tokio::test]
async fn ids_of_another_type() {
    let dir = lab::scratch();
    let path = dir.path().join("ledger");
    made(&path).await;
    let error = refused::<u64>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
    let error = refused::<(String, u32)>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
    lab::open(builder(), &path).await.unwrap().close().await.unwrap();
}

/// Says nothing about its shape, since it takes no value but real ones.
#[derive(Serialize, Deserialize, Debug)]
#[serde(try_from = "String", into = "String")]
struct Email(String);

impl Clone for Email {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl TryFrom<String> for Email {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.contains('@') { Ok(Self(text)) } else { Err("no @ in it") }
    }
}

#[tokio::test]
async fn stored_ids_that_are_none_of_an_opaque_type() {
    let dir = lab::scratch();
    let path = dir.path().join("ledger");
    let builder = Ledger::<Email, String>::builder().ballast_bytes(0);
    let ledger = builder.open(&path).await.unwrap();
    ledger.mark_succeeded(Email("a@b".to_owned())).await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    // The bytes of "a@b" are not those of any u64 or of an id of 16 bytes.
    let error = refused::<u64>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
    let error = refused::<[u8; 16]>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
    // And a type that is opaque itself, over a ledger of strings without an @.
    let path = dir.path().join("strings");
    let ledger = lab::open(lab::builder(), &path).await.unwrap();
    ledger.mark_succeeded("no such sign".to_owned()).await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let error = refused::<Email>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
    // Bytes that are any bytes take over nothing.
    let error = refused::<ByteId>(&path).await;
    assert!(matches!(error, OpenError::OtherIdType(_)), "{error:?}");
}

#[test]
fn a_directory_that_may_not_be_written_to() {
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    lab::run(made(&path));
    // Root may write anywhere: somebody else tries.
    if !is_root() {
        return skipped("refused::a_directory_that_may_not_be_written_to", "only root can be two");
    }
    let open_to = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open_to(dir.path(), 0o755);
    for (mode, action) in [(0o700, "cannot read"), (0o755, "cannot write to")] {
        open_to(&path, mode);
        let before = lab::image(&path);
        let mut child = lab::child("opens once", &path);
        let said = match child.uid(65534).gid(65534).output() {
            Ok(output) => String::from_utf8(output.stderr).unwrap(),
            Err(error) => {
                let why = format!("nobody may run this program: {error}");
                return skipped("refused::a_directory_that_may_not_be_written_to", &why);
            }
        };
        assert!(said.contains("ack refused") && said.contains(action), "{said}");
        assert_eq!(lab::difference(&before, &lab::image(&path)), None);
    }
}
