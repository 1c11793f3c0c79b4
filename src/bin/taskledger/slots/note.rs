//! What a slot says: the id, where its processes are counted, and the command.

use super::Started;
use crate::processes::Group;
use rustix::process::Pid;
use taskledger::ByteId;

/// What is known from a slot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) id: Option<Vec<u8>>,
    pub(super) here: Option<String>,
    pub(super) command: Option<Started>,
}

impl Noted {
    /// A line that is not whole, or is not understood, says nothing.
    pub(super) fn read(text: &str) -> Self {
        let mut noted = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split_once(' ') {
                Some(("id", hex)) => noted.id = bytes(hex),
                Some(("here", here)) => noted.here = Some(here.to_owned()),
                Some(("group", group)) => noted.command = read_group(group).map(Started::Group),
                Some(("process", group)) => noted.command = read_group(group).map(Started::Process),
                Some(_) | None => {}
            }
        }
        noted
    }
}

pub(super) fn head(id: &ByteId, here: &str) -> String {
    let id: Vec<String> = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("id {}\nhere {here}\n", id.concat())
}

pub(super) fn line(started: Started) -> String {
    let (what, group) = match started {
        Started::Group(group) => ("group", group),
        Started::Process(group) => ("process", group),
    };
    let since = group.started.map_or_else(|| "-".to_owned(), |started| started.to_string());
    format!("{what} {} {since}\n", group.leader)
}

fn read_group(text: &str) -> Option<Group> {
    let (leader, started) = text.split_once(' ')?;
    let leader = Pid::from_raw(leader.parse().ok()?)?;
    let started = if started == "-" { None } else { Some(started.parse().ok()?) };
    Some(Group { leader, started })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.bytes().map(|digit| char::from(digit).to_digit(16)?.try_into().ok()).collect();
    let pair = |pair: &[u8]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    digits.filter(|digits| digits.len() % 2 == 0).map(|digits| digits.chunks(2).map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_it_was_written_and_a_torn_one_as_far_as_it_goes() {
        let group = Group { leader: Pid::INIT, started: Some(77) };
        let id = ByteId::from(&b"a\n\xff"[..]);
        for started in [
            Started::Group(group),
            Started::Process(group),
            Started::Group(Group { started: None, ..group }),
        ] {
            let text = head(&id, "boot pid:[1]") + &line(started);
            let whole = Noted {
                id: Some(b"a\n\xff".to_vec()),
                here: Some("boot pid:[1]".to_owned()),
                command: Some(started),
            };
            for end in 0..text.len() {
                let noted = Noted::read(&text[..end]);
                assert!(noted.id.is_none() || noted.id == whole.id, "{end}");
                assert!(noted.here.is_none() || noted.here == whole.here, "{end}");
                assert_eq!(noted.command, None, "{end}");
            }
            assert_eq!(Noted::read(&text), whole);
        }
        let odd = "\0\nid 123\nid zz\ngroup\ngroup 0 1\nprocess -\nhere\n";
        assert_eq!(Noted::read(odd), Noted::default());
    }
}
