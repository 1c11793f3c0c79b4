//! Whom the next group waits for.
//!
//! Whoever is answered often comes back at once: with the end of the attempt that has just begun, or
//! with the next task. Without a wait half of them would stand in the group that is taken now, and half in
//! the one after it, and every group would cost the same sync. So the writer waits for those who were there
//! a moment ago, for about half as long as a sync takes at most, and only as long as that pays:
//!
//! ```text
//! 64 who come back at once, no wait:  | sync of 32 | sync of 32 | sync of 32 | sync of 32 |
//!                          a wait:    | sync of 64 |..| sync of 64 |..| sync of 64 |..|
//! ```
//!
//! Nobody waits alone, and where those who were there do not come back, the waits become rare. (The idea is
//! that of `commit_delay` and `commit_siblings` in PostgreSQL; here both set themselves.)

use std::time::Duration;

/// How late a timer is, about: a wait of 12 us takes 95, one of 100 takes 174.
const LATE: Duration = Duration::from_micros(80);

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
        let within = (sync / 2).min(LONGEST).saturating_sub(LATE);
        if within.is_zero() || requests < 2 || cfg!(shuttle) {
            return Company::NONE;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Company::NONE;
        }
        Company { requests, within }
    }

    /// So many have come.
    pub(crate) fn came(&mut self, company: Company, requests: usize) {
        if company == Company::NONE {
            return;
        }
        if requests >= company.requests {
            // Not all is forgotten: those who do not come back are company by chance now and then.
            self.next /= 2;
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
        let wanted = Company { requests: 64, within: SYNC / 2 - LATE };
        assert_eq!(company(&mut patience, 64, SYNC), wanted);
        assert_eq!(patience.company(), Company::NONE);
        assert_eq!(company(&mut patience, 64, 2 * LATE), Company::NONE);
        let longest = Company { requests: 64, within: LONGEST - LATE };
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
        // One that pays halves the pauses, which are forgotten after a few.
        patience.came(waited, 64);
        assert_ne!(company(&mut patience, 64, SYNC), Company::NONE);
        assert_eq!((patience.skip, patience.next), (0, MOST_SKIPPED / 2));
    }

    /// What callers see, by a clock of its own: the mean time to an answer, and answers in a second.
    /// `gap` is the time between two callers that do not care whether others are served; or else so many
    /// come back at once after each answer.
    fn served(patient: bool, gap: Option<u64>, come_back: usize) -> (f64, f64) {
        const ANSWERS: usize = 20_000;
        let sync = SYNC.as_micros() as f64;
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        // When who comes, the next one last.
        let mut coming: Vec<f64> = (0..come_back).map(|_| random() * sync).collect();
        if let Some(gap) = gap {
            let mut at = 0.0;
            coming.extend((0..ANSWERS).map(|_| {
                at -= random().ln() * gap as f64;
                at
            }));
        }
        coming.sort_by(|a, b| b.total_cmp(a));
        let (mut patience, mut now, mut queue) = (Patience::default(), 0.0, Vec::new());
        let (mut answered, mut waited) = (0_usize, 0.0);
        let come = |coming: &mut Vec<f64>, queue: &mut Vec<f64>, now: f64| {
            while let Some(at) = coming.pop_if(|at| *at <= now) {
                queue.push(at);
            }
        };
        while answered < ANSWERS {
            let company = if patient { patience.company() } else { Company::NONE };
            come(&mut coming, &mut queue, now);
            let until = now + (company.within + LATE).as_micros() as f64;
            while queue.len() < company.requests && now < until {
                now = coming.last().map_or(until, |at| at.min(until)).max(now);
                come(&mut coming, &mut queue, now);
            }
            if queue.is_empty() {
                now = *coming.last().unwrap();
                come(&mut coming, &mut queue, now);
            }
            patience.came(company, queue.len());
            let group = std::mem::take(&mut queue);
            now += sync * (0.8 + 0.4 * random());
            come(&mut coming, &mut queue, now);
            patience.recorded(group.len() + queue.len(), SYNC);
            answered += group.len();
            waited += group.iter().map(|at| now - at).sum::<f64>();
            if gap.is_none() {
                coming.extend(group.iter().map(|_| now + 20.0 + 20.0 * random()));
                coming.sort_by(|a, b| b.total_cmp(a));
            }
        }
        (waited / answered as f64, answered as f64 / now * 1e6)
    }

    #[test]
    fn a_wait_pays_for_those_who_come_back() {
        for callers in [2, 16, 64] {
            let (_, plain) = served(false, None, callers);
            let (_, patient) = served(true, None, callers);
            assert!(
                patient > 1.4 * plain,
                "{callers}: {plain} answers in a second, then {patient}"
            );
        }
    }

    #[test]
    fn a_wait_costs_those_who_do_not_come_back_next_to_nothing() {
        let mut dear = Vec::new();
        for gap in [400, 200, 100, 50, 12] {
            let (plain, _) = served(false, Some(gap), 0);
            let (patient, _) = served(true, Some(gap), 0);
            println!("one in {gap} us: answered in {plain:.0} us, then in {patient:.0}");
            if patient > 1.03 * plain {
                dear.push(gap);
            }
        }
        assert!(dear.is_empty(), "one in {dear:?} us");
    }
}
