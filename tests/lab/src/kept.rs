//! What is done to a ledger by callers of `run`, and what an id is after that: the words that the child and
//! the model of the harness `kept` have in common.
//!
//! ```text
//! ack open                          the ledger is open
//! ack try 2 fail k2-1 4711          worker 2 is about to have k2-1 run, which will fail with 4711
//! ack effect k2-1 4711 9f3c...      the work of k2-1 is executed, with this effect key
//! ack probe k2-1                    somebody asks whether k2-1 has happened
//! ack answer 2 failed-4711          one of the callers was told this
//! ack seen 2 failed-4711            k2-1 was found like this
//! ack done 2                        all that worker 2 tried was acknowledged
//! ack try admin prune both          likewise: what has succeeded, failed, or both
//! ack try admin checkpoint
//! ack try admin backup copy-3
//! ack try admin import import-3 of copy-3
//! ack end                           nothing more is tried
//! ack bad ...                       an answer that cannot be
//! ```

pub mod rules;

use crate::places::TestLedger;
use std::fmt;
use std::str::FromStr;
use taskledger::{Failure, NotKept, Output, SeqNo, SuccessBy, TaskDetails, TaskState};

/// What is known of an id, without its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Nothing.
    None,
    /// It has succeeded, with the output of this number.
    Succeeded(u64),
    /// It has succeeded, with an output of so many bytes, which was not kept.
    Unkept(u64),
    /// Somebody has found out that it has succeeded.
    Resolved,
    /// It has succeeded, is a tombstone no more, and there is nothing else to tell.
    Exhumed,
    /// It has succeeded; a tombstone is left.
    Buried,
    /// It has failed, with this number.
    Failed(u64),
    /// Likewise, after it had crashed, and nobody has said what came of that.
    FailedAgain(u64),
    /// Its process died while it ran.
    Crashed,
    /// It has failed too often.
    GaveUp,
    /// Somebody has found out that it has failed.
    Ruled,
    /// It has failed, and somebody has said that it may run again.
    Released,
}

/// What an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub what: What,
    pub pinned: bool,
}

impl From<What> for State {
    fn from(what: What) -> Self {
        Self { what, pinned: false }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::None => f.write_str("none")?,
            What::Succeeded(number) => write!(f, "succeeded-{number}")?,
            What::Unkept(bytes) => write!(f, "unkept-{bytes}")?,
            What::Resolved => f.write_str("resolved")?,
            What::Exhumed => f.write_str("exhumed")?,
            What::Buried => f.write_str("buried")?,
            What::Failed(number) => write!(f, "failed-{number}")?,
            What::FailedAgain(number) => write!(f, "again-{number}")?,
            What::Crashed => f.write_str("crashed")?,
            What::GaveUp => f.write_str("gave-up")?,
            What::Ruled => f.write_str("ruled")?,
            What::Released => f.write_str("released")?,
        }
        if self.pinned { f.write_str("-pinned") } else { Ok(()) }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, pinned) = match text.strip_suffix("-pinned") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        let what = match rest.split_once('-') {
            Some(("succeeded", text)) => What::Succeeded(number(text)?),
            Some(("unkept", text)) => What::Unkept(number(text)?),
            Some(("failed", text)) => What::Failed(number(text)?),
            Some(("again", text)) => What::FailedAgain(number(text)?),
            _ => *PLAIN
                .iter()
                .find(|what| Self::from(**what).to_string() == rest)
                .ok_or_else(|| format!("no state is called {text:?}"))?,
        };
        Ok(Self { what, pinned })
    }
}

const PLAIN: [What; 8] = [
    What::None,
    What::Resolved,
    What::Exhumed,
    What::Buried,
    What::Crashed,
    What::GaveUp,
    What::Ruled,
    What::Released,
];

/// What a worker has done to an id of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Nothing: it is looked at.
    Look,
    /// A run that succeeds, asked for by several at once; like the following ones, with policies.
    Run,
    /// A run that fails.
    Fail,
    /// A run that fails, and may be tried once only.
    Once,
    /// A run that succeeds; what has failed is told again, or refused.
    Replay,
    Refuse,
    /// A run that succeeds; what has crashed is held.
    Hold,
    /// A run that succeeds; of what has crashed a probe finds out that it has happened, has not, or nothing.
    Landed,
    NotLanded,
    Unknown,
    /// A run that never ends.
    Hang,
    Pin,
    Unpin,
    /// What somebody has found out.
    ResolveSucceeded,
    ResolveFailed,
    ResolveRetry,
    Forget,
    Revoke,
    /// A revoke that fails.
    Unrevoked,
}

impl Op {
    const ALL: [Self; 19] = [
        Self::Look,
        Self::Run,
        Self::Fail,
        Self::Once,
        Self::Replay,
        Self::Refuse,
        Self::Hold,
        Self::Landed,
        Self::NotLanded,
        Self::Unknown,
        Self::Hang,
        Self::Pin,
        Self::Unpin,
        Self::ResolveSucceeded,
        Self::ResolveFailed,
        Self::ResolveRetry,
        Self::Forget,
        Self::Revoke,
        Self::Unrevoked,
    ];

    /// Whether it is a run.
    #[must_use]
    pub fn runs(self) -> bool {
        match self {
            Self::Run
            | Self::Fail
            | Self::Once
            | Self::Replay
            | Self::Refuse
            | Self::Hold
            | Self::Landed
            | Self::NotLanded
            | Self::Unknown
            | Self::Hang => true,
            Self::Look
            | Self::Pin
            | Self::Unpin
            | Self::ResolveSucceeded
            | Self::ResolveFailed
            | Self::ResolveRetry
            | Self::Forget
            | Self::Revoke
            | Self::Unrevoked => false,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|op| op.to_string() == text);
        found.copied().ok_or_else(|| format!("nobody knows how to {text}"))
    }
}

/// What one of the callers of an operation was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was executed for this one, which got the value of the number.
    Executed(u64),
    /// Others executed it, now or before: the value, if there is one.
    Told(Option<u64>),
    /// It was executed for this one, or others, and has failed; or had failed before.
    Failed(u64),
    /// It had failed before, in another way than with a number.
    ToldOf(What),
    Held,
    GaveUp,
    Refused,
    /// It was done.
    Ok,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executed(number) => write!(f, "executed-{number}"),
            Self::Told(Some(number)) => write!(f, "told-{number}"),
            Self::Told(None) => f.write_str("told"),
            Self::Failed(number) => write!(f, "failed-{number}"),
            Self::ToldOf(what) => write!(f, "of-{}", State::from(*what)),
            Self::Held => f.write_str("held"),
            Self::GaveUp => f.write_str("gave-up"),
            Self::Refused => f.write_str("refused"),
            Self::Ok => f.write_str("ok"),
        }
    }
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        let plain = [Self::Told(None), Self::Held, Self::GaveUp, Self::Refused, Self::Ok];
        if let Some(answer) = plain.iter().find(|answer| answer.to_string() == text) {
            return Ok(*answer);
        }
        match text.split_once('-') {
            Some(("executed", text)) => Ok(Self::Executed(number(text)?)),
            Some(("told", text)) => Ok(Self::Told(Some(number(text)?))),
            Some(("failed", text)) => Ok(Self::Failed(number(text)?)),
            Some(("of", text)) => Ok(Self::ToldOf(text.parse::<State>()?.what)),
            _ => Err(format!("no answer is called {text:?}")),
        }
    }
}

/// The largest output that is kept, serialized, where nothing else is asked for.
const CAP: usize = 32 << 10;

/// What a success of this number returns: mostly something short, sometimes almost as much as is kept, and
/// now and then more.
#[must_use]
pub fn value_of(number: u64) -> String {
    let more = match number % 16 {
        0 => 40_000 + number % 1_000,
        1 | 2 => 24_000 + number % 8_000,
        _ => number % 300,
    };
    format!("{number}:{}", "v".repeat(more as usize))
}

/// The number of a value, which is that of the number to the last byte.
pub fn number_of(value: &str) -> Result<u64, String> {
    let number = value.split(':').next().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| format!("{value:.40} is no value"))?;
    if value_of(number) == value {
        Ok(number)
    } else {
        Err(format!("the value of {number} is not what was returned"))
    }
}

/// What an id is that has succeeded with the value of this number.
#[must_use]
pub fn success_of(number: u64) -> What {
    // Its text has a head of three bytes there.
    let bytes = value_of(number).len() + 3;
    if bytes > CAP { What::Unkept(bytes as u64) } else { What::Succeeded(number) }
}

/// What is said of what still runs or is being revoked.
pub const UNDER_WAY: &str = "is under way";

/// What an id is, of which these are the details.
pub fn state_of(details: Option<&TaskDetails>) -> Result<State, String> {
    let Some(details) = details else { return Ok(What::None.into()) };
    let what = match details.state() {
        TaskState::Succeeded => match (&details.output, details.succeeded_by) {
            (Output::Kept(bytes), Some(_)) => {
                let value: String =
                    rmp_serde::from_slice(bytes).map_err(|error| format!("its output: {error}"))?;
                What::Succeeded(number_of(&value)?)
            }
            (Output::NotKept(NotKept::TooLarge { size }), Some(_)) => What::Unkept(*size),
            (Output::Absent, Some(SuccessBy::Resolve)) => What::Resolved,
            (Output::Absent, None) if details.cell.seq == SeqNo::ZERO => What::Buried,
            (Output::Absent, None) => What::Exhumed,
            other => return Err(format!("it has succeeded like this: {other:?}")),
        },
        TaskState::Failed => match &details.failure {
            Some(failure) => match failure_of(failure)? {
                What::Failed(number) if details.crashed_before => What::FailedAgain(number),
                what => what,
            },
            None => return Err("it has failed without a failure".to_owned()),
        },
        other => return Err(format!("it {UNDER_WAY}: {other}")),
    };
    Ok(State { what, pinned: details.pinned })
}

/// What an id is that has failed like this.
pub fn failure_of(failure: &Failure) -> Result<What, String> {
    Ok(match failure {
        Failure::Error(text) => {
            let number = text.parse();
            What::Failed(number.map_err(|_| format!("it has failed with {text:?}"))?)
        }
        Failure::Crashed => What::Crashed,
        Failure::GaveUp { .. } => What::GaveUp,
        Failure::Resolved(_) => What::Ruled,
        Failure::Released(_) => What::Released,
        other => return Err(format!("it has failed like this: {other:?}")),
    })
}

/// What an id is in this ledger.
pub async fn found(ledger: &TestLedger, id: &str) -> Result<State, String> {
    let details = ledger.record(id).await.map_err(|error| format!("{id}: {error:?}"))?;
    state_of(details.as_ref()).map_err(|wrong| format!("{id}: {wrong}"))
}
