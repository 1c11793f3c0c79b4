//! What one id is, as far as callers can tell, and what each operation makes of it.
//!
//! An answer of `run` is a look at the id at one moment of its call: that it has succeeded with this
//! value, failed like this, is held, given up, or serves another request. What a run executes is, as
//! with a launch, a start and an end, but its start has to be one that its policies allow.

use taskledger::{EffectKey, OnCrash, OnFailure, TaskState, Verdict};

/// Names an execution. No two have the same: it is what a success returns, and what an error says.
pub(super) type Number = u64;

/// What one operation did to one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// An attempt began: of a launch, or of a run.
    Started(Number, Option<Start>),
    Ended(Number, End),
    /// A run gave it up, since it may have no more attempts than this.
    GaveUp(u32),
    /// A revoke began.
    RevokeStarted(Number),
    /// It ended: the id is not found, or succeeded as before.
    RevokeEnded(Number, bool),
    Marked,
    Forgotten,
    Resolved(Verdict),
    /// It was refused since the id was in this state.
    Refused(Kind, TaskState),
    /// A query saw this.
    Saw(TaskState),
    /// A run was told this, which has this fingerprint.
    Told(Told, Option<u8>),
    /// The process died, and the next one reset what had been running.
    Died,
}

impl Did {
    /// Whether it changes nothing in any state.
    pub(super) const fn is_look(&self) -> bool {
        matches!(self, Self::Saw(_) | Self::Refused(..) | Self::Told(..))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Launch,
    Mark,
    Forget,
    Revoke,
    Resolve,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success,
    Error,
    /// The same, though its caller has left, which it had by this moment.
    LeftError(u64),
    /// With its caller, or its runtime, by this moment.
    Cancelled(u64),
}

/// What a run knew when it started an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) asks: Asks,
    /// When its caller came.
    pub(super) came: u64,
    /// Its own attempt before this one.
    pub(super) after: Option<Number>,
    /// What the attempt was told of itself, unless it was dropped before.
    pub(super) told: Option<(u32, EffectKey)>,
}

/// What a run asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) fingerprint: Option<u8>,
    pub(super) on_failure: OnFailure,
    pub(super) on_crash: OnCrash,
    pub(super) max_attempts: Option<u32>,
    /// It is to end when its caller is dropped.
    pub(super) with_caller: bool,
}

/// What a run is told of what it has not executed itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Success(Option<Number>),
    Failure(Cause),
    Held,
    GaveUp(u32),
    OtherRequest,
    /// It has failed, and the policy is to refuse then.
    Refused,
}

/// Why it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    Error(Number),
    Cancelled,
    Crashed,
    GaveUp,
    Resolved,
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Is {
    NotFound,
    Running(Number),
    /// With what it returned, unless it was marked or resolved.
    Succeeded(Option<Number>),
    Failed(Cause),
    Revoking(Number, Option<Number>),
}

/// All that matters of an id to what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    is: Is,
    /// Since it was last not found; and those that ended with their caller, which do not count for
    /// everybody.
    attempts: u32,
    cancelled: u32,
    /// By when whoever has failed had left, if so: who came before that, and has waited, takes over,
    /// whatever its policy.
    left: Option<u64>,
    /// An attempt has crashed, and nobody has said what came of it.
    crashed: bool,
    /// Of the request that it serves, since it was last not found.
    fingerprint: Option<u8>,
    /// The effect key, if an execution has told it; and the last one of an earlier life.
    key: Option<EffectKey>,
    earlier: Option<EffectKey>,
}

impl State {
    pub(super) const NOT_FOUND: Self = Self {
        is: Is::NotFound,
        attempts: 0,
        cancelled: 0,
        left: None,
        crashed: false,
        fingerprint: None,
        key: None,
        earlier: None,
    };

    const fn name(self) -> TaskState {
        match self.is {
            Is::NotFound => TaskState::NotFound,
            Is::Running(_) => TaskState::Running,
            Is::Succeeded(_) => TaskState::Succeeded,
            Is::Failed(_) => TaskState::Failed,
            Is::Revoking(..) => TaskState::Revoking,
        }
    }

    /// What the state is after the operation, if it can be at this moment.
    pub(super) fn after(self, did: &Did) -> Option<Self> {
        match (did, self.is) {
            (Did::Started(number, start), Is::NotFound | Is::Failed(_)) => {
                self.started(*number, start.as_ref())
            }
            (Did::Ended(number, end), Is::Running(runs)) if *number == runs => Some(match end {
                End::Success => self.now(Is::Succeeded(Some(runs))),
                End::Error => self.now(Is::Failed(Cause::Error(runs))),
                End::LeftError(by) => {
                    Self { left: Some(*by), ..self.now(Is::Failed(Cause::Error(runs))) }
                }
                End::Cancelled(by) => Self {
                    left: Some(*by),
                    cancelled: self.cancelled + 1,
                    ..self.now(Is::Failed(Cause::Cancelled))
                },
            }),
            (Did::GaveUp(most), Is::Failed(cause)) => {
                // What somebody has found out stays on record.
                let now =
                    if cause == Cause::Resolved { self.is } else { Is::Failed(Cause::GaveUp) };
                let gone = matches!(cause, Cause::GaveUp | Cause::Released);
                (!gone && self.attempts >= *most).then(|| self.now(now))
            }
            (Did::RevokeStarted(number), Is::Succeeded(value)) => {
                Some(self.now(Is::Revoking(*number, value)))
            }
            (Did::RevokeEnded(number, good), Is::Revoking(runs, value)) if *number == runs => {
                Some(if *good { self.gone() } else { self.now(Is::Succeeded(value)) })
            }
            (Did::Marked, Is::NotFound | Is::Failed(_)) => Some(self.now(Is::Succeeded(None))),
            (Did::Forgotten, Is::Succeeded(_) | Is::Failed(_)) => Some(self.gone()),
            (Did::Resolved(verdict), Is::Failed(_)) => {
                let is = match verdict {
                    Verdict::Succeeded => Is::Succeeded(None),
                    Verdict::Failed => Is::Failed(Cause::Resolved),
                    _ => Is::Failed(Cause::Released),
                };
                Some(Self { crashed: false, ..self.now(is) })
            }
            (Did::Refused(kind, told), _) => {
                (self.name() == *told && !self.takes(*kind)).then_some(self)
            }
            (Did::Saw(told), _) => (self.name() == *told).then_some(self),
            (Did::Told(told, fingerprint), _) => self.tells(*told, *fingerprint).then_some(self),
            (Did::Died, Is::Running(_)) => {
                Some(Self { crashed: true, ..self.now(Is::Failed(Cause::Crashed)) })
            }
            (Did::Died, Is::Revoking(_, value)) => Some(self.now(Is::Succeeded(value))),
            (Did::Died, _) => Some(self),
            _ => None,
        }
    }

    const fn now(self, is: Is) -> Self {
        Self { is, left: None, ..self }
    }

    /// Nothing is known of it any more; its next life has another effect key.
    fn gone(self) -> Self {
        Self { earlier: self.key.or(self.earlier), ..Self::NOT_FOUND }
    }

    fn started(self, number: Number, start: Option<&Start>) -> Option<Self> {
        let attempts = self.attempts + 1;
        let begun = Self { attempts, ..self.now(Is::Running(number)) };
        let Some(start) = start else { return Some(begun) };
        let (attempt, key) = start.told.unzip();
        let same_life = match (key, self.key) {
            (Some(key), None) => self.earlier != Some(key),
            (Some(key), Some(known)) => key == known,
            (None, _) => true,
        };
        let counts = attempt.is_none_or(|attempt| attempt == attempts);
        // As long as the effect key: an attempt without one changes nothing of it.
        let fingerprint = start.asks.fingerprint.or(self.fingerprint);
        let begun = Self { fingerprint, key: key.or(self.key), ..begun };
        (self.lets(start) && counts && same_life).then_some(begun)
    }

    /// Whether a run starts an attempt now.
    fn lets(self, start: &Start) -> bool {
        let Start { asks, after, .. } = start;
        let Is::Failed(cause) = self.is else { return after.is_none() };
        // Not all that wait for an attempt that ended with its caller need to leave it out.
        let counted = self.attempts - self.cancelled;
        let worn = asks.max_attempts.is_some_and(|most| counted >= most);
        match (cause, after) {
            (Cause::Released, _) => true,
            // It goes on after its own failure, and after nobody else's.
            (Cause::Error(number), Some(own)) => number == *own && !worn,
            (_, Some(_)) | (Cause::GaveUp, None) => false,
            (cause, None) => {
                let policy = match cause {
                    Cause::Crashed => asks.on_crash == OnCrash::Run,
                    _ if self.left.is_some_and(|by| start.came < by) => true,
                    _ => asks.on_failure == OnFailure::Run,
                };
                // What has failed since says nothing of an earlier crash.
                let held = self.crashed && asks.on_crash != OnCrash::Run;
                policy && !held && !worn && self.serves(asks.fingerprint)
            }
        }
    }

    /// Whether it is about this request.
    fn serves(self, fingerprint: Option<u8>) -> bool {
        let both = self.fingerprint.zip(fingerprint);
        both.is_none_or(|(stored, own)| stored == own)
    }

    /// Whether a run that is not to execute is told this now.
    fn tells(self, told: Told, fingerprint: Option<u8>) -> bool {
        let says = match (told, self.is) {
            (Told::OtherRequest, is) => {
                return is != Is::NotFound && !self.serves(fingerprint);
            }
            (Told::Success(told), Is::Succeeded(value)) => told == value,
            (Told::Failure(told), Is::Failed(cause)) => told == cause,
            (Told::Held, Is::Failed(cause)) => self.crashed && cause != Cause::GaveUp,
            (Told::GaveUp(attempts), Is::Failed(Cause::GaveUp | Cause::Resolved)) => {
                attempts == self.attempts
            }
            (Told::Refused, Is::Failed(cause)) => {
                matches!(cause, Cause::Error(_) | Cause::Cancelled | Cause::Resolved)
            }
            _ => false,
        };
        says && self.serves(fingerprint)
    }

    const fn takes(self, kind: Kind) -> bool {
        matches!(
            (kind, self.is),
            (Kind::Launch | Kind::Mark, Is::NotFound | Is::Failed(_))
                | (Kind::Forget, Is::Succeeded(_) | Is::Failed(_))
                | (Kind::Revoke, Is::Succeeded(_))
                | (Kind::Resolve, Is::Failed(_))
        )
    }
}
