//! persistent-queue: many producers and one consumer, over a store.
//!
//! `default` is the durable one of its README: `SledStore` and the builder's `Durability::Sync`. That
//! flushes sled after every push and ack, which on Linux is `sync_file_range` without a sync of
//! what the file is: neither its size nor the disk's cache. `full` is `RedbStore`, whose commits are
//! fsynced, with `Durability::Group`, which its docs advise under load: pushes share a commit.

#[path = "../../common.rs"]
mod common;
#[path = "../../waiting.rs"]
mod waiting;

use common::Args;
use persistent_queue::{Builder, Durability, RedbStore, SledStore, Store};
use std::error::Error;
use std::sync::Arc;
use waiting::Waiting;

const SLED: &str = "sled, Durability::Sync: an acknowledgement waits for sled's flush, which writes (sync_file_range) but does not fsync";
const REDB: &str = "redb, Durability::Group: an acknowledgement of a push waits for an fsynced commit that others may share, that of an ack for one of its own";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args = Args::parse();
    if args.full {
        let store = RedbStore::open(args.dir.join("queue.redb"))?;
        run(args, store, Durability::Group, REDB).await
    } else {
        let store = SledStore::open(args.dir.join("queue"))?;
        run(args, store, Durability::Sync, SLED).await
    }
}

async fn run<S>(
    args: Args,
    store: S,
    policy: Durability,
    words: &str,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: Store + 'static,
    S::Error: Error + Send + Sync,
{
    let (tx, rx) = Builder::new(store).durability(policy).open_async().await?;
    let waiting = Arc::new(Waiting::of(args.callers));
    // The one consumer reserves, and acks as many at a time as there are.
    let told = Arc::clone(&waiting);
    tokio::spawn(async move {
        loop {
            let item = rx.reserve().await.expect("the store").expect("nobody closes it");
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let bytes: &[u8] = &item;
                let caller = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
                item.ack().await.expect("the store");
                told.done(caller as usize);
            });
        }
    });
    common::measure(("persistent-queue", "0.2.0"), words, &args, move |caller, _| {
        let (tx, waiting) = (tx.clone(), Arc::clone(&waiting));
        async move {
            let done = waiting.expect(caller);
            tx.push((caller as u32).to_le_bytes().to_vec()).await.map_err(|e| e.to_string())?;
            done.await.map_err(|e| e.to_string())
        }
    })
    .await
}
