//! The tracer: a shared object, compiled here, that a child is started with. See `tracer.c`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One thing that a child did to its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Open {
        handle: u64,
        cut: bool,
        path: PathBuf,
    },
    Write {
        handle: u64,
        offset: u64,
        data: Vec<u8>,
    },
    Sync {
        handle: u64,
    },
    Range {
        handle: u64,
        offset: u64,
        length: u64,
    },
    Length {
        handle: u64,
        length: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Ack(String),
    /// A sync that failed; a length of 0 is all of it.
    Lost {
        handle: u64,
        offset: u64,
        length: u64,
    },
}

/// The compiled tracer; `None` where it cannot be compiled.
pub fn tracer() -> Option<&'static Path> {
    static COMPILED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let place = crate::places::beside();
        let source = tempfile::Builder::new().suffix(".c").tempfile_in(&place).unwrap();
        std::fs::write(source.path(), include_str!("tracer.c")).unwrap();
        let object = source.path().with_extension("so");
        let target = place.join("taskledger-tracer.so");
        let compiled = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-o"])
            .arg(&object)
            .arg(source.path())
            .args(["-ldl", "-lpthread"])
            .status();
        // Another process of these tests may be using the one that is there.
        compiled.is_ok_and(|status| status.success()).then(|| {
            std::fs::rename(object, &target).unwrap();
            target
        })
    });
    compiled.as_deref()
}

/// Why nothing is tried where there is no tracer.
pub const NO_TRACER: &str = "there is no working C compiler, `cc`, for the tracer";

/// Makes `command` do what other variables tell the tracer, below `dir`.
pub fn preload(command: &mut Command, tracer: &Path, dir: &Path) {
    command.env("LD_PRELOAD", tracer).env("TL_TRACE_DIR", dir.canonicalize().unwrap());
}

/// Makes `command` trace what it does below `dir`, into `trace`.
pub fn traced(command: &mut Command, tracer: &Path, dir: &Path, trace: &Path) {
    preload(command, tracer, dir);
    command.env("TL_TRACE_FILE", trace);
}

/// The handles of the second process that is traced begin here, and so on.
pub const HANDLES: u64 = 1 << 32;

/// Makes `command` die by SIGKILL before its `at`th change of a file below `dir`, from 1.
pub fn killed_at(command: &mut Command, tracer: &Path, dir: &Path, at: u64) {
    preload(command, tracer, dir);
    command.env("TL_KILL_AT", at.to_string());
}

/// Reads a trace; paths are relative to `dir`, the handles begin after `handles`. A last record that
/// is cut off is dropped.
pub fn read(trace: &Path, dir: &Path, handles: u64) -> Vec<Call> {
    let bytes = std::fs::read(trace).unwrap();
    let dir = dir.canonicalize().unwrap();
    let mut rest = bytes.as_slice();
    let mut calls = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<40>() {
        let word = |at: usize| u64::from_le_bytes(head[at * 8..at * 8 + 8].try_into().unwrap());
        let Some((text, after)) = after.split_at_checked(word(4) as usize) else { break };
        rest = after;
        calls.push(call(word(0), handles + word(1), word(2), word(3), text, &dir));
    }
    calls
}

fn call(op: u64, handle: u64, a: u64, b: u64, text: &[u8], dir: &Path) -> Call {
    let path = |bytes: &[u8]| {
        let path = Path::new(std::str::from_utf8(bytes).unwrap());
        path.strip_prefix(dir).unwrap().to_owned()
    };
    let two = || {
        let (from, to) = text.split_at(a as usize);
        (path(from), path(to))
    };
    match op {
        1 => Call::Open { handle, cut: a == 1, path: path(text) },
        2 => Call::Write { handle, offset: a, data: text.to_vec() },
        3 => Call::Sync { handle },
        4 => Call::Range { handle, offset: a, length: b },
        5 => Call::Length { handle, length: a },
        6 => {
            let (from, to) = two();
            Call::Rename { from, to }
        }
        7 => Call::Unlink { path: path(text) },
        8 => Call::Mkdir { path: path(text) },
        9 => {
            let (from, to) = two();
            Call::Link { from, to }
        }
        10 => Call::Ack(String::from_utf8(text.to_vec()).unwrap().trim_end().to_owned()),
        11 => Call::Lost { handle, offset: a, length: b },
        op => panic!("the trace has an unknown op {op}"),
    }
}
