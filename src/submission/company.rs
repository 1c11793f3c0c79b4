//! Whom the next group waits for.
//!
//! Whoever is answered often comes back at once: with the end of the attempt that has just begun, or
//! with the next task. Without a wait half of them would stand in the group that is taken now, and half in
//! the one after it, and every group would cost the same sync. So the writer waits for those who were there
//! a moment ago, for at most half as long as a sync takes, and only as long as that pays:
//!
//! ```text
//! 64 who come back at once, no wait:  | sync of 32 | sync of 32 | sync of 32 | sync of 32 |
//!                          a wait:    | sync of 64 |..| sync of 64 |..| sync of 64 |..|
//! ```
//!
//! Nobody waits alone, and where those who were there do not come back, the waits become rare. (The idea is
//! that of `commit_delay` and `commit_siblings` in PostgreSQL; here both set themselves.)

use std::time::Duration;

/// A sync that is faster than this needs no company: there is none, as in memory.
const FAST: Duration = Duration::from_micros(20);

/// The longest wait.
const LONGEST: Duration = Duration::from_millis(1);

/// When nobody has come, so many groups are taken without a wait, at most.
const MOST_SKIPPED: u32 = 64;

/// How many requests are worth waiting for, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Company {
    pub(crate) requests: usize,
    pub(crate) within: Duration,
}

impl Company {
    /// Nobody waits.
    pub(crate) const NONE: Self = Self { requests: 0, within: Duration::ZERO };
}

/// Whether it pays to wait for company.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Who may come back, by the last group that was recorded, and how long its sync took.
    around: usize,
    sync: Duration,
    /// For how many groups there is still no wait.
    skip: u32,
    /// For how many there is none when nobody comes once more.
    next: u32,
}

impl Patience {
    /// A group was recorded, with a sync that took so long: so many are answered now, or have come since
    /// it was taken.
    pub(crate) const fn recorded(&mut self, around: usize, sync: Duration) {
        self.around = around;
        self.sync = sync;
    }

    /// Whom the next group waits for. Each group that was recorded is asked about once.
    pub(crate) fn company(&mut self) -> Company {
        let (requests, sync) = (std::mem::take(&mut self.around), self.sync);
        // The model checker has no clock.
        if sync < FAST || requests < 2 || cfg!(shuttle) {
            return Company::NONE;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Company::NONE;
        }
        Company { requests, within: (sync / 2).min(LONGEST) }
    }

    /// So many have come.
    pub(crate) fn came(&mut self, company: Company, requests: usize) {
        if company == Company::NONE {
            return;
        }
        if requests >= company.requests {
            *self = Self::default();
        } else {
            self.next = (2 * self.next).clamp(1, MOST_SKIPPED);
            self.skip = self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(200);

    fn company(patience: &mut Patience, around: usize, sync: Duration) -> Company {
        patience.recorded(around, sync);
        patience.company()
    }

    #[test]
    fn nobody_waits_alone_or_without_a_disk_or_twice() {
        let mut patience = Patience::default();
        assert_eq!(company(&mut patience, 1, SYNC), Company::NONE);
        assert_eq!(company(&mut patience, 64, Duration::from_micros(1)), Company::NONE);
        let wanted = Company { requests: 64, within: SYNC / 2 };
        assert_eq!(company(&mut patience, 64, SYNC), wanted);
        assert_eq!(patience.company(), Company::NONE);
        let longest = Company { requests: 64, within: LONGEST };
        assert_eq!(company(&mut patience, 64, Duration::from_secs(1)), longest);
    }

    #[test]
    fn waits_in_vain_become_rare_and_one_that_is_not_ends_that() {
        let mut patience = Patience::default();
        let mut waits = Vec::new();
        for group in 0..1_000 {
            let company = company(&mut patience, 64, SYNC);
            if company != Company::NONE {
                waits.push(group);
            }
            patience.came(company, 63);
        }
        assert_eq!(waits[..8], [0, 2, 5, 10, 19, 36, 69, 134]);
        assert!(waits.windows(2).all(|two| two[1] - two[0] <= 65), "{waits:?}");
        let mut waited = company(&mut patience, 64, SYNC);
        while waited == Company::NONE {
            waited = company(&mut patience, 64, SYNC);
        }
        patience.came(waited, 64);
        assert_ne!(company(&mut patience, 64, SYNC), Company::NONE);
    }
}
