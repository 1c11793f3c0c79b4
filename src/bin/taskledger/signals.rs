//! What a terminal, an operator or the system says to a program that runs others.

use rustix::process::Signal as Kind;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for some signals. What was ignored at the start (by `nohup`, by `&` in a script) stays
/// ignored, and so it is for all commands that are started. But for CHLD: where that is ignored, nobody is
/// told how a command has ended.
pub(crate) struct Signals(Vec<(Signal, Kind)>);

impl Signals {
    pub(crate) fn listen(kinds: &[Kind]) -> io::Result<Self> {
        let ignored = ignored();
        let ignores = |kind: &Kind| ignored >> (kind.as_raw() - 1) & 1 == 1;
        if ignores(&Kind::CHILD) {
            // Who listens once ignores it no more, and commands begin with the default of what is listened to.
            drop(signal(SignalKind::child())?);
        }
        let heard = kinds.iter().filter(|kind| !ignores(kind));
        let listen = |kind: &Kind| Ok((signal(SignalKind::from_raw(kind.as_raw()))?, *kind));
        heard.map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Kind {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let got = all
                .find_map(|(signal, kind)| signal.poll_recv(context).is_ready().then_some(*kind));
            got.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The signals that this process ignores, a bit each from the lowest. Where that cannot be read, none.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
