//! Putting damaged files aside before a loss is accepted.
//!
//! An accepted loss makes a new checkpoint, log, witness and manifest from what can be read. What
//! it is made from is kept in `damaged`, for people to look into: it is the only evidence.
//!
//! ```text
//! put_aside(dir, names)                           if we die on this line
//!   remove damaged.tmp, create it                 nothing has changed but a leftover
//!   link (else copy) each name into it, sync      likewise
//!   rename damaged.tmp to damaged, sync dir       the ledger is as before, and its evidence is kept
//! the caller replaces witness, then manifest      old manifest: the same repair is begun again;
//!                                                 new one: it is done
//! the next open removes what the manifest         the evidence has its own names for the files
//! does not name
//! ```
//!
//! Nothing is moved away, so the ledger has its manifest at any time and a killed repair is just
//! begun again. The witness is replaced before the manifest, which ends the repair.
//!
//! The evidence in `damaged` belongs to the repair that is under way if and only if it holds a
//! manifest equal to the ledger's, byte by byte, or neither has one: a repair that was finished
//! has changed the ledger's. The evidence of an earlier repair is never overwritten.

use super::directory::DAMAGED;
use super::{files, manifest};
use crate::error::{JournalError, OpenError};
use crate::held::shown;
use crate::sabotage::{self, Sabotage};
use std::fs::File;
use std::io;
use std::path::Path;

/// The longest manifest that is compared whole; a longer one is no manifest of ours.
const MAX_MANIFEST: u64 = 16 << 20;

/// Keeps the files and directories of these names, and the manifest, in `damaged`, durable. They
/// also stay where they are; the caller takes them out of the ledger by replacing the manifest.
/// Names that are not there are passed over.
///
/// # Errors
///
/// `Io`, of kind `AlreadyExists` when `damaged` holds the evidence of an earlier repair.
pub(crate) fn put_aside(dir: &Path, names: &[String]) -> Result<(), OpenError> {
    let aside = dir.join(DAMAGED);
    if files::found(&aside)?.is_some() {
        return already_aside(dir, &aside);
    }
    let unfinished = files::unfinished(dir, DAMAGED);
    files::remove(&unfinished)?;
    files::create_dir(&unfinished)?;
    let manifest = manifest::NAME.to_owned();
    for name in names.iter().filter(|name| **name != manifest).chain([&manifest]) {
        keep(&dir.join(name), &unfinished.join(name))?;
    }
    if !sabotage::is(Sabotage::TrustEvidence) {
        files::sync_dir(&unfinished)?;
    }
    Ok(files::publish(dir, DAMAGED)?)
}

/// What to say of a ledger whose repair was begun and never ended: what it looks like by now may be
/// the work of the repair.
pub(crate) const UNFINISHED_REPAIR: &str = "a repair was begun and not finished: accept the loss once more, or, if the ledger was put back, move this away";

/// Whether the evidence is that of a repair that is under way, or was when its process died.
pub(crate) fn of_this_repair(dir: &Path) -> Result<bool, JournalError> {
    let aside = dir.join(DAMAGED);
    if !files::found(&aside)?.is_some_and(|found| found.is_dir()) {
        return Ok(false);
    }
    let manifest = |dir: &Path| files::read(&dir.join(manifest::NAME), MAX_MANIFEST);
    let now = manifest(dir)?;
    // Evidence that cannot be read any more says nothing against the ledger.
    let same = manifest(&aside).is_ok_and(|then| then == now);
    Ok(same && !sabotage::is(Sabotage::ForgetRepair))
}

fn already_aside(dir: &Path, aside: &Path) -> Result<(), OpenError> {
    if of_this_repair(dir)? {
        return Ok(());
    }
    Err(OpenError::Io {
        action: "keep the damaged files in",
        path: shown(aside),
        source: io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it holds what an earlier repair put aside; move it to another place first",
        ),
    })
}

/// Gives a second name to a file, or to all files in a directory.
fn keep(from: &Path, to: &Path) -> Result<(), JournalError> {
    match from.symlink_metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return link_or_copy(from, to),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(JournalError::io("look at", from)(error)),
    }
    files::create_dir(to)?;
    for entry in std::fs::read_dir(from).map_err(JournalError::io("read", from))? {
        let name = entry.map_err(JournalError::io("read", from))?.file_name();
        keep(&from.join(&name), &to.join(&name))?;
    }
    files::sync_dir(to)
}

fn link_or_copy(from: &Path, to: &Path) -> Result<(), JournalError> {
    // Any refusal: there are file systems without links, and rules against them.
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Result<(), JournalError> {
    let mut source = File::open(from).map_err(JournalError::io("open", from))?;
    let mut target = files::create(to)?;
    io::copy(&mut source, &mut target).map_err(JournalError::io("copy", from))?;
    target.sync_all().map_err(JournalError::io("sync", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A damaged ledger: a log, a checkpoint, a witness, a manifest.
    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("log-1/blobs")).unwrap();
        for (name, text) in
            [("log-1/db", "log"), ("checkpoint-2", "checkpoint"), ("manifest", "old")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn names() -> Vec<String> {
        ["log-1", "checkpoint-2", "witness"].map(str::to_owned).to_vec()
    }

    fn kept(dir: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(dir.join(DAMAGED).join(name)).ok()
    }

    #[test]
    fn everything_is_kept_and_stays_where_it_is() {
        let dir = sample();
        let dir = dir.path();
        put_aside(dir, &names()).unwrap();
        for (name, text) in
            [("log-1/db", "log"), ("checkpoint-2", "checkpoint"), ("manifest", "old")]
        {
            assert_eq!(std::fs::read_to_string(dir.join(name)).unwrap(), text);
            assert_eq!(kept(dir, name).as_deref(), Some(text));
        }
        assert!(dir.join("damaged/log-1/blobs").is_dir());
        assert_eq!(kept(dir, "witness"), None);
        assert!(!dir.join("damaged.tmp").exists());
    }

    #[test]
    fn the_evidence_outlives_what_the_repair_replaces_and_removes() {
        let dir = sample();
        let dir = dir.path();
        std::fs::write(dir.join("witness"), "before").unwrap();
        put_aside(dir, &names()).unwrap();
        files::replace(dir, "witness", b"after").unwrap();
        files::replace(dir, "manifest", b"new").unwrap();
        files::remove(&dir.join("log-1")).unwrap();
        assert_eq!(kept(dir, "witness").as_deref(), Some("before"));
        assert_eq!(kept(dir, "manifest").as_deref(), Some("old"));
        assert_eq!(kept(dir, "log-1/db").as_deref(), Some("log"));
    }

    #[test]
    fn a_killed_repair_is_begun_again() {
        let dir = sample();
        let dir = dir.path();
        std::fs::create_dir(dir.join("damaged.tmp")).unwrap();
        std::fs::write(dir.join("damaged.tmp/half"), "half").unwrap();
        put_aside(dir, &names()).unwrap();
        assert_eq!(kept(dir, "half"), None);
        files::replace(dir, "witness", b"of the killed repair").unwrap();
        put_aside(dir, &names()).unwrap();
        assert_eq!(kept(dir, "witness"), None);
        assert_eq!(kept(dir, "log-1/db").as_deref(), Some("log"));
    }

    #[test]
    fn earlier_evidence_is_never_overwritten() {
        let dir = sample();
        let dir = dir.path();
        put_aside(dir, &names()).unwrap();
        files::replace(dir, "manifest", b"of the repaired ledger").unwrap();
        std::fs::write(dir.join("log-1/db"), "damaged again").unwrap();
        let refused = put_aside(dir, &names()).unwrap_err();
        let path = dir.join(DAMAGED);
        let expected = format!("cannot keep the damaged files in {}", path.display());
        assert_eq!(refused.to_string(), expected);
        assert!(crate::error::chain(&refused).contains("move it to another place"));
        assert_eq!(kept(dir, "manifest").as_deref(), Some("old"));
        std::fs::rename(path, dir.join("evidence of the first")).unwrap();
        put_aside(dir, &names()).unwrap();
        assert_eq!(kept(dir, "log-1/db").as_deref(), Some("damaged again"));
    }

    #[test]
    fn without_a_manifest_the_repair_that_makes_one_ends_it() {
        let dir = sample();
        let dir = dir.path();
        std::fs::remove_file(dir.join("manifest")).unwrap();
        put_aside(dir, &names()).unwrap();
        put_aside(dir, &names()).unwrap();
        files::replace(dir, "manifest", b"new").unwrap();
        put_aside(dir, &names()).unwrap_err();
    }

    #[test]
    fn files_are_copied_where_they_cannot_be_linked() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "text").unwrap();
        copy(&from, &to).unwrap();
        std::fs::write(&from, "changed").unwrap();
        assert_eq!(std::fs::read_to_string(to).unwrap(), "text");
    }
}
