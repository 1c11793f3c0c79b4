//! `crawl`: killed in the middle, it goes on, and every page has succeeded once.

use crate::example;
use crate::running::{LONG, Running, ran, recorded, records};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use taskledger::{Event, Failure, TaskState};

const PAGES: usize = 60;

/// A tree of which one page, read early, is a pipe: who reads it waits until somebody has written it.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.root()).unwrap();
        let link = |page: &str| format!("<a href=\"{page}\">there</a>\n");
        let page = |number: usize| match number {
            2 => "0/held.html".to_owned(),
            number => format!("{}/page-{number:02}.html", number % 3),
        };
        let all: String = (0..PAGES).map(|number| link(&page(number))).collect();
        site.write("index.html", &(all + &link("missing.html") + &link("https://example.org/")));
        for number in (0..PAGES).filter(|number| *number != 2) {
            let next = link(&format!("../{}#top", page((number + 1) % PAGES)));
            site.write(page(number), &(next + &link("../index.html")));
        }
        let made = Command::new("mkfifo").arg(site.held()).status().unwrap();
        assert!(made.success());
        site
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    fn held(&self) -> PathBuf {
        self.root().join("0").join("held.html")
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn write(&self, path: impl AsRef<Path>, content: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn crawl(&self, options: &[&str]) -> Command {
        let mut command = example("crawl");
        command.arg("--ledger").arg(self.ledger()).args(options).arg(self.root());
        command
    }

    /// Waits until the page that is held is being read.
    fn read_begins(&self) -> File {
        let (held, (opened, is_open)) = (self.held(), mpsc::channel());
        std::thread::spawn(move || {
            opened.send(File::options().write(true).open(held).unwrap()).ok();
        });
        is_open.recv_timeout(LONG).expect("nobody reads it")
    }
}

/// The pages that it says are recorded.
fn recorded_now(said: &[String]) -> BTreeSet<String> {
    said.iter().filter_map(|line| line.strip_prefix("recorded ")).map(str::to_owned).collect()
}

/// The pages that have succeeded.
fn succeeded(ledger: &Path) -> BTreeSet<String> {
    let of = recorded(ledger).into_iter();
    let pages = of.filter(|(id, of)| is_page(id) && of.state() == TaskState::Succeeded);
    pages.map(|(id, _)| id).collect()
}

fn is_page(id: &str) -> bool {
    id.ends_with(".html")
}

/// How often each page was recorded as so.
fn times(ledger: &Path, so: fn(&Event) -> bool) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for (id, event) in records(ledger) {
        if is_page(&id) && so(&event) {
            *times.entry(id).or_default() += 1;
        }
    }
    times
}

fn is_success(event: &Event) -> bool {
    matches!(event, Event::Succeeded { .. })
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    let site = Site::new();
    let ledger = site.ledger();
    let mut killed = Running::start(&mut site.crawl(&["--runners", "2"]));
    let held = site.read_begins();
    // One runner is held, the other goes on.
    for _ in 0..20 {
        killed.says("recorded ");
    }
    killed.kill();
    drop(held);
    let before = succeeded(&ledger);
    assert!((20..PAGES).contains(&before.len()), "{before:?}");
    std::fs::remove_file(site.held()).unwrap();
    site.write("0/held.html", "no links");

    let (status, said) = ran(&mut site.crawl(&["--runners", "3"]));
    assert_eq!(status, Some(0), "{said:#?}");
    assert!(said[0].starts_with(&format!("found {} succeeded and ", before.len())), "{said:#?}");
    assert_eq!(said[1..4], ["crashed:", "  crawl", "    crawl: pages"]);
    assert!(said.contains(&"      0/held.html".to_owned()), "{said:#?}");
    // What had succeeded is not read again; all else is.
    let now = recorded_now(&said);
    assert!(now.is_disjoint(&before), "{said:#?}");
    assert_eq!(now.len() + before.len(), PAGES + 1);
    let sums = "61 pages, 179 links, 1 of them broken";
    assert!(said.contains(&sums.to_owned()), "{said:#?}");
    assert_eq!(said.last().unwrap(), "  broken: missing.html, on index.html");

    assert_eq!(succeeded(&ledger).len(), PAGES + 1);
    assert!(times(&ledger, is_success).into_values().eq(std::iter::repeat_n(1, PAGES + 1)));
    let starts = times(&ledger, |event| matches!(event, Event::Started { .. }));
    assert!(before.iter().all(|page| starts[page] == 1), "{starts:?}");
    assert_eq!(starts["0/held.html"], 2);

    // All of them are children of the scope that crawls, and that of the one above.
    let of = recorded(&ledger);
    let parent = |id: &str| of[id].parent.as_ref().map(|parent| parent.decode::<String>().unwrap());
    assert!(before.union(&now).all(|page| parent(page).as_deref() == Some("crawl: pages")));
    assert_eq!(parent("crawl: pages").as_deref(), Some("crawl"));
    assert_eq!(parent("crawl: sums").as_deref(), Some("crawl"));
    assert_eq!(parent("crawl: sum of 0").as_deref(), Some("crawl: sums"));
    assert_eq!(parent("crawl"), None);

    let (status, said) = ran(&mut site.crawl(&[]));
    assert_eq!(status, Some(0), "{said:#?}");
    assert_eq!(said[1], "it was crawled before");
    assert_eq!(said[2], sums);
}

#[test]
fn a_page_that_cannot_be_read_is_read_by_the_next_run() {
    let site = Site::new();
    let crawl = Running::start(&mut site.crawl(&["--runners", "1"]));
    // Those behind it are in the queue by now; of these, one goes away.
    let mut held = site.read_begins();
    let last = format!("2/page-{}.html", PAGES - 1);
    let content = std::fs::read_to_string(site.root().join(&last)).unwrap();
    std::fs::remove_file(site.root().join(&last)).unwrap();
    held.write_all(b"no links").unwrap();
    drop(held);
    let (status, said) = crawl.ends();
    assert_eq!(status.code(), Some(1), "{said:#?}");
    let why = format!("not crawled: 1 pages could not be read: {last}");
    assert_eq!(said.last(), Some(&why), "{said:#?}");
    let failure = recorded(&site.ledger())[&last].failure.clone();
    let gone = "\"linked from index.html: gone\"";
    assert_eq!(failure, Some(Failure::Error(gone.into())));

    site.write(&last, &content);
    let (status, said) = ran(&mut site.crawl(&[]));
    assert_eq!(status, Some(0), "{said:#?}");
    assert_eq!(recorded_now(&said), BTreeSet::from([last]));
    assert!(times(&site.ledger(), is_success).into_values().all(|times| times == 1));
}

/// What is crawled if nothing else is asked for: the documentation, or what is made in its place.
#[test]
fn the_documentation_is_crawled_once_although_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let mut crawl = example("crawl");
    crawl.arg("--ledger").arg(&ledger);
    let mut killed = example("crawl");
    killed.arg("--ledger").arg(&ledger).args(["--kill-after", "20"]);
    let (status, said) = Running::start(&mut killed).ends();
    assert_eq!(status.signal(), Some(9), "{said:#?}");
    let before = succeeded(&ledger);
    assert!(before.len() >= 20);

    let (status, said) = ran(&mut crawl);
    assert_eq!(status, Some(0), "{said:#?}");
    assert!(recorded_now(&said).is_disjoint(&before));
    let all = succeeded(&ledger);
    assert_eq!(all.len(), before.len() + recorded_now(&said).len());
    assert!(all.len() > 100, "{}", all.len());
    let times = times(&ledger, is_success);
    assert!(times.len() == all.len() && times.into_values().all(|times| times == 1));
    let (status, said) = ran(&mut crawl);
    assert_eq!(status, Some(0));
    assert!(said.contains(&"it was crawled before".to_owned()), "{said:#?}");
}
