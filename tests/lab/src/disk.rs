//! What a disk holds after a power cut, simulated from a trace.
//!
//! Of each file there is what is durable, and the changes since its last sync; likewise of each
//! directory. A cut keeps everything durable, and of the rest what the [`Fate`] says:
//!
//! ```text
//! dropped   nothing of it                     kept     all of it
//! prefix    the first few changes             torn     all, the last write cut at a multiple of 512
//! sectors   each 512 bytes on its own         pages    each 4 KiB on its own
//! zeros     lengths are kept, contents not    within    all that lies within the durable length
//! areas     each 8 MiB of a file on its own
//! ```
//!
//! The strict model makes a name durable only by a sync of its directory, and takes
//! `sync_file_range` for nothing. The other one is ext4: any sync commits all names before it, and
//! `sync_file_range` makes contents durable, but no length.
//!
//! What a sync was to write that failed is taken for clean: it is read until the power goes, and no
//! later sync writes it.

use crate::Rng;
use crate::places::Image;
use crate::tracer::Call;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Only a sync of the directory makes its names durable.
    Strict,
    /// Any sync commits all names before it, as a journalling file system does.
    Journalled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    Kept,
    Prefix,
    Torn,
    Sectors,
    Pages,
    Zeros,
    Within,
    Areas,
}

impl Fate {
    pub const ALL: [Self; 9] = [
        Self::Dropped,
        Self::Kept,
        Self::Prefix,
        Self::Torn,
        Self::Sectors,
        Self::Pages,
        Self::Zeros,
        Self::Within,
        Self::Areas,
    ];
}

type Node = usize;

#[derive(Clone, Debug)]
enum Change {
    /// The flags: `sync_file_range` has put it on the disk; a sync has failed to.
    Write {
        offset: u64,
        data: Vec<u8>,
        ranged: bool,
        lost: bool,
    },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    since: Vec<Change>,
}

/// A change of the names in one directory. A rename within it is one change.
#[derive(Clone, Debug)]
struct Naming {
    removed: Option<String>,
    added: Option<(String, Node)>,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    now: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    since: Vec<Naming>,
}

#[derive(Clone, Debug)]
enum Inode {
    File(File),
    Dir(Dir),
}

/// What is written over of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Frames that stand elsewhere as well, durable.
    OfCopies,
    /// One at least that stands nowhere else.
    OfTheLast,
}

/// A disk on which a trace is played.
#[derive(Clone, Debug)]
pub struct Disk {
    names: Names,
    inodes: Vec<Inode>,
    handles: HashMap<u64, Node>,
}

const ROOT: Node = 0;

/// A segment of the ledger's store.
const AREA: u64 = 8 << 20;

/// What a frame of the ledger begins with.
const FRAME: &[u8] = b"TLframe\x01";
/// Bytes of a frame before its body.
const HEAD: usize = 53;

impl Disk {
    /// A disk that holds nothing.
    pub fn empty(names: Names) -> Self {
        Self::holding(&Image::new(), names)
    }

    /// A disk that durably holds this.
    pub fn holding(image: &Image, names: Names) -> Self {
        let mut disk =
            Self { names, inodes: vec![Inode::Dir(Dir::default())], handles: HashMap::new() };
        for (path, content) in image {
            let inode = match content {
                None => Inode::Dir(Dir::default()),
                Some(bytes) => Inode::File(File { durable: bytes.clone(), since: Vec::new() }),
            };
            disk.enter(path, inode);
        }
        disk.commit_names();
        disk
    }

    pub fn play(&mut self, call: &Call) {
        match call {
            Call::Open { handle, cut, path } => {
                let node = match self.find(path) {
                    Some(node) => node,
                    None => self.enter(path, Inode::File(File::default())),
                };
                if *cut {
                    self.file(node).since.push(Change::Length(0));
                }
                self.handles.insert(*handle, node);
            }
            Call::Write { handle, offset, data } => {
                let change = write(*offset, data.clone());
                self.file(self.handles[handle]).since.push(change);
            }
            Call::Length { handle, length } => {
                self.file(self.handles[handle]).since.push(Change::Length(*length));
            }
            Call::Range { handle, offset, length } => {
                if self.names == Names::Strict {
                    return;
                }
                let whole = range(*offset, *length);
                for change in &mut self.file(self.handles[handle]).since {
                    if let Change::Write { offset, data, ranged, lost } = change {
                        let end = *offset + data.len() as u64;
                        *ranged |= !*lost && whole.start <= *offset && end <= whole.end;
                    }
                }
            }
            Call::Lost { handle, offset, length } => {
                let part = range(*offset, *length);
                let Inode::File(file) = &mut self.inodes[self.handles[handle]] else { return };
                for change in &mut file.since {
                    if let Change::Write { offset, data, lost, .. } = change {
                        let end = *offset + data.len() as u64;
                        *lost |= *offset < part.end && part.start < end;
                    }
                }
            }
            Call::Sync { handle } => {
                match &mut self.inodes[self.handles[handle]] {
                    Inode::File(file) => {
                        for change in std::mem::take(&mut file.since) {
                            if !matches!(change, Change::Write { lost: true, .. }) {
                                apply(&mut file.durable, &change);
                            }
                        }
                    }
                    Inode::Dir(dir) => {
                        dir.durable = dir.now.clone();
                        dir.since.clear();
                    }
                }
                if self.names == Names::Journalled {
                    self.commit_names();
                }
            }
            Call::Rename { from, to } => {
                let node = self.find(from).expect("what is renamed is there");
                let ((above, old), (other, new)) = (self.above(from), self.above(to));
                if above == other {
                    self.name(above, Some(old), Some((new, node)));
                } else {
                    self.name(above, Some(old), None);
                    self.name(other, None, Some((new, node)));
                }
            }
            Call::Unlink { path } => {
                let (above, name) = self.above(path);
                self.name(above, Some(name), None);
            }
            Call::Mkdir { path } => {
                self.enter(path, Inode::Dir(Dir::default()));
            }
            Call::Link { from, to } => {
                let node = self.find(from).expect("what is linked is there");
                let (above, name) = self.above(to);
                self.name(above, None, Some((name, node)));
            }
            Call::Ack(_) => {}
        }
    }

    /// Whether this call, which is not played yet, writes something else over frames that are durable,
    /// while something that was written before it into the same file is not.
    pub fn reuses(&self, call: &Call) -> Option<Reuse> {
        let Call::Write { handle, offset, data } = call else { return None };
        let Inode::File(file) = &self.inodes[self.handles[handle]] else { return None };
        if file.since.is_empty() {
            return None;
        }
        let durable = &file.durable;
        let from = (*offset as usize).min(durable.len());
        let end = (from + data.len()).min(durable.len());
        // Its head, with the position and the chain in it, tells a frame from all others. One may begin before
        // what is written over, and another go on behind it.
        let head = |at: usize| &durable[at..(at + HEAD).min(durable.len())];
        let near = from.saturating_sub(HEAD - 1);
        let mut then = durable[near..(end + HEAD).min(durable.len())].to_vec();
        then[from - near..end - near].copy_from_slice(&data[..end - from]);
        let begun = &durable[near..(end + FRAME.len() - 1).min(durable.len())];
        let places: BTreeSet<usize> = memchr::memmem::find_iter(begun, FRAME)
            .filter(|at| !then[*at..].starts_with(head(near + at)))
            .map(|at| near + at)
            .collect();
        if places.is_empty() {
            return None;
        }
        let mut gone: BTreeSet<&[u8]> = places.iter().map(|at| head(*at)).collect();
        for at in memchr::memmem::find_iter(durable, FRAME) {
            if !places.contains(&at) {
                gone.remove(head(at));
            }
        }
        Some(if gone.is_empty() { Reuse::OfCopies } else { Reuse::OfTheLast })
    }

    /// What is found after a cut at this moment.
    pub fn cut(&self, fate: Fate, rng: &mut Rng) -> Image {
        let mut image = Image::new();
        self.cut_dir(ROOT, Path::new(""), fate, rng, &mut image);
        image
    }

    fn cut_dir(&self, node: Node, path: &Path, fate: Fate, rng: &mut Rng, image: &mut Image) {
        let Inode::Dir(dir) = &self.inodes[node] else { unreachable!("it is a directory") };
        let mut names = dir.durable.clone();
        // A directory's own changes reach the disk in their order, as far as they do.
        let kept = match fate {
            Fate::Dropped | Fate::Within => 0,
            Fate::Kept | Fate::Torn | Fate::Zeros => dir.since.len(),
            Fate::Prefix | Fate::Sectors | Fate::Pages | Fate::Areas => {
                rng.below(dir.since.len() as u64 + 1) as usize
            }
        };
        dir.since[..kept].iter().for_each(|naming| rename(&mut names, naming));
        for (name, node) in names {
            let path = path.join(name);
            match &self.inodes[node] {
                Inode::File(file) => {
                    image.insert(path, Some(file.cut(fate, rng)));
                }
                Inode::Dir(_) => {
                    image.insert(path.clone(), None);
                    self.cut_dir(node, &path, fate, rng, image);
                }
            }
        }
    }

    fn find(&self, path: &Path) -> Option<Node> {
        path.iter().try_fold(ROOT, |node, name| match &self.inodes[node] {
            Inode::Dir(dir) => dir.now.get(name.to_str().unwrap()).copied(),
            Inode::File(_) => None,
        })
    }

    fn above(&self, path: &Path) -> (Node, String) {
        let above = self.find(path.parent().unwrap()).expect("the directory is there");
        (above, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn enter(&mut self, path: &Path, inode: Inode) -> Node {
        let (above, name) = self.above(path);
        self.inodes.push(inode);
        let node = self.inodes.len() - 1;
        self.name(above, None, Some((name, node)));
        node
    }

    fn name(&mut self, above: Node, removed: Option<String>, added: Option<(String, Node)>) {
        let Inode::Dir(dir) = &mut self.inodes[above] else { unreachable!("it is a directory") };
        let naming = Naming { removed, added };
        rename(&mut dir.now, &naming);
        dir.since.push(naming);
    }

    fn commit_names(&mut self) {
        for inode in &mut self.inodes {
            if let Inode::Dir(dir) = inode {
                dir.durable = dir.now.clone();
                dir.since.clear();
            }
        }
    }

    fn file(&mut self, node: Node) -> &mut File {
        match &mut self.inodes[node] {
            Inode::File(file) => file,
            Inode::Dir(_) => unreachable!("nobody writes to a directory"),
        }
    }
}

impl File {
    fn cut(&self, fate: Fate, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let last = self.since.len().saturating_sub(1);
        let prefix = rng.below(self.since.len() as u64 + 1) as usize;
        // A length may reach the disk, or not, without the contents.
        let length = rng.coin();
        let areas = rng.next();
        for (number, change) in self.since.iter().enumerate() {
            match (fate, change) {
                (Fate::Kept, change) => apply(&mut bytes, change),
                (Fate::Dropped, Change::Write { offset, data, ranged: true, .. }) => {
                    overwrite(&mut bytes, *offset, data);
                }
                (Fate::Dropped, _) => {}
                (Fate::Within, Change::Write { offset, data, .. }) => {
                    overwrite(&mut bytes, *offset, data);
                }
                (Fate::Within, Change::Length(_)) => {}
                // A change that lies in several is kept as the area is where it begins.
                (Fate::Areas, Change::Write { offset, .. })
                    if Rng::new(areas ^ (offset / AREA)).coin() =>
                {
                    apply(&mut bytes, change);
                }
                (Fate::Areas, Change::Write { .. }) => {}
                (Fate::Areas, change) => {
                    if length {
                        apply(&mut bytes, change);
                    }
                }
                (Fate::Prefix, change) if number < prefix => apply(&mut bytes, change),
                (Fate::Prefix, _) => {}
                (Fate::Torn, Change::Write { offset, data, .. }) if number == last => {
                    // At a border of the disk's sectors, not of the write.
                    let end = offset + rng.below(data.len() as u64 + 1);
                    let end = (end - end % 512).saturating_sub(*offset) as usize;
                    let torn = data[..end.min(data.len())].to_vec();
                    apply(&mut bytes, &write(*offset, torn));
                }
                (Fate::Torn, change) => apply(&mut bytes, change),
                (Fate::Sectors, change) => scattered(&mut bytes, change, 512, length, rng),
                (Fate::Pages, change) => scattered(&mut bytes, change, 4096, length, rng),
                (Fate::Zeros, change) => {
                    let length = match change {
                        Change::Write { offset, data, .. } => {
                            (bytes.len() as u64).max(offset + data.len() as u64)
                        }
                        Change::Length(length) => *length,
                    };
                    bytes.resize(length as usize, 0);
                }
            }
        }
        bytes
    }
}

/// Each block of the write reaches the disk or not. Beyond the durable length nothing is left of
/// it where the length does not.
fn scattered(bytes: &mut Vec<u8>, change: &Change, block: u64, length: bool, rng: &mut Rng) {
    let Change::Write { offset, data, ranged, .. } = change else {
        if length {
            apply(bytes, change);
        }
        return;
    };
    let end = offset + data.len() as u64;
    if length && (bytes.len() as u64) < end {
        bytes.resize(end as usize, 0);
    }
    let mut at = *offset;
    while at < end {
        let next = (at - at % block + block).min(end);
        if *ranged || rng.coin() {
            overwrite(bytes, at, &data[(at - offset) as usize..(next - offset) as usize]);
        }
        at = next;
    }
}

const fn write(offset: u64, data: Vec<u8>) -> Change {
    Change::Write { offset, data, ranged: false, lost: false }
}

/// A length of 0 is all of it.
const fn range(offset: u64, length: u64) -> Range<u64> {
    offset..if length == 0 { u64::MAX } else { offset + length }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data, .. } => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
        Change::Length(length) => bytes.resize(*length as usize, 0),
    }
}

/// As far as the bytes reach.
fn overwrite(bytes: &mut [u8], offset: u64, data: &[u8]) {
    let from = (offset as usize).min(bytes.len());
    let end = (offset as usize + data.len()).min(bytes.len());
    bytes[from..end].copy_from_slice(&data[..end - from]);
}

fn rename(names: &mut BTreeMap<String, Node>, naming: &Naming) {
    if let Some(removed) = &naming.removed {
        names.remove(removed);
    }
    if let Some((name, node)) = &naming.added {
        names.insert(name.clone(), *node);
    }
}

#[cfg(test)]
mod tests;
