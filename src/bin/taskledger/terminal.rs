//! Standard output and standard error: what goes there is whole lines, and no control characters.

use crate::beside::beside;
use crate::signals::Signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal as Kind;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, StdoutLock, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use taskledger::dump::Inspection;
use taskledger::{BackupError, ByteId, JournalError, OpenError};

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The ledger could not be looked into, or the call makes no sense: in words.
    Look(String),
    /// The output could not be written.
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look(what) => f.write_str(what),
            Self::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl Failure {
    pub(crate) fn told(self) -> Told {
        (ExitCode::from(2), vec![self.to_string()])
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Look(chain(&error))
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::Look(chain(&error))
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::Look(chain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(crate) type Done = Result<ExitCode, Failure>;

/// Standard output, in large pieces.
pub(crate) fn out() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// One line on standard error.
pub(crate) fn complain(what: &str) {
    // Nobody is left to be told if this fails.
    drop(write_whole(&io::stderr(), complaint(what).as_bytes()));
}

/// Prints this on standard error beside everything else, however long nobody reads it.
pub(crate) async fn print(text: String) {
    // Who takes anything takes so much at once.
    const AT_ONCE: usize = 4096;
    let at_once = text.len() <= AT_ONCE && errors_are_read();
    let print = move || drop(write_whole(&io::stderr(), text.as_bytes()));
    if at_once {
        print();
    } else {
        beside(print).await;
    }
}

/// As [`print`], if somebody reads it in time.
pub(crate) async fn print_in_time(text: String) {
    drop(tokio::time::timeout(UNREAD, print(text)).await);
}

/// What a command comes to, and what is to be said of it.
pub(crate) type Told = (ExitCode, Vec<String>);

/// Says the last words of a command that listens to signals, and keeps nobody from the ledger any more. They
/// wait for whoever reads them, or for a signal.
pub(crate) async fn ends(told: Result<Told, Failure>) -> ExitCode {
    let (code, words) = told.unwrap_or_else(Failure::told);
    let words: String = words.iter().map(|word| complaint(word)).collect();
    if words.is_empty() {
        return code;
    }
    match Signals::listen(&[Kind::INT, Kind::TERM, Kind::HUP, Kind::QUIT]) {
        Ok(mut signals) => tokio::select! {
            biased;
            () = print(words) => {}
            _ = signals.next() => {}
        },
        Err(_) => print(words).await,
    }
    code
}

/// Who has taken nothing for so long does not read.
pub(crate) const UNREAD: Duration = Duration::from_secs(1);

/// Writes all of it. Where others have made it so that a write does not wait, this waits.
pub(crate) fn write_whole(to: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(to, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_for(end: &impl AsFd, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(end, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is read. Where others have made it so that a read does not wait, this waits.
#[derive(Debug)]
pub(crate) struct Input(pub(crate) File);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_for(&self.0, PollFlags::IN)?;
                }
                read => return read,
            }
        }
    }
}

/// One line for standard error. Backslashes stay as they are: what has been escaped is not escaped
/// again.
pub(crate) fn complaint(what: &str) -> String {
    let parts: Vec<String> = what.split('\\').map(clean).collect();
    format!("taskledger: {}\n", parts.join("\\"))
}

/// Whether standard output is a pipe, or a terminal, whose other end is gone.
pub(crate) fn nobody_reads() -> bool {
    is_gone(&io::stdout())
}

/// Whether it says so itself: of a pipe, which another one may read by now, or a socket.
pub(crate) fn nobody_took(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionRefused | ConnectionAborted | NotConnected
    )
}

/// Whether standard error is a pipe, or a terminal, whose other end is gone.
pub(crate) fn nobody_listens() -> bool {
    is_gone(&io::stderr())
}

fn is_gone(to: &impl AsFd) -> bool {
    let mut ends = [PollFd::new(to, PollFlags::OUT)];
    let now = Timespec::default();
    poll(&mut ends, Some(&now)).is_ok()
        && ends.iter().any(|end| end.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// Whether a write to standard output or standard error would not wait for somebody who reads.
pub(crate) fn all_are_read() -> bool {
    is_read(&io::stdout()) && errors_are_read()
}

/// Whether a write to standard error would not wait for somebody who reads.
pub(crate) fn errors_are_read() -> bool {
    is_read(&io::stderr())
}

fn is_read(to: &impl AsFd) -> bool {
    let mut end = [PollFd::new(to, PollFlags::OUT)];
    poll(&mut end, Some(&Timespec::default())) != Ok(0)
}

/// Opens the ledger and says what is wrong with it.
pub(crate) fn look(path: &std::path::Path) -> Result<Inspection, Failure> {
    let inspection = Inspection::open(path)?;
    told_of_damage(&inspection);
    Ok(inspection)
}

/// Says what is wrong with it.
pub(crate) fn told_of_damage(inspection: &Inspection) {
    for damage in inspection.damage() {
        complain(&format!("damaged: {damage}"));
    }
}

/// The exit code of a command that showed what it could.
pub(crate) fn sound_or_not(inspection: &Inspection, errors: usize) -> ExitCode {
    ExitCode::from(u8::from(errors > 0 || !inspection.damage().is_empty()))
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The text on one line and without control characters.
pub(crate) fn clean(text: &str) -> String {
    ByteId::from(text).to_string()
}

/// As a shell would take it.
pub(crate) fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./=:,{}%+@".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A line on standard error that counts, from the second second on; only for people.
#[derive(Debug)]
pub(crate) struct Progress {
    next: Option<Instant>,
    shown: bool,
    count: u64,
}

impl Progress {
    /// Counts if standard error is a terminal and standard output does not go there as well.
    pub(crate) fn beside_output() -> Self {
        Self::new(io::stderr().is_terminal() && !io::stdout().is_terminal())
    }

    /// Counts if standard error is a terminal.
    pub(crate) fn before_output() -> Self {
        Self::new(io::stderr().is_terminal())
    }

    fn new(wanted: bool) -> Self {
        let next = wanted.then(|| Instant::now() + Duration::from_secs(1));
        Self { next, shown: false, count: 0 }
    }

    pub(crate) fn step(&mut self) {
        const SELDOM: u64 = 1024;
        self.count += 1;
        if self.count % SELDOM != 0 {
            return;
        }
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            drop(write!(io::stderr(), "\r{} read", self.count));
            self.next = Some(now + Duration::from_secs(1));
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            drop(write!(io::stderr(), "\r{:30}\r", ""));
        }
    }
}
