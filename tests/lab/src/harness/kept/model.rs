//! What must be found of a ledger with callers of `run`: fed with the lines of the child.
//!
//! Of each id there is the set of states that it may be in. Something acknowledged leaves one of them, as a
//! rule; what is under way adds those on its way; a prune that is under way adds what it would leave.

use crate::harness::deaths::Hears;
use crate::kept::rules::{PRUNES, Prunes, changed, executed, explains, quiet};
use crate::kept::{Answer, Op, State, What};
use std::collections::{BTreeMap, BTreeSet};

/// What is said of a success that is one no more.
pub(super) const LOST: &str = "its success is lost";
/// What is said of work that was done again.
pub(super) const AGAIN: &str = "it was executed again";
/// What is said of what a prune has taken though it may have happened.
pub(super) const NOT_HELD: &str = "it may have happened, and is gone";

/// What is said of an effect key that changes within a life, or comes back in another one.
pub(super) const KEY: &str = "its effect key is that of another life";
const OTHERWISE: &str = "it cannot be";

type States = BTreeSet<State>;

/// What each id may be, at one moment.
pub(super) type Snapshot = BTreeMap<String, States>;

/// What a worker has under way.
#[derive(Clone, Debug)]
struct Doing {
    op: Op,
    id: String,
    number: u64,
    effects: u64,
    answers: Vec<Answer>,
    /// What the id may have been when it began.
    since: States,
    /// What was pruned meanwhile.
    pruned: Prunes,
}

/// A copy that was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Copying {
    /// What each id may have been, from the beginning on, as long as it is under way.
    pub(super) moments: Vec<Snapshot>,
    pub(super) done: bool,
    /// Of which copy it is an import.
    pub(super) of: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    known: Snapshot,
    doing: BTreeMap<u64, Doing>,
    /// What is being pruned, and the ids that nobody has touched since that began, as they were.
    pruning: Option<(Prunes, Snapshot)>,
    /// The effect key of the life that each id has, and of all before it.
    keys: BTreeMap<String, Vec<String>>,
    /// Ids with a life of which nobody may have heard the key: the process died too soon.
    unheard: BTreeSet<String>,
    pub(super) copies: BTreeMap<String, Copying>,
    /// What the keeper of the ledger is at.
    pub(super) keeping: Option<String>,
    pub(super) opened: bool,
    /// What was acknowledged, and what was executed, so far.
    pub(super) acked: u64,
    pub(super) effects: u64,
    pub(super) replayed: u64,
    pub(super) joined: u64,
}

impl Hears for Model {
    fn hear(&mut self, line: &str) -> Result<(), String> {
        self.take(line).map_err(|wrong| format!("{line}: {wrong}"))?;
        let now = self.moment();
        for copying in self.copies.values_mut().filter(|copying| !copying.done) {
            if copying.moments.last() != Some(&now) {
                copying.moments.push(now.clone());
            }
        }
        Ok(())
    }
}

impl Model {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", "open"] => self.opened = true,
            ["ack", "try", "admin", what, ref rest @ ..] => self.keeps(what, rest)?,
            ["ack", "done", "admin"] => self.has_kept()?,
            ["ack", "try", worker, op, id, number] => {
                let (op, number) = (op.parse()?, parsed(number)?);
                let pruned = self.pruning.as_ref().map(|(prunes, _)| *prunes).unwrap_or_default();
                if let Some((_, untouched)) = self.pruning.as_mut().filter(|_| op != Op::Look) {
                    untouched.remove(id);
                }
                let (since, id, answers) = (self.of(id), id.to_owned(), Vec::new());
                let doing = Doing { op, id, number, effects: 0, answers, since, pruned };
                if self.doing.insert(parsed(worker)?, doing).is_some() {
                    return Err("one thing after the other".to_owned());
                }
            }
            ["ack", "effect", id, number, key] => self.executes(id, parsed(number)?, key)?,
            ["ack", "probe", id] => {
                let asked = self.doing.values().find(|doing| doing.id == id);
                let before = asked.map(|doing| self.before(doing)).unwrap_or_default();
                if !before.iter().any(|state| state.what.has_crashed()) {
                    return Err(format!("nothing to ask: it is one of {}", list(&before)));
                }
            }
            ["ack", "answer", worker, answer] => {
                let doing = self.doing.get_mut(&parsed(worker)?).ok_or("nobody has asked")?;
                doing.answers.push(answer.parse()?);
            }
            ["ack", "seen", worker, state] => {
                let doing = self.doing.get(&parsed(worker)?).ok_or("nobody looks")?;
                let (id, state) = (doing.id.clone(), state.parse()?);
                let named = |wrong| format!("{id}: {wrong}");
                judge(&closed(&doing.since, doing.pruned), state).map_err(named)?;
                // From now on it is certain, but for what was pruned before this was told.
                let now = closed(&BTreeSet::from([state]), doing.pruned);
                let now: States = now.intersection(&self.of(&id)).copied().collect();
                if now.is_empty() {
                    return Err(named(format!("it was pruned, and is {state}")));
                }
                self.known.insert(id, now);
            }
            ["ack", "done", worker] => {
                let doing = self.doing.remove(&parsed(worker)?).ok_or("nobody has begun")?;
                if doing.op != Op::Look {
                    let after =
                        self.after(&doing).map_err(|wrong| format!("{doing:?}: {wrong}"))?;
                    self.known.insert(doing.id, after);
                    self.acked += 1;
                }
            }
            ["ack", "end"] => {}
            ["ack", "bad", ..] => return Err("an answer that cannot be".to_owned()),
            // What the child says before it panics.
            _ if line.contains("panicked") => return Err("the child panics".to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// What the keeper of the ledger begins.
    fn keeps(&mut self, what: &str, rest: &[&str]) -> Result<(), String> {
        let name = rest.first().map(|name| (*name).to_owned());
        self.keeping = Some([&[what], rest].concat().join(" "));
        match (what, name, rest) {
            ("checkpoint", None, _) => {}
            ("prune", Some(word), _) => {
                let named = PRUNES.iter().find(|(name, _)| *name == word);
                let prunes = named.ok_or("that cannot be pruned")?.1;
                let mut untouched = self.known.clone();
                for doing in self.doing.values_mut() {
                    doing.pruned = doing.pruned.and(prunes);
                    if doing.op != Op::Look {
                        untouched.remove(&doing.id);
                    }
                }
                for states in self.known.values_mut() {
                    *states = closed(states, prunes);
                }
                self.pruning = Some((prunes, untouched));
            }
            ("backup", Some(name), _) => _ = self.copies.insert(name, Copying::default()),
            ("import", Some(name), [_, "of", copy]) => {
                let of = Some((*copy).to_owned());
                self.copies.insert(name, Copying { of, ..Copying::default() });
            }
            _ => return Err("nobody keeps a ledger like that".to_owned()),
        }
        Ok(())
    }

    /// What the keeper has begun was acknowledged.
    fn has_kept(&mut self) -> Result<(), String> {
        let kept = self.keeping.take().ok_or("nothing was begun")?;
        self.acked += 1;
        if let Some(name) = kept.split_whitespace().nth(1) {
            if let Some(copying) = self.copies.get_mut(name) {
                copying.done = true;
            }
        }
        // All that was old enough when it began is gone by now.
        for (id, states) in self.pruning.take().into_iter().flat_map(|(prunes, untouched)| {
            untouched.into_iter().map(move |(id, states)| (id, pruned(&states, prunes)))
        }) {
            self.known.insert(id, states);
        }
        Ok(())
    }

    /// Work is executed.
    fn executes(&mut self, id: &str, number: u64, key: &str) -> Result<(), String> {
        let doing = self.doing.values().find(|doing| doing.id == id);
        let doing = doing.filter(|doing| doing.op.runs() && doing.number == number);
        let doing = doing.ok_or("nobody has asked for that")?.clone();
        let before = self.before(&doing);
        let is_success = !matches!(doing.op, Op::Fail | Op::Once);
        let may = |state: &State| quiet(doing.op, number, *state).is_none();
        if !before.iter().any(may) || (is_success && doing.effects > 0) {
            return Err(format!("{AGAIN}: it was one of {}", list(&before)));
        }
        // One key for a life, and another one for the next.
        let keys = self.keys.entry(id.to_owned()).or_default();
        let unborn = |state: &State| state.what == What::None;
        let (some, all) = (before.iter().any(unborn), before.iter().all(unborn));
        let (last, known) =
            (keys.last().is_some_and(|last| last == key), keys.contains(&key.to_owned()));
        let first = doing.effects == 0;
        let heard = !some && !keys.is_empty() && !self.unheard.contains(id);
        if (all && first && known) || (heard && !last) || (known && !last) {
            return Err(format!("{KEY}: {key} follows {keys:?}"));
        }
        if !last {
            keys.push(key.to_owned());
        }
        self.unheard.remove(id);
        self.effects += 1;
        for doing in self.doing.values_mut().filter(|doing| doing.id == id) {
            doing.effects += 1;
        }
        Ok(())
    }

    fn of(&self, id: &str) -> States {
        self.known.get(id).cloned().unwrap_or_else(|| BTreeSet::from([What::None.into()]))
    }

    /// What the id may have been when this came to it.
    fn before(&self, doing: &Doing) -> States {
        closed(&self.of(&doing.id), doing.pruned)
    }

    /// What the id may be now that this has been acknowledged.
    fn after(&mut self, doing: &Doing) -> Result<States, String> {
        let Doing { op, number, effects, ref answers, pruned, .. } = *doing;
        let before = self.before(doing);
        let none = |after: States| {
            let wrong = || format!("{}: it was one of {}", how(&before), list(&before));
            if after.is_empty() { Err(wrong()) } else { Ok(closed(&after, pruned)) }
        };
        if !op.runs() {
            return none(match answers[..] {
                [Answer::Ok] => before.iter().filter_map(|s| Some(changed(op, *s)?.1)).collect(),
                [Answer::Refused] => {
                    before.iter().copied().filter(|s| changed(op, *s).is_none()).collect()
                }
                _ => return Err("no such change".to_owned()),
            });
        }
        if op == Op::Hang {
            return none(BTreeSet::from([What::Crashed.into()]));
        }
        let left = |s: &State| quiet(op, number, *s);
        let explained = |s: &State, answer: &Answer| explains(op, number, *s, *answer);
        let told = answers.iter().filter(|answer| matches!(answer, Answer::Told(_))).count() as u64;
        if effects == 0 {
            self.replayed += told;
            let fits = |s: &&State| {
                answers.iter().all(|answer| {
                    // It may have been pruned between two of the answers.
                    explained(s, answer) || explained(&pruned.left(**s), answer)
                })
            };
            return none(before.iter().filter(fits).filter_map(left).collect());
        }
        self.joined += told;
        let last = *executed(op, number).last().ok_or("nothing comes of it")?;
        let mut may_be = closed(&last.after(&before), pruned);
        if last == What::GaveUp && pruned.failed {
            // It was forgotten as a failure, before it was given up.
            may_be.insert(What::None.into());
        }
        for answer in answers {
            let own = match answer {
                Answer::Executed(told) | Answer::Told(Some(told)) => {
                    last.is_success() && *told == number
                }
                Answer::Failed(told) => !last.is_success() && *told == number,
                _ => false,
            };
            // Who came before it, or after it.
            let states = before.iter().chain(&may_be);
            if !own && !states.clone().any(|s| explained(s, answer)) {
                return Err(format!("{answer} cannot be: it was one of {}", list(&before)));
            }
        }
        none(may_be)
    }

    /// What the id may be if its process dies now.
    fn allowed(&self, id: &str) -> States {
        let mut allowed = self.of(id);
        for doing in self.doing.values().filter(|doing| doing.id == id) {
            let before = self.before(doing);
            if doing.effects > 0 {
                // It has begun, which was durable before.
                let ends = executed(doing.op, doing.number);
                let told = |answer: &Answer| {
                    let own = Some(doing.number);
                    matches!(answer, Answer::Executed(_)) || *answer == Answer::Told(own)
                };
                let ended = ends.last().filter(|_| doing.answers.iter().any(told));
                let ends = ended.map_or(ends.as_slice(), std::slice::from_ref);
                let ends = ends.iter().flat_map(|end| end.after(&before)).collect();
                allowed = closed(&ends, doing.pruned);
                continue;
            }
            allowed.extend(&before);
            for state in &before {
                if let Some((on_the_way, end)) = changed(doing.op, *state) {
                    allowed.extend([on_the_way, end]);
                } else if doing.op.runs() {
                    match quiet(doing.op, doing.number, *state) {
                        Some(left) => _ = allowed.insert(left),
                        None => {
                            let ends = executed(doing.op, doing.number);
                            let before = BTreeSet::from([*state]);
                            allowed.extend(ends.iter().flat_map(|end| end.after(&before)));
                        }
                    }
                }
            }
            allowed = closed(&allowed, doing.pruned);
        }
        allowed
    }

    /// What each id may be if the process dies now.
    pub(super) fn moment(&self) -> Snapshot {
        let under_way = self.doing.values().map(|doing| &doing.id);
        let ids: BTreeSet<&String> = self.known.keys().chain(under_way).collect();
        ids.into_iter().map(|id| (id.clone(), self.allowed(id))).collect()
    }

    /// The process is dead, and this is what was found of its ids: all that is known from now on.
    pub(super) fn found(&mut self, found: &BTreeMap<String, State>) -> Result<(), String> {
        fits(&self.moment(), found)?;
        for doing in self.doing.values().filter(|doing| doing.op.runs() && doing.effects == 0) {
            self.unheard.insert(doing.id.clone());
        }
        self.known =
            found.iter().map(|(id, state)| (id.clone(), BTreeSet::from([*state]))).collect();
        self.doing.clear();
        (self.pruning, self.keeping, self.opened) = (None, None, false);
        Ok(())
    }

    /// The id has been run, and has succeeded with this number.
    pub(super) fn has_succeeded(&mut self, id: &str, what: What) {
        self.known.insert(id.to_owned(), BTreeSet::from([what.into()]));
    }
}

/// Whether all ids may be what they were found as.
pub(super) fn fits(moment: &Snapshot, found: &BTreeMap<String, State>) -> Result<(), String> {
    let wrong = wrong(moment, found);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// What is wrong with ids that were found like this.
pub(super) fn wrong(moment: &Snapshot, found: &BTreeMap<String, State>) -> Vec<String> {
    let none = State::from(What::None);
    let ids: BTreeSet<&String> = moment.keys().chain(found.keys()).collect();
    let judged = ids.into_iter().map(|id| {
        let allowed = moment.get(id).cloned().unwrap_or_else(|| BTreeSet::from([none]));
        let found = found.get(id).copied().unwrap_or(none);
        judge(&allowed, found).map_err(|wrong| format!("{id}: {wrong}"))
    });
    judged.filter_map(Result::err).collect()
}

fn judge(allowed: &States, found: State) -> Result<(), String> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let how = match how(allowed) {
        LOST if found.what.is_success() => OTHERWISE,
        NOT_HELD if found.what != What::None => OTHERWISE,
        how => how,
    };
    Err(format!("{how}: it is {found}, not one of {}", list(allowed)))
}

/// What it is to find nothing of an id that has to be one of these, or to be told so.
fn how(allowed: &States) -> &'static str {
    let all = |is: fn(What) -> bool| allowed.iter().all(|state| is(state.what));
    if all(What::is_success) {
        LOST
    } else if all(|what| what.has_crashed() || matches!(what, What::GaveUp | What::Released)) {
        NOT_HELD
    } else {
        OTHERWISE
    }
}

/// With what may be left of them by a prune.
fn closed(states: &States, prunes: Prunes) -> States {
    states.iter().flat_map(|state| [*state, prunes.left(*state)]).collect()
}

/// What is left of them by a prune.
fn pruned(states: &States, prunes: Prunes) -> States {
    states.iter().map(|state| prunes.left(*state)).collect()
}

fn list(states: &States) -> String {
    states.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn parsed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}
