//! Ids of arbitrary bytes, and their escaped text.
//!
//! ```text
//! bytes          text
//! printable      themselves (quotes too), except
//! \              \\
//! \n \r \t \0    as in Rust
//! other chars    \u{..}   (controls, bidirectional and combining marks, blanks that hide)
//! not UTF-8      \xNN, one for each byte
//! ```
//!
//! The text is one line without control characters, whatever the bytes: ids come from outside
//! and are printed on terminals. A text is valid if and only if every `\` in it begins one of the
//! forms above, or is `\"` or `\'`, which only quoted text contains.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An id made of arbitrary bytes: a path, a hash, a key of another system.
///
/// Use it where a `String` or a `PathBuf` would not do because the bytes need not be UTF-8. It is
/// shown as escaped text, and [`FromStr`] reads that text back to the same bytes. It can be looked
/// up as `[u8]` or `str`.
///
/// # Examples
///
/// ```
/// use std::path::Path;
/// use taskledger::ByteId;
///
/// let id = ByteId::from(&b"caf\xc3\xa9 \xff\n"[..]);
/// assert_eq!(id.to_string(), r"café \xff\n");
/// assert_eq!(id.to_string().parse::<ByteId>()?, id);
///
/// let id = ByteId::from(Path::new("/tmp/a"));
/// assert_eq!(id.to_path().as_deref(), Some(Path::new("/tmp/a")));
/// # Ok::<(), taskledger::ParseByteIdError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteId(Vec<u8>);

impl ByteId {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken out.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The path with these bytes: on Unix always and exactly; elsewhere `None` unless they are
    /// UTF-8.
    #[must_use]
    pub fn to_path(&self) -> Option<PathBuf> {
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(&self.0)))
        }
        #[cfg(not(unix))]
        {
            std::str::from_utf8(&self.0).ok().map(PathBuf::from)
        }
    }
}

impl From<Vec<u8>> for ByteId {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for ByteId {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for ByteId {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&Path> for ByteId {
    /// On Unix the bytes of the path; elsewhere its encoding within `std`, which is UTF-8 for
    /// every path that is Unicode.
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_encoded_bytes().to_vec())
    }
}

impl From<PathBuf> for ByteId {
    /// As from a `&Path`.
    fn from(path: PathBuf) -> Self {
        Self(path.into_os_string().into_encoded_bytes())
    }
}

impl AsRef<[u8]> for ByteId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ByteId {
    /// The escaped text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Debug for ByteId {
    /// The escaped text in quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape_quoted(&self.0, '"'))
    }
}

impl FromStr for ByteId {
    type Err = ParseByteIdError;

    /// Reads the escaped text back.
    fn from_str(text: &str) -> Result<Self, ParseByteIdError> {
        unescape(text).map(Self)
    }
}

impl Serialize for ByteId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ByteId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

/// Takes whatever a format makes of bytes: JSON, for one, has only arrays of numbers.
struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = ByteId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ByteId, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<ByteId, E> {
        Ok(bytes.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteId, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ByteId, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            if bytes.len() >= crate::id::MAX_ID_BYTES {
                return Err(A::Error::custom("more bytes than an id may have"));
            }
            bytes.push(byte);
        }
        Ok(ByteId(bytes))
    }
}

/// A text that is not the escaped form of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseByteIdError {
    /// Where the `\` stands that begins no known form, in bytes from the start of the text.
    pub at: usize,
}

impl fmt::Display for ParseByteIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the backslash at byte {} begins none of \\\\ \\n \\r \\t \\0 \\\" \\' \\xNN \\u{{N}}; write a backslash itself as \\\\",
            self.at
        )
    }
}

impl Error for ParseByteIdError {}

/// The bytes as one line of text without control characters; [`unescape`] reads it back.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(&mut out, bytes, None);
    out
}

/// As [`escape`], for text that stands between two of `quote`.
pub(crate) fn escape_quoted(bytes: &[u8], quote: char) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(&mut out, bytes, Some(quote));
    out
}

fn escape_into(out: &mut String, bytes: &[u8], quote: Option<char>) {
    use fmt::Write;
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\'' if quote == Some(char) => out.extend(['\\', char]),
                '"' | '\'' => out.push(char),
                _ if hides(char) => out.extend(char.escape_unicode()),
                _ => out.extend(char.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Letters and symbols that show as nothing. `char::escape_debug` takes care of controls, of
/// formatting and of combining marks, but counts these as printable.
const fn hides(char: char) -> bool {
    matches!(char, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

/// The bytes that [`escape`] or [`escape_quoted`] made this text of.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, ParseByteIdError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let at = text.len() - escaped.len() - 1;
        rest = unescape_one(escaped, &mut bytes).ok_or(ParseByteIdError { at })?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Reads what follows a backslash; returns what comes after it.
fn unescape_one<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let mut chars = text.chars();
    let plain = match chars.next()? {
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        '0' => b'\0',
        '\\' => b'\\',
        '"' => b'"',
        '\'' => b'\'',
        'x' => {
            let digits = chars.as_str().get(..2)?;
            bytes.push(u8::try_from(hex(digits)?).ok()?);
            return chars.as_str().get(2..);
        }
        'u' => {
            let (digits, rest) = chars.as_str().strip_prefix('{')?.split_once('}')?;
            let char = char::from_u32(hex(digits)?)?;
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(chars.as_str())
}

/// One to six hexadecimal digits and nothing else: `from_str_radix` would take a sign too.
fn hex(digits: &str) -> Option<u32> {
    let plain = matches!(digits.len(), 1..=6) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_of_known_bytes() {
        let known: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"order 7", "order 7"),
            (b"it's \"7\"", "it's \"7\""),
            (b"C:\\new", r"C:\\new"),
            (b"\n\r\t\0\x07\x1b[31m\x7f", r"\n\r\t\0\u{7}\u{1b}[31m\u{7f}"),
            ("é 漢 🦀".as_bytes(), "é 漢 🦀"),
            ("\u{202e}gpj".as_bytes(), r"\u{202e}gpj"),
            ("e\u{301}".as_bytes(), r"e\u{301}"),
            (
                "\u{a0}\u{200b}\u{feff}\u{2028}\u{3164}".as_bytes(),
                r"\u{a0}\u{200b}\u{feff}\u{2028}\u{3164}",
            ),
            (b"a\xff\xc3b", r"a\xff\xc3b"),
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ];
        for (bytes, text) in known {
            assert_eq!(escape(bytes), *text);
            assert_eq!(unescape(text).as_deref(), Ok(*bytes), "{text}");
        }
    }

    #[test]
    fn quoted_text_ends_at_its_quote() {
        let id = ByteId::from(r#"a"b'c\"#);
        assert_eq!(format!("{id:?}"), r#""a\"b'c\\""#);
        assert_eq!(escape_quoted(b"a\"b'c", '\''), r#"a"b\'c"#);
        assert_eq!(unescape(r#"a\"b\'c\\"#).unwrap(), id.as_bytes());
    }

    #[test]
    fn refused_texts_say_where() {
        for (text, at) in [
            ("\\", 0),
            ("ab\\", 2),
            ("é\\q", 2),
            ("\\\\\\x", 2),
            ("\\x1", 0),
            ("\\x+1", 0),
            ("\\x-1", 0),
            ("\\xé", 0),
            ("\\u", 0),
            ("\\u{}", 0),
            ("\\u{+41}", 0),
            ("\\u{0000041}", 0),
            ("\\u{d800}", 0),
            ("\\u{110000}", 0),
            ("\\u{41", 0),
            ("\\#00", 0),
        ] {
            assert_eq!(unescape(text), Err(ParseByteIdError { at }), "{text}");
        }
        let said = ParseByteIdError { at: 3 }.to_string();
        assert!(said.starts_with(r"the backslash at byte 3 begins none of \\ \n"), "{said}");
        assert!(said.contains(r"\u{N}"), "{said}");
    }

    #[test]
    fn other_formats_come_back() {
        let id = ByteId::from(&b"a\xff"[..]);
        let packed = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(rmp_serde::from_slice::<ByteId>(&packed).unwrap(), id);
        let text = rmp_serde::to_vec("abc").unwrap();
        assert_eq!(rmp_serde::from_slice::<ByteId>(&text).unwrap(), ByteId::from("abc"));
        let numbers = rmp_serde::to_vec(&[97_u8, 255]).unwrap();
        assert_eq!(rmp_serde::from_slice::<ByteId>(&numbers).unwrap(), id);
        let endless = rmp_serde::to_vec(&vec![1_u8; crate::id::MAX_ID_BYTES + 1]).unwrap();
        assert!(rmp_serde::from_slice::<ByteId>(&endless).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn paths_come_back_exactly() {
        use std::os::unix::ffi::OsStrExt;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(b"/a/\xff\n"));
        assert_eq!(ByteId::from(path.as_path()).as_bytes(), b"/a/\xff\n");
        assert_eq!(ByteId::from(path.clone()).to_path(), Some(path));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let id = ByteId::from(bytes);
            prop_assert_eq!(id.to_string().parse::<ByteId>().unwrap(), id.clone());
            let quoted = format!("{id:?}");
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert_eq!(unescape(inner).unwrap(), id.into_bytes());
        }

        #[test]
        fn any_chars_come_back_without_controls(text: String) {
            let shown = escape(text.as_bytes());
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(unescape(&shown).unwrap(), text.into_bytes());
        }

        #[test]
        fn any_text_is_read_or_refused(text: String, tail in r"[\\xu{}0-9a-f+#nrt]{0,12}") {
            let _ = unescape(&text);
            let _ = unescape(&(text + &tail));
        }
    }
}
