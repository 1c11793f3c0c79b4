//! The only file that knows bincode.
use crate::error::IdError;
use crate::id::{MAX_ID_BYTES, Probe};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Serialize};

/// Memory that decoding one id may ask for. More than its encoded length, since numbers are
/// written in fewer bytes than they take in memory.
const ID_DECODE_LIMIT: usize = 64 * MAX_ID_BYTES;

const ID: bincode::config::Configuration = bincode::config::standard();

/// Bytes that most ids fit: the buffer for them costs next to nothing to clear.
const USUAL_ID_BYTES: usize = 64;

/// Encodes an id into a buffer on the stack and hands its bytes to `then`.
pub(crate) fn with_encoded_id<T: Serialize + ?Sized, R>(
    id: &T,
    then: impl FnOnce(&[u8]) -> R,
) -> Result<R, IdError> {
    let mut buffer = [0; USUAL_ID_BYTES];
    match bincode::serde::encode_into_slice(id, &mut buffer, ID) {
        Ok(len) => Ok(then(buffer.get(..len).unwrap_or_default())),
        Err(EncodeError::UnexpectedEnd) => with_long_id(id, then),
        Err(error) => Err(IdError::NotSerializable(error.to_string())),
    }
}

/// Encodes an id to be looked up.
pub(crate) fn with_probe<T: Serialize + ?Sized, R>(
    id: &T,
    then: impl FnOnce(&Probe<'_>) -> R,
) -> Result<R, IdError> {
    let mut words = Words { probe: Probe::default(), fits: true };
    match bincode::serde::encode_into_writer(id, &mut words, ID) {
        Ok(()) if words.fits => Ok(then(&words.probe)),
        Err(error) if words.fits => Err(IdError::NotSerializable(error.to_string())),
        Ok(()) | Err(_) => with_encoded_id(id, |bytes| then(&Probe::of(bytes))),
    }
}

/// An id, if it fits.
struct Words {
    probe: Probe<'static>,
    fits: bool,
}

impl Writer for Words {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.fits = self.fits && self.probe.push(bytes);
        if self.fits { Ok(()) } else { Err(EncodeError::UnexpectedEnd) }
    }
}

#[cold]
fn with_long_id<T: Serialize + ?Sized, R>(
    id: &T,
    then: impl FnOnce(&[u8]) -> R,
) -> Result<R, IdError> {
    let mut buffer = [0; MAX_ID_BYTES];
    match bincode::serde::encode_into_slice(id, &mut buffer, ID) {
        Ok(len) => Ok(then(buffer.get(..len).unwrap_or_default())),
        Err(EncodeError::UnexpectedEnd) => {
            // Only to learn how long it is.
            match bincode::serde::encode_into_std_write(id, &mut std::io::sink(), ID) {
                Ok(len) => Err(IdError::TooLong { len, max: MAX_ID_BYTES }),
                Err(error) => Err(IdError::NotSerializable(error.to_string())),
            }
        }
        Err(error) => Err(IdError::NotSerializable(error.to_string())),
    }
}

pub(crate) fn decode_id<K: DeserializeOwned>(bytes: &[u8]) -> Result<K, IdError> {
    let config = ID.with_limit::<ID_DECODE_LIMIT>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((id, used)) if used == bytes.len() => Ok(id),
        Ok((_, used)) => {
            Err(IdError::NoRoundTrip(format!("{used} of its {} bytes are read", bytes.len())))
        }
        Err(error) => Err(IdError::NoRoundTrip(error.to_string())),
    }
}

/// Reads an id whose type only `seed` knows, from all of `bytes`.
pub(crate) fn decode_id_seed<'de, S: DeserializeSeed<'de>>(
    seed: S,
    bytes: &'de [u8],
) -> Result<S::Value, String> {
    let config = ID.with_limit::<ID_DECODE_LIMIT>();
    match bincode::serde::seed_decode_from_slice(seed, bytes, config) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many", bytes.len() - used)),
        Err(error) => Err(error.to_string()),
    }
}

/// Appends `value`, one of our own wire types, to `out`.
///
/// # Panics
///
/// Never: our wire types have no maps, no `Serialize` of a user, and a `Vec` takes any length.
pub(crate) fn encode_into<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    #[expect(clippy::expect_used, reason = "encoding our own plain types into memory cannot fail")]
    bincode::serde::encode_into_std_write(value, out, bincode::config::standard())
        .expect("plain types encode into memory");
}

/// Reads one of our own wire types from all of `bytes`, asking for at most `LIMIT` bytes of memory:
/// without a limit a hostile length aborts the process.
pub(crate) fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, String> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many", bytes.len() - used)),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads one of our own wire types from the front of `bytes` and moves past it. What is read borrows
/// its texts and bytes, so a hostile length finds too few bytes and asks for no memory; `LIMIT`
/// bounds the work all the same.
pub(crate) fn decode_front<'a, T: Deserialize<'a>, const LIMIT: usize>(
    bytes: &mut &'a [u8],
) -> Result<T, String> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) =
        bincode::serde::borrow_decode_from_slice(bytes, config).map_err(|e| e.to_string())?;
    *bytes = bytes.get(used..).unwrap_or_default();
    Ok(value)
}
