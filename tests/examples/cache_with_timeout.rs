//! `cache_with_timeout`: pages come over HTTP, once.

use crate::example;
use crate::running::{LONG, Running, ran, recorded};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use taskledger::{Failure, TaskState};

fn cache(ledger: &Path) -> Command {
    let mut command = example("cache_with_timeout");
    command.arg("--ledger").arg(ledger);
    command
}

/// How many readers fared so at a path.
fn fared(said: &[String], path: &str, so: &str) -> usize {
    let fates = said.iter().filter_map(|line| {
        let (readers, fate) = line.strip_prefix(path)?.strip_prefix(": ")?.split_once(" x ")?;
        fate.starts_with(so).then(|| readers.parse::<usize>().unwrap())
    });
    fates.sum()
}

fn asked(said: &[String]) -> usize {
    let number = said.last().unwrap().split(' ').find_map(|word| word.parse().ok());
    number.expect("how often the server was asked")
}

#[test]
fn pages_are_fetched_once_and_stored() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let (status, said) = ran(&mut cache(&ledger));
    assert_eq!(status, Some(1), "one is missing: {said:#?}");
    for path in ["/index", "/news", "/flaky"] {
        assert_eq!(fared(&said, path, "fetched"), 1, "{said:#?}");
        assert_eq!(fared(&said, path, ""), 10, "{said:#?}");
        assert_eq!(
            fared(&said, path, "fetched")
                + fared(&said, path, "joined")
                + fared(&said, path, "stored"),
            10
        );
    }
    assert_eq!(fared(&said, "/index", "fetched \"the page /index\""), 1);
    assert!(fared(&said, "/missing", "the server says 404") >= 1, "{said:#?}");
    assert_eq!(fared(&said, "/missing", ""), 10);
    // Once each, and the flaky one twice; who was late has asked for the missing one again.
    assert!((5..=14).contains(&asked(&said)), "{said:#?}");
    let of = recorded(&ledger);
    assert_eq!(of["/flaky"].attempt().get(), 2);
    assert!(matches!(&of["/missing"].failure, Some(Failure::Error(why)) if why.contains("404")));

    // The next process has them; what failed it asks for again.
    let (status, said) = ran(&mut cache(&ledger));
    assert_eq!(status, Some(1));
    for path in ["/index", "/news", "/flaky"] {
        assert_eq!(fared(&said, path, "stored"), 10, "{said:#?}");
    }
    assert!((1..=10).contains(&asked(&said)), "{said:#?}");
}

#[test]
fn the_limit_ends_the_fetch_and_all_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let (status, said) = ran(cache(&ledger).args(["--limit", "1", "--readers", "4", "/stuck"]));
    assert_eq!(status, Some(1));
    assert_eq!(fared(&said, "/stuck", ""), 4, "{said:#?}");
    let of = &recorded(&ledger)["/stuck"];
    assert_eq!((of.state(), &of.failure), (TaskState::Failed, &Some(Failure::TimedOut)));
}

/// The next connection, when all of its request has come.
fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    (stream, String::from_utf8(request).unwrap())
}

#[test]
fn a_fetch_that_a_kill_cuts_off_is_told_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = ["--origin", &address, "--readers", "8", "/page"];

    let killed = Running::start(cache(&ledger).args(options));
    let (_unanswered, request) = accept(&listener);
    let expected = format!("GET /page HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert_eq!(request, expected);
    killed.kill();

    let again = Running::start(cache(&ledger).args(options));
    let (mut stream, request) = accept(&listener);
    assert_eq!(request, expected);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
    drop(stream);
    let (status, said) = again.ends();
    assert!(status.success(), "{said:#?}");
    assert_eq!(said[0], "/page: its fetch was cut off when the last process died");
    assert_eq!(fared(&said, "/page", "fetched \"hello\""), 1);
    assert_eq!(fared(&said, "/page", ""), 8);

    // Now it is stored: nobody is asked, whoever else has been.
    let (status, said) = ran(cache(&ledger).args(options));
    assert_eq!((status, &*said), (Some(0), &["/page: 8 x stored \"hello\"".to_owned()][..]));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}
