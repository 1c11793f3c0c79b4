use super::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn played(calls: &[Call], names: Names) -> Disk {
    let mut disk = Disk::holding(&Image::new(), names);
    calls.iter().for_each(|call| disk.play(call));
    disk
}

fn sample() -> Vec<Call> {
    let path = || PathBuf::from("a");
    vec![
        Call::Open { handle: 1, cut: false, path: path() },
        Call::Write { handle: 1, offset: 0, data: vec![1; 1024] },
        Call::Range { handle: 1, offset: 0, length: 1024 },
    ]
}

#[test]
fn nothing_is_durable_by_itself() {
    let mut rng = Rng::new(1);
    let disk = played(&sample(), Names::Strict);
    assert!(disk.cut(Fate::Dropped, &mut rng).is_empty());
    assert_eq!(disk.cut(Fate::Kept, &mut rng)[Path::new("a")], Some(vec![1; 1024]));
    assert_eq!(disk.cut(Fate::Zeros, &mut rng)[Path::new("a")], Some(vec![0; 1024]));
}

#[test]
fn a_name_is_durable_by_its_directory_or_by_any_sync() {
    let mut rng = Rng::new(1);
    let mut calls = sample();
    calls.push(Call::Sync { handle: 1 });
    let strict = played(&calls, Names::Strict).cut(Fate::Dropped, &mut rng);
    assert!(strict.is_empty());
    let journalled = played(&calls, Names::Journalled).cut(Fate::Dropped, &mut rng);
    assert_eq!(journalled[Path::new("a")], Some(vec![1; 1024]));
    calls.push(Call::Open { handle: 2, cut: false, path: PathBuf::new() });
    calls.push(Call::Sync { handle: 2 });
    let strict = played(&calls, Names::Strict).cut(Fate::Dropped, &mut rng);
    assert_eq!(strict[Path::new("a")], Some(vec![1; 1024]));
}

#[test]
fn what_lies_within_the_durable_length_may_be_kept_alone() {
    let mut rng = Rng::new(1);
    let mut calls = sample();
    calls.push(Call::Sync { handle: 1 });
    calls.push(Call::Write { handle: 1, offset: 512, data: vec![2; 1024] });
    let disk = played(&calls, Names::Journalled);
    let expected = Some([vec![1; 512], vec![2; 512]].concat());
    assert_eq!(disk.cut(Fate::Within, &mut rng)[Path::new("a")], expected);
    let cuts: Vec<_> = (0..20).map(|_| disk.cut(Fate::Areas, &mut rng)).collect();
    let lengths = cuts.iter().map(|cut| cut[Path::new("a")].as_ref().unwrap().len());
    assert_eq!(lengths.collect::<BTreeSet<_>>(), BTreeSet::from([1024, 1536]));
}

/// A frame is endangered by what is written over it, not by itself, and not while all is synced.
#[test]
fn a_durable_frame_that_is_written_over_is_noticed() {
    let write = |offset, data: &[u8]| Call::Write { handle: 1, offset, data: data.to_vec() };
    let frame = [FRAME, &[7; 100]].concat();
    let mut calls = sample();
    calls.push(write(0, &frame));
    let reuses = |calls: &[Call], call| played(calls, Names::Journalled).reuses(&call);
    assert_eq!(reuses(&calls, write(0, &[0; 200])), None, "it is not durable");
    calls.push(Call::Sync { handle: 1 });
    assert_eq!(reuses(&calls, write(0, &[0; 200])), None, "nothing is unsynced");
    calls.push(write(1 << 20, &frame));
    assert_eq!(reuses(&calls, write(0, &[0; 200])), Some(Reuse::OfTheLast));
    assert_eq!(reuses(&calls, write(0, &frame)), None, "it is the same");
    assert_eq!(reuses(&calls, write(200, &[0; 200])), None, "there is none");
    calls.push(Call::Sync { handle: 1 });
    calls.push(write(2 << 20, &[1]));
    for (offset, length) in [(0, 200), (0, 30), (0, 5), (5, 10), (30, 200)] {
        let over = write(offset, &vec![0; length]);
        assert_eq!(reuses(&calls, over), Some(Reuse::OfCopies), "{length} from {offset}");
    }
    assert_eq!(reuses(&calls, write(60, &[0; 10])), None, "only its body");
}

#[test]
fn what_a_sync_has_failed_to_write_no_later_one_writes() {
    let mut rng = Rng::new(1);
    let mut calls = sample();
    calls.push(Call::Lost { handle: 1, offset: 0, length: 0 });
    let disk = played(&calls, Names::Strict);
    assert_eq!(disk.cut(Fate::Kept, &mut rng)[Path::new("a")], Some(vec![1; 1024]));
    calls.push(Call::Write { handle: 1, offset: 512, data: vec![2; 512] });
    calls.push(Call::Sync { handle: 1 });
    let expected = Some([vec![0; 512], vec![2; 512]].concat());
    let disk = played(&calls, Names::Journalled);
    assert_eq!(disk.cut(Fate::Kept, &mut rng)[Path::new("a")], expected);
}

#[test]
fn a_range_that_is_synced_makes_no_length_durable() {
    let mut rng = Rng::new(1);
    let image = Image::from([(PathBuf::from("a"), Some(vec![0; 512]))]);
    let mut disk = Disk::holding(&image, Names::Journalled);
    sample().iter().for_each(|call| disk.play(call));
    assert_eq!(disk.cut(Fate::Dropped, &mut rng)[Path::new("a")], Some(vec![1; 512]));
}
