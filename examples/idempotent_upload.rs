//! Uploads that happen once: check, upload, check, upload again, delete, check.
//!
//! The object store is a temporary directory. What matters is the shape: the id of a task is what
//! identifies the *effect* (here the name of the object), the effect is one that can be repeated,
//! and taking it back is a revoke, so that the id can be used again afterwards.
//!
//! ```sh
//! cargo run --example idempotent_upload
//! ```

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taskledger::{AttemptError, LaunchError, Ledger, TaskState};
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let service = Uploads::open(scratch.path()).await?;

    println!("check:  {}", service.check("cat.jpg"));
    // The network is slow, until we say that it is not.
    let network = Arc::new(Notify::new());
    println!("upload: {}", service.upload("cat.jpg", b"meow", &network).await?);
    println!("check:  {}", service.check("cat.jpg"));
    // Somebody else is quicker to ask again than the upload is to finish.
    println!("upload: {}", service.upload("cat.jpg", b"meow", &network).await?);
    network.notify_one();
    service.ledger.wait("cat.jpg").await?;
    println!("check:  {}", service.check("cat.jpg"));
    println!("upload: {}", service.upload("cat.jpg", b"meow", &network).await?);
    if let Some(object) = service.ledger.output("cat.jpg").await? {
        println!("stored: {} bytes as {}", object.bytes, object.key);
    }
    println!("delete: {}", service.delete("cat.jpg").await?);
    println!("delete: {}", service.delete("cat.jpg").await?);
    println!("check:  {}", service.check("cat.jpg"));

    service.ledger.close().await?;
    Ok(())
}

/// What is remembered of an upload.
#[derive(Debug, Serialize, Deserialize)]
struct Object {
    key: String,
    bytes: u64,
}

struct Uploads {
    ledger: Ledger<String, Object>,
    store: PathBuf,
}

impl Uploads {
    async fn open(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let store = dir.join("store");
        std::fs::create_dir(&store)?;
        Ok(Self { ledger: Ledger::open(dir.join("ledger")).await?, store })
    }

    /// What the users of the service see instead of the ledger's words.
    fn check(&self, name: &str) -> &'static str {
        match self.ledger.query_task_state_quick(name) {
            TaskState::NotFound | TaskState::Failed => "not there",
            TaskState::Queued | TaskState::Running => "uploading",
            TaskState::Succeeded => "uploaded",
            TaskState::Revoking => "being deleted",
            // `TaskState` may grow.
            _ => "unknown",
        }
    }

    /// Starts the upload in the background unless it is running or done.
    async fn upload(
        &self,
        name: &str,
        content: &[u8],
        network: &Arc<Notify>,
    ) -> Result<&'static str, Box<dyn Error>> {
        let (object, content, network) =
            (self.store.join(name), content.to_vec(), Arc::clone(network));
        let key = name.to_owned();
        let put = async move {
            network.notified().await;
            put_object(&object, &content)?;
            Ok::<_, io::Error>(Object { key, bytes: content.len() as u64 })
        };
        match self.ledger.launch(name.to_owned(), put).await {
            Ok(()) => Ok("accepted"),
            Err(LaunchError::Refused { state: TaskState::Succeeded, .. }) => Ok("there already"),
            Err(LaunchError::Refused { .. }) => Ok("on its way already"),
            Err(other) => Err(other.into()),
        }
    }

    /// Deletes the object and forgets the upload: afterwards the name can be used again.
    ///
    /// If the process dies in between, the next open finds the upload succeeded (with the revoke
    /// noted as interrupted), and deleting can be repeated.
    async fn delete(&self, name: &str) -> Result<&'static str, Box<dyn Error>> {
        let object = self.store.join(name);
        let remove = async move {
            match std::fs::remove_file(&object) {
                // Gone already: an earlier try got this far.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        match self.ledger.revoke_task_block(name.to_owned(), remove).await {
            Ok(()) => Ok("deleted"),
            Err(AttemptError::Refused { state: TaskState::NotFound, .. }) => Ok("was not there"),
            Err(AttemptError::Failed(error)) => Err(error.into()),
            Err(other) => Err(other.into()),
        }
    }
}

/// Puts the object there as a whole or not at all. An upload that crashed is started again, maybe
/// while half of it is there, so the effect has to stand being repeated.
fn put_object(object: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = object.with_extension("part");
    std::fs::write(&unfinished, content)?;
    std::fs::rename(unfinished, object)
}
