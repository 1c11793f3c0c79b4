//! A path into a directory that is held open.
//!
//! A path is looked up anew each time it is used. If the directory of a ledger is moved away and
//! another takes its place, whatever is under way by its path goes on in the other one. On Linux
//! `/proc/self/fd/N` leads to the directory of descriptor N itself, wherever that is by now, for
//! everything that takes a path, the store included.
//!
//! ```text
//! /srv/ledger           -> whatever has that name when it is looked up
//! /proc/self/fd/7       -> the directory that was opened, whatever its name
//! /proc/self/fd/7/log-1 -> in it
//! /proc/self/fd/7/..    -> the directory that it stands in
//! ```
//!
//! The number is taken again once the descriptor is closed, so every path that outlives a call
//! shares it. Where there is no `/proc`, the path is used as it was given: then a step that is under
//! way while the directory is moved is not protected.

use crate::sabotage::{self, Sabotage};
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the system has a path for each open descriptor.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A path that leads into a directory for as long as this lives.
#[derive(Clone)]
pub(crate) struct HeldPath {
    path: PathBuf,
    /// `None` where there are no such paths.
    held: Option<Arc<File>>,
}

impl HeldPath {
    /// Holds the directory that `dir` leads to now. It should be absolute, since without `/proc` it is
    /// looked up again.
    ///
    /// # Errors
    ///
    /// That it cannot be opened.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = || rustix::fs::open(dir, flags, Mode::empty());
        let file = File::from(rustix::io::retry_on_intr(opened)?);
        let path = Path::new(DESCRIPTORS).join(file.as_raw_fd().to_string());
        let inode = |found: std::fs::Metadata| (found.dev(), found.ino());
        let leads_there = path.metadata().map(inode).ok() == Some(inode(file.metadata()?));
        if leads_there && !sabotage::is(Sabotage::ByName) {
            return Ok(Self { path, held: Some(Arc::new(file)) });
        }
        Ok(Self::by_name(dir))
    }

    /// The path as it is, which may lead elsewhere tomorrow.
    pub(crate) fn by_name(path: &Path) -> Self {
        Self { path: path.to_owned(), held: None }
    }

    /// The path of `name` in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { path: self.path.join(name), held: self.held.clone() }
    }
}

impl Deref for HeldPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for HeldPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for HeldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.path), f)
    }
}

/// The path as people know it: a held directory by the name that it has now.
pub(crate) fn shown(path: &Path) -> PathBuf {
    let held = path.strip_prefix(DESCRIPTORS).ok().and_then(|below| {
        let mut below = below.components();
        let dir = std::fs::read_link(Path::new(DESCRIPTORS).join(below.next()?)).ok()?;
        // `join` would end an empty rest with a slash.
        Some(dir.components().chain(below).collect())
    });
    held.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_to_the_same_directory_when_another_has_taken_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let (here, there) = (scratch.path().join("here"), scratch.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        let held = HeldPath::open(&here).unwrap();
        let (file, same) = (held.join("file"), held.clone());
        drop(held);
        assert_eq!(shown(&file), here.join("file"));
        std::fs::rename(&here, &there).unwrap();
        std::fs::create_dir(&here).unwrap();
        std::fs::write(&*file, "x").unwrap();
        assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "x");
        assert!(!here.join("file").exists());
        assert_eq!(shown(&same), there);
        assert_eq!(format!("{file:?}"), format!("{:?}", there.join("file")));
        assert_eq!(
            same.join("..").metadata().unwrap().ino(),
            scratch.path().metadata().unwrap().ino()
        );
    }

    #[test]
    fn only_directories_are_held() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), "x").unwrap();
        assert!(HeldPath::open(&scratch.path().join("file")).is_err());
        assert!(HeldPath::open(&scratch.path().join("none")).is_err());
    }

    #[test]
    fn other_paths_are_shown_as_they_are() {
        for path in ["/a/b", "a/b", "/proc/self/fd", "/proc/self/fd/none/b", ""] {
            assert_eq!(shown(Path::new(path)), Path::new(path));
        }
        let by_name = HeldPath::by_name(Path::new("/a")).join("b");
        assert_eq!(&*by_name, Path::new("/a/b"));
    }
}
