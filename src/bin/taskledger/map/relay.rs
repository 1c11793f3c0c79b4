//! What a command prints: kept until it has ended, then passed on whole. What comes later, of those that
//! it has left running, is passed on as it comes.

use super::printer::{Pace, Printer, heard};
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
pub(super) const TAIL: usize = 2048;

/// How long a command that has ended is waited for that has left its output to somebody else.
const LEFT_OPEN: Duration = Duration::from_millis(100);

/// How long it takes until a temporary file is tried again.
const NO_ROOM: Duration = Duration::from_millis(50);

/// What comes later is passed on in lines, but for longer ones.
const LINE: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Our end of a pipe.
pub(super) trait Source: AsyncRead + AsFd + Unpin + Send {}

impl<T: AsyncRead + AsFd + Unpin + Send> Source for T {}

/// A pipe that somebody still has who has been left running.
pub(super) type Open = (Stream, Box<dyn Source>);

/// The two outputs of a command.
#[derive(Debug)]
pub(super) struct Printed {
    out: SpooledTempFile,
    err: SpooledTempFile,
    tail: Vec<u8>,
    any: bool,
    /// Why something of it is missing.
    lost: Option<Lost>,
}

/// What could not be done with an output.
#[derive(Debug)]
pub(super) enum Lost {
    Kept(io::Error),
    PassedOn(io::Error),
}

/// Reads what a command prints, as it comes.
pub(super) struct Relay {
    printed: Arc<Mutex<Printed>>,
    readers: JoinSet<Option<Open>>,
    /// From then on only what is in the pipes already is read.
    over: CancellationToken,
    open: Vec<Open>,
}

impl Relay {
    /// Begins to read. With a printer, what comes on standard error is passed on as it comes, and
    /// standard output is the command's own business.
    pub(super) fn of(child: &mut Child, at_once: Option<Printer>) -> Self {
        let printed = Arc::new(Mutex::new(Printed::new()));
        let (mut readers, over) = (JoinSet::new(), CancellationToken::new());
        let out = child.stdout.take().map(|out| (Stream::Out, Box::new(out) as Box<dyn Source>));
        let err = child.stderr.take().map(|err| (Stream::Err, Box::new(err) as Box<dyn Source>));
        for open in out.into_iter().chain(err) {
            let sink = Sink::Kept(Arc::clone(&printed), at_once.clone());
            readers.spawn(read(open, sink, over.clone()));
        }
        Self { printed, readers, over, open: Vec::new() }
    }

    /// Everything that the command, which has ended, has printed: what is in the pipes by now, if
    /// somebody else keeps them open.
    pub(super) async fn finish(&mut self) {
        let Self { readers, open, over, .. } = self;
        let end = async |readers: &mut JoinSet<Option<Open>>, open: &mut Vec<Open>| {
            while let Some(read) = readers.join_next().await {
                open.extend(read.ok().flatten());
            }
        };
        if timeout(LEFT_OPEN, end(readers, open)).await.is_err() {
            over.cancel();
            end(readers, open).await;
        }
    }

    /// The pipes that were still open then.
    pub(super) fn take_open(&mut self) -> Vec<Open> {
        std::mem::take(&mut self.open)
    }

    /// The last lines on standard error, of no more bytes than these.
    pub(super) fn last_words(&self, most: usize) -> Option<String> {
        let printed = lock(&self.printed);
        let from = printed.tail.len().saturating_sub(most);
        let text = String::from_utf8_lossy(printed.tail.get(from..).unwrap_or_default());
        let text = text.trim();
        // What was cut off began somewhere in a line.
        let cut = from > 0 || printed.tail.len() >= TAIL;
        let text = if cut { text.split_once('\n').map_or(text, |(_, rest)| rest) } else { text };
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What was read, taken out; the last lines are known on.
    pub(super) fn take(&self) -> Printed {
        let mut printed = lock(&self.printed);
        let new = Printed { tail: printed.tail.clone(), ..Printed::new() };
        std::mem::replace(&mut printed, new)
    }
}

impl Printed {
    fn new() -> Self {
        let new = || SpooledTempFile::new(IN_MEMORY);
        Self { out: new(), err: new(), tail: Vec::new(), any: false, lost: None }
    }

    /// Whether it ends a line on standard error; `None` if it has nothing there.
    pub(super) fn ends_a_line(&self) -> Option<bool> {
        self.tail.last().map(|byte| *byte == b'\n')
    }

    /// Passes all of it on. What is not taken is told. `whole_lines`: of what goes
    /// there, and on standard error, a newline is the last, as a bar needs that comes below.
    pub(super) fn pass_on(&mut self, whole_lines: bool, pace: &Pace) -> io::Result<()> {
        let heard = heard(copy(&mut self.err, &io::stderr(), whole_lines, pace));
        let terminal = whole_lines && io::stdout().is_terminal();
        // Also if the errors were not taken.
        copy(&mut self.out, &io::stdout(), terminal, pace)?;
        heard
    }

    /// Whether there is nothing to pass on.
    pub(super) const fn is_empty(&self) -> bool {
        !self.any
    }

    /// Why something of it is missing.
    pub(super) const fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// The last of what is on standard error.
    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let more = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..more);
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
                    self.lost.get_or_insert(Lost::Kept(error));
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

fn copy(
    from: &mut SpooledTempFile,
    to: &impl AsFd,
    whole_lines: bool,
    pace: &Pace,
) -> io::Result<()> {
    from.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut last = b'\n';
    loop {
        let read = from.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let Some(end) = bytes.last() else { break };
        last = *end;
        pace.write(to, bytes)?;
    }
    if whole_lines && last != b'\n' {
        pace.write(to, b"\n")?;
    }
    Ok(())
}

/// Where to with what is read.
enum Sink {
    /// Kept until the command has ended; with a printer, passed on at once.
    Kept(Arc<Mutex<Printed>>, Option<Printer>),
    /// Passed on in lines.
    Lines(Printer, Vec<u8>),
}

impl Sink {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Kept(printed, at_once) => {
                if stream == Stream::Err {
                    lock(printed).remember(bytes);
                }
                if let Some(printer) = at_once {
                    if let Err(error) = printer.piece(stream, bytes.to_vec()).await {
                        lock(printed).lost.get_or_insert(Lost::PassedOn(error));
                    }
                    return Ok(());
                }
                let mut left = lock(printed).take(stream, bytes);
                while !left.is_empty() {
                    // The command waits as well, once its pipe is full.
                    tokio::time::sleep(NO_ROOM).await;
                    left = lock(printed).take(stream, left);
                }
                Ok(())
            }
            Self::Lines(printer, held) => {
                held.extend_from_slice(bytes);
                let lines = memchr::memrchr(b'\n', held).map_or(0, |last| last + 1);
                let lines = if held.len() - lines > LINE { held.len() } else { lines };
                let rest = held.split_off(lines);
                let whole = std::mem::replace(held, rest);
                if whole.is_empty() { Ok(()) } else { printer.piece(stream, whole).await }
            }
        }
    }

    /// Nothing more comes.
    async fn end(self, stream: Stream) -> io::Result<()> {
        match self {
            Self::Lines(printer, held) if !held.is_empty() => printer.piece(stream, held).await,
            Self::Lines(..) | Self::Kept(..) => Ok(()),
        }
    }

    /// Something is missing.
    fn lost(&self, error: io::Error) {
        if let Self::Kept(printed, _) = self {
            lock(printed).lost.get_or_insert(Lost::Kept(error));
        }
    }
}

/// Passes on what comes later, to its end, or until it is `over`; says what was not taken.
pub(super) async fn pass_on_later(
    (stream, from): Open,
    printer: Printer,
    over: CancellationToken,
) -> io::Result<()> {
    let mut sink = Sink::Lines(printer, Vec::new());
    read_on(stream, from, &mut sink, &over).await.1?;
    sink.end(stream).await
}

/// Returns the pipe if it has not come to its end.
async fn read((stream, from): Open, mut sink: Sink, over: CancellationToken) -> Option<Open> {
    // What is kept is always taken.
    read_on(stream, from, &mut sink, &over).await.0.map(|from| (stream, from))
}

async fn read_on(
    stream: Stream,
    mut from: Box<dyn Source>,
    sink: &mut Sink,
    over: &CancellationToken,
) -> (Option<Box<dyn Source>>, io::Result<()>) {
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
            Ok(0) => return (None, Ok(())),
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            // It was all.
            Err(_) if rest.is_some() => break,
            Err(error) => {
                sink.lost(error);
                return (None, Ok(()));
            }
        };
        rest = rest.map(|rest| rest.saturating_sub(bytes.len() as u64));
        if let Err(error) = sink.take(stream, bytes).await {
            return (None, Err(error));
        }
    }
    (Some(from), Ok(()))
}
