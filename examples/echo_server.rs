//! An echo server in two designs: a task for each connection, or one task for all of them.
//!
//! **A task for each connection** (the default): each is a scope within that of the server, recorded under
//! an id of its own. A connection that fails or panics is recorded so, and costs the others nothing. No
//! connection outlives the server: asked to stop, each sends back what it has read and closes; one that
//! does not within the grace, since its client does not read, is cut off and recorded as cancelled.
//! The end of the server is recorded after theirs.
//!
//! **One task** (`--one-task`): the server owns the futures of its connections in a `FuturesUnordered`,
//! which polls those alone that were woken, where a `Vec` of them would be polled whole for each byte.
//! They share one thread at a time, and one record: that of the server, with the sums. A process that
//! is killed takes with it what it knew of them.
//!
//! ```sh
//! cargo run --example echo_server -- --port 7007     # and in another terminal: nc 127.0.0.1 7007
//! ```
//!
//! Ctrl-C (or SIGTERM) shuts it down. What the ledger remembers: each run of the server, and each of
//! its connections, with how much it has echoed or why it failed; after a crash, who was connected.

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use taskledger::{AttemptError, Ended, Failure, Ledger, Retention, Scope, TaskState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

const USAGE: &str =
    "usage: echo_server [--ledger DIR] [--port PORT] [--grace MS] [--most N] [--one-task]

  --ledger DIR   where it is remembered who was served (default: target/echo_server)
  --port PORT    on 127.0.0.1 (default: any that is free)
  --grace MS     how long connections may go on after ctrl-c (default: 1000)
  --most N       connections at a time; more wait (default: 1000)
  --one-task     all connections in one task, instead of each in its own

Exit status: 0 shut down, 2 it could not work.";

/// How long the records of connections are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

type AnyError = Box<dyn Error + Send + Sync>;

type Log = Ledger<String, Served>;

/// What became of a connection, or of all.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Served {
    connections: u64,
    bytes: u64,
    /// Of the connections, those that ended in an error.
    failed: u64,
    /// Those that did not end within the grace.
    cut_off: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("echo_server: {wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_server: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(options: &Options) -> Result<(), AnyError> {
    let ledger: Log = Ledger::open(&options.ledger).await?;
    for server in ledger.recovery().crashed_trees::<String>() {
        println!("{} died, with {} connected", server.id?, server.children.len());
    }
    // Of the successes there it is remembered that they were some, in a few bytes each.
    ledger.prune(&Retention::new().succeeded(KEPT).failed(KEPT)).await?;

    // Before anybody is told that it is there.
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
    println!("listening on {}", listener.local_addr()?);

    // Each open of a ledger has a number of its own.
    let name = format!("server {}", ledger.recovery().epoch());
    let (grace, most) = (options.grace, options.most);
    // One task bounds the end of its connections itself, and needs a little more.
    let task = ledger.task(name.clone()).cancel_grace(2 * grace + Duration::from_secs(1));
    let mut server = if options.one_task {
        task.spawn_scope(move |scope| in_one_task(listener, scope, grace, most)).await?
    } else {
        let name = name.clone();
        task.spawn_scope(move |scope| in_many_tasks(listener, scope, name, grace, most)).await?
    };
    let ended = tokio::select! {
        ended = &mut server => ended,
        _ = interrupt.recv() => shut_down(server).await,
        _ = terminate.recv() => shut_down(server).await,
    };
    let mut served = match ended {
        Ok(served) => served,
        // Asked to stop before it was polled for the first time.
        Err(AttemptError::Cancelled(_)) => Served::default(),
        Err(error) => return Err(error.to_string().into()),
    };
    if !options.one_task {
        served = sum(&ledger, &name).await?;
    }
    let Served { connections, bytes, failed, cut_off } = served;
    println!(
        "{name}: {connections} connections, {bytes} bytes, {failed} failed, {cut_off} cut off"
    );
    ledger.close().await?;
    Ok(())
}

type Server = taskledger::Launched<Served, String>;

/// Asks it to stop, and waits until it has, with all of its connections.
async fn shut_down(server: Server) -> Result<Served, AttemptError<(), Served, String>> {
    println!("shutting down");
    server.cancel("shut down");
    server.await
}

/// Serves one connection, until its client has said all, or the scope is asked to stop.
async fn serve(mut stream: TcpStream, scope: Scope<String, Served>) -> io::Result<Served> {
    let mut served = Served { connections: 1, ..Served::default() };
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::select! {
            // What is there is sent back, also if it is time to stop.
            biased;
            read = stream.read(&mut buffer) => read?,
            () = scope.stopping() => 0,
        };
        let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) else { break };
        stream.write_all(read).await?;
        served.bytes += read.len() as u64;
    }
    stream.shutdown().await?;
    Ok(served)
}

/// Until it is asked to stop, accepts connections, each a scope within its own.
async fn in_many_tasks(
    listener: TcpListener,
    scope: Scope<String, Served>,
    name: String,
    grace: Duration,
    most: usize,
) -> Result<Served, String> {
    let room = Arc::new(Semaphore::new(most));
    let mut served = Served::default();
    loop {
        let accepted = async {
            // Who waits for room waits in the backlog of the listener.
            let place = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok((listener.accept().await?.0, place))
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    not_accepted(&error).await;
                    continue;
                }
            },
            // All that runs within is asked to stop when this returns.
            () = scope.stopping() => return Ok(served),
        };
        served.connections += 1;
        let connection = scope
            .task(format!("{name}/{}", served.connections))
            .cancel_grace(grace)
            .spawn_scope(move |own| async move {
                let _place = place;
                serve(stream, own).await
            });
        // It is left to the scope.
        connection.await.map_err(|error| error.to_string())?.forget();
    }
}

/// The same, with the connections in the server's own task.
async fn in_one_task(
    listener: TcpListener,
    scope: Scope<String, Served>,
    grace: Duration,
    most: usize,
) -> Result<Served, String> {
    let mut served = Served::default();
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < most => match accepted {
                // A part of the scope, so that one that panics does not take this task with it.
                Ok((stream, _)) => connections.push(
                    scope.wrap(serve(stream, scope.clone())).map_err(|error| error.to_string())?,
                ),
                Err(error) => not_accepted(&error).await,
            },
            Some(ended) = connections.next() => served.count(ended),
            () = scope.stopping() => break,
        }
    }
    drop(listener);
    // The connections have heard of it as well.
    let all = async {
        while let Some(ended) = connections.next().await {
            served.count(ended);
        }
    };
    if tokio::time::timeout(grace, all).await.is_err() {
        served.connections += connections.len() as u64;
        served.cut_off += connections.len() as u64;
    }
    Ok(served)
}

/// Too many open files, perhaps, which passes; or a client that has changed its mind.
async fn not_accepted(error: &io::Error) {
    eprintln!("a connection is not accepted: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

impl Served {
    /// Counts a connection that has ended.
    fn count(&mut self, ended: Ended<io::Result<Self>>) {
        self.connections += 1;
        let failed: AnyError = match ended.finished() {
            Some(Ok(served)) => {
                self.bytes += served.bytes;
                return;
            }
            Some(Err(error)) => error.into(),
            None => "it has panicked".into(),
        };
        eprintln!("a connection has failed: {failed}");
        self.failed += 1;
    }
}

/// What the ledger says of the connections of a server.
async fn sum(ledger: &Log, server: &str) -> Result<Served, AnyError> {
    let mut sum = Served::default();
    for id in ledger.all_tasks().iter() {
        let id = id?;
        if !id.strip_prefix(server).is_some_and(|rest| rest.starts_with('/')) {
            continue;
        }
        let Some(details) = ledger.record(&id).await? else { continue };
        sum.connections += 1;
        match (details.state(), details.failure) {
            (TaskState::Succeeded, _) => {
                sum.bytes += ledger.output(&id).await?.map_or(0, |served| served.bytes);
            }
            (_, Some(Failure::Cancelled(_))) => sum.cut_off += 1,
            (_, why) => {
                eprintln!(
                    "{id} has failed: {}",
                    why.map(|why| why.to_string()).unwrap_or_default()
                );
                sum.failed += 1;
            }
        }
    }
    Ok(sum)
}

struct Options {
    ledger: PathBuf,
    port: u16,
    grace: Duration,
    most: usize,
    one_task: bool,
}

impl Options {
    /// `None` when help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        // Set by `cargo run`, whatever the current directory is.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let mut options = Self {
            ledger: here.join("target").join("echo_server"),
            port: 0,
            grace: Duration::from_secs(1),
            most: 1000,
            one_task: false,
        };
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            let number = |value: OsString| {
                let number: Option<u32> = value.to_str().and_then(|value| value.parse().ok());
                number.ok_or_else(|| format!("{arg} needs a number"))
            };
            match arg.as_str() {
                "-h" | "--help" => return Ok(None),
                "--one-task" => options.one_task = true,
                "--ledger" => options.ledger = value()?.into(),
                "--port" => {
                    let port = u16::try_from(number(value()?)?);
                    options.port = port.map_err(|_| "--port needs a port")?;
                }
                "--grace" => options.grace = Duration::from_millis(number(value()?)?.into()),
                "--most" => {
                    let most = usize::try_from(number(value()?)?).ok().filter(|most| *most > 0);
                    options.most = most.ok_or("--most needs a number from 1")?;
                }
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(Some(options))
    }
}
