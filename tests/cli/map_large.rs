//! `taskledger map` with very many lines.

use crate::map::{map, scratch};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use taskledger::{ByteId, Ledger};

/// The most memory that it has had, in KiB; read until it has ended.
fn watched(child: &Child) -> std::thread::JoinHandle<u64> {
    let status = format!("/proc/{}/status", child.id());
    std::thread::spawn(move || {
        let mut most = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM")) else { break };
            most = most.max(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    })
}

/// `yes | head -10000000 | taskledger map`: the input is never kept.
#[test]
fn ten_million_equal_lines_take_no_memory() {
    let (_dir, ledger) = scratch();
    let mut yes = Command::new("sh")
        .args(["-c", "yes | head -10000000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = map(&ledger, &["--", "echo"]);
    command.stdin(yes.stdout.take().unwrap());
    let child = command.spawn().unwrap();
    let most = watched(&child);
    let done = child.wait_with_output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), &done.stdout[..]), (Some(0), &b"y\n"[..]), "{err}");
    assert!(err.contains("1 succeeded, 0 failed, 0 skipped, 9999999 duplicates"), "{err}");
    yes.wait().unwrap();
    let most = most.join().unwrap();
    assert!(most < 100 * 1024, "{most} KiB");
}

/// What has succeeded is not even looked up on disk.
#[test]
fn a_million_ids_that_have_succeeded_are_skipped() {
    let (_dir, ledger) = scratch();
    let ids = || (0..1_000_000_u32).map(|id| ByteId::from(id.to_string().into_bytes()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = Ledger::<ByteId, ()>::builder().open(&ledger).await.unwrap();
        let all: Vec<ByteId> = ids().collect();
        for some in all.chunks(50_000) {
            for marked in ledger.mark_succeeded_all(some.to_vec()).await {
                marked.unwrap();
            }
        }
        ledger.close().await.unwrap();
    });
    let input: String = (0..1_000_001).map(|id| format!("{id}\n")).collect();
    let run = map(&ledger, &["--", "echo"]).spawn().unwrap();
    let done = crate::map::feed(run, input.as_bytes()).expect(0);
    assert_eq!(done.out, "1000000\n");
    assert!(done.err.contains("1 succeeded, 0 failed, 1000000 skipped"), "{done:?}");
}
