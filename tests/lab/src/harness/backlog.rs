//! Several at once enqueue, ask how much waits, start the runner, and stop the queue; what each is told is
//! checked against one queue that does one thing after the other.
//!
//! Between a call and its answer there is a moment at which the queue did what it says; a stop has two, one
//! at which it takes nothing more and one at which all is done. The runner takes the first that waits, when
//! it has ended the one before; when an operation begins and when it ends is seen from inside. A search as
//! Wing and Gong have it looks for an order of all these moments.

use super::{Harness, broken};
use crate::{Rng, Session};
use std::collections::HashSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use taskledger::internals::Sabotage;
use taskledger::{EnqueueError, Enqueued, Ledger, MemoryJournal, Queue};
use tokio::task::JoinSet;

pub(super) const HARNESS: Harness = Harness {
    name: "backlog",
    unit: "histories",
    ci: 1_000,
    full: 100_000,
    run,
    controls: &[
        broken(Sabotage::TakeLast, 1_000, &[NO_ORDER]),
        broken(Sabotage::NeverFull, 1_000, &[NO_ORDER]),
    ],
};

const NO_ORDER: &str = "there is no order of it";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Queued,
    Full,
    Stopped,
    /// So many wait, or are left.
    Number(usize),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Enqueue(u64),
    TryEnqueue(u64),
    Len,
    Start,
    Stop,
    Begins(u64),
    Ends(u64),
}

/// Something that was done between two moments, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Event {
    what: What,
    called: u64,
    answered: u64,
    told: Told,
}

/// Moments in their order, and what was seen at them.
#[derive(Clone, Default)]
struct Diary {
    clock: Arc<AtomicU64>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Diary {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn saw(&self, what: What, called: u64, told: Told) {
        let event = Event { what, called, answered: self.now(), told };
        self.events.lock().unwrap().push(event);
    }

    fn sees(&self, what: What) {
        let now = self.now();
        let event = Event { what, called: now, answered: now, told: Told::Nothing };
        self.events.lock().unwrap().push(event);
    }
}

fn run(session: &mut Session) {
    while session.goes_on() {
        let seed = session.rng.next();
        let mut rng = Rng::new(seed);
        let capacity = 1 + usize::try_from(rng.below(3)).unwrap();
        let events = crate::places::run(history(&mut rng, capacity));
        let told = |told| events.iter().filter(|event| event.told == told).count() as u64;
        session.count("enqueued", told(Told::Queued));
        session.count("told that it is full", told(Told::Full));
        session.count("told that it has stopped", told(Told::Stopped));
        let outcome = if Search::new(&events, capacity).finds() {
            Ok(())
        } else {
            Err(format!("history {seed}, room for {capacity}: {NO_ORDER}: {events:?}"))
        };
        session.tried(outcome);
    }
}

type Operations = Queue<u64, u64, u64>;

/// A few who do something with one queue, at once.
async fn history(rng: &mut Rng, capacity: usize) -> Vec<Event> {
    let diary = Diary::default();
    let ledger = Ledger::<u64, u64>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let seen = diary.clone();
    let performs = move |yields: u64, context: taskledger::Context<u64>| {
        let (seen, id) = (seen.clone(), *context.id());
        async move {
            seen.sees(What::Begins(id));
            pauses(yields).await;
            seen.sees(What::Ends(id));
            Ok::<_, String>(yields)
        }
    };
    let capacity = NonZero::new(capacity).unwrap();
    let queue = ledger.queue_builder().capacity(capacity).open(performs).await.unwrap();
    let mut all = JoinSet::new();
    for client in 0..2 + rng.below(2) {
        let whats: Vec<What> = (0..1 + rng.below(3))
            .map(|turn| {
                let id = client * 10 + turn;
                *rng.pick(&[
                    What::Enqueue(id),
                    What::TryEnqueue(id),
                    What::TryEnqueue(id),
                    What::Len,
                ])
            })
            .collect();
        all.spawn(client_does(queue.clone(), diary.clone(), whats, Rng::new(rng.next())));
    }
    // Whoever waits for room gets it: somebody starts the runner, and then stops the queue.
    let ends = vec![What::Start, What::Stop];
    all.spawn(client_does(queue.clone(), diary.clone(), ends, Rng::new(rng.next())));
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    drop(queue);
    ledger.close().await.unwrap();
    std::mem::take(&mut *diary.events.lock().unwrap())
}

async fn pauses(yields: u64) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}

async fn client_does(queue: Operations, diary: Diary, whats: Vec<What>, mut rng: Rng) {
    for what in whats {
        // Much happens before the end.
        pauses(rng.below(if what == What::Stop { 60 } else { 6 })).await;
        let called = diary.now();
        let told = |enqueued| match enqueued {
            Ok(Enqueued::Queued) => Told::Queued,
            Err(EnqueueError::Full(_)) => Told::Full,
            Err(EnqueueError::Stopped(_)) => Told::Stopped,
            other => panic!("{other:?}"),
        };
        let told = match what {
            What::Enqueue(id) => told(queue.enqueue(id, rng.below(4)).await),
            What::TryEnqueue(id) => told(queue.try_enqueue(id, rng.below(4)).await),
            What::Len => Told::Number(queue.len()),
            What::Start => {
                queue.start(1).unwrap();
                Told::Nothing
            }
            What::Stop => Told::Number(queue.stop().await.operations),
            What::Begins(_) | What::Ends(_) => unreachable!("nobody asks for it"),
        };
        diary.saw(what, called, told);
    }
}

/// Whom the runner is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Nothing,
    /// Taken from the queue.
    Taken(u64),
    Begun(u64),
    /// Its end may be on record by now.
    Ended,
}

/// A queue that does one thing after the other, and what has been done with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// By place in the history; and of the stop that it takes nothing more.
    done: u64,
    drains: bool,
    runs: bool,
    waiting: Vec<u64>,
    at: At,
}

struct Search<'a> {
    events: &'a [Event],
    capacity: usize,
    tried: HashSet<State>,
}

impl<'a> Search<'a> {
    fn new(events: &'a [Event], capacity: usize) -> Self {
        assert!(events.len() <= 64, "a short history");
        Self { events, capacity, tried: HashSet::new() }
    }

    fn finds(&mut self) -> bool {
        let (waiting, at) = (Vec::new(), At::Nothing);
        self.goes_on(State { done: 0, drains: false, runs: false, waiting, at })
    }

    fn goes_on(&mut self, state: State) -> bool {
        let is_done = |place: usize| state.done >> place & 1 == 1;
        let left: Vec<usize> = (0..self.events.len()).filter(|place| !is_done(*place)).collect();
        // Nothing comes before what was answered before it was called.
        let Some(first_answer) = left.iter().map(|place| self.events[*place].answered).min() else {
            return true;
        };
        if !self.tried.insert(state.clone()) {
            return false;
        }
        let mut next = Vec::new();
        if let (true, At::Nothing, Some(first)) = (state.runs, state.at, state.waiting.first()) {
            let waiting = state.waiting[1..].to_vec();
            next.push(State { at: At::Taken(*first), waiting, ..state.clone() });
        }
        if state.at == At::Ended {
            next.push(State { at: At::Nothing, ..state.clone() });
        }
        for place in left.into_iter().filter(|place| self.events[*place].called <= first_answer) {
            next.extend(self.does(&state, place));
        }
        next.into_iter().any(|state| self.goes_on(state))
    }

    /// How many enqueue something meanwhile.
    fn coming(&self, event: &Event) -> usize {
        let overlaps = |other: &&Event| {
            matches!(other.what, What::Enqueue(_) | What::TryEnqueue(_))
                && other.called <= event.answered
                && event.called <= other.answered
        };
        self.events.iter().filter(overlaps).count()
    }

    /// What the queue is after it has done this, if it can and would tell the same.
    fn does(&self, state: &State, place: usize) -> Option<State> {
        let event = self.events[place];
        let mut then = State { done: state.done | 1 << place, ..state.clone() };
        match (event.what, event.told) {
            (What::Enqueue(id) | What::TryEnqueue(id), Told::Queued) => {
                let fits = !state.drains && state.waiting.len() < self.capacity;
                then.waiting.push(id);
                fits.then_some(then)
            }
            (What::Enqueue(_) | What::TryEnqueue(_), Told::Stopped) => state.drains.then_some(then),
            (What::TryEnqueue(_), Told::Full) => {
                // What is being enqueued has its place already, and may have it a moment longer.
                let taken = state.waiting.len() + self.coming(&event) - 1;
                (!state.drains && taken >= self.capacity).then_some(then)
            }
            (What::Len, Told::Number(number)) => {
                // And it counts when it is on record.
                let least = state.waiting.len().saturating_sub(self.coming(&event));
                (least..=state.waiting.len()).contains(&number).then_some(then)
            }
            (What::Start, _) => {
                then.runs = true;
                Some(then)
            }
            (What::Stop, _) if !state.drains => Some(State { drains: true, ..state.clone() }),
            (What::Stop, Told::Number(left)) => {
                let ends = state.at == At::Nothing && state.waiting.is_empty();
                (ends && left == 0).then_some(then)
            }
            (What::Begins(id), _) => {
                then.at = At::Begun(id);
                (state.at == At::Taken(id)).then_some(then)
            }
            (What::Ends(id), _) => {
                then.at = At::Ended;
                (state.at == At::Begun(id)).then_some(then)
            }
            _ => None,
        }
    }
}
