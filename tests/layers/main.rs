//! The borders of the house, kept by reading its sources.
//!
//! A border is an absence, and nothing but a test sees that something is absent. What each one is
//! for stands in `ARCHITECTURE.md`, under "What must stay absent".

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod source;

use source::{Source, sources};

/// Where a border may not be crossed: the sources that match, what must not stand in them, and what
/// to do instead.
fn forbid<'a>(
    sources: impl IntoIterator<Item = &'a Source>,
    what: &str,
    found_in: impl Fn(&str) -> bool,
) {
    let crossed: Vec<String> = sources
        .into_iter()
        .flat_map(|source| source.code_lines().map(move |line| (source, line)))
        .filter(|(_, (_, line))| found_in(line))
        .map(|(source, (number, line))| format!("src/{}:{number}: {}", source.name, line.trim()))
        .collect();
    assert!(crossed.is_empty(), "{what}:\n{}", crossed.join("\n"));
}

/// Whether `line` names the crate `name`: a path that begins with it.
fn names(line: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (line.get(..at).unwrap(), line.get(at + name.len()..).unwrap());
        // `super::sled::Log` and `crate::journal::sled` are ours.
        let starts = !before.ends_with(word) && !before.ends_with("::");
        starts && after.starts_with("::")
    })
}

#[test]
fn the_state_machine_knows_nothing_but_std() {
    let all = sources();
    let state = all.iter().filter(|s| s.name == "state.rs" || s.name.starts_with("state/"));
    forbid(state, "state.rs is pure: nothing of the crate or of others", |line| {
        let path = line
            .trim_start()
            .strip_prefix("use ")
            .or_else(|| line.trim_start().strip_prefix("pub use "));
        let foreign = path.is_some_and(|path| {
            !["std::", "core::", "TaskState::", "number::", "digest::", "outcome::", "parent::"]
                .iter()
                .any(|own| path.starts_with(own))
        });
        let words = ["crate::", "super::", "tokio::", "tracing::", "serde::", "thiserror::"];
        foreign
            || words.iter().any(|word| line.contains(word))
            || ["std::fs", "std::net", "std::thread", "SystemTime::now", "Instant", "async "]
                .iter()
                .any(|word| line.contains(word))
    });
}

#[test]
fn each_store_and_codec_is_known_to_one_file() {
    let all = sources();
    for (krate, home) in
        [("sled", "journal/sled.rs"), ("scc", "index/part.rs"), ("bincode", "journal/codec.rs")]
    {
        let others = all.iter().filter(|source| source.name != home);
        forbid(others, &format!("{krate} is known to src/{home} alone"), |line| names(line, krate));
        let home = all.iter().find(|source| source.name == home).expect(home);
        assert!(
            home.code_lines().any(|(_, line)| names(line, krate)),
            "{} no longer uses {krate}: this test looks in the wrong place",
            home.name
        );
    }
}

#[test]
fn no_store_or_codec_shows_in_public() {
    for source in sources() {
        for (number, line) in source.code_lines() {
            let line = line.trim_start();
            let public = line.starts_with("pub ") && !line.starts_with("pub(");
            for krate in ["sled", "scc", "bincode", "rustix", "xxhash_rust", "serde_reflection"] {
                assert!(
                    !(public && names(line, krate)),
                    "src/{}:{number}: {krate} in a public signature: {line}",
                    source.name
                );
            }
        }
    }
}

#[test]
fn inspection_never_touches_recovery() {
    let all = sources();
    let dump = all.iter().filter(|s| s.name == "dump.rs" || s.name.starts_with("dump/"));
    forbid(dump, "the dump only looks; recovery appends", |line| {
        names(line, "recovery") || line.contains("::recovery") || line.contains("mod recovery")
    });
}

#[test]
fn the_command_uses_the_public_interface_only() {
    let all = sources();
    let command = all.iter().filter(|source| source.name.starts_with("bin/"));
    forbid(command, "the command is a shell around the library", |line| {
        line.contains("#[path") || line.contains("include!(") || names(line, "sled")
    });
}

#[test]
fn the_wall_clock_is_read_where_records_are_dated() {
    // It is information. Whatever decides takes monotonic time, or no time at all.
    // But for pruning by age, which refuses when the clock stands before the newest record.
    let dated = [
        "writer.rs",
        "recovery.rs",
        "journal/open.rs",
        "journal/lock.rs",
        "journal/salvage.rs",
        "retention.rs",
        "dump/import.rs",
    ];
    let all = sources();
    let others = all.iter().filter(|s| !dated.contains(&&*s.name) && !s.name.starts_with("bin/"));
    forbid(others, "nothing is decided by the wall clock", |line| line.contains("SystemTime::now"));
}

#[test]
fn there_is_no_unsafe_code() {
    for source in sources() {
        for (number, line) in source.code_lines() {
            let found = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let mut found = found.filter(|word| *word == "unsafe");
            assert!(found.next().is_none(), "src/{}:{number}: {line}", source.name);
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let all = sources();
    forbid(&all, "unfinished or forgotten", |line| {
        ["todo!", "unimplemented!", "dbg!"].iter().any(|word| line.contains(word))
    });
    let library = all.iter().filter(|source| !source.name.starts_with("bin/"));
    forbid(library, "a library does not talk; it returns and traces", |line| {
        line.contains("println!(") || line.contains("print!(")
    });
}

#[test]
fn an_accessor_is_named_after_what_it_returns() {
    let all = sources();
    forbid(&all, "no get_ in front of a name", |line| {
        let line = line.trim_start();
        line.starts_with("pub") && line.contains("fn get_")
    });
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    let all = sources();
    forbid(&all, "#[expect(.., reason = \"..\")] instead of allow", |line| {
        line.contains("#[allow(") || line.contains("#![allow(")
    });
}

/// Files that may be longer than fits in a head, and why.
const LONG: &[(&str, &str)] =
    &[("ledger.rs", "the handle: two thirds are the promises of its methods")];

#[test]
fn a_file_fits_in_a_head() {
    let all = sources();
    let long = |source: &&Source| source.lines() > 500 && !source.is_test();
    let unjustified: Vec<String> = all
        .iter()
        .filter(long)
        .filter(|source| LONG.iter().all(|(name, _)| *name != source.name))
        .map(|source| format!("src/{}: {} lines", source.name, source.lines()))
        .collect();
    assert!(unjustified.is_empty(), "split these, or justify them here: {unjustified:#?}");
    for (name, _) in LONG {
        let still = all.iter().any(|source| source.name == *name && source.lines() > 500);
        assert!(still, "src/{name} is no longer long: take it off the list");
    }
}

/// The documents, by their names.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "GUARANTEES.md",
    "CONTRIBUTING.md",
    "PORTING.md",
    "CHANGELOG.md",
];

#[test]
fn what_the_documents_name_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        // Between backticks, or the target of a link.
        let quoted = text.split(['`', '(', ')', ' ']).filter(|word| {
            ["src/", "tests/", "examples/", "migrations/"].iter().any(|top| word.starts_with(top))
        });
        let gone = quoted.filter(|path| !root.join(path).exists());
        missing.extend(gone.map(|path| format!("{document}: {path}")));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_core_of_the_writer_has_no_clock() {
    let all = sources();
    let core = all.iter().filter(|source| source.name.starts_with("writer/core"));
    forbid(core, "time reaches the core as data", |line| line.contains("::now()"));
}
