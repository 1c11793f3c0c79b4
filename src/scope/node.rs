//! The tree in memory: what runs within what.
//!
//! ```text
//!  open --end--> ending: takes nobody, asks all to stop --the last one is gone--> finishing --> ended
//! ```
//!
//! Nobody's task is needed to bring a scope to its end: whoever leaves it last does what was to be done
//! then. So it ends also where there is no runtime any more.

use super::Cause;
use crate::attempt::{Control, Stop};
use crate::error::panic_text;
use crate::id::EncodedId;
use crate::shared::Shared;
use crate::submission::Within;
use crate::sync::{Arc, Mutex, lock, thread_local};
use crate::task::has_timer;
use crate::wake;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a scope waits for what runs within it before it says what that is, and says so again.
const WARN_AFTER: Duration = Duration::from_secs(5);

/// What is done when nothing runs within a scope any more.
type Finish = Box<dyn FnOnce() + Send>;

/// A scope.
pub(crate) struct Node {
    /// How its own body is asked to stop.
    pub(super) control: Arc<Control>,
    /// The attempt that it is, or else the one that it runs within.
    pub(crate) within: Option<Within>,
    /// Whether it has no body of its own.
    root: bool,
    name: Name,
    state: Mutex<State>,
    /// Something has left it, or it takes nobody any more.
    left: Notify,
    /// It takes nobody any more.
    ending: Notify,
}

struct State {
    phase: Phase,
    members: BTreeMap<u64, Member>,
    next: u64,
    /// Whether somebody says what it waits for, though nobody waits for it.
    watched: bool,
}

enum Phase {
    Open,
    /// It waits for what runs within it; then these are called.
    Ending(Vec<Finish>),
    /// Nothing runs within it any more, and somebody is at calling these.
    Finishing(Vec<Finish>),
    Ended,
}

struct Member {
    name: Name,
    control: Arc<Control>,
}

/// What people call it.
#[derive(Clone)]
pub(crate) enum Name {
    /// Where it was spawned.
    Place(&'static Location<'static>),
    /// Its id.
    Id(Arc<Shared>, EncodedId),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => place.fmt(f),
            Self::Id(shared, id) => f.write_str(&shared.id_text(id)),
        }
    }
}

impl Node {
    pub(crate) fn new(name: Name, control: Arc<Control>, within: Option<Within>) -> Arc<Self> {
        Self::with(name, control, within, false)
    }

    pub(super) fn root(name: Name) -> Arc<Self> {
        Self::with(name, Arc::default(), None, true)
    }

    fn with(name: Name, control: Arc<Control>, within: Option<Within>, root: bool) -> Arc<Self> {
        let state = State { phase: Phase::Open, members: BTreeMap::new(), next: 0, watched: false };
        let (state, left, ending) = (Mutex::new(state), Notify::new(), Notify::new());
        Arc::new(Self { control, within, root, name, state, left, ending })
    }

    pub(super) const fn is_root(&self) -> bool {
        self.root
    }

    /// Something is to run within it, if it has not ended.
    pub(crate) fn join(self: &Arc<Self>, name: Name, control: &Arc<Control>) -> Option<Membership> {
        let mut state = lock(&self.state);
        if !matches!(state.phase, Phase::Open) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.members.insert(number, Member { name, control: Arc::clone(control) });
        Some(Membership { scope: Arc::clone(self), number })
    }

    /// Takes nobody any more, and asks all that run within it to stop. When the last of them is gone,
    /// which may be at once, `finish` is called.
    pub(crate) fn end(&self, finish: impl FnOnce() + Send + 'static) {
        let finish: Finish = Box::new(finish);
        let mut state = lock(&self.state);
        let asked: Vec<Arc<Control>> =
            state.members.values().map(|member| Arc::clone(&member.control)).collect();
        match &mut state.phase {
            Phase::Open => state.phase = Phase::Ending(vec![finish]),
            Phase::Ending(all) | Phase::Finishing(all) => all.push(finish),
            Phase::Ended => {
                drop(state);
                return caught(finish);
            }
        }
        drop(state);
        wake::caught(|| self.ending.notify_waiters());
        wake::caught(|| self.left.notify_waiters());
        if self.root {
            wake::caught(|| self.control.token().cancel());
        }
        for control in asked {
            wake::caught(|| control.stop(Stop::Scope(Cause::ScopeEnded)));
        }
        self.finish();
    }

    /// Takes nobody any more, if nothing runs within it.
    pub(super) fn ends_empty(&self) -> bool {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Open if !state.members.is_empty() => return false,
            Phase::Open => state.phase = Phase::Ending(Vec::new()),
            Phase::Ending(_) | Phase::Finishing(_) | Phase::Ended => {}
        }
        drop(state);
        wake::caught(|| self.ending.notify_waiters());
        self.finish();
        true
    }

    /// If nothing runs within it any more, brings it to its end.
    fn finish(&self) {
        let mut state = lock(&self.state);
        if !state.members.is_empty() {
            return;
        }
        match &mut state.phase {
            Phase::Ending(all) => state.phase = Phase::Finishing(std::mem::take(all)),
            Phase::Open | Phase::Finishing(_) | Phase::Ended => return,
        }
        while let Phase::Finishing(all) = &mut state.phase {
            let all = std::mem::take(all);
            if all.is_empty() {
                state.phase = Phase::Ended;
                break;
            }
            drop(state);
            all.into_iter().for_each(caught);
            state = lock(&self.state);
        }
        drop(state);
        wake::caught(|| self.left.notify_waiters());
    }

    /// Whether it takes nobody any more.
    pub(crate) fn is_ending(&self) -> bool {
        !matches!(lock(&self.state).phase, Phase::Open)
    }

    /// Until it takes nobody any more.
    pub(crate) async fn ends(&self) {
        self.until(&self.ending, |state| !matches!(state.phase, Phase::Open)).await;
    }

    /// What runs within it.
    pub(super) fn names(&self) -> Vec<String> {
        let members: Vec<Name> =
            lock(&self.state).members.values().map(|member| member.name.clone()).collect();
        // A run is there beside its attempt, or its probe.
        let mut ids = BTreeSet::new();
        let mut first = |name: &Name| match name {
            Name::Place(_) => true,
            Name::Id(_, id) => ids.insert(id.as_bytes().to_vec()),
        };
        members.into_iter().filter(|name| first(name)).map(|name| name.to_string()).collect()
    }

    /// Until nothing runs within it.
    pub(super) async fn emptied(&self) {
        self.until(&self.left, |state| state.members.is_empty()).await;
    }

    /// Until it has ended, all that was to be done then included. Says what it waits for, now and then.
    pub(crate) async fn ended(&self) {
        let mut ended = pin!(self.until(&self.left, |state| matches!(state.phase, Phase::Ended)));
        while has_timer() {
            if tokio::time::timeout(WARN_AFTER, ended.as_mut()).await.is_ok() {
                return;
            }
            let children = self.names();
            tracing::warn!(scope = %self.name, ?children, "a scope waits for what does not end");
        }
        ended.await;
    }

    /// Says what it waits for, though nobody waits for it, if there is a runtime for that.
    pub(super) fn is_watched(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Ended) || std::mem::replace(&mut state.watched, true) {
            return;
        }
        drop(state);
        let scope = Arc::clone(self);
        drop(runtime.spawn(async move { scope.ended().await }));
    }

    /// Until it is so, which is told by `news`.
    async fn until(&self, news: &Notify, so: impl Fn(&State) -> bool) {
        loop {
            let mut told = pin!(news.notified());
            told.as_mut().enable();
            if so(&lock(&self.state)) {
                return;
            }
            wake::guarded(told).await;
        }
    }

    fn has_left(&self) {
        self.finish();
        wake::caught(|| self.left.notify_waiters());
    }
}

thread_local! {
    /// Scopes that something has left while another one is brought to its end by this thread.
    static LEFT: RefCell<Option<VecDeque<Arc<Node>>>> = const { RefCell::new(None) };
}

/// Something has left the scope, which may end by that, and so leave its own. One after the other: within one
/// another, a thousand of them were too much for the stack.
fn has_left(scope: Arc<Node>) {
    let later = LEFT.try_with(|left| match &mut *left.borrow_mut() {
        Some(left) => {
            left.push_back(Arc::clone(&scope));
            true
        }
        none @ None => {
            *none = Some(VecDeque::new());
            false
        }
    });
    if later.unwrap_or(false) {
        return;
    }
    let mut next = Some(scope);
    while let Some(scope) = next {
        scope.has_left();
        // It may be the last one to have it.
        drop(scope);
        let more = LEFT.try_with(|left| {
            let mut left = left.borrow_mut();
            let next = left.as_mut().and_then(VecDeque::pop_front);
            if next.is_none() {
                *left = None;
            }
            next
        });
        next = more.unwrap_or_default();
    }
}

/// One that panics takes nobody with it.
fn caught(finish: Finish) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(finish)) {
        let panic = panic_text(panic);
        tracing::error!(panic, "what a scope was to do at its end panicked");
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &format_args!("{}", self.name))
            .field("running", &lock(&self.state).members.len())
            .finish_non_exhaustive()
    }
}

/// Something that runs within a scope, until it is dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    scope: Arc<Node>,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let member = lock(&self.scope.state).members.remove(&self.number);
        drop(member);
        has_left(Arc::clone(&self.scope));
    }
}
