//! What is still printed by those whom a command has left running: passed on as it comes, as long as the
//! run lasts.

use super::Shared;
use super::course::Stop;
use super::progress::{one_more, read};
use super::relay::{Open, pass_on_later};
use crate::terminal::{nobody_reads, nobody_took};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use taskledger::ByteId;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// So many pipes are read: each is a descriptor that nobody else can have.
pub(super) const PIPES: u64 = 16;

/// How long they are waited for when everything else is done.
const LAST: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Later {
    tasks: Mutex<JoinSet<()>>,
    open: Arc<AtomicU64>,
    over: CancellationToken,
}

impl Later {
    /// Passes on what comes of it.
    pub(super) fn pass_on(&self, shared: Arc<Shared>, id: &ByteId, pipe: Open) {
        if read(&self.open) >= PIPES {
            shared.printer.note(format!(
                "{id}: what it has left running has its output cut off: that of {PIPES} others is read already"
            ));
            return;
        }
        one_more(&self.open);
        let (open, over) = (Arc::clone(&self.open), self.over.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let written = pass_on_later(pipe, shared.printer.clone(), over).await;
            open.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = written {
                let nobody = nobody_took(&error) || nobody_reads();
                if !nobody {
                    shared.printer.say(format!("cannot write: {error}")).await;
                }
                shared.steering.stop(if nobody { Stop::NobodyReads } else { Stop::Broken });
            }
        });
    }

    /// Nothing else runs any more: what comes in a moment is passed on, the rest has no reader. Says of
    /// how many pipes.
    pub(super) async fn end(&self) -> u64 {
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async |tasks: &mut JoinSet<()>| while tasks.join_next().await.is_some() {};
        if timeout(LAST, all(&mut tasks)).await.is_ok() {
            return 0;
        }
        let left = read(&self.open);
        self.over.cancel();
        all(&mut tasks).await;
        left
    }
}
