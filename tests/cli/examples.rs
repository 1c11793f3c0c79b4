//! The examples of the README and of the help, run as they stand there: three times, as after a Ctrl-C.

use crate::on;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What the examples run, as far as not every machine has it. The last argument is where to.
const PROGRAMS: [(&str, &str); 6] = [
    ("convert", r#"for to; do :; done; echo small > "${to#jpg:}""#),
    ("curl", r#"for url; do :; done; echo "$url" > "${url##*/}""#),
    ("psql", "[ -e \"$2\" ]"),
    ("migrate.sh", "echo migrated"),
    ("deploy.sh", "echo deployed"),
    ("backup", "echo saved"),
];

/// A directory with everything that the examples work on.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    for photo in ["photos/a.jpg", "photos/of us/b.jpg", "photos/c.txt"] {
        file(photo, "large");
    }
    file("src/main.rs", "one\ntwo\n");
    file("urls.txt", "https://example.org/a.iso\nhttps://example.org/b.iso\n");
    file("files", "src/main.rs\nphotos/a.jpg\n");
    file("0042.sql", "");
    std::fs::create_dir(dir.path().join("out")).unwrap();
    for (name, script) in PROGRAMS {
        for place in [name.to_owned(), format!("bin/{name}")] {
            let path = file(&place, &format!("#!/bin/sh\n{script}\n"));
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
    dir
}

fn run_in(dir: &Path, script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_taskledger")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}/bin:{}:{path}", dir.display(), program.display());
    let mut command = Command::new("bash");
    command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(dir);
    let done = command.env("PATH", path).env("GIT_COMMIT", "1a2b").output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{script}: {err}");
    err
}

fn names(dir: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_examples_of_the_readme_can_be_run_again_and_again() {
    let readme = include_str!("../../README.md");
    let section = readme.split_once("\n## map and exec\n").unwrap().1;
    let block = section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    // What stands in a crontab is no line of a shell.
    let (script, cron) = block.split_once("# cron").unwrap();
    let dir = place();
    let at = |name: &str| dir.path().join(name);
    for round in 0..3 {
        run_in(dir.path(), script);
        // Below a head.
        let ids = |ledger: &str| on("dump", &at(ledger), &[]).expect(0).lines().len() - 1;
        let (photos, urls, steps) = (ids("convert.ledger"), ids("fetch.ledger"), ids("ci.ledger"));
        assert_eq!((photos, urls, steps), (2, 2, 2), "round {round}");
        assert_eq!(names(&at("small/photos/of us")), ["b.jpg".to_owned()].into());
    }
    let cron = cron.split_once("taskledger exec").unwrap().1.lines().next().unwrap();
    let cron = format!("taskledger exec {cron}").replace(r"\%", "%");
    let cron = cron.replace("/var/lib/backup/", "").replace("/usr/local/bin/", "");
    assert!(!run_in(dir.path(), &cron).contains("nothing is run"));
    for _ in 0..2 {
        assert!(run_in(dir.path(), &cron).contains("nothing is run"));
    }
}

#[test]
fn the_examples_of_the_help_can_be_run_again_and_again() {
    for (command, count) in [("map", 8), ("exec", 3)] {
        let help = crate::run([command, "--help"]).expect(0).out;
        let examples = help.split_once("Examples:\n").unwrap().1.split_once("\n\n").unwrap().0;
        // One begins where a line is indented by two.
        let mut scripts: Vec<String> = Vec::new();
        for line in examples.lines() {
            if line.starts_with("   ") {
                let script = scripts.last_mut().unwrap();
                script.push('\n');
                script.push_str(line);
            } else {
                scripts.push(line.to_owned());
            }
        }
        assert_eq!(scripts.len(), count, "{examples}");
        for script in &scripts {
            let dir = place();
            let script = script.replace("/var/lib/backup/", "").replace("/usr/local/bin/", "");
            let runs = |told: &str| told.contains("nothing is run") || told.contains(", 0 failed");
            for round in 0..3 {
                // The rest says what it does by its exit code.
                let told = run_in(dir.path(), &script);
                assert!(
                    round == 0
                        || script.contains("--dry-run")
                        || script.contains("--status")
                        || runs(&told),
                    "{script}: {told}"
                );
            }
            assert!(!names(&dir.path().join("out")).iter().any(|name| name.ends_with(".tmp")));
        }
    }
}
