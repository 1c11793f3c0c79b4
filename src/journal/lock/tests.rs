use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

const AT_ONCE: Duration = Duration::ZERO;
/// Long enough for anything that is going to happen.
const PATIENT: Duration = Duration::from_secs(60);

fn holder(refused: Result<impl Sized, OpenError>) -> Holder {
    match refused.err() {
        Some(OpenError::Locked { holder, .. }) => holder,
        other => panic!("not locked: {other:?}"),
    }
}

fn text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(NAME)).unwrap()
}

#[test]
fn a_second_opener_is_refused_and_told_that_it_is_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let before = Timestamp::from(SystemTime::now());
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    let found = holder(DirLock::acquire(dir.path(), AT_ONCE));
    assert!(found.this_process);
    assert_eq!(found.pid, Some(std::process::id()));
    assert!(found.host.is_some());
    assert!(found.since >= Some(before));
    assert_eq!(holder(DirLock::acquire_shared(&HeldPath::open(dir.path()).unwrap())), found);
    lock.still_ours().unwrap();
    drop(lock);
    assert_eq!(text(dir.path()), "");
    DirLock::acquire(dir.path(), AT_ONCE).unwrap();
}

#[test]
fn an_opener_waits_for_one_that_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| DirLock::acquire(dir.path(), PATIENT).map(drop));
        drop(lock);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn it_is_refused_only_after_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    let (start, wait) = (Instant::now(), Duration::from_millis(120));
    holder(DirLock::acquire(dir.path(), wait));
    assert!(start.elapsed() >= wait);
}

/// Whatever was written under a lock whose holder has not said so may be in the page cache alone.
#[test]
fn only_who_says_so_has_ended_well() {
    let dir = tempfile::tempdir().unwrap();
    let acquire = || DirLock::acquire(dir.path(), Duration::ZERO).unwrap();
    assert!(!acquire().found_well(), "nobody was there");
    assert!(!acquire().found_well(), "it has gone without a word");
    acquire().end_well();
    assert!(acquire().found_well());
    assert!(!acquire().found_well(), "that was said of the one before");
}

#[test]
fn readers_share_and_keep_openers_out() {
    let dir = tempfile::tempdir().unwrap();
    drop(DirLock::acquire(dir.path(), AT_ONCE).unwrap());
    std::fs::write(dir.path().join(NAME), "pid 1\n").unwrap();
    let one = DirLock::acquire_shared(&HeldPath::open(dir.path()).unwrap()).unwrap();
    let two = DirLock::acquire_shared(&HeldPath::open(dir.path()).unwrap()).unwrap();
    assert!(matches!((&one, &two), (SharedLock::Held(_), SharedLock::Held(_))));
    assert_eq!(holder(DirLock::acquire(dir.path(), AT_ONCE)), Holder::default());
    assert_eq!(text(dir.path()), "pid 1\n");
    drop((one, two));
    DirLock::acquire(dir.path(), AT_ONCE).unwrap();
}

#[test]
fn a_reader_creates_no_lock_file() {
    let dir = tempfile::tempdir().unwrap();
    let shared = DirLock::acquire_shared(&HeldPath::open(dir.path()).unwrap()).unwrap();
    assert!(matches!(shared, SharedLock::NoLockFile));
    assert!(!dir.path().join(NAME).exists());
}

#[test]
fn the_text_of_a_holder_is_read_back() {
    let own = Identity::own();
    let since = Timestamp::from_micros(1_732_254_737_000_123);
    let text = holder_text(&own, since);
    assert!(text.ends_with("since 1732254737000123 2024-11-22T05:52:17.000123Z\n"));
    let found = parse_holder(&text, &own);
    let expected =
        Holder { pid: own.pid, host: own.host.clone(), since: Some(since), this_process: true };
    assert_eq!(found, expected);
}

#[test]
fn it_is_this_process_only_on_this_machine_since_this_boot() {
    let own = Identity::own();
    let said = |identity: Identity| {
        parse_holder(&holder_text(&identity, Timestamp::from_micros(1)), &own).this_process
    };
    assert!(said(own.clone()));
    assert!(!said(Identity { pid: Some(own.pid.unwrap() + 1), ..own.clone() }));
    assert!(!said(Identity { host: Some("elsewhere".to_owned()), ..own.clone() }));
    assert!(!said(Identity { boot: Some("an older one".to_owned()), ..own.clone() }));
    assert!(!parse_holder("", &Identity::default()).this_process);
}

#[test]
fn a_torn_text_never_says_what_was_not_written() {
    let own = Identity::own();
    let whole = holder_text(&own, Timestamp::from_micros(123_456));
    let all = parse_holder(&whole, &own);
    for end in 0..=whole.len() {
        let torn = parse_holder(&whole[..end], &own);
        assert!(torn.pid.is_none() || torn.pid == all.pid);
        assert!(torn.host.is_none() || torn.host == all.host);
        assert!(torn.since.is_none() || torn.since == all.since);
        assert!(end == whole.len() || !torn.this_process || torn.pid == own.pid);
    }
    for garbage in ["pid -1\n", "pid\n", "\n\n", "since x\n", "\u{fffd}pid 3", "pid 99999999999\n"]
    {
        assert_eq!(parse_holder(garbage, &own), Holder::default());
    }
}

#[test]
fn a_renamed_directory_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    let lock = DirLock::acquire(&here, AT_ONCE).unwrap();
    lock.still_ours().unwrap();
    std::fs::rename(&here, &there).unwrap();
    let moved = |lock: &DirLock| match lock.still_ours() {
        Err(JournalError::Moved { path }) => assert_eq!(path, here),
        other => panic!("{other:?}"),
    };
    moved(&lock);
    std::fs::create_dir(&here).unwrap();
    moved(&lock);
    let second = DirLock::acquire(&here, AT_ONCE).unwrap();
    second.still_ours().unwrap();
    moved(&lock);
    drop(second);
    std::fs::remove_dir_all(&here).unwrap();
    std::fs::rename(&there, &here).unwrap();
    lock.still_ours().unwrap();
    std::fs::remove_file(here.join(NAME)).unwrap();
    moved(&lock);
}

/// Between the opening of the file and its locking, the holder before may have been replaced.
#[test]
fn a_file_that_was_replaced_after_it_was_opened_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let file = open_to_write(&path).unwrap();
    assert!(Inode::of_both(&file, &path).unwrap().is_some());
    std::fs::rename(&path, dir.path().join("another name")).unwrap();
    assert_eq!(Inode::of_both(&file, &path).unwrap(), None);
    open_to_write(&path).unwrap();
    assert_eq!(Inode::of_both(&file, &path).unwrap(), None);
}

#[test]
fn a_directory_that_is_none_is_an_io_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    match DirLock::acquire(&none, AT_ONCE) {
        Err(OpenError::Io { action: "open", path, .. }) => assert_eq!(path, none),
        other => panic!("{other:?}"),
    }
}

const CHILD: &str = "TASKLEDGER_TEST_LOCK_DIR";

/// Not a test of its own: what the other process does. Takes the lock, says so, and holds it
/// until its input ends.
#[test]
fn the_other_process() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let _lock = DirLock::acquire(Path::new(&dir), PATIENT).unwrap();
    let mut out = io::stdout();
    out.write_all(b"\nheld\n").unwrap();
    out.flush().unwrap();
    io::stdin().lines().count();
}

/// Starts the other process and returns when it holds the lock.
fn other_process(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::lock::tests::the_other_process", "--nocapture"])
        .env(CHILD, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let held = lines.any(|line| line.unwrap() == "held");
    assert!(held, "the other process never took the lock");
    // Its output must stay open: it still reports that its test has passed.
    std::thread::spawn(move || lines.count());
    child
}

#[test]
fn another_process_is_named_and_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = other_process(dir.path());
    let found = holder(DirLock::acquire(dir.path(), AT_ONCE));
    assert_eq!(found.pid, Some(child.id()));
    assert!(!found.this_process);
    drop(child.stdin.take());
    let lock = DirLock::acquire(dir.path(), PATIENT).unwrap();
    assert!(text(dir.path()).contains(&format!("pid {}\n", std::process::id())));
    assert!(child.wait().unwrap().success());
    lock.still_ours().unwrap();
}

#[test]
fn a_killed_process_frees_the_lock_and_leaves_a_stale_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = other_process(dir.path());
    let pid = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text(dir.path()).contains(&format!("pid {pid}\n")));
    let shared = DirLock::acquire_shared(&HeldPath::open(dir.path()).unwrap()).unwrap();
    assert_eq!(holder(DirLock::acquire(dir.path(), AT_ONCE)), Holder::default());
    drop(shared);
    let _lock = DirLock::acquire(dir.path(), AT_ONCE).unwrap();
    assert!(!text(dir.path()).contains(&format!("pid {pid}\n")));
    assert!(holder(DirLock::acquire(dir.path(), AT_ONCE)).this_process);
}
