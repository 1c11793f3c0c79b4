//! A cache before a server: look it up, or fetch it and store it, all within one limit of time.
//!
//! These are three steps that depend on each other, so they belong into one task: ask the cache, on a
//! miss ask the server, and put the answer into the cache. Done just like that, everybody who asks
//! meanwhile fetches as well; and a limit around the handle of a task ends the wait, but not the fetch.
//! Here the ledger is the cache: one run for each key does the three steps for all who ask meanwhile,
//! its deadline drops the fetch itself, and what was fetched is there after a restart.
//!
//! ```sh
//! cargo run --example cache_with_timeout                          # fetches four pages
//! cargo run --example cache_with_timeout                          # has them
//! cargo run --example cache_with_timeout -- --limit 2 /stuck      # whose server never answers
//! ```
//!
//! What the ledger remembers: each page, under its path; and of a path that could not be fetched why
//! that was (an error, a timeout, the death of the process), which does not keep the next one who asks
//! from fetching it anew. See `cached_fetch` for the same without the net.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{ClaimKind, Context, Ledger, Retry, RunError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const USAGE: &str = "usage: cache_with_timeout [--ledger DIR] [--limit SECONDS] [--readers N] [--origin ADDR] [PATH...]

  PATH              what is looked up (default: /index /news /flaky /missing; there is /stuck as well)
  --ledger DIR      where the cache is (default: target/cache_with_timeout)
  --limit SECONDS   how long a look-up may take in all (default: 20)
  --readers N       how many look each PATH up at the same time (default: 10)
  --origin ADDR     the server to ask, such as 127.0.0.1:8000 (default: one of its own)

Exit status: 0 all were found, 1 some were not, 2 it could not work.";

/// A page and its head have at most this many bytes; the ledger keeps at most 32 KiB of it.
const MOST: usize = 30 * 1024;

type AnyError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("cache_with_timeout: {wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("cache_with_timeout: {error}");
            ExitCode::from(2)
        }
    }
}

/// Looks everything up; returns whether all of it was found.
async fn run(options: Options) -> Result<bool, AnyError> {
    let cache: Ledger<String, String> = Ledger::open(&options.ledger).await?;
    for path in cache.recovery().crashed::<String>() {
        println!("{}: its fetch was cut off when the last process died", path?);
    }
    let asked = Asked::default();
    let origin = match options.origin {
        Some(origin) => origin,
        None => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?;
            tokio::spawn(serve(listener, asked.clone()));
            address
        }
    };
    let mut all_found = true;
    for path in &options.paths {
        let mut readers = JoinSet::new();
        for _ in 0..options.readers {
            let (cache, path) = (cache.clone(), path.clone());
            readers.spawn(async move { look_up(&cache, origin, path, options.limit).await });
        }
        // How each of them fared, and how many did so.
        let mut fared: BTreeMap<String, usize> = BTreeMap::new();
        while let Some(read) = readers.join_next().await {
            let fate = match read? {
                Ok((ClaimKind::Executed, page)) => format!("fetched {page:?}"),
                Ok((ClaimKind::Joined, page)) => format!("joined {page:?}"),
                Ok((_, page)) => format!("stored {page:?}"),
                Err(why) => {
                    all_found = false;
                    why
                }
            };
            *fared.entry(fate).or_default() += 1;
        }
        for (fate, readers) in fared {
            println!("{path}: {readers} x {fate}");
        }
    }
    if options.origin.is_none() {
        println!("the server was asked {} times", asked.0.load(Ordering::Relaxed));
    }
    cache.close().await?;
    Ok(all_found)
}

/// The whole sequence. All of it has to be over at the deadline: the wait for a fetch of somebody else
/// as well as all attempts of our own, and the pauses between them.
async fn look_up(
    cache: &Ledger<String, String>,
    origin: SocketAddr,
    path: String,
    limit: Duration,
) -> Result<(ClaimKind, String), String> {
    let three = NonZero::<u32>::MIN.saturating_add(2);
    let retry = Retry::attempts(three)
        .min_delay(Duration::from_millis(10))
        .when(|error: &FetchError| error.may_pass);
    let looked_up = cache
        .task(path)
        .deadline(Instant::now() + limit)
        .retry(retry)
        .run(move |cx: Context<String>| async move { fetch(origin, cx.id()).await })
        .await;
    match looked_up {
        Ok(claim) => Ok((claim.kind, claim.value.ok_or("it was not kept")?)),
        Err(RunError::Failed(error)) => Err(error.why),
        Err(other) => Err(other.to_string()),
    }
}

/// Why there is no page.
#[derive(Debug)]
struct FetchError {
    why: String,
    /// Whether it is worth another try.
    may_pass: bool,
}

impl FetchError {
    fn new(why: impl Into<String>, may_pass: bool) -> Self {
        Self { why: why.into(), may_pass }
    }
}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string(), true)
    }
}

/// GET, over a connection of its own.
async fn fetch(origin: SocketAddr, path: &str) -> Result<String, FetchError> {
    let mut stream = TcpStream::connect(origin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST as u64 + 1).read_to_end(&mut answer).await?;
    if answer.len() > MOST {
        return Err(FetchError::new("the page is too large", false));
    }
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(&answer) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => {
            return Err(FetchError::new("the answer is cut off", true));
        }
        Err(why) => return Err(FetchError::new(format!("this is no HTTP: {why}"), false)),
    };
    let body = answer.get(head..).unwrap_or_default();
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    // Without a length nobody could tell a page from half of one.
    if length != Some(body.len()) {
        return Err(FetchError::new("the answer is cut off", true));
    }
    match response.code {
        Some(200) => Ok(String::from_utf8_lossy(body).into_owned()),
        code => {
            let code = code.unwrap_or_default();
            Err(FetchError::new(format!("the server says {code}"), code >= 500))
        }
    }
}

/// How often the server was asked for something.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicU32>);

/// The server that is asked if no other is given: an accept loop, and a task for each connection.
async fn serve(listener: TcpListener, asked: Asked) {
    // Dropped with this, it takes its tasks along.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let asked = asked.clone();
        connections.spawn(async move { answer(stream, &asked).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, asked: &Asked) -> io::Result<()> {
    let mut request = Vec::new();
    let path = loop {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MOST {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request) {
            Ok(httparse::Status::Complete(_)) => {
                break parsed.path.unwrap_or_default().to_owned();
            }
            Ok(httparse::Status::Partial) => {}
            Err(_) => return stream.write_all(&response("400 Bad Request", "")).await,
        }
    };
    let number = asked.0.fetch_add(1, Ordering::Relaxed);
    let page = match path.as_str() {
        "/index" | "/news" => response("200 OK", &format!("the page {path}")),
        // Every other time it breaks off.
        "/flaky" if number % 2 == 1 => response("200 OK", "in the end"),
        "/flaky" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nin th".to_vec(),
        "/stuck" => std::future::pending().await,
        _ => response("404 Not Found", ""),
    };
    stream.write_all(&page).await?;
    stream.shutdown().await
}

fn response(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

struct Options {
    ledger: PathBuf,
    limit: Duration,
    readers: usize,
    origin: Option<SocketAddr>,
    paths: Vec<String>,
}

impl Options {
    /// `None` when help is wanted.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        // Set by `cargo run`, whatever the current directory is.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let mut options = Self {
            ledger: here.join("target").join("cache_with_timeout"),
            limit: Duration::from_secs(20),
            readers: 10,
            origin: None,
            paths: Vec::new(),
        };
        let mut args =
            args.map(|arg| arg.into_string().map_err(|arg| format!("not text: {arg:?}")));
        while let Some(arg) = args.next().transpose()? {
            let mut value =
                || args.next().transpose()?.ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "-h" | "--help" => return Ok(None),
                "--ledger" => options.ledger = value()?.into(),
                "--limit" => {
                    let seconds = value()?.parse().ok();
                    let limit = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                    let limit = limit.filter(|limit| Instant::now().checked_add(*limit).is_some());
                    options.limit = limit.ok_or("--limit needs a number of seconds")?;
                }
                "--readers" => {
                    options.readers = value()?.parse().map_err(|_| "--readers needs a number")?;
                }
                "--origin" => {
                    let origin: Option<SocketAddr> = value()?.parse().ok();
                    // An example has no business elsewhere.
                    let origin = origin.filter(|origin| origin.ip().is_loopback());
                    options.origin = Some(origin.ok_or("--origin needs a loopback ADDRESS:PORT")?);
                }
                path if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => {
                    options.paths.push(arg);
                }
                _ => return Err(format!("unknown option, or no path: {arg:?}")),
            }
        }
        if options.paths.is_empty() {
            options.paths = ["/index", "/news", "/flaky", "/missing"].map(String::from).to_vec();
        }
        Ok(Some(options))
    }
}
