//! What the ledger tells whoever listens to its spans and events.

use crate::support::{Call, Hooked, Tasks, Then, name, ok, open};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock};
use taskledger::{
    Attempt, AttemptError, EncodedId, Entry, Epoch, Event, Journal as _, LedgerEvent,
    MemoryJournal, Record, SeqNo, Timestamp,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

#[derive(Clone, Debug, Default)]
struct Told {
    name: String,
    level: Option<tracing::Level>,
    fields: BTreeMap<String, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().into(), value.into());
    }
}

impl Told {
    fn has(&self, field: &str, value: impl fmt::Display) -> bool {
        self.fields.get(field).is_some_and(|found| *found == value.to_string())
    }
}

/// Writer and opener are threads of their own, so the whole process listens; a test finds its own
/// by numbers and texts that no other test uses.
static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());

struct Listener;

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        context: Context<'_, S>,
    ) {
        let mut told = Told { name: attributes.metadata().name().into(), ..Told::default() };
        attributes.record(&mut told);
        let within = context.current_span().id().cloned().filter(|_| attributes.is_contextual());
        let parent = attributes.parent().cloned().or(within);
        told.fields.insert("span".into(), id.into_u64().to_string());
        let parent = parent.map_or(0, |parent| parent.into_u64());
        told.fields.insert("parent".into(), parent.to_string());
        TOLD.lock().unwrap().push(told);
    }

    fn on_follows_from(
        &self,
        span: &tracing::span::Id,
        follows: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        let ids = [("span", span), ("follows", follows)];
        let fields = ids.map(|(name, id)| (name.to_owned(), id.into_u64().to_string()));
        let told = Told { name: "follows from".into(), fields: fields.into(), ..Told::default() };
        TOLD.lock().unwrap().push(told);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut told = Told { level: Some(*event.metadata().level()), ..Told::default() };
        event.record(&mut told);
        told.name = told.fields.get("message").cloned().unwrap_or_default();
        TOLD.lock().unwrap().push(told);
    }

    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("taskledger")
    }
}

fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Listener);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

fn told(name: &str) -> Vec<Told> {
    let told = TOLD.lock().unwrap();
    told.iter().filter(|told| told.name == name).cloned().collect()
}

/// A journal whose next open has the given epoch.
fn before(epoch: u64) -> (MemoryJournal, u64) {
    let journal = MemoryJournal::new();
    let entry = Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(epoch - 1) });
    let record = Record { seq: SeqNo::new(1), at: Timestamp::default(), entry };
    journal.clone().append(&[record]).unwrap();
    (journal, epoch)
}

#[tokio::test]
async fn one_span_for_each_attempt_with_its_id_escaped() {
    listen();
    let (journal, epoch) = before(7_001);
    let ledger = open(journal).await;
    let id = "traced\x1b[2J\n\"id\u{202e}";
    for _ in 0..2 {
        let end = ledger.launch_block(name(id), async { Err::<u32, _>("no") }).await;
        assert!(matches!(end, Err(AttemptError::Failed("no"))));
    }
    ledger.launch_block(name(id), ok(1)).await.unwrap();
    // Refused: no attempt, no span.
    ledger.launch(name(id), ok(1)).await.unwrap_err();
    ledger.revoke_task_block(name(id), ok(1)).await.unwrap();
    let mine = |name| -> Vec<Told> {
        told(name).into_iter().filter(|span| span.has("epoch", epoch)).collect()
    };
    let spans = mine("attempt");
    assert_eq!(spans.len(), 3, "{spans:?}");
    for (span, attempt) in spans.iter().zip(1..) {
        assert!(span.has("attempt", attempt), "{span:?}");
    }
    assert_eq!(mine("revoke").len(), 1);
    for span in spans.iter().chain(&mine("revoke")) {
        let id = &span.fields["id"];
        assert!(id.contains("traced"), "{id}");
        assert!(id.chars().all(|c| !c.is_control() && c != '\u{202e}'), "not escaped: {id:?}");
    }
}

/// The first attempt belongs to its caller; those after it are linked to the first.
#[tokio::test]
async fn retries_are_linked_to_the_first_attempt() {
    use tracing::Instrument as _;
    listen();
    let (journal, epoch) = before(7_051);
    let ledger = open(journal).await;
    let caller = tracing::info_span!(target: "taskledger::test", "caller");
    let caller_id = caller.id().unwrap().into_u64();
    let retry = taskledger::Retry::attempts(std::num::NonZero::new(3).unwrap())
        .min_delay(std::time::Duration::from_millis(1));
    let work = |cx: taskledger::Context<String>| async move {
        if cx.attempt().get() < 3 { Err("not yet") } else { Ok(7) }
    };
    let run = ledger.task(name("retried")).retry(retry).run(work);
    run.instrument(caller.clone()).await.unwrap();
    let attempts: Vec<Told> =
        told("attempt").into_iter().filter(|span| span.has("epoch", epoch)).collect();
    let [first, second, third] = &attempts[..] else { panic!("{attempts:?}") };
    assert!(first.has("parent", caller_id), "{first:?}");
    for retry in [second, third] {
        assert!(retry.has("parent", 0), "{retry:?}");
        let linked = told("follows from").into_iter().any(|link| {
            link.has("span", &retry.fields["span"]) && link.has("follows", &first.fields["span"])
        });
        assert!(linked, "{retry:?}");
    }
}

#[tokio::test]
async fn the_future_runs_inside_its_span() {
    listen();
    let (journal, _) = before(7_101);
    let ledger = open(journal).await;
    let inside = ledger.launch_block(name("a"), async {
        let span = tracing::Span::current();
        Ok::<_, String>(u32::from(span.metadata().is_some_and(|span| span.name() == "attempt")))
    });
    assert_eq!(inside.await.unwrap(), 1);
}

#[tokio::test]
async fn open_replay_and_reset_are_told() {
    listen();
    let (journal, epoch) = before(7_201);
    let running = 1_237;
    let started = |epoch| Event::Started {
        attempt: Attempt::new(1),
        epoch: Epoch::new(epoch),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    };
    let records: Vec<Record> = (0..running)
        .map(|number: u64| {
            let id = EncodedId::from_bytes(&number.to_be_bytes());
            let entry = Entry::Task { id, prev: SeqNo::ZERO, event: started(epoch - 1) };
            Record { seq: SeqNo::new(number + 2), at: Timestamp::default(), entry }
        })
        .collect();
    journal.clone().append(&records).unwrap();
    let ledger = taskledger::Ledger::<[u8; 8]>::builder().open_journal(journal).await.unwrap();
    let once = |name, field, value: u64| {
        let found = told(name).into_iter().filter(|event| event.has(field, value)).count();
        assert_eq!(found, 1, "{name}: {:?}", told(name));
    };
    once("replayed", "records", running + 1);
    once("opened", "epoch", epoch);
    once("reset what the last process left running", "crashed", running);
    drop(ledger);
}

/// A clean end leaves nothing to reset, and nobody is alarmed.
#[tokio::test]
async fn nothing_is_told_of_a_reset_that_was_none() {
    listen();
    let (journal, _) = before(7_301);
    for id in 0..2 {
        let ledger = taskledger::Ledger::<u8>::builder().open_journal(journal.clone()).await;
        let ledger = ledger.unwrap();
        ledger.mark_succeeded(id).await.unwrap();
        ledger.close().await.unwrap();
    }
    let resets = told("reset what the last process left running");
    let of_nothing = |told: &&Told| told.has("crashed", 0) && told.has("interrupted_revokes", 0);
    assert_eq!(resets.iter().filter(of_nothing).count(), 0, "{resets:?}");
}

#[tokio::test]
async fn a_poison_is_told_once_and_as_an_error() {
    listen();
    let (journal, _) = before(7_301);
    // The text of the failure is what tells this poison from those of other tests.
    let hooked = Hooked::new(&journal, |call| match call {
        Call::Append(37) => Then::Fail,
        _ => Then::GoOn,
    });
    let ledger = Tasks::builder().open_journal(hooked).await.unwrap();
    for number in 1..37 {
        ledger.mark_succeeded(format!("{number}")).await.unwrap();
    }
    ledger.mark_succeeded(name("fails")).await.unwrap_err();
    ledger.close().await.unwrap_err();
    let of_it = |event: &Told| {
        event.fields.get("poison").is_some_and(|poison| poison.contains("Append(37) fails"))
    };
    let events: Vec<Told> = told("poisoned").into_iter().filter(of_it).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].level, Some(tracing::Level::ERROR));
}

/// A second and more for one sync is worth a warning.
#[tokio::test]
async fn a_slow_sync_is_told() {
    listen();
    let journal = MemoryJournal::new();
    let ledger = open(Hooked::new(&journal, |call| {
        if call == Call::Append(1) {
            std::thread::sleep(std::time::Duration::from_millis(1_050));
        }
        Then::GoOn
    }))
    .await;
    ledger.mark_succeeded(name("slow")).await.unwrap();
    let slow = told("slow sync");
    assert!(slow.iter().any(|told| told.level == Some(tracing::Level::WARN)), "{slow:?}");
    ledger.close().await.unwrap();
}

/// What blocks, or is never dropped, keeps its scope from ending: whoever waits has to learn what it is. Nobody
/// was told when nobody waited.
#[tokio::test(start_paused = true)]
async fn what_keeps_a_scope_from_ending_is_named() {
    listen();
    let long = std::time::Duration::from_secs(11);
    for ends in ["waited for", "dropped", "cancelled"] {
        let ledger = open(MemoryJournal::new()).await;
        let root = ledger.scope();
        let before = told("a scope waits for what does not end").len();
        let kept = root.wrap(std::future::pending::<()>()).unwrap();
        let mut end = None;
        match ends {
            "waited for" => end = Some(Box::pin(root.end())),
            "dropped" => drop(root),
            _ => {
                root.cancel("enough");
                root.cancel("once more");
                drop(root);
            }
        }
        match &mut end {
            Some(end) => assert!(tokio::time::timeout(long, end).await.is_err()),
            None => tokio::time::sleep(long).await,
        }
        let mut told = told("a scope waits for what does not end").split_off(before);
        told.retain(|told| told.fields["children"].contains("traced.rs"));
        assert_eq!(told.len(), 2, "{ends}, every five seconds: {told:?}");
        assert_eq!(told[0].level, Some(tracing::Level::WARN));
        drop(kept);
        if let Some(end) = end {
            end.await;
        }
    }
}
