//! Crawls the documentation of this crate, from disk, and goes on where it was killed.
//!
//! ```sh
//! cargo doc --no-deps                                  # makes what is crawled (optional)
//! cargo run --example crawl -- --kill-after 50         # dies by SIGKILL
//! cargo run --example crawl                            # goes on; ctrl-c is as good
//! ```
//!
//! What runs within what, recorded with its parent; what has no id of its own stands in brackets:
//!
//! ```text
//!  crawl
//!  +-- crawl: pages
//!  |   +-- (runners of the queue)
//!  |   +-- taskledger/index.html          one operation of the queue for each page
//!  |   +-- taskledger/struct.Ledger.html
//!  |   +-- (the threads that read them)
//!  +-- crawl: sums
//!      +-- crawl: sum of taskledger       a task for each directory
//! ```
//!
//! A page is read, and the pages that it links to are put into the queue, before it is recorded as
//! succeeded: so a kill at any moment loses no page. What was being read then has crashed, and is put
//! into the queue again; what has succeeded is never read again; and the scopes, which have crashed as
//! well, are launched again under the same ids and find their children done.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, Weak};
use taskledger::{
    AttemptError, Context, Crashed, EnqueueError, Event, Ledger, Queue, QueueError, Scope,
    TaskState, Transitions,
};
use tokio::task::JoinSet;

const USAGE: &str = "usage: crawl [--ledger DIR] [--runners N] [--kill-after N] [DIR]

  DIR              where the pages are (default: target/doc; if that is not there, a small tree is made)
  --ledger DIR     where it is remembered what was crawled (default: target/crawl/ledger)
  --runners N      pages at a time (default: 4)
  --kill-after N   die by SIGKILL when so many pages have been recorded

Exit status: 0 all is crawled, 1 some pages could not be read, 2 it could not work.";

const CRAWL: &str = "crawl";
const PAGES: &str = "crawl: pages";
const SUMS: &str = "crawl: sums";

/// Broken links that are named.
const NAMED: usize = 20;

type AnyError = Box<dyn Error + Send + Sync>;
type Log = Ledger<String, Found>;
type Within = Scope<String, Found>;

/// What was found on a page, or on several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Found {
    pages: u64,
    /// To pages of the same tree.
    links: u64,
    /// Those of them that lead nowhere.
    broken: u64,
    /// The first of those, with their pages.
    such_as: Vec<String>,
}

impl Found {
    fn add(mut self, other: Self) -> Self {
        self.pages += other.pages;
        self.links += other.links;
        self.broken += other.broken;
        self.such_as.extend(other.such_as);
        self.such_as.truncate(NAMED);
        self
    }
}

/// What the queue keeps of a page that is to be read. Its id says which one.
#[derive(Debug, Serialize, Deserialize)]
struct Read {
    /// The page on which it was found.
    linked_from: String,
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
            eprintln!("crawl: {wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("crawl: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all is crawled.
async fn run(options: Options) -> Result<bool, AnyError> {
    let root = options.site()?;
    let ledger: Log = Ledger::open(&options.ledger).await?;
    remember_root(&ledger, &root).await?;
    report_recovery(&ledger);
    // Reports what is recorded, until the crawl has ended: which is recorded after all its children.
    let above = ledger.scope();
    let reporter = above.spawn(report(ledger.watch(), options.kill_after))?;
    let (pages, runners) = (Arc::new(root), options.runners);
    let crawled =
        above.task(CRAWL.to_owned()).scope(move |scope| crawl(scope, pages, runners)).await;
    let found = match crawled {
        Ok(found) => {
            drop(reporter.await);
            Some(found)
        }
        Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
            println!("it was crawled before");
            ledger.output(CRAWL).await?
        }
        Err(AttemptError::Failed(why)) => {
            drop(reporter.await);
            println!("not crawled: {why}");
            None
        }
        Err(other) => return Err(other.to_string().into()),
    };
    above.end().await;
    if let Some(Found { pages, links, broken, such_as }) = &found {
        println!("{pages} pages, {links} links, {broken} of them broken");
        for broken in such_as {
            println!("  broken: {broken}");
        }
    }
    ledger.close().await?;
    Ok(found.is_some())
}

fn report_recovery(ledger: &Log) {
    let found = ledger.recovery();
    let (done, waiting) = (found.count(TaskState::Succeeded), found.count(TaskState::Queued));
    if done + waiting > 0 {
        println!("found {done} succeeded and {waiting} queued");
    }
    let trees = found.crashed_trees::<String>();
    if !trees.is_empty() {
        println!("crashed:");
    }
    trees.iter().for_each(|tree| print_tree(tree, 1));
}

fn print_tree(tree: &Crashed<String>, depth: usize) {
    let id = tree.id.as_ref().map_or("?", String::as_str);
    println!("{}{id}", "  ".repeat(depth));
    tree.children.iter().for_each(|child| print_tree(child, depth + 1));
}

/// The whole crawl: its children are the steps.
async fn crawl(scope: Within, root: Arc<PathBuf>, runners: usize) -> Result<Found, String> {
    let pages =
        scope.task(PAGES.to_owned()).scope(move |scope| crawl_pages(scope, root, runners)).await;
    done_before(pages)?;
    let sums = scope.task(SUMS.to_owned()).scope(sum_all).await;
    if let Some(sum) = done_before(sums)? {
        return Ok(sum);
    }
    let sum = scope.ledger().output(SUMS).await.map_err(text)?;
    sum.ok_or_else(|| "its sum was not kept".to_owned())
}

/// `None` of a step that a crawl before a crash has done.
fn done_before(
    step: Result<Found, AttemptError<(), Found, String>>,
) -> Result<Option<Found>, String> {
    match step {
        Ok(found) => Ok(Some(found)),
        Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => Ok(None),
        Err(AttemptError::Failed(why)) => Err(why),
        Err(other) => Err(other.to_string()),
    }
}

/// Performs the queue until nothing is left in it: each page puts the pages that it links to into it.
async fn crawl_pages(scope: Within, root: Arc<PathBuf>, runners: usize) -> Result<Found, String> {
    let reader = Arc::new(Reader { root, scope: scope.clone(), queue: OnceLock::new() });
    let queue = scope
        .ledger()
        .queue_builder()
        .within(&scope)
        // A page that waited for room while it is performed might wait for itself.
        .capacity(NonZero::<usize>::MAX)
        .open({
            let reader = Arc::clone(&reader);
            move |page, cx| Arc::clone(&reader).read(page, cx)
        })
        .await
        .map_err(text)?;
    let queue = Arc::new(queue);
    // Set before anything is performed. Weak, since it owns the reader.
    drop(reader.queue.set(Arc::downgrade(&queue)));

    // What crashed is in the queue again; what could not be read gets another chance in each run.
    for id in scope.ledger().failed_tasks().iter() {
        match queue.requeue(&id.map_err(text)?).await {
            // A scope, or a sum.
            Ok(()) | Err(QueueError::Refused { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let start = reader.start()?;
    if reader.is_new(&start) {
        let read = Read { linked_from: "the start".to_owned() };
        queue.enqueue(start, read).await.map_err(text)?;
    }
    queue.start(runners).map_err(text)?;
    if !queue.wait_idle().await {
        return Err("the queue has ended before its time".to_owned());
    }
    let failed = scope.ledger().failed_tasks().iter().filter_map(Result::ok);
    let failed: Vec<String> = failed.filter(|id| is_page(id)).collect();
    if !failed.is_empty() {
        return Err(format!("{} pages could not be read: {}", failed.len(), failed.join(", ")));
    }
    Ok(Found::default())
}

/// Reads pages, each as an operation of the queue.
struct Reader {
    root: Arc<PathBuf>,
    scope: Within,
    queue: OnceLock<Weak<Queue<String, Found, Read>>>,
}

impl Reader {
    /// The page at which it begins.
    fn start(&self) -> Result<String, String> {
        let starts = ["taskledger/index.html", "index.html"];
        let start = starts.into_iter().find(|page| self.root.join(page).exists());
        let start = start.ok_or_else(|| format!("{} has no index.html", self.root.display()))?;
        Ok(start.to_owned())
    }

    fn is_new(&self, page: &str) -> bool {
        self.scope.ledger().query_task_state_quick(page) == TaskState::NotFound
    }

    async fn read(self: Arc<Self>, read: Read, cx: Context<String>) -> Result<Found, String> {
        let (root, page) = (Arc::clone(&self.root), cx.id().clone());
        // Files block. It is a part of the scope, and what it reads is small.
        let looking = self.scope.spawn_blocking(move |_| look(&root, &page)).map_err(text)?;
        let looked = looking.await.finished().ok_or("it was not read to its end")?;
        let (found, pages) = looked.map_err(|error| {
            let gone = error.kind() == io::ErrorKind::NotFound;
            let why = if gone { "gone".to_owned() } else { error.to_string() };
            format!("linked from {}: {why}", read.linked_from)
        })?;
        let queue = self.queue.get().and_then(Weak::upgrade).ok_or("the crawl is over")?;
        let next = pages.into_iter().filter(|page| self.is_new(page));
        // In their order, and at the same time, so that they share a sync.
        let enqueuing = next.map(|next| queue.enqueue(next, Read { linked_from: cx.id().clone() }));
        // Only when all of them are in the queue has this page succeeded.
        for enqueued in join_all(enqueuing).await {
            match enqueued {
                // Refused: another page links to it as well, and was faster.
                Ok(_) | Err(EnqueueError::Refused { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(found)
    }
}

/// Reads a page: what was found, and the pages that it links to.
fn look(root: &Path, page: &str) -> io::Result<(Found, BTreeSet<String>)> {
    let html = std::fs::read(root.join(page))?;
    let html = String::from_utf8_lossy(&html);
    let directory = Path::new(page).parent().unwrap_or_else(|| Path::new(""));
    let mut found = Found { pages: 1, ..Found::default() };
    let mut pages = BTreeSet::new();
    for link in links(&html) {
        let Some(target) = resolve(directory, link) else { continue };
        found.links += 1;
        if root.join(&target).is_dir() || !is_page(&target) {
            continue;
        }
        if root.join(&target).exists() {
            pages.insert(target);
        } else {
            found.broken += 1;
            found.such_as.push(format!("{target}, on {page}"));
        }
    }
    found.such_as.truncate(NAMED);
    Ok((found, pages))
}

/// The values of all `href` attributes. Enough for pages that a program has written.
fn links(html: &str) -> impl Iterator<Item = &str> {
    html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// The file of a link, relative to the root; `None` if it is none of the tree.
fn resolve(directory: &Path, link: &str) -> Option<String> {
    let link = link.split(['#', '?']).next().filter(|link| !link.is_empty())?;
    if link.contains(':') || link.starts_with('/') {
        return None;
    }
    let mut target = PathBuf::new();
    for part in directory.join(link).components() {
        match part {
            Component::Normal(part) => target.push(part),
            Component::ParentDir => target.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    target.to_str().map(str::to_owned)
}

fn is_page(id: &str) -> bool {
    id.ends_with(".html")
}

/// Adds up what was found, by directory, each a task of its own.
async fn sum_all(scope: Within) -> Result<Found, String> {
    let mut directories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in scope.ledger().succeeded_tasks().iter() {
        let id = id.map_err(text)?;
        if is_page(&id) {
            let directory = id.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
            directories.entry(directory).or_default().push(id);
        }
    }
    let mut summing = JoinSet::new();
    for (directory, pages) in directories {
        let scope = scope.clone();
        let id = format!("crawl: sum of {}", if directory.is_empty() { "." } else { &directory });
        summing.spawn(async move {
            let (ledger, pages) = (scope.ledger().clone(), Arc::new(pages));
            let sum = scope.task(id).run(move |_| sum(ledger.clone(), Arc::clone(&pages)));
            sum.await.map_err(text)?.value.ok_or_else(|| "a sum was not kept".to_owned())
        });
    }
    let mut all = Found::default();
    while let Some(sum) = summing.join_next().await {
        all = all.add(sum.map_err(text)??);
    }
    all.such_as.sort();
    Ok(all)
}

async fn sum(ledger: Log, pages: Arc<Vec<String>>) -> Result<Found, String> {
    let mut sum = Found::default();
    for page in pages.iter() {
        sum = sum.add(ledger.output(page).await.map_err(text)?.unwrap_or_default());
    }
    Ok(sum)
}

/// Says what is recorded, until the crawl has ended.
async fn report(mut transitions: Transitions<String>, kill_after: Option<u64>) {
    let mut pages = 0;
    while let Some(transition) = transitions.next().await {
        let transition = match transition {
            Ok(transition) => transition,
            Err(lagged) => {
                println!("{lagged}");
                continue;
            }
        };
        let Ok(id) = transition.id() else { continue };
        let has_succeeded = matches!(transition.event, Event::Succeeded { .. });
        if has_succeeded && is_page(&id) {
            pages += 1;
            println!("recorded {id}");
        }
        if let Event::Failed { failure } = &transition.event {
            println!("{id} has failed: {failure}");
        }
        if id == CRAWL && (has_succeeded || matches!(transition.event, Event::Failed { .. })) {
            return;
        }
        if kill_after == Some(pages) {
            // No unwinding, no drop, no flush.
            let own = rustix::process::getpid();
            let killed = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            println!("it does not die: {killed:?}");
        }
    }
}

/// The ids are relative paths, so a ledger is about one tree.
async fn remember_root(ledger: &Log, root: &Path) -> Result<(), AnyError> {
    let root = root.as_os_str().as_encoded_bytes();
    match ledger.metadata().get("root") {
        Some(known) if known == root => Ok(()),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(format!("this ledger is about {other}; give another one with --ledger").into())
        }
        None => Ok(ledger.set_metadata("root", Some(root.to_vec())).await?),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

struct Options {
    root: Option<PathBuf>,
    target: PathBuf,
    ledger: PathBuf,
    runners: usize,
    kill_after: Option<u64>,
}

impl Options {
    /// `None` when help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        // Set by `cargo run`, whatever the current directory is.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let target = here.join("target");
        let ledger = target.join("crawl").join("ledger");
        let mut options = Self { root: None, target, ledger, runners: 4, kill_after: None };
        while let Some(arg) = args.next() {
            let named = arg.to_string_lossy();
            let mut value = |what| args.next().ok_or_else(|| format!("{named} needs {what}"));
            let number = |value: OsString| {
                let number: Option<usize> = value.to_str().and_then(|value| value.parse().ok());
                let number = number.filter(|number| *number > 0);
                number.ok_or_else(|| format!("{named} needs a number from 1"))
            };
            match arg.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--ledger") => options.ledger = value("a DIR")?.into(),
                Some("--runners") => options.runners = number(value("a number")?)?,
                Some("--kill-after") => {
                    options.kill_after = Some(number(value("a number")?)? as u64);
                }
                Some(option) if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                _ if options.root.is_some() => return Err("more than one DIR".to_owned()),
                _ => options.root = Some(PathBuf::from(arg)),
            }
        }
        Ok(Some(options))
    }

    /// Where the pages are; without documentation, some that are made for it.
    fn site(&self) -> io::Result<PathBuf> {
        if let Some(root) = &self.root {
            return root.canonicalize();
        }
        let documentation = self.target.join("doc");
        if documentation.join("taskledger").join("index.html").exists() {
            return documentation.canonicalize();
        }
        let site = self.ledger.with_extension("site");
        make_site(&site)?;
        println!("there is no target/doc, so {} is crawled", site.display());
        site.canonicalize()
    }
}

/// A small tree: each page links to two others, to its index, and now and then to nothing.
fn make_site(root: &Path) -> io::Result<()> {
    const PAGES: usize = 120;
    for number in 0..PAGES {
        let directory = root.join(format!("part-{}", number % 5));
        std::fs::create_dir_all(&directory)?;
        let mut page = String::from("<a href=\"../index.html#top\">up</a>\n");
        for next in [2 * number + 1, 2 * number + 2] {
            if next < PAGES {
                page += &format!("<a href=\"../part-{}/page-{next}.html\">{next}</a>\n", next % 5);
            }
        }
        if number % 50 == 7 {
            page += "<a href=\"nowhere.html\">nowhere</a> <a href=\"https://example.org/\">out</a>";
        }
        std::fs::write(directory.join(format!("page-{number}.html")), page)?;
    }
    std::fs::write(root.join("index.html"), "<a href=\"part-0/page-0.html\">in</a>\n")
}
