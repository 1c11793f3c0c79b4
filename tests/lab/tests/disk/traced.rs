//! The tracer knows files by whatever name they are called.

use crate::lab;
use std::path::PathBuf;
use taskledger_lab::tracer::{self, Call};

/// A name that begins at a descriptor was taken for one in `/proc`: nothing that is done by it would be
/// traced, killed or failed, and every harness that stands on the tracer would find nothing.
#[test]
fn names_that_begin_at_a_descriptor_are_followed() {
    let Some(compiled) = tracer::tracer() else {
        return lab::skipped("names that begin at a descriptor", tracer::NO_TRACER);
    };
    let top = lab::scratch();
    let (disk, trace) = (top.path().join("disk"), top.path().join("trace"));
    std::fs::create_dir_all(disk.join("ledger")).unwrap();
    let mut child = lab::child("by descriptor", &disk.join("ledger"));
    tracer::traced(&mut child, compiled, &disk, &trace);
    assert!(child.status().unwrap().success());
    let path = |name: &str| PathBuf::from(name);
    let open = |handle, name: &str, cut| Call::Open { handle, cut, path: path(name) };
    let expected = [
        open(1, "ledger", false),
        open(2, "ledger/a", true),
        Call::Write { handle: 2, offset: 0, data: b"text".to_vec() },
        Call::Rename { from: path("ledger/a"), to: path("ledger/b") },
        Call::Link { from: path("ledger/b"), to: path("ledger/c") },
        Call::Mkdir { path: path("ledger/d") },
        open(3, "ledger/d", false),
        open(4, "ledger/d/e", true),
        Call::Sync { handle: 3 },
        Call::Unlink { path: path("ledger/c") },
        open(5, "beside", true),
        open(6, "ledger", false),
        Call::Sync { handle: 6 },
    ];
    assert_eq!(tracer::read(&trace, &disk, 0), expected);
    let mut killed = lab::child("by descriptor", &disk.join("ledger"));
    std::fs::remove_dir_all(&disk).unwrap();
    std::fs::create_dir_all(disk.join("ledger")).unwrap();
    tracer::killed_at(&mut killed, compiled, &disk, 3);
    assert!(!killed.status().unwrap().success());
    assert!(disk.join("ledger/a").exists() && !disk.join("ledger/b").exists());
}
