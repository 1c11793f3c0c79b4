//! What users' own `Debug`, `Serialize` and `Drop` may do to us: nothing.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

use super::*;
use crate::id::IdShape;
use crate::index::Index;
use crate::journal::{MemoryJournal, OpenReport};
use crate::shared::Options;
use std::any::Any;
use std::cell::Cell as StdCell;
use std::collections::BTreeMap;
use std::time::Instant;

#[test]
fn a_text_is_cut_at_a_border_of_its_characters() {
    for lead in 0..4 {
        let text = format!("{}{}", "x".repeat(lead), "\u{1f4a5}".repeat(2000));
        let kept = cut(text.clone());
        assert!(text.starts_with(&kept));
        assert!(
            (MAX_FAILURE_BYTES - 3..=MAX_FAILURE_BYTES).contains(&kept.len()),
            "{}",
            kept.len()
        );
    }
    assert_eq!(cut("x".repeat(MAX_FAILURE_BYTES)).len(), MAX_FAILURE_BYTES);
    assert_eq!(cut("x".repeat(MAX_FAILURE_BYTES + 1)).len(), MAX_FAILURE_BYTES);
    assert_eq!(cut(String::new()), "");
}

#[test]
fn a_debug_that_writes_for_ever_is_stopped() {
    struct Endless;
    impl fmt::Debug for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("\u{20ac}")?;
            }
        }
    }
    let text = debug_text(&Endless);
    assert!((MAX_FAILURE_BYTES - 2..=MAX_FAILURE_BYTES).contains(&text.len()), "{}", text.len());
}

/// A `Debug` that ignores the error must not fill the memory meanwhile.
#[test]
fn a_debug_that_does_not_listen_takes_no_more_than_is_kept() {
    struct Deaf;
    impl fmt::Debug for Deaf {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..1000 {
                let _ = f.write_str(&"x".repeat(1 << 16));
            }
            Ok(())
        }
    }
    let text = debug_text(&Deaf);
    assert_eq!(text.len(), MAX_FAILURE_BYTES);
    assert!(text.capacity() < 1 << 17, "{} bytes for {}", text.capacity(), text.len());
}

#[test]
fn a_panicking_debug_is_a_text() {
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no {}", "Debug")
        }
    }
    assert_eq!(debug_text(&Panics), "(its Debug panicked: no Debug)");
}

#[test]
fn panics_with_every_kind_of_payload_have_a_text() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }
    let text = |payload: Box<dyn Any + Send>| panic_text(payload);
    assert_eq!(text(Box::new("str")), "str");
    assert_eq!(text(Box::new("String".to_owned())), "String");
    assert_eq!(text(Box::new(7)), "(a panic without a message)");
    assert_eq!(text(Box::new(Bomb)), "(a panic without a message)");
}

fn shared(output_cap: usize) -> Shared {
    let mut journal = MemoryJournal::new();
    let report = OpenReport::default();
    let recovered = crate::recovery::recover(
        &mut journal,
        report,
        &mut crate::recovery::FoundRunning::default(),
        Instant::now(),
    )
    .unwrap();
    let options = Options { output_cap, sync_deadline: Duration::MAX, max_pending: usize::MAX };
    Shared::new(options, Index::new(), recovered.recovery, BTreeMap::new(), IdShape::default())
}

fn output_of<V: Serialize>(value: &V, cap: usize) -> Output {
    match launch_succeeded(value, &shared(cap)) {
        Event::Succeeded { by: SuccessBy::Attempt, output } => output,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_output_is_kept_up_to_its_cap() {
    let text = "x".repeat(200);
    assert!(matches!(output_of(&text, 202), Output::Kept(bytes) if bytes.len() == 202));
    let over = Output::NotKept(NotKept::TooLarge { size: 202 });
    assert_eq!(output_of(&text, 201), over);
    assert_eq!(output_of(&(), 0), Output::NotKept(NotKept::TooLarge { size: 1 }));
}

#[test]
fn an_output_that_does_not_serialize_is_named() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("\u{20ac}".repeat(5000)))
        }
    }
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("no Serialize")
        }
    }
    match output_of(&Fails, 100) {
        Output::NotKept(NotKept::NotSerializable(text)) => {
            assert!((4094..=MAX_FAILURE_BYTES).contains(&text.len()), "{}", text.len());
        }
        other => panic!("{other:?}"),
    }
    let panicked = NotKept::NotSerializable("its Serialize panicked: no Serialize".into());
    assert_eq!(output_of(&Panics, 100), Output::NotKept(panicked));
}

/// The future, and all it holds, is gone before the attempt counts as ended.
#[tokio::test]
async fn the_future_is_dropped_before_its_end_is_told() {
    thread_local!(static DROPPED: StdCell<bool> = const { StdCell::new(false) });
    struct Held;
    impl Drop for Held {
        fn drop(&mut self) {
            DROPPED.set(true);
            panic!("a Drop that panics");
        }
    }
    let held = Held;
    let mut first = true;
    let future = poll_fn(move |_| {
        let _held = &held;
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(Ok::<(), ()>(())) }
    });
    let control = Control::default();
    let mut supervised = pin!(supervise(future, &control, Limits::default()));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(supervised.as_mut().poll(&mut context).is_pending());
    assert!(!DROPPED.get());
    assert_eq!(supervised.as_mut().poll(&mut context), Poll::Ready(Outcome::Succeeded(())));
    assert!(DROPPED.get());
}

#[tokio::test]
async fn a_cancel_before_the_first_poll_never_polls() {
    let control = Control::default();
    control.cancel("first".into());
    control.cancel("second".into());
    let future = poll_fn(|_| -> Poll<Result<(), ()>> { panic!("polled") });
    let outcome = supervise(future, &control, Limits::default()).await;
    assert_eq!(outcome, Outcome::Cancelled("first".into()), "the first reason stays");
}

#[tokio::test]
async fn who_returns_in_the_poll_that_would_cancel_it_has_ended_by_itself() {
    let control = Control::default();
    let mut supervised = pin!(supervise(
        poll_fn({
            let mut polls = 0;
            move |_| {
                polls += 1;
                if polls == 2 { Poll::Ready(Ok::<u8, ()>(7)) } else { Poll::Pending }
            }
        }),
        &control,
        Limits::default(),
    ));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert!(supervised.as_mut().poll(&mut context).is_pending());
    control.cancel("late".into());
    assert_eq!(supervised.as_mut().poll(&mut context), Poll::Ready(Outcome::Succeeded(7)));
}
