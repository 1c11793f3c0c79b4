//! The ids, one a line, as they come: a thread reads ahead of the commands, but never far.

use std::io::{BufRead, BufReader, Read};
use tokio::sync::mpsc;

/// Bytes read at once; two such batches wait at most.
const READ: usize = 64 * 1024;

/// A line is kept up to here, which is what an id may have at most.
const KEPT: usize = 1021;

/// What was read of the input.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// Bytes of the input that it took.
    pub(super) bytes: u64,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// It has more bytes than any id; its beginning.
    TooLong(Vec<u8>),
}

/// Reads lines that end with `end`, in a thread of its own, which nobody needs to wait for. What has
/// come is handed on at once: whoever writes slowly is not waited for. `ended` is told how many bytes
/// there are, as soon as that is known.
pub(super) fn read(
    input: impl Read + Send + 'static,
    end: u8,
    ended: impl FnOnce(u64) + Send + 'static,
) -> mpsc::Receiver<std::io::Result<Batch>> {
    let (batches, received) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut lines = Lines { input: BufReader::with_capacity(READ, input), end, begun: None };
        let mut bytes = 0;
        while let Some(batch) = lines.batch().transpose() {
            let failed = batch.is_err();
            bytes += batch.as_ref().map_or(0, |batch| batch.bytes);
            if batches.blocking_send(batch).is_err() || failed {
                return;
            }
        }
        ended(bytes);
    });
    received
}

struct Lines<R> {
    input: BufReader<R>,
    end: u8,
    /// The line whose end has not come yet.
    begun: Option<Line>,
}

impl<R: Read> Lines<R> {
    /// The lines that end in what comes next; `None` behind the last.
    fn batch(&mut self) -> std::io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        let bytes = loop {
            match self.input.fill_buf() {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if bytes.is_empty() {
            batch.lines.extend(self.begun.take());
            return Ok((!batch.lines.is_empty()).then_some(batch));
        }
        let (length, mut rest) = (bytes.len(), bytes);
        while let Some(at) = memchr::memchr(self.end, rest) {
            let (line, after) = rest.split_at(at);
            batch.lines.push(longer(self.begun.take(), line));
            rest = after.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.begun = Some(longer(self.begun.take(), rest));
        }
        self.input.consume(length);
        batch.bytes = length as u64;
        Ok(Some(batch))
    }
}

fn longer(begun: Option<Line>, more: &[u8]) -> Line {
    match begun {
        None if more.len() <= KEPT => Line::Whole(more.to_vec()),
        Some(Line::Whole(mut line)) if line.len() + more.len() <= KEPT => {
            line.extend_from_slice(more);
            Line::Whole(line)
        }
        Some(Line::Whole(line)) => Line::TooLong(line),
        Some(too_long @ Line::TooLong(_)) => too_long,
        None => Line::TooLong(more.get(..KEPT).unwrap_or_default().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &'static [u8], end: u8) -> Vec<Line> {
        let mut lines = Lines { input: BufReader::with_capacity(3, input), end, begun: None };
        let mut found = Vec::new();
        while let Some(batch) = lines.batch().unwrap() {
            found.extend(batch.lines);
        }
        found
    }

    fn whole(lines: &[&[u8]]) -> Vec<Line> {
        lines.iter().map(|line| Line::Whole(line.to_vec())).collect()
    }

    #[test]
    fn lines_are_found_across_reads_and_without_an_end() {
        assert_eq!(all(b"", b'\n'), []);
        assert_eq!(
            all(b"abcdefgh\n\nx\xff\0y\nlast", b'\n'),
            whole(&[b"abcdefgh", b"", b"x\xff\0y", b"last"])
        );
        assert_eq!(all(b"a\nb\0c\0", 0), whole(&[b"a\nb", b"c"]));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let input: &'static [u8] = vec![b'x'; 100_000].leak();
        let beginning = |line: &Line| matches!(line, Line::TooLong(line) if line.len() <= KEPT);
        assert!(matches!(&all(input, b'\n')[..], [line] if beginning(line)));
    }
}
