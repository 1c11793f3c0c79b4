#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk() {
    use taskledger::*;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let t = std::time::Instant::now();
    let ledger = Ledger::<String, u32>::open(&path).await.unwrap();
    println!("created in {:?}", t.elapsed());
    assert_eq!(ledger.launch_block("a".to_owned(), async { Ok::<_, ()>(7) }).await.unwrap(), 7);
    let e = ledger.launch_block("b".to_owned(), async { Err::<u32, _>("no") }).await.unwrap_err();
    println!("{e:?} {:?}", ledger.record("b").await.unwrap());
    let other =
        Ledger::<String, u32>::builder().lock_wait(std::time::Duration::ZERO).open(&path).await;
    println!("{}", other.unwrap_err());
    ledger.close().await.unwrap();
    println!("{}", Ledger::<u64, u32>::open(&path).await.unwrap_err());
    let t = std::time::Instant::now();
    let ledger = Ledger::<String, u32>::open(&path).await.unwrap();
    println!("opened in {:?} {:?}", t.elapsed(), ledger.recovery());
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
    ledger.checkpoint().await.unwrap();
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
    let n = 100_000;
    let t = std::time::Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for w in 0..1024 {
        let l = ledger.clone();
        set.spawn(async move {
            for i in 0..n / 1024 {
                l.launch_block(format!("{w}-{i}"), async { Ok::<_, ()>(0) }).await.unwrap();
            }
        });
    }
    while let Some(r) = set.join_next().await {
        r.unwrap();
    }
    println!("{} tasks in {:?}", n, t.elapsed());
    let t = std::time::Instant::now();
    ledger.checkpoint().await.unwrap();
    println!("checkpoint in {:?}", t.elapsed());
    ledger.close().await.unwrap();
    for e in std::fs::read_dir(&path).unwrap() {
        let e = e.unwrap();
        println!("{:?} {}", e.file_name(), e.metadata().unwrap().len());
    }
    let t = std::time::Instant::now();
    let ledger = Ledger::<String, u32>::open(&path).await.unwrap();
    println!("opened in {:?} {:?}", t.elapsed(), ledger.recovery());
    ledger.close().await.unwrap();
}
#[tokio::test]
async fn smoke() {
    use taskledger::*;
    let j = MemoryJournal::new();
    let ledger = Ledger::<String, u32>::builder().open_journal(j.clone()).await.unwrap();
    assert_eq!(ledger.launch_block("a".to_owned(), async { Ok::<_, ()>(7) }).await.unwrap(), 7);
    assert_eq!(ledger.query_task_state("a").await, TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
    let e = ledger.launch_block("b".to_owned(), async { Err::<u32, _>("no") }).await.unwrap_err();
    assert!(matches!(e, AttemptError::Failed("no")));
    let e = ledger
        .launch_block("c".to_owned(), async {
            panic!("x");
            #[allow(unreachable_code)]
            Ok::<_, ()>(1)
        })
        .await
        .unwrap_err();
    assert!(matches!(e, AttemptError::Panicked(_)));
    println!("{:?}", ledger.record("c").await.unwrap());
    assert_eq!(ledger.failed_tasks().len(), 2);
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let ledger = Ledger::<String, u32>::builder().open_journal(j.clone()).await.unwrap();
    println!("{:?}", ledger.recovery());
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
    let n = 100_000;
    let t = std::time::Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for w in 0..64 {
        let l = ledger.clone();
        set.spawn(async move {
            for i in 0..n / 64 {
                l.launch_block(format!("{w}-{i}"), async { Ok::<_, ()>(0) }).await.unwrap();
            }
        });
    }
    while let Some(r) = set.join_next().await {
        r.unwrap();
    }
    println!("{} tasks in {:?}", n, t.elapsed());
    assert_eq!(ledger.succeeded_tasks().iter().count(), ledger.succeeded_tasks().len());
    ledger.close().await.unwrap();
}
