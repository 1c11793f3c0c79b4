//! Ctrl-Z: the terminal stops only us, as commands have groups of their own.

use rustix::process::{Pid, Signal, getpid, kill_process, kill_process_group};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The groups that run.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashSet<Pid>>);

impl Groups {
    pub(super) fn begun(&self, group: Pid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
    }

    pub(super) fn ended(&self, group: Pid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    /// Stops all groups and then this process; when that is told to go on, so are they.
    pub(super) fn suspend(&self) {
        self.tell(Signal::TSTP);
        stop_here();
        self.tell(Signal::CONT);
    }

    fn tell(&self, signal: Signal) {
        for group in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _gone = kill_process_group(*group, signal);
        }
    }
}

/// As the signal would if nobody listened. Returns when somebody tells this process to go on.
pub(super) fn stop_here() {
    let _sent = kill_process(getpid(), Signal::STOP);
}
