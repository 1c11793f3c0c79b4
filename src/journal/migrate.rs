//! From an older format version to this one.
//!
//! ```text
//! migrate(found -> supported)                 if we die on this line, the ledger is
//!   all steps are there? else refuse          version found, untouched
//!   for each version v from found:
//!     the step writes its new files, synced   version v, with leftovers
//!     directory synced                        version v, with leftovers
//!     manifest replaced: v + 1, new body      version v or version v + 1, with leftovers
//! open goes on; it removes the leftovers      version supported
//! ```
//!
//! A ledger is of version v if and only if its manifest is valid and says v. A step never touches
//! a file that the old manifest names, and may be run any number of times, so a migration that was
//! killed is finished by the next open. `migrations/README.md` has the rules for a step.

#[path = "../../migrations/v1.rs"]
mod v1;
#[path = "../../migrations/v2.rs"]
mod v2;
#[path = "../../migrations/v3.rs"]
mod v3;

#[cfg(feature = "internals")]
pub(crate) mod synthetic;

pub(crate) use v3::FORMAT_VERSION;

use super::{files, manifest};
use crate::error::{JournalError, OpenError};
use crate::held::shown;
use std::io;
use std::path::Path;

/// The steps of all versions, in order: the first that was released leads from 1 to 2.
pub(crate) const STEPS: &[Step] = &[
    #[cfg(feature = "internals")]
    synthetic::STEP,
    v2::STEP,
    v3::STEP,
];

/// Leads from one format version to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The version that it starts from.
    pub(crate) from: u16,
    /// The description of the id type, in the body of a manifest of that version: another type is
    /// refused before anything is written.
    pub(crate) shape: fn(&[u8]) -> Option<Vec<u8>>,
    /// Makes the new files, synced, and returns the body of the next version's manifest.
    pub(crate) run: fn(&StepInput<'_>) -> Result<Vec<u8>, JournalError>,
}

/// What a step works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepInput<'a> {
    /// The directory of the ledger, whose lock is held.
    #[cfg_attr(
        not(feature = "internals"),
        expect(dead_code, reason = "no released step has written a file yet")
    )]
    pub(crate) dir: &'a Path,
    /// The body of the manifest, in the version that the step starts from.
    pub(crate) body: &'a [u8],
}

/// What was migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Migrated {
    /// The version that was found.
    pub(crate) from: u16,
    /// The version that it is now.
    pub(crate) to: u16,
}

/// Brings the ledger, whose valid manifest says version `found` and has this body, to version
/// `supported`. `progress` is told the version that each step starts from, before it.
///
/// # Errors
///
/// `Newer`, or `Io` when there is no step from a version: nothing was changed. Otherwise what a
/// step failed with: the ledger is of the version that this step started from.
pub(crate) fn migrate(
    dir: &Path,
    found: u16,
    body: Vec<u8>,
    steps: &[Step],
    supported: u16,
    progress: &mut dyn FnMut(u16),
) -> Result<Migrated, OpenError> {
    if found > supported {
        return Err(OpenError::Newer { path: shown(dir), found, supported });
    }
    // All of them before the first: half a migration helps nobody.
    let steps: Vec<&Step> =
        (found..supported).map(|from| step(dir, steps, from)).collect::<Result<_, _>>()?;
    let mut body = body;
    for step in steps {
        progress(step.from);
        body = (step.run)(&StepInput { dir, body: &body })?;
        // What the step has made has its names before a manifest goes by them.
        files::sync_dir(dir)?;
        manifest::replace(dir, step.from + 1, &body)?;
    }
    Ok(Migrated { from: found, to: supported })
}

/// The description of the id type of a ledger of an older version, if it can be read.
pub(crate) fn shape(steps: &[Step], found: u16, body: &[u8]) -> Option<Vec<u8>> {
    let step = steps.iter().find(|step| step.from == found)?;
    (step.shape)(body)
}

fn step<'a>(dir: &Path, steps: &'a [Step], from: u16) -> Result<&'a Step, OpenError> {
    steps.iter().find(|step| step.from == from).ok_or_else(|| OpenError::Io {
        action: "migrate",
        path: shown(dir),
        source: io::Error::new(
            io::ErrorKind::Unsupported,
            format!("this version of taskledger has no step from format version {from}"),
        ),
    })
}

#[cfg(test)]
mod tests;
