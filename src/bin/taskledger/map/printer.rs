//! Whoever prints: one thread, which alone waits for those who read.
//!
//! What is printed goes to it and comes out in the same order, and nothing of others in between. A
//! command's slot waits until its output is passed on; the loop that hears signals never does.

use super::progress::{Counts, Progress};
use super::relay::Printed;
use crate::terminal::complain;
use std::io::{self, Write};
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
    /// Some of what a command prints on standard error.
    Piece(Vec<u8>),
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
        self.answer(done).await.unwrap_or(Ok(()))
    }

    /// Passes on some of what a command prints on standard error.
    pub(super) async fn piece(&self, bytes: Vec<u8>) {
        drop(self.items.send(Item::Piece(bytes)));
        self.printed().await;
    }

    /// Ends the progress, and says a last word; returns when everything has been printed.
    pub(super) async fn end(&self, last: Option<String>) {
        drop(self.items.send(Item::End));
        if let Some(last) = last {
            drop(self.items.send(Item::Piece(last.into_bytes())));
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

fn print(items: &Receiver<Item>, mut progress: Progress, counts: &Counts) {
    loop {
        match items.recv_timeout(TICK) {
            Ok(Item::Line(line)) => progress.aside(|| complain(&line)),
            Ok(Item::Output(mut printed, reply)) => {
                let bar = progress.is_bar();
                let written = progress.aside(|| printed.pass_on(bar));
                // Nobody waits any more.
                drop(reply.send(written));
            }
            Ok(Item::Piece(bytes)) => drop(io::stderr().write_all(&bytes)),
            Ok(Item::End) => progress.end(),
            Ok(Item::Printed(reply)) => drop(reply.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        progress.show(counts);
    }
}
