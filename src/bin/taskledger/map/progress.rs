//! How far it has got: a bar on a terminal, a line now and then elsewhere.

use crate::terminal::complain;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    /// Bytes of the input: all of it, if that is known; those that were taken; of these the ids that run,
    /// are next, or have run, and those that have run.
    pub(super) all: AtomicU64,
    pub(super) taken: AtomicU64,
    pub(super) begun: AtomicU64,
    pub(super) ended: AtomicU64,
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
        let left = self.time_left(took).map(|left| format!("{} left, ", HumanDuration(left)));
        let cancelled = Some(read(&self.cancelled)).filter(|count| *count > 0);
        let cancelled = cancelled.map(|count| format!("{count} cancelled, "));
        format!(
            "{}{} done, {} skipped, {} failed, {}{} running, {rate:.1}/s",
            left.unwrap_or_default(),
            read(&self.succeeded),
            read(&self.skipped),
            read(&self.failed),
            cancelled.unwrap_or_default(),
            read(&self.running),
        )
    }

    /// Bytes of the input that need nothing more, and all of them.
    fn done_of(&self) -> Option<(u64, u64)> {
        let running = read(&self.begun).saturating_sub(read(&self.ended));
        let all = Some(read(&self.all)).filter(|all| *all > 0)?;
        Some((read(&self.taken).saturating_sub(running).min(all), all))
    }

    /// If the rest runs as fast as what has run; what was skipped says nothing about that.
    fn time_left(&self, took: f64) -> Option<Duration> {
        let (done, all) = self.done_of()?;
        let ran = Some(read(&self.ended)).filter(|ran| *ran > 0)?;
        let left = Some(all - done).filter(|left| *left > 0)?;
        Duration::try_from_secs_f64(took * left as f64 / ran as f64).ok()
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
    /// Without a bar what commands print is not touched, also if it goes to the same terminal.
    pub(super) fn new(quiet: bool, may_be_a_bar: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if terminal && !quiet && may_be_a_bar {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
        }
        let now = Instant::now();
        // A terminal on which nothing can be moved (TERM=dumb) has no bar either.
        let lines = !quiet && (!terminal || (may_be_a_bar && bar.is_hidden()));
        Self { bar, since: now, shown: None, told: now, lines }
    }

    /// Called a few times a second, or more often.
    pub(super) fn show(&mut self, counts: &Counts) {
        if !self.bar.is_hidden() {
            if self.shown.is_none_or(|at| at.elapsed() >= OFTEN) {
                if let Some((done, all)) = counts.done_of() {
                    self.measure(all);
                    self.bar.set_position(done);
                }
                self.bar.set_message(counts.in_words(self.since));
                self.bar.tick();
                self.shown = Some(Instant::now());
            }
        } else if self.lines && self.told.elapsed() >= SELDOM {
            complain(&counts.in_words(self.since));
            self.told = Instant::now();
        }
    }

    /// From then on it is known how far it is.
    fn measure(&self, all: u64) {
        if self.bar.length() != Some(all) {
            self.bar.set_length(all);
            if let Ok(style) =
                ProgressStyle::with_template("{elapsed} {bar:10} {percent}% {wide_msg}")
            {
                self.bar.set_style(style);
            }
        }
    }

    pub(super) fn is_bar(&self) -> bool {
        !self.bar.is_hidden()
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
