//! Files that damage cannot make: every checksum is right, and what they say is not.

use super::*;
use crate::journal::checkpoint::entry::{Origin, encode_entry};
use crate::journal::frame::FrameStart;
use crate::state::Tombstone;

const LAST: SeqNo = SeqNo::new(900);

/// A checkpoint under construction, frame by frame.
struct Forger {
    bytes: Vec<u8>,
    chain: Chain,
    number: u64,
    tail: u64,
}

impl Forger {
    fn new() -> Self {
        Self::at(LAST.get())
    }

    /// One that stands at this record.
    fn at(last: u64) -> Self {
        let mut bytes = HEAD_MAGIC.to_vec();
        bytes.extend_from_slice(&LEDGER.0);
        bytes.extend_from_slice(&last.to_le_bytes());
        bytes.extend_from_slice(&CHAIN.0.to_le_bytes());
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Self { bytes, chain: Chain(checksum), number: 0, tail: 0 }
    }

    fn frame(&mut self, kind: Kind, count: u32, body: &[u8]) -> u32 {
        let (number, chain) = (self.number, self.chain);
        self.frame_as(number, chain, kind, count, body)
    }

    /// A frame that says it is the one of this number, after that chain. Returns its length.
    fn frame_as(&mut self, first: u64, chain: Chain, kind: Kind, count: u32, body: &[u8]) -> u32 {
        let start = FrameStart { kind, first, lead: 0, count, chain };
        let before = self.bytes.len();
        self.chain = frame::seal(&mut self.bytes, LEDGER, &start, body).unwrap();
        self.number = first + 1;
        u32::try_from(self.bytes.len() - before).unwrap()
    }

    /// The frames before it are entries, those after it the tail.
    fn begin_tail(&mut self) {
        self.tail = self.bytes.len() as u64;
    }

    fn places(&mut self, places: &[(u32, &EncodedId)]) {
        let body = places_of(places);
        self.frame(Kind::Index, u32::try_from(places.len()).unwrap(), &body);
    }

    fn name(&mut self, name: &str) {
        self.frame(Kind::Metadata, 1, &name_of(name));
    }

    fn summary(&mut self, summary: &SummaryWire) {
        self.frame(Kind::Summary, 1, &encoded(summary));
    }

    fn file(mut self, dir: &TempDir) -> PathBuf {
        self.bytes.extend_from_slice(&END_MAGIC);
        self.bytes.extend_from_slice(&self.tail.to_le_bytes());
        let whole = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&whole.to_le_bytes());
        let path = dir.path().join("checkpoint-1");
        std::fs::write(&path, self.bytes).unwrap();
        path
    }

    fn open(self) -> Result<Checkpoint, JournalError> {
        let dir = TempDir::new().unwrap();
        Checkpoint::open(&self.file(&dir), LEDGER, LAST, CHAIN)
    }
}

fn encoded(item: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_into(&mut bytes, item);
    bytes
}

fn places_of(places: &[(u32, &EncodedId)]) -> Vec<u8> {
    let wire = |(length, first): &(u32, &EncodedId)| {
        encoded(&PlaceWire { length: *length, first: BytesWire(first.as_bytes()) })
    };
    places.iter().flat_map(wire).collect()
}

fn name_of(name: &str) -> Vec<u8> {
    encoded(&MetadataWire { name, value: BytesWire(b"value") })
}

/// The body of a frame of these ids, each a success.
fn entries_of(numbers: &[u64]) -> Vec<u8> {
    let origin = Origin::of(LAST, &succeeded(0, LAST.get()));
    let mut body = encoded(&origin.at);
    for number in numbers {
        let details = succeeded(*number, LAST.get());
        encode_entry(&mut body, origin, &id(*number), &details).unwrap();
    }
    body
}

/// What a sound file says: two frames of two ids each, and a name.
fn sound_summary() -> SummaryWire {
    SummaryWire {
        last_seq: LAST.get(),
        chain: CHAIN.0,
        epoch: 3,
        counts: [0, 0, 0, 4, 0, 0],
        entry_frames: 2,
        names: 1,
    }
}

/// The head and both frames of entries; their lengths.
fn begun() -> (Forger, [u32; 2]) {
    let mut forger = Forger::new();
    let lengths = [[1, 2], [3, 4]].map(|ids| forger.frame(Kind::Entries, 2, &entries_of(&ids)));
    forger.begin_tail();
    (forger, lengths)
}

/// As [`begun`], and its index.
fn indexed() -> Forger {
    let (mut forger, [one, two]) = begun();
    forger.places(&[(one, &id(1)), (two, &id(3))]);
    forger
}

/// What is wrong with it, found by the open alone.
#[track_caller]
fn refused(forger: Forger, why: &str) {
    let error = forger.open().expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
}

/// What is wrong with it, found by reading it.
#[track_caller]
fn unread(forger: Forger, why: &str) {
    let error = collected(&forger.open().expect("the tail is sound")).expect_err(why).to_string();
    assert!(error.contains(why), "{error}");
}

/// Without this, the other tests would show nothing.
#[test]
fn a_sound_one_is_read() {
    let mut forger = indexed();
    forger.name("a");
    forger.summary(&sound_summary());
    assert_eq!(collected(&forger.open().unwrap()).unwrap().len(), 4);
}

#[test]
fn the_frames_of_the_tail_follow_each_other() {
    let (mut forger, [one, two]) = begun();
    forger.name("a");
    forger.places(&[(one, &id(1)), (two, &id(3))]);
    forger.summary(&sound_summary());
    refused(forger, "does not follow");

    let mut forger = indexed();
    let number = forger.number;
    forger.frame_as(number, Chain(1), Kind::Metadata, 1, &name_of("a"));
    forger.summary(&sound_summary());
    refused(forger, "does not follow");

    for number in [2, 4] {
        let mut forger = indexed();
        let chain = forger.chain;
        forger.frame_as(number, chain, Kind::Metadata, 1, &name_of("a"));
        forger.summary(&sound_summary());
        refused(forger, "does not follow");
    }
}

#[test]
fn the_tail_holds_nothing_else() {
    for (kind, body) in [(Kind::Entries, entries_of(&[5])), (Kind::Records, vec![0; 9])] {
        let (mut forger, _) = begun();
        forger.frame(kind, 1, &body);
        refused(forger, "not expected in the tail");
    }
    let (mut forger, [one, two]) = begun();
    let places = [places_of(&[(one, &id(1)), (two, &id(3))]), vec![0]].concat();
    forger.frame(Kind::Index, 2, &places);
    refused(forger, "1 bytes too many");

    let mut forger = indexed();
    forger.frame(Kind::Metadata, 1, &[name_of("a"), vec![0]].concat());
    refused(forger, "1 bytes too many");

    let mut forger = indexed();
    forger.name("a");
    refused(forger, "it has no summary");
}

#[test]
fn a_summary_fits_what_is_before_it_and_is_the_last() {
    const MISFIT: &str = "do not fit together";
    let with_name = || {
        let mut forger = indexed();
        forger.name("a");
        forger
    };
    for (entry_frames, names) in [(1, 1), (3, 1), (2, 0), (2, 2)] {
        let mut forger = with_name();
        forger.summary(&SummaryWire { entry_frames, names, ..sound_summary() });
        refused(forger, MISFIT);
    }
    let mut forger = with_name();
    forger.frame(Kind::Summary, 1, &[encoded(&sound_summary()), vec![0]].concat());
    refused(forger, MISFIT);

    let mut forger = with_name();
    forger.summary(&sound_summary());
    forger.summary(&sound_summary());
    refused(forger, MISFIT);

    // The index ends before the tail begins, or behind.
    for wrong in [-1, 1] {
        let (mut forger, [one, two]) = begun();
        forger.places(&[(one, &id(1)), (two.checked_add_signed(wrong).unwrap(), &id(3))]);
        forger.name("a");
        forger.summary(&sound_summary());
        refused(forger, MISFIT);
    }
    for summary in [
        SummaryWire { last_seq: LAST.get() - 1, ..sound_summary() },
        SummaryWire { chain: 1, ..sound_summary() },
    ] {
        let mut forger = with_name();
        forger.summary(&summary);
        refused(forger, "head and summary differ");
    }
}

#[test]
fn the_index_ascends() {
    for second in [1, 0] {
        let (mut forger, [one, two]) = begun();
        forger.places(&[(one, &id(1)), (two, &id(second))]);
        refused(forger, "the index is out of order");
    }
}

/// A place at its limits is one, and a place beyond one of them is none.
#[test]
fn a_place_has_its_limits() {
    let longest = EncodedId::from_bytes(&[7; MAX_ID_BYTES]);
    let frame = u32::try_from(MAX_FRAME).unwrap();
    let of = |length: u32, first: &EncodedId| {
        let mut forger = Forger::new();
        // Nobody reads it.
        forger.bytes.resize(HEAD_BYTES + length as usize, 0);
        forger.begin_tail();
        forger.places(&[(length, first)]);
        forger.summary(&SummaryWire { entry_frames: 1, names: 0, ..sound_summary() });
        forger
    };
    assert!(of(frame, &longest).open().is_ok());
    refused(of(frame + 1, &longest), "beyond all limits");
    refused(of(frame, &EncodedId::from_bytes(&[7; MAX_ID_BYTES + 1])), "beyond all limits");
}

#[test]
fn frames_of_entries_are_the_ones_in_the_index() {
    const UNNAMED: &str = "is not in the index";
    for wrong in [-1, 1] {
        let (mut forger, [one, two]) = begun();
        let [one, two] = [(one, wrong), (two, -wrong)]
            .map(|(length, wrong)| length.checked_add_signed(wrong).unwrap());
        forger.places(&[(one, &id(1)), (two, &id(3))]);
        forger.name("a");
        forger.summary(&sound_summary());
        unread(forger, UNNAMED);
    }
    for firsts in [[0, 3], [1, 2], [1, 4]] {
        let (mut forger, [one, two]) = begun();
        forger.places(&[(one, &id(firsts[0])), (two, &id(firsts[1]))]);
        forger.name("a");
        forger.summary(&sound_summary());
        unread(forger, UNNAMED);
    }
    // Two frames under one name.
    let (mut forger, [one, two]) = begun();
    forger.places(&[(one + two, &id(1))]);
    forger.name("a");
    forger.summary(&SummaryWire { entry_frames: 1, ..sound_summary() });
    unread(forger, UNNAMED);
}

#[test]
fn frames_of_entries_follow_each_other() {
    let finished = |mut forger: Forger, lengths: [u32; 2]| {
        forger.begin_tail();
        forger.places(&[(lengths[0], &id(1)), (lengths[1], &id(3))]);
        forger.name("a");
        forger.summary(&sound_summary());
        forger
    };
    let body = entries_of(&[3, 4]);
    let mut forger = Forger::new();
    let one = forger.frame(Kind::Entries, 2, &entries_of(&[1, 2]));
    let two = forger.frame_as(1, Chain(1), Kind::Entries, 2, &body);
    unread(finished(forger, [one, two]), "frame 1 does not follow");

    for number in [0, 2] {
        let mut forger = Forger::new();
        let one = forger.frame(Kind::Entries, 2, &entries_of(&[1, 2]));
        let chain = forger.chain;
        let two = forger.frame_as(number, chain, Kind::Entries, 2, &body);
        unread(finished(forger, [one, two]), "does not follow");
    }

    // Not of entries, and not in the tail.
    let mut forger = Forger::new();
    let one = forger.frame(Kind::Entries, 2, &entries_of(&[1, 2]));
    let two = forger.frame(Kind::Metadata, 1, &name_of("a"));
    unread(finished(forger, [one, two]), "frame 1 does not follow");
}

#[test]
fn ids_ascend_and_are_those_that_were_counted() {
    for ids in [[[1, 1], [3, 4]], [[2, 1], [3, 4]], [[1, 3], [3, 4]]] {
        let mut forger = Forger::new();
        let [one, two] = ids.map(|ids| forger.frame(Kind::Entries, 2, &entries_of(&ids)));
        forger.begin_tail();
        forger.places(&[(one, &id(ids[0][0])), (two, &id(3))]);
        forger.name("a");
        forger.summary(&sound_summary());
        unread(forger, "is out of order");
    }
    for counts in [[0, 0, 0, 3, 0, 0], [0, 0, 0, 5, 0, 0], [1, 0, 0, 4, 0, 0]] {
        let mut forger = indexed();
        forger.name("a");
        forger.summary(&SummaryWire { counts, ..sound_summary() });
        unread(forger, "the summary counts other entries");
    }
}

/// Memory is asked for as many ids as a file tells of, before they are read.
#[test]
fn no_more_ids_are_expected_than_there_is_room_for() {
    let lengths = |counts| {
        let mut forger = indexed();
        forger.name("a");
        forger.summary(&SummaryWire { counts, ..sound_summary() });
        let checkpoint = forger.open().unwrap();
        (checkpoint.lengths(), usize::try_from(checkpoint.bytes()).unwrap())
    };
    let length = id(1).as_bytes().len();
    assert_eq!(lengths([0, 0, 0, 4, 0, 0]).0, [(length, 4)]);
    for counts in [[0, 0, 0, u64::MAX, 0, 0], [u64::MAX; 6]] {
        let (expected, bytes) = lengths(counts);
        assert!(bytes / 5 > 4, "{bytes}");
        assert_eq!(expected, [(length, 4)], "its frames say so");
    }
}

#[test]
fn a_position_beyond_all_numbers_is_refused() {
    let dir = TempDir::new().unwrap();
    for (last, refused) in [(SeqNo::LAST, false), (SeqNo::LAST + 1, true)] {
        let mut forger = Forger::at(last);
        forger.begin_tail();
        let counts = [0; TaskState::ALL.len()];
        let (entry_frames, names) = (0, 0);
        let summary =
            SummaryWire { last_seq: last, counts, entry_frames, names, ..sound_summary() };
        forger.summary(&summary);
        let path = forger.file(&dir);
        // As a salvage reads it, which knows of no position that it should have.
        let head = *std::fs::read(&path).unwrap().first_chunk().unwrap();
        assert_eq!(read_head(&head).is_err(), refused, "{last}");
        let opened = Checkpoint::open(&path, LEDGER, SeqNo::new(last), CHAIN);
        assert_eq!(opened.is_err(), refused, "{last}: {opened:?}");
    }
}

fn tombstones_of(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [*byte; 16]).collect()
}

/// Behind the summary, ascending over all frames, as many as their heads say.
#[test]
fn tombstones_are_what_they_should_be() {
    let with = |frames: &[(u32, &[u8])]| {
        let mut forger = indexed();
        forger.name("a");
        forger.summary(&sound_summary());
        for (count, bytes) in frames {
            forger.frame(Kind::Tombstones, *count, bytes);
        }
        forger
    };
    let sound = with(&[(2, &tombstones_of(&[1, 2])), (1, &tombstones_of(&[3]))]).open().unwrap();
    let mut all = sound.tombstones();
    for byte in 1..=3 {
        assert_eq!(all.next().unwrap(), Some(Tombstone::from_bytes([byte; 16])));
    }
    assert_eq!(all.next().unwrap(), None);
    assert_eq!(collected(&sound).unwrap().len(), 4, "the whole file is sound");
    for count in [1, 3] {
        refused(with(&[(count, &tombstones_of(&[1, 2]))]), "tombstones in 32 bytes");
    }
    refused(with(&[(1, &[7; 15])]), "tombstones in 15 bytes");
    for wrong in [[2, 1], [1, 1]] {
        refused(with(&[(2, &tombstones_of(&wrong))]), "out of order");
        let [first, second] = wrong.map(|byte| tombstones_of(&[byte]));
        refused(with(&[(1, &first), (1, &second)]), "out of order");
    }
    // Before the summary they are where they should not be.
    let mut forger = indexed();
    forger.frame(Kind::Tombstones, 1, &tombstones_of(&[1]));
    forger.summary(&sound_summary());
    refused(forger, "does not follow");
}
