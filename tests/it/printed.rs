//! Errors as people read them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use taskledger::{
    AttemptError, CancelError, ChangeError, CheckpointError, ClaimKind, CloseError, Failure,
    IdError, JournalError, LaunchError, OpenError, Outcome, Poison, ReadError, Rejection, RunError,
    TaskState, WaitError,
};

/// Lower-case fragments without a full stop; causes by `source()` and never twice in a chain.
#[test]
fn errors_print_well() {
    type L = LaunchError<()>;
    type A = AttemptError<(), u32, ()>;
    let state = TaskState::Revoking;
    let poison = || Poison::Failed("no space left".into());
    let id = || IdError::TooLong { len: 2000, max: 1024 };
    let store = || JournalError::Store("no space left".into());
    let outcome = || Outcome::Succeeded(7);
    let errors: Vec<Box<dyn Error>> = vec![
        Box::new(L::Refused { state, future: () }),
        Box::new(L::Rejected { reason: Rejection::Poisoned(poison()), future: () }),
        Box::new(L::Lost),
        Box::new(A::Refused { state, future: () }),
        Box::new(A::Rejected { reason: Rejection::Id(id()), future: () }),
        Box::new(A::Rejected { reason: Rejection::NoRuntime, future: () }),
        Box::new(A::Failed(())),
        Box::new(A::Panicked("x".into())),
        Box::new(A::Cancelled("x".into())),
        Box::new(A::TimedOut),
        Box::new(A::Lost),
        Box::new(A::InDoubt { outcome: outcome(), poison: poison() }),
        Box::new(A::Superseded { outcome: outcome() }),
        Box::new(ChangeError::Refused { state }),
        Box::new(ChangeError::Rejected(Rejection::Closed)),
        Box::new(ChangeError::InDoubt(Poison::Stuck { after: Duration::from_secs(60) })),
        Box::new(CancelError::NotRunning { state }),
        Box::new(WaitError::InDoubt(Poison::Panicked("x".into()))),
        Box::new(WaitError::Id(id())),
        Box::new(ReadError::Closed),
        Box::new(ReadError::Journal(store())),
        Box::new(ReadError::Output("x".into())),
        Box::new(CheckpointError::Failed(Arc::new(store()))),
        Box::new(CheckpointError::Poisoned(poison())),
        Box::new(CloseError::FromWithinAttempt),
        Box::new(CloseError::Poisoned(poison())),
        Box::new(CloseError::Journal(Arc::new(store()))),
        Box::new(OpenError::Journal(store())),
        Box::new(OpenError::Stuck { after: Duration::from_secs(1) }),
    ];
    for error in errors {
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(next) = cause {
            chain.push(next.to_string());
            cause = next.source();
        }
        for text in &chain {
            assert!(!text.is_empty() && !text.ends_with('.'), "{text:?}");
            assert!(!text.starts_with(char::is_uppercase), "{text:?}");
        }
        for pair in chain.windows(2) {
            assert!(!pair[0].contains(&pair[1]), "told twice: {chain:?}");
        }
        assert!(!format!("{error:?}").is_empty());
    }
    // The reason, where nobody prints the chain.
    let rejected: [Box<dyn Error>; 4] = [
        Box::new(L::Rejected { reason: Rejection::Closed, future: () }),
        Box::new(A::Rejected { reason: Rejection::Closed, future: () }),
        Box::new(ChangeError::Rejected(Rejection::Closed)),
        Box::new(RunError::<u32, ()>::Rejected(Rejection::Closed)),
    ];
    for error in rejected {
        assert_eq!(error.to_string(), "the ledger is closed");
    }
    let told = |kind| RunError::<u32, ()>::Told { failure: Failure::TimedOut, kind }.to_string();
    assert!(told(ClaimKind::Joined).contains("others"));
    assert!(!told(ClaimKind::Replayed).contains("others"));
    let doubt = A::InDoubt { outcome: outcome(), poison: poison() };
    assert!(doubt.source().unwrap().to_string().contains("no space left"));
}
