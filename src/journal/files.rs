//! Files and directories that outlive the power: what is created is synced, and so is the directory
//! that names it.
//!
//! ```text
//! replace(dir, name, bytes)                     if we die on this line, <name> is
//!   write <name>.tmp, fsync it                  as before (or absent, as before)
//!   rename <name>.tmp to <name>                 as before, or new
//!   fsync dir                                   as before, or new
//! returned Ok                                   new, and it outlives the power
//! ```
//!
//! Everything is private to its owner: directories have mode 0700, files 0600. Errors say what was
//! tried on which path.

use crate::error::JournalError;
use crate::sabotage::{self, Sabotage};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the name of a file ends in that is not finished.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Creates the file, or empties it, for writing and reading.
pub(crate) fn create(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(JournalError::io("create", path))
}

/// Replaces the file `name` as a whole: whenever we die, it is the old one or the new one.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
    stage(dir, name, bytes)?;
    publish(dir, name)
}

/// The first half of [`replace`]: `<name>.tmp` has these bytes, on the disk.
pub(crate) fn stage(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
    let path = unfinished(dir, name);
    let mut file = create(&path)?;
    file.write_all(bytes).map_err(JournalError::io("write", &path))?;
    file.sync_all().map_err(JournalError::io("sync", &path))
}

/// The second half of [`replace`]: `<name>.tmp`, which is synced, becomes `<name>`.
pub(crate) fn publish(dir: &Path, name: &str) -> Result<(), JournalError> {
    let path = dir.join(name);
    std::fs::rename(unfinished(dir, name), &path).map_err(JournalError::io("replace", &path))?;
    sync_dir(dir)
}

/// The path of a file that is not finished.
pub(crate) fn unfinished(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{UNFINISHED}"))
}

/// All bytes of a file, `None` if there is no such file. A file that is longer than `limit` is
/// read to one byte beyond it: enough for the caller to see that it is too long, never more memory.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, JournalError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(JournalError::io("read", path))?;
    Ok(Some(bytes))
}

/// What a path leads to, `None` if to nothing. A look that fails is not taken for nothing.
pub(crate) fn found(path: &Path) -> Result<Option<std::fs::Metadata>, JournalError> {
    match path.metadata() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("look at", path)(error)),
    }
}

/// Makes durable which names the directory holds.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(JournalError::io("sync", dir))
}

/// Makes durable that the parent directory names this path.
pub(crate) fn sync_parent(path: &Path) -> Result<(), JournalError> {
    sync_dir(&parent(path))
}

/// Makes durable that the directory has its name, and all those above it theirs, up to where its file
/// system begins. Whoever made them may have died before, so none is taken to be durable because it is
/// there.
pub(crate) fn sync_ancestors(dir: &Path) -> Result<(), JournalError> {
    if sabotage::is(Sabotage::TrustNames) {
        return Ok(());
    }
    let look = |path: &Path| path.metadata().map_err(JournalError::io("look at", path));
    let (mut below, mut found) = (dir.to_owned(), look(dir)?);
    loop {
        let above = below.join("..");
        let next = match look(&above) {
            Err(JournalError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                return sync_file_system(dir);
            }
            next => next?,
        };
        let is_root = next.ino() == found.ino();
        if next.dev() != found.dev() || is_root {
            return Ok(());
        }
        sync_names(&above, dir)?;
        (below, found) = (above, next);
    }
}

/// Makes durable which names `above` holds, a directory that may be searched but not read: then all of
/// the file system is synced, by way of one of its directories.
fn sync_names(above: &Path, below: &Path) -> Result<(), JournalError> {
    match sync_dir(above) {
        Err(JournalError::Io { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            sync_file_system(below)
        }
        synced => synced,
    }
}

fn sync_file_system(dir: &Path) -> Result<(), JournalError> {
    let held = File::open(dir).map_err(JournalError::io("open", dir))?;
    rustix::fs::syncfs(held).map_err(JournalError::io("sync the file system of", dir))
}

/// Creates the directory with mode 0700, and its missing ancestors, each durable. One that exists
/// already, perhaps since a moment ago, is fine.
pub(crate) fn create_dir(path: &Path) -> Result<(), JournalError> {
    let above = parent(path);
    if !above.exists() {
        create_dir(&above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_names(&above, path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(JournalError::io("create", path)(error)),
    }
}

/// Removes a file, or a directory with all that is in it. One that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), JournalError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The parent of a bare relative name is the current directory.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => PathBuf::from("."),
        Some(above) => above.to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn everything_is_private_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        create_dir(&made).unwrap();
        create_dir(&made).unwrap();
        replace(&made, "file", b"x").unwrap();
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        assert_eq!(mode(&made), 0o700);
        assert_eq!(mode(&made.join("file")), 0o600);
    }

    #[test]
    fn a_file_is_old_or_new_whenever_we_die() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, new) = (dir.path(), b"new and longer");
        replace(dir, "file", b"old").unwrap();
        let found = || read(&dir.join("file"), 100).unwrap().unwrap();
        for written in 0..=new.len() {
            std::fs::write(dir.join("file.tmp"), &new[..written]).unwrap();
            assert_eq!(found(), b"old");
        }
        stage(dir, "file", new).unwrap();
        assert_eq!(found(), b"old");
        publish(dir, "file").unwrap();
        assert_eq!(found(), new);
        assert!(!dir.join("file.tmp").exists());
    }

    /// Taken for nothing, a copy that cannot be looked at just now would be passed over, and a repair
    /// that was begun.
    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let [none, there, circle] = ["none", "there", "circle"].map(|name| dir.path().join(name));
        std::fs::write(&there, "x").unwrap();
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert!(found(&none).unwrap().is_none());
        assert!(found(&there).unwrap().is_some());
        assert!(matches!(found(&circle), Err(JournalError::Io { action: "look at", .. })));
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read(&path, 4).unwrap(), None);
        std::fs::write(&path, b"123456789").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"12345");
        assert_eq!(read(&path, 9).unwrap().unwrap(), b"123456789");
    }

    #[test]
    fn what_cannot_be_done_is_told_with_action_and_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let error = create_dir(&file.join("below")).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot create {}", file.join("below").display()));
        assert!(matches!(create_dir(&file), Err(JournalError::Io { action: "create", .. })));
        assert!(matches!(publish(dir.path(), "none"), Err(JournalError::Io { .. })));
    }

    #[test]
    fn removing_takes_files_directories_and_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        create_dir(&one.join("below")).unwrap();
        std::fs::write(&two, b"x").unwrap();
        for path in [&one, &two, &two] {
            remove(path).unwrap();
            assert!(!path.exists());
        }
    }
}
