//! One task as a JSON object, and the parts of it that other formats share.

use serde::Serialize;
use serde_json::Value;
use taskledger::dump::{Inspection, json_line, output_json};
use taskledger::{EncodedId, Failure, Output, SuccessBy, TaskDetails, Timestamp};

/// A task, its fields in the order in which they are printed.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) state: &'static str,
    pub(crate) attempt: u32,
    pub(crate) epoch: Option<u64>,
    pub(crate) queued_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoke_started_at: Option<String>,
    pub(crate) failure: Option<FailureRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoke_failure: Option<FailureRow>,
    /// The value of the success; `()` is null. Not there if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Value>,
    /// The bytes of an output that does not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_bytes: Option<String>,
    /// Why it was not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_not_kept: Option<String>,
    /// Whether somebody else than the attempt says that it succeeded.
    pub(crate) marked: bool,
    /// Whether somebody found out that a failed attempt had succeeded after all.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) resolved: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) pinned: bool,
    /// The scope within which the last attempt ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    /// What is to be done, while it waits in the queue, runs from there, or has failed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Value>,
    /// What the last attempt has told of its progress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<NoteRow>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Debug, Serialize)]
pub(crate) struct NoteRow {
    pub(crate) at: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct FailureRow {
    pub(crate) kind: &'static str,
    pub(crate) text: Option<String>,
}

impl Row {
    pub(crate) fn of(inspection: &Inspection, id: &EncodedId, details: &TaskDetails) -> Self {
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let (mut output, mut output_bytes, mut output_not_kept) = (None, None, None);
        match &details.output {
            Output::Kept(bytes) => match output_json(bytes) {
                Ok(value) => output = Some(value),
                Err(_) => output_bytes = Some(hex(bytes)),
            },
            Output::NotKept(why) => output_not_kept = Some(why.to_string()),
            Output::Absent => {}
            _ => {}
        }
        Self {
            id: inspection.id_text(id),
            state: details.state().name(),
            attempt: details.attempt().get(),
            epoch: details.epoch.map(taskledger::Epoch::get),
            queued_at: text(details.queued_at),
            started_at: text(details.started_at),
            ended_at: text(details.ended_at),
            revoke_started_at: text(details.revoke_started_at),
            failure: details.failure.as_ref().map(FailureRow::of),
            revoke_failure: details.revoke_failure.as_ref().map(FailureRow::of),
            output,
            output_bytes,
            output_not_kept,
            marked: details.succeeded_by == Some(SuccessBy::Mark),
            resolved: details.succeeded_by == Some(SuccessBy::Resolve),
            pinned: details.pinned,
            parent: details
                .parent
                .as_ref()
                .map(|parent| inspection.id_text(&EncodedId::from_bytes(parent.as_bytes()))),
            payload: details.payload.as_ref().map(|payload| {
                output_json(payload).unwrap_or_else(|_| Value::String(hex(payload)))
            }),
            notes: details
                .notes
                .iter()
                .map(|note| NoteRow { at: note.at.to_string(), text: note.text.clone() })
                .collect(),
        }
    }
}

impl FailureRow {
    fn of(failure: &Failure) -> Self {
        Self { kind: failure.name(), text: failure.text().map(str::to_owned) }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value on one line that is harmless on a terminal.
pub(crate) fn line<T: Serialize>(value: &T) -> String {
    json_line(value)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}
