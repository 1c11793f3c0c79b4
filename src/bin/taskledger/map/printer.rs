//! Whoever prints: one thread, which alone waits for those who read.
//!
//! What is printed goes to it and comes out in the same order, and nothing of others in between. A
//! success waits until its output is passed on; the loop that hears signals never does.
//!
//! When nothing is waited for any more, what is read is printed all the same, to the last word. Only what
//! nobody reads is given up. A word of ours that matters does not wait behind that: while standard output is
//! not read, it goes past the thread.

use super::progress::{Counts, Progress};
use super::relay::{Printed, Stream};
use crate::terminal::{
    UNREAD, all_are_read, complaint, errors_are_read, nobody_listens, nobody_took, print_in_time,
    write_whole,
};
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);

/// So much is written at once: a reader who is slow takes it in time.
const PIECE: usize = 4096;

#[derive(Debug)]
enum Item {
    /// A line of our own.
    Line(String),
    /// All that a command has printed.
    Output(Printed, oneshot::Sender<io::Result<()>>),
    /// Some of what a command prints.
    Piece(Stream, Vec<u8>, oneshot::Sender<io::Result<()>>),
    /// What whoever comes first prints, as it is.
    Word(Word),
    /// The progress is over.
    End,
    /// Everything before it has been printed.
    Printed(oneshot::Sender<()>),
}

/// Printed once, by the thread or past it.
#[derive(Clone, Debug)]
struct Word(Arc<Mutex<Option<String>>>);

impl Word {
    fn new(text: String) -> Self {
        Self(Arc::new(Mutex::new(Some(text))))
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How the thread gets on.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Got>);

#[derive(Debug)]
struct Got {
    /// Items that are not printed yet.
    waiting: usize,
    /// When something was taken last, or became the first to wait.
    on: Instant,
}

impl Pace {
    fn new() -> Self {
        Self(Mutex::new(Got { waiting: 0, on: Instant::now() }))
    }

    fn lock(&self) -> MutexGuard<'_, Got> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one_more(&self) {
        let mut got = self.lock();
        if got.waiting == 0 {
            got.on = Instant::now();
        }
        got.waiting += 1;
    }

    fn one_printed(&self) {
        let mut got = self.lock();
        got.waiting = got.waiting.saturating_sub(1);
        got.on = Instant::now();
    }

    /// Writes all of it, and notes how it gets on.
    pub(super) fn write(&self, to: &impl AsFd, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            write_whole(to, piece)?;
            self.lock().on = Instant::now();
        }
        Ok(())
    }

    /// Returns when something waits that nobody reads. That of a file takes its time is no reason.
    async fn unread(&self) {
        loop {
            let left = UNREAD.saturating_sub(self.lock().on.elapsed());
            if left.is_zero() && !all_are_read() {
                return;
            }
            tokio::time::sleep(left.max(TICK)).await;
        }
    }
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    items: Sender<Item>,
    pace: Arc<Pace>,
    /// From then on nobody waits for those who do not read.
    given_up: CancellationToken,
}

impl Printer {
    pub(super) fn start(
        progress: Progress,
        counts: Arc<Counts>,
        given_up: CancellationToken,
    ) -> io::Result<Self> {
        let (items, received) = mpsc::channel();
        let pace = Arc::new(Pace::new());
        let print = {
            let pace = Arc::clone(&pace);
            move || print(&received, progress, &counts, &pace)
        };
        std::thread::Builder::new().name("printer".to_owned()).spawn(print)?;
        Ok(Self { items, pace, given_up })
    }

    fn send(&self, item: Item) {
        self.pace.one_more();
        // The thread ends last.
        drop(self.items.send(item));
    }

    /// A line on standard error, whenever there is somebody who reads.
    pub(super) fn note(&self, line: String) {
        self.send(Item::Line(line));
    }

    /// A line on standard error that is wanted now, though nobody may read standard output.
    pub(super) fn urge(&self, line: &str) {
        let word = Word::new(complaint(line));
        self.send(Item::Word(word.clone()));
        let pace = Arc::clone(&self.pace);
        drop(tokio::spawn(async move {
            pace.unread().await;
            pass_by(&word).await;
        }));
    }

    /// A line on standard error; returns when it has been printed.
    pub(super) async fn say(&self, line: String) {
        self.note(line);
        self.printed().await;
    }

    /// Passes on all that a command has printed; says what was not taken.
    pub(super) async fn output(&self, printed: Printed) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        self.send(Item::Output(printed, reply));
        self.answer(done).await.unwrap_or_else(given_up)
    }

    /// Passes on some of what a command prints; says what was not taken.
    pub(super) async fn piece(&self, stream: Stream, bytes: Vec<u8>) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        self.send(Item::Piece(stream, bytes, reply));
        self.answer(done).await.unwrap_or_else(given_up)
    }

    /// Ends the progress, and says a last word; returns when everything has been printed.
    pub(super) async fn end(&self, last: Option<String>) {
        self.send(Item::End);
        let last = last.map(Word::new);
        if let Some(last) = &last {
            self.send(Item::Word(last.clone()));
        }
        self.printed().await;
        // If it still has to be.
        if let Some(last) = last {
            pass_by(&last).await;
        }
    }

    async fn printed(&self) {
        let (reply, done) = oneshot::channel();
        self.send(Item::Printed(reply));
        self.answer(done).await;
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        let nobody_reads = async {
            self.given_up.cancelled().await;
            self.pace.unread().await;
        };
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            () = nobody_reads => None,
        }
    }
}

/// Prints a word past the thread, which waits for somebody who reads standard output, if it has not by now.
async fn pass_by(word: &Word) {
    if !errors_are_read() {
        return;
    }
    if let Some(text) = word.take() {
        print_in_time(text).await;
    }
}

fn given_up() -> io::Result<()> {
    Err(io::Error::other("nobody has read it in time"))
}

fn print(items: &Receiver<Item>, mut progress: Progress, counts: &Counts, pace: &Pace) {
    // Whether what comes next on standard error begins a line.
    let mut fresh = true;
    loop {
        let item = items.recv_timeout(TICK);
        let any = item.is_ok();
        match item {
            Ok(Item::Line(line)) => {
                progress.aside(|| print_line(&complaint(&line), fresh, pace));
                fresh = true;
            }
            Ok(Item::Output(mut printed, reply)) => {
                let bar = progress.is_bar();
                fresh = bar || printed.ends_a_line().unwrap_or(fresh);
                let written = progress.aside(|| printed.pass_on(bar, pace));
                // Nobody waits any more.
                drop(reply.send(written));
            }
            Ok(Item::Piece(stream, bytes, reply)) => {
                let newline = bytes.last().is_none_or(|byte| *byte == b'\n');
                let whole = progress.is_bar() && !newline;
                let written = progress.aside(|| match stream {
                    Stream::Out => print_piece(&io::stdout(), &bytes, whole, pace),
                    Stream::Err => heard(print_piece(&io::stderr(), &bytes, whole, pace)),
                });
                if stream == Stream::Err {
                    fresh = newline || whole;
                }
                drop(reply.send(written));
            }
            Ok(Item::End) => progress.end(),
            Ok(Item::Word(word)) => {
                if let Some(text) = word.take() {
                    progress.aside(|| print_line(&text, fresh, pace));
                    fresh = true;
                }
            }
            Ok(Item::Printed(reply)) => drop(reply.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if any {
            pace.one_printed();
        }
        progress.show(counts);
    }
}

/// A line of our own, which begins where a line begins.
fn print_line(line: &str, fresh: bool, pace: &Pace) {
    let line = if fresh { line.to_owned() } else { format!("\n{line}") };
    // Nobody is left to be told if this fails.
    drop(pace.write(&io::stderr(), line.as_bytes()));
}

/// What was written to standard error. That nobody listens there is nobody's failure.
pub(super) fn heard(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if nobody_took(&error) || nobody_listens() => Ok(()),
        written => written,
    }
}

fn print_piece(to: &impl AsFd, bytes: &[u8], newline: bool, pace: &Pace) -> io::Result<()> {
    pace.write(to, bytes)?;
    if newline { pace.write(to, b"\n") } else { Ok(()) }
}
