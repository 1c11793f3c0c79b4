//! A ledger of ids of any type, opened to be changed: an id is its encoded bytes.

use crate::terminal::{Failure, chain, complain};
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::Path;
use taskledger::{EncodedId, IdShape, Ledger, MAX_ID_BYTES, Recovery};

/// An id whose encoding is taken and given back as it is.
#[derive(Debug)]
pub(crate) struct RawId(Vec<u8>);

impl RawId {
    pub(crate) fn of(id: &EncodedId) -> Self {
        Self(id.as_bytes().to_vec())
    }
}

impl Serialize for RawId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A tuple has no length in front, and a byte is one byte.
        let mut bytes = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| bytes.serialize_element(byte))?;
        bytes.end()
    }
}

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = RawId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<RawId, A::Error> {
                let mut id = Vec::new();
                // They end where there are no more.
                while let Ok(Some(byte)) = bytes.next_element() {
                    id.push(byte);
                }
                // More than any id has: somebody only wants to know what it looks like, and nobody does.
                if id.len() > MAX_ID_BYTES {
                    return Err(serde::de::Error::custom("an id of any type"));
                }
                Ok(RawId(id))
            }
        }
        deserializer.deserialize_tuple(MAX_ID_BYTES + 1, Bytes)
    }
}

pub(crate) type Raw = Ledger<RawId, ()>;

/// Opens the ledger, which must be there, does something with it, and closes it. What the open has found
/// running is said: the owner's next open finds it failed already, and has nothing to tell.
pub(crate) fn with<T>(
    path: &Path,
    shape: &IdShape,
    work: impl AsyncFnOnce(&Raw) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Look(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let ledger = Raw::builder().open(path).await?;
        tell(ledger.recovery(), shape);
        let done = work(&ledger).await;
        let closed = ledger.close().await.map_err(|error| Failure::Look(chain(&error)));
        done.and_then(|done| closed.map(|()| done))
    })
}

fn tell(recovery: &Recovery, shape: &IdShape) {
    let text = |RawId(bytes): RawId| shape.text(&EncodedId::from_bytes(&bytes));
    for id in recovery.crashed::<RawId>().flatten().map(text) {
        complain(&format!(
            "{id} was running when its process died, and is recorded as crashed now; the next open will \
             not tell of it"
        ));
    }
    for id in recovery.interrupted_revokes::<RawId>().flatten().map(text) {
        complain(&format!(
            "the revoke of {id} was interrupted when its process died, and its success stands; the next \
             open will not tell of it"
        ));
    }
}
