//! How far it has got: a bar on a terminal, a line now and then elsewhere.

use crate::terminal::complain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often there is a line where there is no terminal.
const SELDOM: Duration = Duration::from_secs(30);

/// How often the bar is drawn.
const OFTEN: Duration = Duration::from_millis(200);

/// What has become of the ids so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) lines: AtomicU64,
    pub(super) blank: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) running: AtomicU64,
    /// Those whose command has been started and has not ended.
    pub(super) alive: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) cancelled: AtomicU64,
    /// Bytes of the input so far, and of all of it if that is known.
    pub(super) bytes: AtomicU64,
    pub(super) of_bytes: AtomicU64,
}

pub(super) fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl Counts {
    fn in_words(&self, since: Instant) -> String {
        let done = read(&self.succeeded) + read(&self.failed) + read(&self.cancelled);
        let took = since.elapsed().as_secs_f64();
        let rate = if took > 0.0 { done as f64 / took } else { 0.0 };
        let mut text = format!(
            "{} done, {} skipped, {} failed, {} running, {rate:.1}/s",
            read(&self.succeeded),
            read(&self.skipped),
            read(&self.failed) + read(&self.cancelled),
            read(&self.running),
        );
        if let Some(left) = self.time_left(took) {
            text.push_str(&format!(", {} left", indicatif::HumanDuration(left)));
        }
        text
    }

    /// As long as for what was read, if the size of the input is known.
    fn time_left(&self, took: f64) -> Option<Duration> {
        let (bytes, of) = (read(&self.bytes), read(&self.of_bytes));
        let left = (bytes > 0 && of > bytes).then(|| took * (of - bytes) as f64 / bytes as f64)?;
        Duration::try_from_secs_f64(left).ok()
    }
}

#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    since: Instant,
    shown: Option<Instant>,
    told: Instant,
    lines: bool,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if terminal && !quiet {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
        }
        let now = Instant::now();
        Self { bar, since: now, shown: None, told: now, lines: !terminal && !quiet }
    }

    /// Called a few times a second, or more often.
    pub(super) fn show(&mut self, counts: &Counts) {
        if !self.bar.is_hidden() {
            if self.shown.is_none_or(|at| at.elapsed() >= OFTEN) {
                self.bar.set_message(counts.in_words(self.since));
                self.bar.tick();
                self.shown = Some(Instant::now());
            }
        } else if self.lines && self.told.elapsed() >= SELDOM {
            complain(&counts.in_words(self.since));
            self.told = Instant::now();
        }
    }

    /// Prints something with the bar out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    pub(super) fn end(&mut self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.lines = false;
    }
}
