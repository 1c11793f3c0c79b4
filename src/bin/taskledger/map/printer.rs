//! Whoever prints: one thread, which alone waits for those who read.
//!
//! What is printed goes to it and comes out in the same order, and nothing of others in between. A
//! success waits until its output is passed on; the loop that hears signals never does.

use super::progress::{Counts, Progress};
use super::relay::{Printed, Stream};
use crate::terminal::{complaint, write_whole};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum Item {
    /// A line of our own.
    Line(String),
    /// All that a command has printed.
    Output(Printed, oneshot::Sender<io::Result<()>>),
    /// Some of what a command prints.
    Piece(Stream, Vec<u8>, oneshot::Sender<io::Result<()>>),
    /// The last word, as it is.
    Last(String),
    /// The progress is over.
    End,
    /// Everything before it has been printed.
    Printed(oneshot::Sender<()>),
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    items: Sender<Item>,
    /// From then on nobody waits for it any more.
    given_up: CancellationToken,
}

impl Printer {
    pub(super) fn start(
        progress: Progress,
        counts: Arc<Counts>,
        given_up: CancellationToken,
    ) -> io::Result<Self> {
        let (items, received) = mpsc::channel();
        let print = move || print(&received, progress, &counts);
        std::thread::Builder::new().name("printer".to_owned()).spawn(print)?;
        Ok(Self { items, given_up })
    }

    /// A line on standard error, whenever there is somebody who reads.
    pub(super) fn note(&self, line: String) {
        // The thread ends last.
        drop(self.items.send(Item::Line(line)));
    }

    /// A line on standard error; returns when it has been printed.
    pub(super) async fn say(&self, line: String) {
        self.note(line);
        self.printed().await;
    }

    /// Passes on all that a command has printed; says what standard output did not take.
    pub(super) async fn output(&self, printed: Printed) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        drop(self.items.send(Item::Output(printed, reply)));
        self.answer(done).await.unwrap_or_else(given_up)
    }

    /// Passes on some of what a command prints; says what standard output did not take.
    pub(super) async fn piece(&self, stream: Stream, bytes: Vec<u8>) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        drop(self.items.send(Item::Piece(stream, bytes, reply)));
        self.answer(done).await.unwrap_or_else(given_up)
    }

    /// Ends the progress, and says a last word; returns when everything has been printed.
    pub(super) async fn end(&self, last: Option<String>) {
        drop(self.items.send(Item::End));
        if let Some(last) = last {
            drop(self.items.send(Item::Last(last)));
        }
        self.printed().await;
    }

    async fn printed(&self) {
        let (reply, done) = oneshot::channel();
        drop(self.items.send(Item::Printed(reply)));
        self.answer(done).await;
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        tokio::select! {
            answer = answer => answer.ok(),
            () = self.given_up.cancelled() => None,
        }
    }
}

fn given_up() -> io::Result<()> {
    Err(io::Error::other("nobody has read it in time"))
}

fn print(items: &Receiver<Item>, mut progress: Progress, counts: &Counts) {
    // Whether what comes next on standard error begins a line.
    let mut fresh = true;
    loop {
        match items.recv_timeout(TICK) {
            Ok(Item::Line(line)) => {
                progress.aside(|| print_line(&complaint(&line), fresh));
                fresh = true;
            }
            Ok(Item::Output(mut printed, reply)) => {
                let bar = progress.is_bar();
                fresh = bar || printed.ends_a_line().unwrap_or(fresh);
                let written = progress.aside(|| printed.pass_on(bar));
                // Nobody waits any more.
                drop(reply.send(written));
            }
            Ok(Item::Piece(stream, bytes, reply)) => {
                let newline = bytes.last().is_none_or(|byte| *byte == b'\n');
                let whole = progress.is_bar() && !newline;
                let written = progress.aside(|| match stream {
                    Stream::Out => print_piece(&io::stdout(), &bytes, whole),
                    Stream::Err => {
                        // Whoever listens to the errors is less important.
                        drop(print_piece(&io::stderr(), &bytes, whole));
                        Ok(())
                    }
                });
                if stream == Stream::Err {
                    fresh = newline || whole;
                }
                drop(reply.send(written));
            }
            Ok(Item::End) => progress.end(),
            Ok(Item::Last(last)) => print_line(&last, fresh),
            Ok(Item::Printed(reply)) => drop(reply.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        progress.show(counts);
    }
}

/// A line of our own, which begins where a line begins.
fn print_line(line: &str, fresh: bool) {
    let line = if fresh { line.to_owned() } else { format!("\n{line}") };
    // Nobody is left to be told if this fails.
    drop(write_whole(&io::stderr(), line.as_bytes()));
}

fn print_piece(to: &impl AsFd, bytes: &[u8], newline: bool) -> io::Result<()> {
    write_whole(to, bytes)?;
    if newline { write_whole(to, b"\n") } else { Ok(()) }
}
