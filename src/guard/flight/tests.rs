//! Who joins whom, and what is told to whoever has.

use super::*;
use crate::state::{Attempt, SeqNo};

/// An id looks the same before its first attempt and after it was forgotten, so who came then was told
/// of the failure before.
#[test]
fn who_comes_when_it_was_forgotten_joins_nothing() {
    let (flights, index, id) = (Flights::default(), Index::new(), EncodedId::from_bytes(b"a"));
    let Joined::Own(begun) = flights.join_or_begin(&index, &id, None) else {
        panic!("nobody is at it")
    };
    assert!(matches!(flights.join_or_begin(&index, &id, None), Joined::Other(..)));
    let (state, attempt) = (TaskState::Running, Attempt::NONE.next());
    begun.flight.began(AttemptKey(1), Cell { state, attempt, seq: SeqNo::new(1) });
    begun.look(&index);
    let Joined::Own(next) = flights.join_or_begin(&index, &id, None) else {
        panic!("all that it can tell is older")
    };
    // The end of the one that was replaced leaves the place to its successor.
    drop(begun);
    assert!(matches!(flights.join_or_begin(&index, &id, None), Joined::Other(..)));
    drop(next);
    assert!(matches!(flights.join_or_begin(&index, &id, None), Joined::Own(_)));
}

/// One that was replaced took its only joiner for the reference of the list, and told it nothing: the joiner
/// looked again, and executed once more.
#[test]
fn who_has_joined_one_that_was_replaced_is_told_of_its_success() {
    let (flights, index, id) = (Flights::default(), Index::new(), EncodedId::from_bytes(b"a"));
    let Joined::Own(begun) = flights.join_or_begin(&index, &id, None) else {
        panic!("nobody is at it")
    };
    let Joined::Other(joined, _) = flights.join_or_begin(&index, &id, None) else {
        panic!("somebody is at it")
    };
    let (state, attempt) = (TaskState::Running, Attempt::NONE.next());
    begun.flight.began(AttemptKey(1), Cell { state, attempt, seq: SeqNo::new(1) });
    begun.look(&index);
    let next = flights.join_or_begin(&index, &id, None);
    assert!(matches!(next, Joined::Own(_)), "it was forgotten");
    let answer: Answer<u32, ()> =
        Ok(crate::Claim { kind: crate::ClaimKind::Executed, value: Some(1) });
    begun.land(&answer, Tells::default());
    assert!(matches!(joined.landing.get(), Some((Landing::Succeeded(Some(_)), None))));
}
