//! `echo_server`: everybody is served, a bad client costs the others nothing, and a shutdown leaves nobody.

use crate::example;
use crate::running::{LONG, Running, recorded, records};
use rustix::process::Signal;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;
use taskledger::{Event, Failure, TaskState};

/// It, and its address.
fn start(ledger: &Path, options: &[&str]) -> (Running, String) {
    let mut command = example("echo_server");
    let mut server = Running::start(command.arg("--ledger").arg(ledger).args(options));
    let address = server.says("listening on ");
    (server, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Says this, and hears it.
fn says(stream: &mut TcpStream, this: &str) {
    stream.write_all(this.as_bytes()).unwrap();
    let mut heard = vec![0; this.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, this.as_bytes());
}

/// What is left to be heard.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

/// Talks, and never listens, until it is cut off. Tells when the server reads no more, since nobody takes
/// what it sends back.
fn talk(mut stream: TcpStream, stuck: &mpsc::Sender<()>) {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let words = [7; 64 * 1024];
    loop {
        match stream.write(&words) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stuck.send(()).ok();
            }
            Err(_) => return,
        }
    }
}

/// Forty clients come and go, one breaks off, one never listens, and five are there at the shutdown.
fn drive(ledger: &Path, options: &[&str]) -> Vec<String> {
    let (server, address) = start(ledger, options);
    std::thread::scope(|threads| {
        for number in 0..40 {
            let address = &address;
            threads.spawn(move || {
                let mut stream = connect(address);
                for line in 0..3 {
                    says(&mut stream, &format!("client {number:02}, line {line}\n"));
                }
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(rest(&mut stream), b"");
            });
        }
    });
    // Closed with something unread, a connection is reset.
    let mut broken = connect(&address);
    broken.write_all(b"!").unwrap();
    broken.peek(&mut [0]).unwrap();
    drop(broken);

    let mut connected: Vec<TcpStream> = (0..5).map(|_| connect(&address)).collect();
    for stream in &mut connected {
        says(stream, "hello\n");
    }
    let (stuck, is_stuck) = mpsc::channel();
    let deaf = connect(&address);
    let talks = std::thread::spawn(move || talk(deaf, &stuck));
    is_stuck.recv_timeout(LONG).unwrap();
    // It costs the others nothing.
    for stream in &mut connected {
        says(stream, "still here\n");
    }

    server.signal(Signal::TERM);
    for stream in &mut connected {
        assert_eq!(rest(stream), b"");
    }
    talks.join().unwrap();
    let (status, said) = server.ends();
    assert!(status.success(), "{said:#?}");
    assert_eq!(TcpStream::connect(&address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    said
}

/// Forty times three lines, and five times what those said who were there at the end.
const BYTES: usize = 40 * 3 * "client 00, line 0\n".len() + 5 * "hello\nstill here\n".len();

#[test]
fn a_task_for_each_connection() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let said = drive(&ledger, &["--grace", "300", "--most", "16"]);
    let sums = format!("server 1: 47 connections, {BYTES} bytes, 1 failed, 1 cut off");
    assert_eq!(said.last(), Some(&sums), "{said:#?}");

    let of = recorded(&ledger);
    assert_eq!(of.len(), 48);
    let mut ended = [0; 3];
    for (id, details) in of.iter().filter(|(id, _)| *id != "server 1") {
        let parent = details.parent.as_ref().unwrap();
        assert_eq!(parent.decode::<String>().unwrap(), "server 1", "{id}");
        match &details.failure {
            None => ended[0] += 1,
            Some(Failure::Error(_)) => ended[1] += 1,
            Some(Failure::Cancelled(why)) => {
                assert_eq!(why, "its scope has ended");
                ended[2] += 1;
            }
            Some(other) => panic!("{id}: {other}"),
        }
    }
    assert_eq!(ended, [45, 1, 1]);
    // Nobody outlives the server, on record either.
    assert_eq!(of["server 1"].state(), TaskState::Succeeded);
    let (last, event) = records(&ledger).pop().unwrap();
    assert!(last == "server 1" && matches!(event, Event::Succeeded { .. }), "{last}: {event:?}");
}

#[test]
fn one_task_for_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let said = drive(&ledger, &["--grace", "300", "--most", "16", "--one-task"]);
    let sums = format!("server 1: 47 connections, {BYTES} bytes, 1 failed, 1 cut off");
    assert_eq!(said.last(), Some(&sums), "{said:#?}");
    let of = recorded(&ledger);
    assert_eq!(of.len(), 1);
    assert_eq!(of["server 1"].state(), TaskState::Succeeded);
}

#[test]
fn who_was_connected_when_it_was_killed_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let (server, address) = start(&ledger, &[]);
    let mut connected: Vec<TcpStream> = (0..3).map(|_| connect(&address)).collect();
    for stream in &mut connected {
        says(stream, "hello\n");
    }
    let mut gone = connected.pop().unwrap();
    gone.shutdown(Shutdown::Write).unwrap();
    rest(&mut gone);
    server.kill();

    // The end of one that has just gone may be recorded or not.
    let (server, _) = start(&ledger, &[]);
    server.signal(Signal::INT);
    let (status, said) = server.ends();
    assert!(status.success(), "{said:#?}");
    let with = said[0].strip_prefix("server 1 died, with ").expect(&said[0]);
    assert!(["2 connected", "3 connected"].contains(&with), "{said:#?}");
    assert_eq!(said.last().unwrap(), "server 2: 0 connections, 0 bytes, 0 failed, 0 cut off");
    let of = recorded(&ledger);
    assert_eq!(of["server 1"].failure, Some(Failure::Crashed));
    assert_eq!(of["server 1/1"].failure, Some(Failure::Crashed));
}
