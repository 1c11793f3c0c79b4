//! The line: one handles, the others wait.

use super::try_orders;
use crate::line::{AcquireOutcome, Line, Token, Waited};
use shuttle::future::block_on;
use shuttle::rand::Rng as _;
use shuttle::thread;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

/// Handles the problem, alone, and leaves it as solved, as failed, or without a word.
fn handle(token: Token, handling: &AtomicU64) {
    assert_eq!(handling.fetch_add(1, Ordering::SeqCst), 0, "two handle it");
    thread::yield_now();
    handling.fetch_sub(1, Ordering::SeqCst);
    match shuttle::rand::thread_rng().gen_range(0..4) {
        0 => token.solve(),
        1 => token.fail("it does not go"),
        _ => drop(token),
    }
}

/// Everybody handles it or is told; some begin to wait and give up.
fn scene_of_a_line() {
    let (line, handling) = (Line::new(), Arc::new(AtomicU64::new(0)));
    let mut players = Vec::new();
    for gives_up in [false, false, true, false] {
        let (line, handling) = (line.clone(), Arc::clone(&handling));
        players.push(thread::spawn(move || match line.try_acquire_token() {
            AcquireOutcome::Success(token) => handle(token, &handling),
            AcquireOutcome::Failure(mut wait) if gives_up => {
                let mut context = Context::from_waker(Waker::noop());
                if let std::task::Poll::Ready(Waited::TakeOver(token)) =
                    Pin::new(&mut wait).poll(&mut context)
                {
                    handle(token, &handling);
                }
                thread::yield_now();
            }
            AcquireOutcome::Failure(wait) => match block_on(wait) {
                Waited::Solved | Waited::Failed(_) => {}
                Waited::TakeOver(token) => handle(token, &handling),
            },
        }));
    }
    players.into_iter().for_each(|player| player.join().unwrap());
    let free = line.try_acquire_token();
    assert!(matches!(free, AcquireOutcome::Success(_)), "nobody has it any more");
}

#[test]
fn one_handles_and_nobody_waits_for_ever() {
    try_orders("one_handles_and_nobody_waits_for_ever", scene_of_a_line);
}
