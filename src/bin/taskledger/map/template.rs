//! The command that is run for each id.

use crate::terminal::quoted;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use xxhash_rust::xxh3::xxh3_128;

/// Stands for the id, wherever it is.
const HOLE: &[u8] = b"{}";

/// A value of the metadata has room for this.
const LONGEST: usize = 4000;

/// A program and its arguments, with holes for the id.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<OsString>);

impl Template {
    /// Without a hole, the id is appended.
    pub(super) fn new(command: &[OsString]) -> Self {
        let mut words = command.to_vec();
        if !words.iter().any(|word| memchr::memmem::find(word.as_bytes(), HOLE).is_some()) {
            words.push(OsString::from("{}"));
        }
        Self(words)
    }

    /// The program, if it is the same for all ids.
    pub(super) fn program(&self) -> Option<&OsStr> {
        let program = self.0.first().map(OsString::as_os_str);
        program.filter(|program| memchr::memmem::find(program.as_bytes(), HOLE).is_none())
    }

    /// The program and its arguments for this id; `None` when it has a NUL byte, which no argument
    /// can have.
    pub(super) fn of(&self, id: &[u8]) -> Option<Vec<OsString>> {
        let whole = |word: &OsString| {
            let mut filled = Vec::with_capacity(word.len() + id.len());
            let mut rest = word.as_bytes();
            while let Some(at) = memchr::memmem::find(rest, HOLE) {
                let (before, after) = rest.split_at(at);
                filled.extend_from_slice(before);
                filled.extend_from_slice(id);
                rest = after.get(HOLE.len()..).unwrap_or_default();
            }
            filled.extend_from_slice(rest);
            OsString::from_vec(filled)
        };
        (!id.contains(&0)).then(|| self.0.iter().map(whole).collect())
    }

    /// What a ledger remembers of it: the words, each ended by a NUL; of a longer one, a digest.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let words = self.0.iter().flat_map(|word| word.as_bytes().iter().chain(&[0]));
        let bytes: Vec<u8> = words.copied().collect();
        if bytes.len() <= LONGEST {
            return bytes;
        }
        format!("a command of {} bytes, {:032x}", bytes.len(), xxh3_128(&bytes)).into_bytes()
    }
}

/// What a ledger remembers, for people.
pub(super) fn in_words(remembered: &[u8]) -> String {
    let words = remembered.strip_suffix(&[0]).unwrap_or(remembered).split(|byte| *byte == 0);
    let words: Vec<String> = words.map(|word| quoted(OsStr::from_bytes(word))).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(words: &[&str]) -> Template {
        Template::new(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_id_is_filled_in_wherever_it_stands_or_appended() {
        let of = |words: &[&str], id: &str| template(words).of(id.as_bytes()).unwrap();
        assert_eq!(of(&["cp", "{}", "to/{}-{}.x"], "a b"), ["cp", "a b", "to/a b-a b.x"]);
        assert_eq!(of(&["echo", "-n"], "x"), ["echo", "-n", "x"]);
        // What is filled in is not looked at again.
        assert_eq!(of(&["a{}b"], "{}{}"), ["a{}{}b"]);
        assert_eq!(template(&["echo"]).of(b"a\0b"), None);
    }

    #[test]
    fn other_words_are_remembered_as_others() {
        let bytes = |words: &[&str]| template(words).to_bytes();
        assert_ne!(bytes(&["a b", "{}"]), bytes(&["a", "b", "{}"]));
        assert_eq!(bytes(&["a"]), bytes(&["a", "{}"]));
        assert_eq!(in_words(&bytes(&["sh", "-c", "it's {}"])), r"sh -c 'it'\''s {}'");
        let long = "x".repeat(5000);
        assert!(bytes(&[&long]).len() < LONGEST);
        assert_ne!(bytes(&[&long]), bytes(&[&long, "y"]));
    }
}
