//! What a command prints: kept until it has ended, then passed on whole.

use super::printer::Printer;
use super::room;
use rustix::io::ioctl_fionread;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::SpooledTempFile;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Above this an output goes to a temporary file.
const IN_MEMORY: usize = 1024 * 1024;

/// Bytes of standard error that a failure records.
const TAIL: usize = 2048;

/// How long a command that has ended is waited for that has left its output to somebody else.
const LEFT_OPEN: Duration = Duration::from_millis(100);

/// How long it takes until a temporary file is tried again.
const NO_ROOM: Duration = Duration::from_millis(50);

/// The two outputs of a command.
#[derive(Debug)]
pub(super) struct Printed {
    out: SpooledTempFile,
    err: SpooledTempFile,
    tail: Vec<u8>,
    any: bool,
    /// Why something of it is missing.
    lost: Option<io::Error>,
}

/// Reads what a command prints, as it comes.
#[derive(Debug)]
pub(super) struct Relay {
    printed: Arc<Mutex<Printed>>,
    readers: JoinSet<()>,
    /// From then on only what is in the pipes already is read.
    over: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Out,
    Err,
}

impl Relay {
    /// Begins to read. With a printer, what comes on standard error is passed on as it comes, and
    /// standard output is the command's own business.
    pub(super) fn of(child: &mut Child, at_once: Option<Printer>) -> Self {
        let printed = Arc::new(Mutex::new(Printed::new()));
        let (mut readers, over) = (JoinSet::new(), CancellationToken::new());
        if let Some(out) = child.stdout.take() {
            readers.spawn(read(out, Stream::Out, Arc::clone(&printed), None, over.clone()));
        }
        if let Some(err) = child.stderr.take() {
            readers.spawn(read(err, Stream::Err, Arc::clone(&printed), at_once, over.clone()));
        }
        Self { printed, readers, over }
    }

    /// Everything that the command, which has ended, has printed: what is in the pipes by now, if
    /// somebody else keeps them open.
    pub(super) async fn finish(&mut self) {
        let end = async |readers: &mut JoinSet<()>| while readers.join_next().await.is_some() {};
        if timeout(LEFT_OPEN, end(&mut self.readers)).await.is_err() {
            self.over.cancel();
            end(&mut self.readers).await;
        }
    }

    /// The last lines on standard error.
    pub(super) fn last_words(&self) -> Option<String> {
        let printed = lock(&self.printed);
        let text = String::from_utf8_lossy(&printed.tail);
        let text = text.trim();
        // What was cut off began somewhere in a line.
        let cut = printed.tail.len() >= TAIL;
        let text = if cut { text.split_once('\n').map_or(text, |(_, rest)| rest) } else { text };
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What was read, taken out.
    pub(super) fn take(&self) -> Printed {
        std::mem::replace(&mut lock(&self.printed), Printed::new())
    }
}

impl Printed {
    fn new() -> Self {
        let new = || SpooledTempFile::new(IN_MEMORY);
        Self { out: new(), err: new(), tail: Vec::new(), any: false, lost: None }
    }

    /// Passes all of it on. What standard output does not take is told. `whole_lines`: of what goes
    /// there, and on standard error, a newline is the last, as a bar needs that comes below.
    pub(super) fn pass_on(&mut self, whole_lines: bool) -> io::Result<()> {
        // Whoever listens to the errors is less important.
        drop(copy(&mut self.err, &mut io::stderr().lock(), whole_lines));
        let terminal = whole_lines && io::stdout().is_terminal();
        copy(&mut self.out, &mut io::stdout().lock(), terminal)
    }

    /// Whether there is nothing to pass on.
    pub(super) const fn is_empty(&self) -> bool {
        !self.any
    }

    /// Why something of it is missing.
    pub(super) const fn lost(&self) -> Option<&io::Error> {
        self.lost.as_ref()
    }

    /// Keeps it; what is left if there is no descriptor for a temporary file by now.
    fn take<'a>(&mut self, stream: Stream, mut bytes: &'a [u8]) -> &'a [u8] {
        self.any = true;
        let to = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if room::is_short(&error) => break,
                Err(error) => {
                    self.lost.get_or_insert(error);
                    return &[];
                }
            }
        }
        bytes
    }
}

fn lock(printed: &Mutex<Printed>) -> MutexGuard<'_, Printed> {
    printed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(from: &mut SpooledTempFile, to: &mut impl Write, whole_lines: bool) -> io::Result<()> {
    from.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut last = b'\n';
    loop {
        let read = from.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let Some(end) = bytes.last() else { break };
        last = *end;
        to.write_all(bytes)?;
    }
    if whole_lines && last != b'\n' {
        to.write_all(b"\n")?;
    }
    to.flush()
}

async fn read(
    mut from: impl AsyncRead + AsFd + Unpin,
    stream: Stream,
    printed: Arc<Mutex<Printed>>,
    at_once: Option<Printer>,
    over: CancellationToken,
) {
    let mut buffer = vec![0; 16 * 1024];
    // How much is still to be read, once that is certain.
    let mut rest = None;
    while rest != Some(0) {
        let read = match rest {
            None => tokio::select! {
                biased;
                () = over.cancelled() => {
                    rest = Some(ioctl_fionread(&from).unwrap_or_default());
                    continue;
                }
                read = from.read(&mut buffer) => read,
            },
            Some(_) => rustix::io::read(&from, &mut buffer).map_err(io::Error::from),
        };
        let bytes = match read {
            Ok(0) => return,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            // It was all.
            Err(_) if rest.is_some() => return,
            Err(error) => {
                lock(&printed).lost.get_or_insert(error);
                return;
            }
        };
        rest = rest.map(|rest| rest.saturating_sub(bytes.len() as u64));
        if matches!(stream, Stream::Err) {
            let tail = &mut lock(&printed).tail;
            tail.extend_from_slice(bytes);
            let more = tail.len().saturating_sub(TAIL);
            tail.drain(..more);
        }
        if let Some(printer) = &at_once {
            printer.piece(bytes.to_vec()).await;
            continue;
        }
        let mut left = lock(&printed).take(stream, bytes);
        while !left.is_empty() {
            // The command waits as well, once its pipe is full.
            tokio::time::sleep(NO_ROOM).await;
            left = lock(&printed).take(stream, left);
        }
    }
}
