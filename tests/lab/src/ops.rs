//! What clients do to a ledger, and what must be found of it afterwards.
//!
//! Each client works on ids of its own, one thing after the other, and says so on a line before and
//! a line after it:
//!
//! ```text
//! ack open                       the ledger is open
//! ack seen c2-3 ok 4711          it has this, which is certain from now on; `ack looked` ends these
//! ack try 2 run c2-3 4711        client 2 is about to run c2-3, which will return 4711
//! ack done 2 run c2-3 4711       that was acknowledged
//! ack hurt 2 ...                 it was refused, and the ledger is poisoned: it may be there or not
//! ack bad 2 ...                  an answer that cannot be
//! ack fault sync ...             the tracer has made a call fail (`tracer.c`)
//! ```
//!
//! Each client has a name of the ledger's metadata as well, `meta-2`, which is noted and erased as if it
//! were an id.
//!
//! So at any time at most one thing of each client is under way, and only of its id two or three
//! states are possible.

use crate::Rng;
use crate::places::TestLedger;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use taskledger::{AttemptError, ChangeError, Failure, Health, LaunchError, Rejection, TaskState};
use tokio::sync::Barrier;

/// Ids of each client.
const IDS: u64 = 6;

/// What the names of the metadata begin with.
pub const META: &str = "meta-";

/// How much longer than usual the outputs of this process are.
fn child_output() -> u64 {
    std::env::var("TASKLEDGER_CHILD_OUTPUT").map_or(0, |text| text.parse().unwrap())
}

/// One write each: a reader sees whole lines, whenever the writer dies.
pub fn say(line: &str) {
    let line = format!("ack {line}\n");
    // Whoever listened has gone: so will we.
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// An output, longer or shorter.
pub fn output_of(number: u64) -> String {
    format!("{number}:{}", "x".repeat((number % 3000) as usize))
}

/// The same, made longer by so many bytes, which do not matter to whoever reads it.
#[must_use]
pub fn long_output_of(number: u64, more: u64) -> String {
    format!("{}:{}", output_of(number), "y".repeat(more as usize))
}

/// Does the same things to any ledger, by the numbers: ids that succeed, fail or are marked, and after every
/// second one a name of the metadata that is noted or erased. Nothing is under way when it returns.
pub async fn fill(ledger: &TestLedger, numbers: Range<u64>) {
    for number in numbers {
        let id = format!("id-{number:04}");
        match number % 5 {
            0 => ledger.mark_succeeded(id).await.unwrap(),
            1 => {
                let failed = async { Err::<String, _>("no") };
                ledger.launch_block(id, failed).await.unwrap_err();
            }
            _ => {
                let value = output_of(number * 37);
                ledger.launch_block(id, async { Ok::<_, String>(value) }).await.unwrap();
            }
        }
        if number % 2 == 0 {
            let value = noted_by(number).map(String::into_bytes);
            ledger.set_metadata(name_of(number), value).await.unwrap();
        }
    }
}

/// The name of the metadata that [`fill`] sets after this number. There are so many that some are not set
/// again after a checkpoint.
fn name_of(number: u64) -> String {
    format!("{META}{:04}", number / 2 % 11)
}

/// The value that it is given; `None` where it is erased, which it is when it has been noted before.
fn noted_by(number: u64) -> Option<String> {
    (number < 22 || number % 6 != 4).then(|| format!("{number:04} for {}", name_of(number)))
}

/// Whether a name of the metadata was noted as `state` says, which [`found`] tells of it, at some time before
/// it was `last`, in a ledger that was filled.
pub fn is_past_of(name: &str, state: &str, last: &str) -> bool {
    let number = |state: &str| {
        let number = state.strip_prefix("noted ")?.get(..4)?.parse::<u64>().ok()?;
        let noted = noted_by(number).map(|value| format!("noted {value}"));
        (number % 2 == 0 && name == name_of(number) && noted.as_deref() == Some(state))
            .then_some(number)
    };
    match (number(state), number(last)) {
        (Some(before), Some(last)) => before < last,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Does `count` things, one after the other. With `hanging`, some attempts never end.
pub async fn client(ledger: TestLedger, name: u64, seed: u64, count: u64, hanging: bool) {
    let mut rng = Rng::new(seed);
    let mut done = 0;
    while done < count {
        let id = match rng.below(8) {
            0 => format!("{META}{name}"),
            _ => format!("c{name}-{}", rng.below(IDS)),
        };
        let ops: &[&str] = match ledger.query_task_state_quick(&id) {
            _ if id.starts_with(META) => &["note", "note", "erase"],
            TaskState::NotFound if hanging => &["run", "run", "fail", "mark", "hang"],
            TaskState::NotFound => &["run", "run", "fail", "mark"],
            TaskState::Failed => &["run", "run", "fail", "mark", "forget"],
            TaskState::Succeeded => &["revoke", "unrevoked", "forget", "again"],
            TaskState::Running => &["cancel"],
            _ => unreachable!("nothing else is ever begun"),
        };
        let op = *rng.pick(ops);
        let number = rng.below(1_000_000);
        say(&format!("try {name} {op} {id} {number}"));
        match perform(&ledger, op, &id, number).await {
            Ok(()) => say(&format!("done {name} {op} {id} {number}")),
            Err(what) if poison_holds(&ledger).await => {
                return say(&format!("hurt {name} {op} {id}: {what}"));
            }
            Err(what) => return say(&format!("bad {name} {op} {id}: {what}")),
        }
        done += 1;
    }
}

/// Runs one id, which ends when all others of its wave run as well.
pub async fn one_of_many(ledger: TestLedger, name: u64, wave: u64, all_run: Arc<Barrier>) {
    let (id, number) = (format!("c{name}-{wave}"), name);
    say(&format!("try {name} run {id} {number}"));
    let value = long_output_of(number, child_output());
    let work = async move {
        all_run.wait().await;
        Ok::<_, String>(value)
    };
    ledger.launch_block(id.clone(), work).await.unwrap();
    say(&format!("done {name} run {id} {number}"));
}

/// Whether the ledger is poisoned, keeps to that, and still answers what it knows.
async fn poison_holds(ledger: &TestLedger) -> bool {
    let poisoned = matches!(ledger.health(), Health::Poisoned(_));
    let refused = ledger.mark_succeeded("after the failure".to_owned()).await;
    let holds = matches!(refused, Err(ChangeError::Rejected(Rejection::Poisoned(_))));
    let state = ledger.query_task_state("after the failure").await;
    poisoned && holds && state == TaskState::NotFound
}

async fn perform(ledger: &TestLedger, op: &str, id: &str, number: u64) -> Result<(), String> {
    let own = id.to_owned();
    match op {
        "run" => {
            let value = match child_output() {
                0 => output_of(number),
                more => long_output_of(number, more),
            };
            let work = async move { Ok::<_, String>(value) };
            ledger.launch_block(own, work).await.map(drop).map_err(|error| format!("{error:?}"))
        }
        "fail" => {
            let work = async move { Err::<String, _>(number) };
            match ledger.launch_block(own, work).await {
                Err(AttemptError::Failed(found)) if found == number => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        "hang" => {
            let work = std::future::pending::<Result<String, String>>();
            ledger.launch(own, work).await.map_err(|error| format!("{error:?}"))
        }
        "cancel" => {
            ledger.cancel(id, "enough").map_err(|error| format!("{error:?}"))?;
            match ledger.wait(id).await {
                Ok(TaskState::Failed) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        "mark" => ledger.mark_succeeded(own).await.map_err(|error| format!("{error:?}")),
        "forget" => ledger.forget(id).await.map_err(|error| format!("{error:?}")),
        "revoke" => {
            let work = async { Ok::<_, String>(()) };
            ledger.revoke_task_block(own, work).await.map_err(|error| format!("{error:?}"))
        }
        "unrevoked" => {
            let work = async { Err::<(), _>("cannot be undone") };
            match ledger.revoke_task_block(own, work).await {
                Err(AttemptError::Failed(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        "note" | "erase" => {
            let value = (op == "note").then(|| number.to_string().into_bytes());
            ledger.set_metadata(id, value).await.map_err(|error| format!("{error:?}"))
        }
        "again" => {
            let work = async { Ok::<_, String>(String::new()) };
            match ledger.launch(own, work).await {
                Err(LaunchError::Refused { state: TaskState::Succeeded, .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("nobody knows how to {other}")),
    }
}

/// What is known of an id, in a word.
pub async fn found(ledger: &TestLedger, id: &str) -> String {
    if id.starts_with(META) {
        let value = ledger.metadata().remove(id);
        let noted = |value| format!("noted {}", String::from_utf8(value).unwrap());
        return value.map_or_else(|| "none".to_owned(), noted);
    }
    let Some(details) = ledger.record(id).await.unwrap() else { return "none".to_owned() };
    assert_eq!(details.state(), ledger.query_task_state_quick(id), "{id}");
    match details.state() {
        TaskState::Succeeded => match ledger.output(id).await.unwrap() {
            None => "marked".to_owned(),
            Some(output) => {
                let number = output.split(':').next().unwrap().parse().unwrap();
                let long = output.rsplit_once(":y").map(|(_, more)| more.len() as u64 + 1);
                let returned =
                    long.map_or_else(|| output_of(number), |more| long_output_of(number, more));
                assert_eq!(output, returned, "{id}: the output is not what was returned");
                format!("ok {number}")
            }
        },
        TaskState::Failed => match details.failure {
            Some(Failure::Error(text)) => format!("failed {text}"),
            Some(Failure::Cancelled(_)) => "cancelled".to_owned(),
            Some(Failure::Crashed) => "crashed".to_owned(),
            other => format!("{other:?}"),
        },
        other => other.to_string(),
    }
}

/// All ids, and all names of the metadata.
pub fn all(ledger: &TestLedger) -> impl Iterator<Item = String> {
    let names = ledger.metadata().into_keys();
    names.chain(ledger.all_tasks().iter().map(Result::unwrap).collect::<Vec<_>>())
}

/// Says what the ledger holds, which from now on nothing may take back.
pub async fn look(ledger: &TestLedger) {
    for id in all(ledger) {
        say(&format!("seen {id} {}", found(ledger, &id).await));
    }
    say("looked");
}

/// What is said of an id that is again what it was before something that was acknowledged.
pub const TAKEN_BACK: &str = "was taken back";

/// What is said of what still runs or is being revoked, though its process is dead.
pub const NOT_RESET: &str = "under way after an open";

/// What must be found: fed with the lines of the clients.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Of each id and name, as it would be found after a crash.
    known: BTreeMap<String, String>,
    /// What each was before that.
    past: BTreeMap<String, BTreeSet<String>>,
    under_way: BTreeMap<String, [String; 3]>,
    /// What a process has seen so far that looks what there is.
    seen: BTreeSet<String>,
    /// What ids have been since [`remember`](Self::remember) was called.
    since: Option<BTreeMap<String, Vec<String>>>,
    pub opened: bool,
    pub acked: u64,
    /// How many clients have been told that the ledger is poisoned.
    pub hurt: u64,
}

impl Model {
    /// In which this is known of each id.
    #[must_use]
    pub fn of_known(known: BTreeMap<String, String>) -> Self {
        Self { known, ..Self::default() }
    }

    pub fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", "open"] => self.opened = true,
            ["ack", "try", client, op, id, number] => {
                let op = [op, id, number].map(str::to_owned);
                self.note(&op);
                assert_eq!(self.under_way.insert(client.to_owned(), op), None, "{line}");
            }
            ["ack", "done", client, op, id, number] => {
                let op = [op, id, number].map(str::to_owned);
                assert_eq!(self.under_way.remove(client), Some(op.clone()), "{line}");
                let mut states = after(&op, self.of(id));
                let last = states.pop().unwrap();
                self.past.entry(id.to_owned()).or_default().extend(states);
                self.is_now(id, last);
                self.acked += 1;
            }
            ["ack", "seen", id, ..] => {
                let seen = words[3..].join(" ");
                let allowed = self.allowed(id);
                assert!(allowed.contains(&seen), "{line}: {}", self.wrong(id, &seen));
                self.under_way.retain(|_, [_, of, _]| of != id);
                self.is_now(id, seen);
                self.seen.insert(id.to_owned());
            }
            ["ack", "looked"] => {
                let ids: BTreeSet<String> = self.ids().collect();
                let seen = std::mem::take(&mut self.seen);
                for id in ids.difference(&seen) {
                    let allowed = self.allowed(id);
                    let none = "none".to_owned();
                    assert!(allowed.contains(&none), "{line}: {}", self.wrong(id, &none));
                    self.is_now(id, none);
                }
                self.under_way.clear();
            }
            ["ack", "hurt", ..] => self.hurt += 1,
            // What the tracer has done to it.
            ["ack", "fault", ..] => {}
            ["ack", "bad", ..] => panic!("{line}"),
            // The test harness, or what the child says before it panics.
            _ => assert!(!line.contains("panicked"), "the child says: {line}"),
        }
    }

    fn of(&self, id: &str) -> &str {
        self.known.get(id).map_or("none", String::as_str)
    }

    fn is_now(&mut self, id: &str, state: String) {
        let before = self.known.insert(id.to_owned(), state.clone());
        let before = before.unwrap_or_else(|| "none".to_owned());
        if before != state {
            self.past.entry(id.to_owned()).or_default().insert(before);
        }
    }

    /// What is wrong with this state, which the id may not be found in.
    fn wrong(&self, id: &str, found: &str) -> String {
        let allowed = self.allowed(id);
        if found == TaskState::Running.to_string() || found == TaskState::Revoking.to_string() {
            return format!("{id}, {found}, is {NOT_RESET}, not one of {allowed:?}");
        }
        let was = self.past.get(id).is_some_and(|past| past.contains(found));
        let how = if was { TAKEN_BACK } else { "never was that" };
        format!("{id} {how}: it is {found:?}, not one of {allowed:?}")
    }

    /// The ids that something is known of, or that something is done to.
    fn ids(&self) -> impl Iterator<Item = String> {
        let under_way = self.under_way.values().map(|[_, id, _]| id);
        self.known.keys().chain(under_way).cloned()
    }

    /// What the id may be found as.
    fn allowed(&self, id: &str) -> Vec<String> {
        let mut allowed = vec![self.of(id).to_owned()];
        for op in self.under_way.values().filter(|[_, of, _]| of == id) {
            allowed.extend(after(op, self.of(id)));
        }
        allowed.extend(self.since.iter().flat_map(|since| since.get(id)).flatten().cloned());
        allowed
    }

    /// From now on no state is forgotten: what is checked may be as old as this moment.
    pub fn remember(&mut self) {
        self.since = Some(BTreeMap::new());
        self.under_way.clone().values().for_each(|op| self.note(op));
    }

    /// Notes what the id of an operation may be from before it to after it, if that is wanted.
    fn note(&mut self, op: &[String; 3]) {
        let id = op[1].clone();
        let before = self.of(&id).to_owned();
        if let Some(since) = &mut self.since {
            let states = since.entry(id).or_default();
            states.extend(after(op, &before));
            states.push(before);
        }
    }

    /// Holds the ledger against what was acknowledged. What it has is what is known from now on.
    pub async fn check(&mut self, ledger: &TestLedger) -> Result<(), String> {
        let mut ids: BTreeSet<String> = self.ids().collect();
        ids.extend(all(ledger));
        for id in ids {
            let allowed = self.allowed(&id);
            let found = found(ledger, &id).await;
            if !allowed.contains(&found) {
                return Err(self.wrong(&id, &found));
            }
            self.is_now(&id, found);
        }
        self.under_way.clear();
        self.seen.clear();
        self.since = None;
        self.opened = false;
        Ok(())
    }
}

/// What an id can be in while this is done to it, as found after a crash; the last one when it has
/// been done.
fn after([op, _, number]: &[String; 3], before: &str) -> Vec<String> {
    let states: &[&str] = match op.as_str() {
        "run" => &["crashed", &format!("ok {number}")],
        "fail" => &["crashed", &format!("failed {number}")],
        "hang" => &["crashed"],
        "cancel" => &["cancelled"],
        "mark" => &["marked"],
        "note" => &[&format!("noted {number}")],
        "forget" | "revoke" | "erase" => &["none"],
        "unrevoked" | "again" => &[before],
        other => panic!("nobody knows how to {other}"),
    };
    states.iter().map(|state| (*state).to_owned()).collect()
}
