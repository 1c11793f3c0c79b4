//! What has been run so far, kept in the repository.

use crate::Verdict;
use crate::session::Report;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seeds that are remembered of each harness and version.
const SEEDS: usize = 64;

/// By harness, then by version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally(pub BTreeMap<String, BTreeMap<String, Entry>>);

/// All runs of one harness with one version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    pub unit: String,
    pub tried: u64,
    pub violations: u64,
    pub counts: BTreeMap<String, u64>,
    pub first: String,
    pub last: String,
    pub runs: u64,
    pub last_seeds: VecDeque<u64>,
    /// Runs of each control, and how many of them found what they must.
    pub controls: BTreeMap<String, Control>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Control {
    pub runs: u64,
    pub found: u64,
    /// After how many units it was found, at most.
    #[serde(default)]
    pub within: u64,
    /// What the last one that found it said.
    #[serde(default)]
    pub first_violation: String,
}

impl Tally {
    /// The tally of the repository.
    #[must_use]
    pub fn place() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tally.json")
    }

    /// An empty one if there is none yet.
    ///
    /// # Panics
    ///
    /// If it cannot be read: what it holds took hours, and is not to be replaced.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => panic!("{}: {error}", path.display()),
        };
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|error| panic!("{} is no tally: {error}", path.display()))
    }

    /// Replaces the file as a whole.
    pub fn write(&self, path: &Path) {
        let unfinished = path.with_extension("tmp");
        let text = serde_json::to_string_pretty(self).unwrap();
        std::fs::write(&unfinished, text + "\n").unwrap();
        std::fs::rename(unfinished, path).unwrap();
    }

    fn entry(&mut self, name: &str, unit: &str, seed: u64) -> &mut Entry {
        let versions = self.0.entry(name.to_owned()).or_default();
        let entry = versions.entry(version()).or_default();
        let today = jiff::Zoned::now().date().to_string();
        if entry.first.is_empty() {
            unit.clone_into(&mut entry.unit);
            entry.first.clone_from(&today);
        }
        entry.last = today;
        if entry.last_seeds.back() != Some(&seed) {
            entry.last_seeds.push_back(seed);
        }
        if entry.last_seeds.len() > SEEDS {
            entry.last_seeds.pop_front();
        }
        entry
    }

    pub fn add(&mut self, name: &str, unit: &str, seed: u64, report: &Report) {
        let entry = self.entry(name, unit, seed);
        entry.runs += 1;
        entry.tried += report.tried;
        entry.violations += report.violated;
        for (what, count) in &report.counts {
            *entry.counts.entry(what.clone()).or_default() += count;
        }
    }

    pub fn add_control(
        &mut self,
        name: &str,
        unit: &str,
        seed: u64,
        broken: &str,
        verdict: &Verdict,
    ) {
        let control = self.entry(name, unit, seed).controls.entry(broken.to_owned()).or_default();
        control.runs += 1;
        if let Verdict::Found(first, within) = verdict {
            control.found += 1;
            control.within = control.within.max(*within);
            control.first_violation = without_places(first).chars().take(300).collect();
        }
    }
}

/// Without where this repository, and what was built of it, happens to lie.
fn without_places(text: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = here.ancestors().nth(2).unwrap_or(here);
    let built = crate::places::beside();
    let places = [built.as_path(), top].map(|place| format!("{}/", place.display()));
    places.iter().fold(text.to_owned(), |text, place| text.replace(place, ""))
}

/// The library's version, the commit that last changed the library, and the one that last changed the
/// lab: runs of other sources, and of an older lab, do not count for these.
#[must_use]
pub fn version() -> String {
    // But for the command, and for unit tests in files of their own. The model-checked ones are a
    // harness, so they count for the lab.
    let library = commit(&[
        "src",
        ":(exclude)src/bin",
        ":(exclude,glob)src/**/tests.rs",
        ":(exclude,glob)src/**/tests/**",
        ":(exclude)src/journal/arbitrary.rs",
        ":(exclude)src/journal/conformance.rs",
        ":(exclude)src/journal/conformance",
        "migrations",
        "Cargo.lock",
    ]);
    // Of the package: its manifest begins with that.
    let lines = include_str!("../../../Cargo.toml").lines();
    let number = lines.filter_map(|line| line.strip_prefix("version = ")).next();
    let number = number.unwrap_or_default().trim_matches('"');
    format!("{number} {library}, lab {}", commit(&["tests/lab/src", "src/sync/tests.rs"]))
}

/// The commit that last changed these paths; with a `+` if they have been changed since.
fn commit(paths: &[&str]) -> String {
    let git = |args: &[&str]| {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let output = Command::new("git")
            .arg("-C")
            .arg(top)
            .args(args)
            .arg("--")
            .args(paths)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h"]).unwrap_or_else(|| "(no git)".to_owned());
    let changed = git(&["status", "--porcelain"]).is_some_and(|changed| !changed.is_empty());
    if changed { commit + "+" } else { commit }
}
