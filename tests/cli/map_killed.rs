//! `taskledger map` that is killed at any time, alone or with all that it has started; then another one goes on.

use crate::map::{commands_of, left_of, map, mapped, numbers, pid, scratch, succeeded};
use crate::on;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

fn rounds() -> u64 {
    let factor = std::env::var("TASKLEDGER_ROUNDS").ok();
    let factor = factor.and_then(|text| text.strip_prefix('x').and_then(|x| x.parse::<u64>().ok()));
    100 * factor.unwrap_or(1)
}

/// splitmix64.
struct Random(u64);

impl Random {
    const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What the commands themselves have said of their starts and ends, held against the ledger.
#[derive(Debug, Default)]
struct Watch {
    read: usize,
    /// Ids whose command has begun and not ended, and by which process.
    open: BTreeMap<String, String>,
    /// Processes that were killed: whoever has not ended never will.
    killed: BTreeSet<String>,
    succeeded: BTreeSet<String>,
    /// The successes in the log of the ledger, by their positions.
    recorded: BTreeMap<u64, String>,
}

impl Watch {
    /// Takes what is new in the log; what had been recorded as succeeded before must not begin.
    fn hear(&mut self, log: &Path) {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        for line in text[self.read..].lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().unwrap();
            let (what, id, process) = (word(), word(), word());
            match &*what {
                "start" => {
                    assert!(!self.succeeded.contains(&id), "{id} starts after its success");
                    let before = self.open.insert(id.clone(), process);
                    let ended = before.is_none_or(|before| self.killed.contains(&before));
                    assert!(ended, "{id} runs twice at a time: {text}");
                }
                "end" => {
                    assert_eq!(self.open.remove(&id), Some(process), "{id} ends twice: {text}")
                }
                other => panic!("{other}"),
            }
        }
        self.read = text.len();
    }

    /// Takes what the ledger has recorded.
    fn look(&mut self, ledger: &Path) {
        self.succeeded = succeeded(ledger);
        for line in on("log", ledger, &[]).lines() {
            let words: Vec<&str> = line.split('\t').collect();
            if words[2] == "succeeded" {
                self.recorded.insert(words[0].parse().unwrap(), words[3].to_owned());
            }
        }
    }

    /// Kills all but the run that write to this log: they have its name among their arguments.
    fn kill_all(&mut self, log: &Path, run: &std::process::Child) {
        let name = log.to_str().unwrap();
        let writes = |process: &str| {
            let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            process != run.id().to_string() && String::from_utf8_lossy(&words).contains(name)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let all = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for process in all.filter(|name| name.parse::<u32>().is_ok()).filter(|name| writes(name)) {
            self.kill(process);
        }
    }

    /// Kills those that have the lock of a command open.
    fn kill_holders(&mut self, ledger: &Path) {
        for process in left_of(ledger) {
            // It may have closed it meanwhile, and begun.
            self.kill(process.to_string());
        }
    }

    fn kill(&mut self, process: String) {
        let _gone = kill_process(Pid::from_raw(process.parse().unwrap()).unwrap(), Signal::KILL);
        self.killed.insert(process);
    }
}

/// Who is killed, beside the run itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Nobody,
    AllAfterIt,
    AllBeforeIt,
    /// Those that have the lock of their command open: the others go on.
    Holders,
}

/// 100 kills of the run alone, and 100 with all that it has started: half a minute.
const SHORT: &str = r#"echo "start $1 $$" >> "$0"; sleep 0.0$(($1 % 5)); echo "end $1 $$" >> "$0""#;

#[test]
fn a_kill_of_the_run_alone_makes_nothing_run_twice_that_has_succeeded() {
    killed_again_and_again(rounds(), 250, &[Kill::Nobody], &[], "sh", SHORT);
}

#[test]
fn a_kill_of_all_it_has_started_makes_nothing_run_twice_that_has_succeeded() {
    let kills = [Kill::AllAfterIt, Kill::AllBeforeIt];
    killed_again_and_again(rounds(), 250, &kills, &[], "sh", SHORT);
}

/// Told to end, it says so if it has begun and not said so yet. What the shell says of that would end it
/// where nobody reads any more.
const WORK: &str = r#"exec 2> /dev/null; trap 'grep -q "^start $1 $$\$" "$0" && echo "end $1 $$" >> "$0"; exit 1' TERM
    echo "start $1 $$" >> "$0"
    [ $TASKLEDGER_ATTEMPT -gt 1 ] || [ $(($1 % 9)) != 1 ] || sleep 1
    sleep 0.0$(($1 % 5)); trap "" TERM; echo "end $1 $$" >> "$0"
    [ $TASKLEDGER_ATTEMPT -gt 1 ] || [ $(($1 % 3)) != 1 ]"#;

/// The same with attempts that fail, that take too long and are ended, and that are tried again.
#[test]
fn a_kill_makes_no_retry_run_beside_another_attempt() {
    let kills = [Kill::Nobody, Kill::AllAfterIt, Kill::AllBeforeIt];
    let more = ["--timeout", "0.5", "--retries", "2"];
    killed_again_and_again(rounds() / 4, 1500, &kills, &more, "sh", WORK);
}

/// The same with commands whose children have closed all that they inherited, and outlive them.
#[test]
fn a_kill_leaves_nobody_unseen_who_has_closed_what_he_inherited() {
    let close =
        r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval "exec $fd>&-"; done"#;
    let script = format!(
        r#"work='{close}; {}'; bash -c "$work" "$0" "$1" & child=$!
        [ $TASKLEDGER_ATTEMPT -gt 1 ] || [ $(($1 % 4)) != 2 ] || {{ sleep 0.02; kill -9 $$; }}
        wait $child"#,
        WORK.replace('\'', r"'\''")
    );
    let kills = [Kill::Nobody, Kill::AllAfterIt, Kill::AllBeforeIt, Kill::Holders, Kill::Holders];
    let more = ["--timeout", "0.5", "--retries", "2"];
    killed_again_and_again(rounds() / 4, 1500, &kills, &more, "bash", &script);
}

fn killed_again_and_again(
    rounds: u64,
    within: u64,
    kills: &[Kill],
    more: &[&str],
    shell: &str,
    script: &str,
) {
    let seed = std::env::var("TASKLEDGER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("TASKLEDGER_SEED={seed}");
    let mut random = Random(seed);
    let (mut killed, mut complete) = (0, 0);
    while killed < rounds {
        let (dir, ledger) = scratch();
        let log = dir.path().join("log");
        let args = ["-j", "4", "-q", "--", shell, "-c", script, log.to_str().unwrap(), "{}"];
        let args = [more, &args].concat();
        let ids = 40;
        let mut watch = Watch::default();
        let mut within = within;
        loop {
            let mut child = map(&ledger, &args).spawn().unwrap();
            child.stdin.take().unwrap().write_all(&numbers(ids)).unwrap();
            std::thread::sleep(Duration::from_millis(random.below(within)));
            let kill = kills[usize::try_from(random.below(kills.len() as u64)).unwrap()];
            if kill == Kill::AllBeforeIt {
                watch.kill_all(&log, &child);
            }
            let _gone = kill_process(pid(&child), Signal::KILL);
            match kill {
                Kill::Nobody => {}
                // What it has started last may not have got its own name yet.
                Kill::AllAfterIt | Kill::AllBeforeIt => watch.kill_all(&log, &child),
                Kill::Holders => watch.kill_holders(&ledger),
            }
            let ended = child.wait_with_output().unwrap();
            match ended.status.code() {
                Some(0) => break,
                // Where the machine is slow, more may take too long, more often.
                Some(1) if !more.is_empty() || kill == Kill::AllBeforeIt => {}
                code => {
                    assert_eq!(code, None, "{ended:?}");
                    killed += 1;
                    // A slow machine gets to the end as well, if later.
                    within += within / 16;
                }
            }
            // A command that has begun and not said so yet has no success.
            watch.hear(&log);
            watch.look(&ledger);
        }
        watch.hear(&log);
        watch.look(&ledger);
        assert!(watch.open.is_empty(), "{watch:?}");
        assert_eq!(watch.succeeded.len(), ids as usize);
        let mut recorded: Vec<&String> = watch.recorded.values().collect();
        recorded.sort_unstable();
        assert_eq!(recorded, watch.succeeded.iter().collect::<Vec<_>>(), "each once");
        complete += 1;
    }
    eprintln!("{killed} kills, {complete} times to the end");
}

#[test]
fn a_killed_group_leaves_a_ledger_that_goes_on() {
    let (_dir, ledger) = scratch();
    let mut command = map(&ledger, &["-j", "1", "--", "sleep"]);
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"10\n").unwrap();
    commands_of(&child, &ledger, 1);
    kill_process_group(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let waits = mapped(&ledger, b"10\n", &["--no-wait", "--", "sleep"]).expect(75);
    assert!(waits.err.contains("(sleep 10)"), "{waits:?}");
    // Whoever is turned away has changed nothing.
    mapped(&ledger, b"10\n", &["--no-wait", "--rebind", "--", "true"]).expect(75);
    let crashed = mapped(&ledger, b"10\n", &["--status", "--", "sleep"]).expect(0);
    assert_eq!(crashed.out, "crashed\t1\n");
    let goes_on = mapped(&ledger, b"10\n", &["--only", "crashed", "--", "sleep"]).expect(0);
    assert!(
        goes_on.err.contains("waiting for commands of an earlier run, 0 s so far: "),
        "{goes_on:?}"
    );
    assert!(goes_on.err.contains("1 succeeded"), "{goes_on:?}");
}
