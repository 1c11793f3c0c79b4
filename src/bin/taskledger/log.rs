//! `taskledger log`: the records, one a line.

use crate::args::LogArgs;
use crate::json::{self, hex};
use crate::terminal::{Done, Progress, chain, clean, complain, look, out, sound_or_not};
use std::io::Write;
use taskledger::dump::{Inspection, output_json};
use taskledger::{EncodedId, Entry, Event, LedgerEvent, Output, Record, SeqNo, SuccessBy};

pub(crate) fn run(args: &LogArgs) -> Done {
    let inspection = look(&args.path)?;
    let base = inspection.checkpoint_seq();
    if base != SeqNo::ZERO && args.from <= base.get() {
        complain(&format!("the records up to {base} are folded into the checkpoint"));
    }
    let (mut out, mut errors) = (out(), 0);
    let mut progress = Progress::beside_output();
    for record in inspection.records(SeqNo::new(args.from)) {
        progress.step();
        match record {
            Ok(record) => writeln!(out, "{}", line(&inspection, &record))?,
            Err(error) => {
                errors += 1;
                complain(&chain(&error));
            }
        }
    }
    out.flush()?;
    Ok(sound_or_not(&inspection, errors))
}

/// Position, time, event, id and details, with tabs between them. No part holds a tab.
pub(crate) fn line(inspection: &Inspection, record: &Record) -> String {
    let (event, id, details) = match &record.entry {
        Entry::Task { id, event, .. } => {
            (event.name(), inspection.id_text(id), task(inspection, event))
        }
        Entry::Ledger(event) => {
            let (name, details) = ledger(event);
            (name, "-".to_owned(), details)
        }
        _ => ("unknown", "-".to_owned(), String::new()),
    };
    format!("{}\t{}\t{event}\t{id}\t{details}", record.seq, record.at)
}

fn task(inspection: &Inspection, event: &Event) -> String {
    match event {
        Event::Started { attempt, epoch, since, fingerprint, parent, crashed_before } => {
            let mut text = format!("attempt={attempt} epoch={epoch}");
            if *since != SeqNo::ZERO {
                text.push_str(&format!(" since={since}"));
            }
            if fingerprint.is_some() {
                text.push_str(" fingerprint");
            }
            if let Some(parent) = parent {
                let parent = EncodedId::from_bytes(parent.as_bytes());
                text.push_str(&format!(" parent={}", inspection.id_text(&parent)));
            }
            if *crashed_before {
                text.push_str(" crashed-before");
            }
            text
        }
        Event::Succeeded { by, output } => {
            let by = match by {
                SuccessBy::Mark => "mark",
                SuccessBy::Resolve => "resolve",
                SuccessBy::Attempt => "attempt",
                _ => "unknown",
            };
            match output {
                Output::Kept(bytes) => match output_json(bytes) {
                    Ok(value) => format!("by={by} output={}", json::line(&value)),
                    Err(_) => format!("by={by} output_bytes={}", hex(bytes)),
                },
                Output::NotKept(why) => {
                    format!("by={by} output_not_kept={}", clean(&why.to_string()))
                }
                Output::Absent => format!("by={by}"),
                _ => format!("by={by} output=unknown"),
            }
        }
        Event::Failed { failure } | Event::RevokeFailed { failure } => clean(&failure.to_string()),
        Event::Noted { note } => clean(note),
        Event::Resolved { failure } => clean(&failure.to_string()),
        Event::Buried { tombstone } | Event::Exhumed { tombstone } => tombstone.to_string(),
        Event::Queued { payload, .. } => {
            payload.as_ref().map_or_else(String::new, |payload| match output_json(payload) {
                Ok(value) => format!("payload={}", json::line(&value)),
                Err(_) => format!("payload_bytes={}", hex(payload)),
            })
        }
        Event::RevokeStarted
        | Event::Revoked
        | Event::Forgotten
        | Event::Pinned
        | Event::Unpinned => String::new(),
        _ => String::new(),
    }
}

fn ledger(event: &LedgerEvent) -> (&'static str, String) {
    match event {
        LedgerEvent::EpochOpened { epoch } => ("epoch opened", format!("epoch={epoch}")),
        LedgerEvent::LossAccepted { what } => ("loss accepted", clean(what)),
        LedgerEvent::MetadataSet { name, value } => match value {
            Some(value) => ("metadata set", format!("{}={}", clean(name), hex(value))),
            None => ("metadata removed", clean(name)),
        },
        _ => ("unknown", String::new()),
    }
}
