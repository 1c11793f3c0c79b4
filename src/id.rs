//! Ids: their bytes are their identity.
//!
//! Below the handle only [`EncodedId`]s are handled, so no `Hash` or `Eq` of a
//! user's type ever runs inside the ledger, and an id means the same on every
//! restart and machine. The encoding is bincode 2 `standard()`, frozen by
//! golden bytes in the tests.

mod byte_id;
pub(crate) mod probe;
pub(crate) mod shape;

pub use byte_id::{ByteId, ParseByteIdError};
pub(crate) use probe::Probe;
pub use shape::IdShape;

use crate::error::{IdError, panic_text};
use crate::journal::codec;
use crate::state::Parent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;
use std::borrow::{Borrow, Cow};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest id, in bytes after encoding.
pub const MAX_ID_BYTES: usize = 1024;

/// What can be an id: any type that serializes to the same bytes whenever it is the same id.
///
/// Implemented for every type that fits; there is nothing to implement. `HashMap`s and other types
/// without a fixed order of serialization are no ids.
pub trait TaskId: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<K: Serialize + DeserializeOwned + Send + Sync + 'static> TaskId for K {}

/// A form in which an id of type `K` can be looked up: `K` itself, or a borrowed form of it.
///
/// An implementation promises that it serializes to the bytes that the same id serializes to as
/// `K`. That is why it is a trait of its own and not `Borrow`: `[u8; 2]` borrows as `[u8]` but
/// serializes differently.
pub trait Lookup<K: ?Sized>: Serialize {}

impl<K: Serialize> Lookup<K> for K {}
impl Lookup<String> for str {}
impl Lookup<Box<Self>> for str {}
impl Lookup<Arc<Self>> for str {}
impl Lookup<Cow<'static, Self>> for str {}
impl<T: Serialize> Lookup<Vec<T>> for [T] {}
impl<T: Serialize> Lookup<Box<[T]>> for [T] {}
impl<T: Serialize> Lookup<Arc<[T]>> for [T] {}
impl<T: Serialize + Clone + 'static> Lookup<Cow<'static, [T]>> for [T] {}
impl Lookup<PathBuf> for Path {}
impl Lookup<Box<Self>> for Path {}
impl Lookup<Cow<'static, Self>> for Path {}
impl Lookup<OsString> for OsStr {}
impl Lookup<ByteId> for [u8] {}
impl Lookup<ByteId> for str {}

/// The bytes of an id.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedId(SmallVec<[u8; 24]>);

impl Clone for EncodedId {
    fn clone(&self) -> Self {
        // The derived one goes byte by byte.
        Self::from_bytes(self.as_bytes())
    }
}

impl EncodedId {
    /// The id with these bytes, which some id type encoded.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a ledger of such ids keeps this one.
    ///
    /// # Errors
    ///
    /// [`IdError`]: that it is too long, or does not serialize.
    pub fn of<K: TaskId>(id: &K) -> Result<Self, IdError> {
        Self::encode::<K, K>(id)
    }

    /// Hands an id to `then` without keeping it: for look-ups.
    pub(crate) fn probe<K: ?Sized, Q: Lookup<K> + ?Sized, R>(
        id: &Q,
        then: impl FnOnce(&Probe<'_>) -> R,
    ) -> Result<R, IdError> {
        let mut told = None;
        let then = |id: &Probe<'_>| told = Some(then(id));
        caught(|| codec::with_probe(id, then), IdError::NotSerializable)?;
        // Not as a part of the result, which is copied on its way: see there about larger pieces.
        told.ok_or_else(|| IdError::NotSerializable("it was not encoded".into()))
    }

    pub(crate) fn encode<K: ?Sized, Q: Lookup<K> + ?Sized>(id: &Q) -> Result<Self, IdError> {
        caught(|| codec::with_encoded_id(id, Self::from_bytes), IdError::NotSerializable)
    }

    /// The id, if it is one of this type.
    ///
    /// # Errors
    ///
    /// [`IdError`] if it is not.
    ///
    /// # Panics
    ///
    /// None; a panic of `Deserialize` is an error.
    pub fn decode<K: TaskId>(&self) -> Result<K, IdError> {
        caught(|| codec::decode_id(self.as_bytes()), IdError::NoRoundTrip)
    }

    /// Decodes and encodes again: an id that does not come back to its own bytes could never be
    /// listed, or would be listed as another one.
    pub(crate) fn check_round_trip<K: TaskId>(&self) -> Result<(), IdError> {
        let comes_back = || {
            let again: K = codec::decode_id(self.as_bytes())?;
            codec::with_encoded_id(&again, |bytes| bytes == self.as_bytes())
                .map_err(|error| IdError::NoRoundTrip(format!("once read back, {error}")))
        };
        // The id that was read back is dropped in there as well.
        caught(comes_back, IdError::NoRoundTrip)?
            .then_some(())
            .ok_or_else(|| IdError::NoRoundTrip("it encodes to other bytes when read back".into()))
    }
}

impl Parent {
    /// The id of the scope.
    ///
    /// # Errors
    ///
    /// [`IdError`] if it is no id of this type.
    pub fn decode<K: TaskId>(&self) -> Result<K, IdError> {
        EncodedId::from_bytes(self.as_bytes()).decode()
    }
}

/// Runs the user's own `Serialize` or `Deserialize`.
fn caught<T>(
    call: impl FnOnce() -> Result<T, IdError>,
    error: impl FnOnce(String) -> IdError,
) -> Result<T, IdError> {
    let panicked = |panic| error(format!("it panics: {}", panic_text(panic)));
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(panic)))
}

impl Borrow<[u8]> for EncodedId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EncodedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

#[cfg(test)]
mod tests;
