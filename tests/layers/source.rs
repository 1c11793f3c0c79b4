//! The sources of the library, as far as these tests have to understand them.

use std::path::{Path, PathBuf};

/// A file below `src/`.
pub(crate) struct Source {
    /// Relative to `src/`, with `/`.
    pub(crate) name: String,
    text: String,
}

impl Source {
    /// Whether it holds nothing but tests: `tests.rs`, what is below `tests/`, and the helpers and
    /// suites that their parents declare under `#[cfg(test)]`.
    pub(crate) fn is_test(&self) -> bool {
        let helpers = ["journal/arbitrary.rs", "journal/conformance.rs"];
        self.name.ends_with("/tests.rs")
            || self.name.contains("/tests/")
            || self.name.ends_with("_tests.rs")
            || helpers.contains(&self.name.as_str())
            || self.name.starts_with("journal/conformance/")
    }

    pub(crate) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The lines that are code of the library, with their numbers: no comments, no tests, no texts
    /// in quotes that stand alone on a line.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let test = self.is_test();
        let code = self.text.lines().enumerate().map(|(number, line)| (number + 1, line));
        // By custom a module of tests in the file itself is its last item.
        let tests = |line: &str| line.starts_with("#[cfg(test)]");
        let mut in_tests = false;
        let mut previous_is_cfg_test = false;
        code.filter(move |(_, line)| {
            if previous_is_cfg_test && line.starts_with("mod ") && line.ends_with('{') {
                in_tests = true;
            }
            previous_is_cfg_test = tests(line);
            !test && !in_tests
        })
        .map(|(number, line)| (number, without_comment(line)))
        .filter(|(_, line)| !line.trim().is_empty())
    }
}

/// The line up to a comment, and without what stands in quotes before it.
fn without_comment(line: &str) -> &str {
    let mut in_quotes = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' if line.get(..at).is_some_and(|before| !before.ends_with('\'')) => {
                in_quotes = !in_quotes;
            }
            '/' if !in_quotes && line.get(at..).is_some_and(|rest| rest.starts_with("//")) => {
                return line.get(..at).unwrap_or_default();
            }
            _ => {}
        }
    }
    line
}

/// All files below `src/`, in order.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 30, "there must be more sources than {}", found.len());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source { name, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

#[test]
fn comments_are_told_from_code() {
    assert_eq!(without_comment("a(); // sled::"), "a(); ");
    assert_eq!(without_comment("let a = \"// \\\" //\"; b"), "let a = \"// \\\" //\"; b");
    assert_eq!(without_comment("    /// sled::Db"), "    ");
}
