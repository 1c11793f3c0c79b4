//! One log directory: the only file that names sled.
//!
//! A log is one sled tree (the default one) of frames, keyed by the position of
//! their first record, big-endian. What sled 0.34 does not do by itself is done
//! here:
//!
//! * Its `flush` calls `sync_file_range` on Linux, which makes neither the size
//!   of the file nor a drive's cache durable. So every append ends with
//!   `fdatasync` on our own descriptor of its `db` file.
//! * It never syncs `conf` or a directory. We do, at creation.
//! * Its background flusher swallows failed syncs, so it is turned off.
//! * Items above a quarter of the segment size go to files that are never
//!   synced. A leaf holds at most 19 values of [`MAX_VALUE`](super::frame::MAX_VALUE)
//!   bytes: with segments of 8 MiB none ever does, and a file that appears there
//!   is an error.
//! * It may panic or hang on a damaged file, also when it is dropped. Every call
//!   runs under `catch_unwind`, on a thread that a watchdog looks after; after a
//!   panic the store is leaked, never dropped.
//! * Its file grows with every append, which makes syncs dear: see [`ahead`](super::ahead).
//!
//! Its lock may outlive it for a moment, since jobs of its threads keep a clone, and so does a child
//! that is just being forked; whoever opens has our own lock already, so it is waited for.
//!
//! A kill while it opens may leave `snap.*.generating`, which makes every later
//! open fail though nothing is lost; it is removed before.

use super::ahead::{self, Ahead};
use super::files;
use super::frame::Frame;
use crate::error::JournalError;
use crate::error::panic_text;
use crate::held::{HeldPath, shown};
use crate::sabotage::{self, Sabotage};
use crate::state::SeqNo;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The segment size of new logs. What spills is a quarter of it.
pub(crate) const SEGMENT_SIZE: u64 = 8 * 1024 * 1024;

/// Memory that sled may use for pages. A log is written, seldom read.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// How long the lock of a store is waited for that was dropped a moment ago.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// An open log directory.
#[derive(Debug)]
pub(crate) struct Log {
    dir: HeldPath,
    /// `None` once it panicked: then it has been leaked.
    db: Option<sled::Db>,
    /// Ours, opened after sled's own, so that its errors are reported to us. What is written to it goes
    /// to its end.
    file: File,
    ahead: Ahead,
}

impl Log {
    /// Creates the log in `dir`, which does not exist, durable together with its name.
    pub(crate) fn create(dir: &HeldPath, segment_size: u64) -> Result<Self, JournalError> {
        files::create_dir(dir)?;
        let log = Self::open(dir, segment_size)?;
        log.file.sync_all().map_err(JournalError::io("sync", dir))?;
        let conf = dir.join("conf");
        File::open(&conf)
            .and_then(|conf| conf.sync_all())
            .map_err(JournalError::io("sync", &conf))?;
        files::sync_dir(dir)?;
        files::sync_parent(dir)?;
        Ok(log)
    }

    /// Opens the log in `dir`. What it holds must be compared with a scan made before: sled drops
    /// what it takes for a torn tail without a word.
    pub(crate) fn open(dir: &HeldPath, segment_size: u64) -> Result<Self, JournalError> {
        remove_half_snapshots(dir)?;
        let size = usize::try_from(segment_size)
            .map_err(|_| JournalError::Store(format!("segment size {segment_size}")))?;
        let config = sled::Config::new()
            .path(dir)
            .segment_size(size)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .use_compression(false)
            .mode(sled::Mode::HighThroughput);
        let db = open_unlocked(&config, dir, LOCK_WAIT)?;
        make_private(dir)?;
        let path = dir.join("db");
        let file = ahead::open(&path).map_err(JournalError::io("open", &path))?;
        let ahead = Ahead::of(&file, segment_size);
        Ok(Self { dir: dir.clone(), db: Some(db), file, ahead })
    }

    /// Makes frames durable, in order: a flush and a sync for each.
    ///
    /// sled moves what stands in a segment that it wants to use again, takes the new copy for safe after
    /// its own flush, which is no sync, and writes over the old one when a segment that was begun after
    /// the copy's is full. Within one append that could be what was acknowledged long before: a power cut
    /// would leave neither copy. So there is a sync in every segment: with one entry sled writes a frame, at
    /// most its leaf, both halves of that if it is split, and a leaf that it cleans up: a few times 1.2
    /// MiB of the 8. (A sync after every 2 MiB of frames was not enough: with all that it moved sled had
    /// filled a segment by then.) Groups of small records are a single frame as a rule.
    pub(crate) fn append(&mut self, frames: Vec<Frame>) -> Result<(), JournalError> {
        for frame in frames {
            self.ahead.extend(&self.file);
            self.call(|db| db.insert(frame.first.get().to_be_bytes(), frame.bytes).map(drop))?;
            if !sabotage::is(Sabotage::SyncLate) {
                self.sync()?;
            }
        }
        if sabotage::is(Sabotage::SyncLate) {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.call(|db| db.flush().map(drop))?;
        self.sync_file()
    }

    /// Makes durable what the file holds by now, whoever wrote it.
    pub(crate) fn sync_file(&self) -> Result<(), JournalError> {
        if sabotage::is(Sabotage::SkipSync) {
            return Ok(());
        }
        match self.file.sync_data() {
            Err(_) if sabotage::is(Sabotage::IgnoreSync) => Ok(()),
            synced => synced.map_err(JournalError::io("sync", self.path())),
        }
    }

    /// The frame that holds the record at `seq`, if the log has it.
    pub(crate) fn frame_with(&mut self, seq: SeqNo) -> Result<Option<Vec<u8>>, JournalError> {
        let after = seq.next().get().to_be_bytes();
        Ok(self.call(|db| db.get_lt(after))?.map(|(_, bytes)| bytes.to_vec()))
    }

    /// Hands over every entry in the order of the positions, until `visit` says false.
    pub(crate) fn visit(
        &mut self,
        mut visit: impl FnMut(SeqNo, &[u8]) -> Result<bool, JournalError>,
    ) -> Result<(), JournalError> {
        let mut entries = self.call(|db| Ok(db.iter()))?;
        while let Some((key, bytes)) = self.call(|_| entries.next().transpose())? {
            let first = <[u8; 8]>::try_from(key.as_ref())
                .map_err(|_| JournalError::Store(format!("the key {key:?} is not ours")))?;
            if !visit(SeqNo::new(u64::from_be_bytes(first)), &bytes)? {
                break;
            }
        }
        Ok(())
    }

    /// Bytes of its file.
    pub(crate) fn bytes(&self) -> Result<u64, JournalError> {
        self.file
            .metadata()
            .map(|found| found.len())
            .map_err(JournalError::io("look at", &self.dir))
    }

    /// That nothing has spilled into files that sled never syncs.
    pub(crate) fn check_no_blobs(&self) -> Result<(), JournalError> {
        let blobs = self.dir.join("blobs");
        let mut spilled = std::fs::read_dir(&blobs).map_err(JournalError::io("read", &blobs))?;
        match spilled.next() {
            None => Ok(()),
            Some(_) => Err(JournalError::Store(format!(
                "values have spilled into {}, which is not durable",
                shown(&blobs).display()
            ))),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, JournalError> {
        let Some(db) = &self.db else {
            return Err(JournalError::Panicked("it panicked before".into()));
        };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(result) => result.map_err(|error| store(&self.dir, error)),
            Err(panic) => {
                // With what its path stands for: it may go on in threads of its own.
                std::mem::forget((self.db.take(), self.dir.clone()));
                Err(JournalError::Panicked(panic_text(panic)))
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let db = self.db.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
            // What was acknowledged has been synced by us.
            let panic = panic_text(panic);
            tracing::warn!(panic, log = ?self.dir, "the store panicked on drop");
        }
    }
}

/// Opens the store, waiting for the lock of one that has just been dropped.
fn open_unlocked(
    config: &sled::Config,
    dir: &Path,
    wait: Duration,
) -> Result<sled::Db, JournalError> {
    let deadline = Instant::now() + wait;
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => error,
            Err(panic) => return Err(JournalError::Panicked(panic_text(panic))),
        };
        if !is_locked(&error) {
            return Err(store(dir, error));
        }
        if Instant::now() >= deadline {
            // As the system says it, so that nobody takes it for damage.
            return Err(JournalError::io("lock the log", dir)(rustix::io::Errno::WOULDBLOCK));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Nothing but its text tells a lock that is taken from other errors.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// Where the store has copied an error, only the text still tells what the system had said.
fn original(error: io::Error) -> io::Error {
    let text = error.to_string();
    let code =
        text.strip_prefix("Os { code: ").and_then(|text| text.split(',').next()?.parse().ok());
    match code {
        Some(code) if error.raw_os_error().is_none() => io::Error::from_raw_os_error(code),
        _ => error,
    }
}

/// What the store creates is readable for all; only the directory above protects it.
fn make_private(dir: &Path) -> Result<(), JournalError> {
    for entry in std::fs::read_dir(dir).map_err(JournalError::io("read", dir))? {
        let entry = entry.map_err(JournalError::io("read", dir))?;
        let path = entry.path();
        let is_dir = entry.file_type().map_err(JournalError::io("look at", &path))?.is_dir();
        let mode = if is_dir { 0o700 } else { 0o600 };
        std::fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(JournalError::io("protect", &path))?;
    }
    Ok(())
}

/// The file in a log directory that holds its frames.
pub(crate) fn data_file(dir: &Path) -> PathBuf {
    dir.join("db")
}

fn remove_half_snapshots(dir: &Path) -> Result<(), JournalError> {
    for entry in std::fs::read_dir(dir).map_err(JournalError::io("read", dir))? {
        let name = entry.map_err(JournalError::io("read", dir))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            files::remove(&dir.join(name.as_ref()))?;
        }
    }
    Ok(())
}

fn store(dir: &Path, error: sled::Error) -> JournalError {
    match error {
        sled::Error::Io(source) => JournalError::io("use the log", dir)(original(source)),
        error @ (sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => JournalError::Store(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_one_that_is_being_dropped_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = HeldPath::by_name(dir.path()).join("log");
        let log = Log::create(&path, SEGMENT_SIZE).unwrap();
        let opened = std::thread::scope(|scope| {
            let opener = scope.spawn(|| Log::open(&path, SEGMENT_SIZE));
            // Whether the opener has found it locked by now does not matter to the outcome.
            std::thread::yield_now();
            drop(log);
            opener.join().unwrap()
        });
        assert!(opened.is_ok(), "{opened:?}");
    }

    /// Taking it for damage would rebuild the log under somebody who still writes it.
    #[test]
    fn a_store_that_stays_locked_is_the_systems_refusal_and_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = HeldPath::by_name(dir.path()).join("log");
        let _log = Log::create(&path, SEGMENT_SIZE).unwrap();
        let config = sled::Config::new().path(&path).segment_size(SEGMENT_SIZE as usize);
        match open_unlocked(&config, &path, Duration::ZERO) {
            Err(JournalError::Io { source, .. }) => assert!(source.raw_os_error().is_some()),
            other => panic!("{other:?}"),
        }
    }

    /// sled writes a snapshot under this name while it opens, renames it, and takes one that was left
    /// for the snapshot.
    #[test]
    fn what_a_kill_left_of_a_snapshot_keeps_sled_from_opening_but_not_us() {
        for left in [&b""[..], b"half of it"] {
            let dir = tempfile::tempdir().unwrap();
            let path = HeldPath::by_name(dir.path()).join("log");
            let frame = |first: u64| Frame { first: SeqNo::new(first), bytes: vec![7; 100] };
            Log::create(&path, SEGMENT_SIZE).unwrap().append(vec![frame(1), frame(2)]).unwrap();
            let half = path.join("snap.0000000000000000.generating");
            std::fs::write(&half, left).unwrap();

            let config = sled::Config::new().path(&path).segment_size(SEGMENT_SIZE as usize);
            let config = config.flush_every_ms(None);
            for _ in 0..2 {
                let opened = open_unlocked(&config, &path, LOCK_WAIT).map(drop);
                assert!(opened.is_err(), "the control: sled makes do with what was left");
            }
            let mut log = Log::open(&path, SEGMENT_SIZE).unwrap();
            assert!(!half.exists());
            let mut found = Vec::new();
            log.visit(|first, bytes| {
                found.push((first.get(), bytes.to_vec()));
                Ok(true)
            })
            .unwrap();
            assert_eq!(found, [(1, vec![7; 100]), (2, vec![7; 100])]);
        }
    }

    #[test]
    fn a_lock_is_told_from_other_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = HeldPath::by_name(dir.path()).join("log");
        let _log = Log::create(&path, SEGMENT_SIZE).unwrap();
        let refused = sled::Config::new().path(&path).segment_size(SEGMENT_SIZE as usize).open();
        assert!(is_locked(&refused.unwrap_err()));
        assert!(!is_locked(&sled::Error::Io(io::ErrorKind::StorageFull.into())));
    }

    #[test]
    fn a_copied_error_of_the_system_is_still_one() {
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        let copied = sled::Error::Io(full).clone();
        let JournalError::Io { source, .. } = store(Path::new("log-1"), copied) else {
            panic!("it is one of the system")
        };
        assert_eq!(source.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
        let other = io::Error::other("Os { code: none");
        assert_eq!(original(other).to_string(), "Os { code: none");
    }
}
