//! A figure: what was measured, in all rounds, beside what, and what was aimed at.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Lowest, median and highest of several rounds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(part).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { low: at(0), median: at(sorted.len() / 2), high: at(last) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, median, high } = self;
        let short = Short(*median);
        if low == high {
            return write!(f, "{short}");
        }
        write!(f, "{short} ({}-{})", Short(*low), Short(*high))
    }
}

/// A number with about three digits that mean something.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        match value.abs() {
            ..10.0 => write!(f, "{value:.2}"),
            ..100.0 => write!(f, "{value:.1}"),
            ..10_000.0 => write!(f, "{value:.0}"),
            ..1e6 => write!(f, "{:.0} k", value / 1e3),
            _ => write!(f, "{:.2} M", value / 1e6),
        }
    }
}

/// How a figure compares with another one of the same rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// To what.
    pub(crate) to: String,
    #[serde(flatten)]
    pub(crate) spread: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<Goal>,
}

/// What was aimed at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// With the median.
    pub(crate) fn is_reached(self, by: Spread) -> bool {
        match self {
            Self::AtLeast(goal) => by.median >= goal,
            Self::AtMost(goal) => by.median <= goal,
        }
    }

    fn told(self, by: Spread) -> String {
        let reached = if self.is_reached(by) { "yes" } else { "**no**" };
        match self {
            Self::AtLeast(goal) => format!("at least {}: {reached}", Short(goal)),
            Self::AtMost(goal) => format!("at most {}: {reached}", Short(goal)),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Which of the benches: the heading of its table.
    pub(crate) bench: Cow<'static, str>,
    /// Of what.
    pub(crate) what: String,
    pub(crate) unit: Cow<'static, str>,
    /// With how much of what: 64 launchers, a million ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<(Cow<'static, str>, u64)>,
    #[serde(flatten)]
    pub(crate) spread: Spread,
    /// Each round, in their order.
    pub(crate) rounds: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ratios: Vec<Ratio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<Goal>,
    /// What has to be said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Figure {
    pub(crate) fn new(
        bench: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        rounds: &[f64],
    ) -> Self {
        Self {
            bench: bench.into(),
            what: what.into(),
            unit: unit.into(),
            at: None,
            spread: Spread::of(rounds),
            rounds: rounds.to_vec(),
            ratios: Vec::new(),
            goal: None,
            note: None,
        }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(crate) fn at(mut self, what: &'static str, much: u64) -> Self {
        self.at = Some((what.into(), much));
        self
    }

    /// The ratio of each round to the same round of something else.
    pub(crate) fn against(
        mut self,
        to: impl Into<String>,
        others: &[f64],
        goal: impl Into<Option<Goal>>,
    ) -> Self {
        let ratios: Vec<f64> = self.rounds.iter().zip(others).map(|(own, to)| own / to).collect();
        let (to, spread, goal) = (to.into(), Spread::of(&ratios), goal.into());
        self.ratios.push(Ratio { to, spread, goal });
        self
    }

    pub(crate) fn goal(mut self, goal: impl Into<Option<Goal>>) -> Self {
        self.goal = goal.into();
        self
    }

    fn cells(&self) -> [String; 6] {
        let at = self.at.as_ref().map(|(what, much)| format!("{} {what}", thousands(*much)));
        let ratios = self.ratios.iter().map(|ratio| format!("{} of {}", ratio.spread, ratio.to));
        let goals = self.goal.map(|goal| goal.told(self.spread)).into_iter();
        let of_ratios = self.ratios.iter().filter_map(|ratio| Some(ratio.goal?.told(ratio.spread)));
        [
            self.what.clone(),
            at.unwrap_or_default(),
            format!("{} {}", self.spread, self.unit),
            ratios.collect::<Vec<_>>().join("; "),
            goals.chain(of_ratios).collect::<Vec<_>>().join("; "),
            self.note.clone().unwrap_or_default(),
        ]
    }
}

/// 1,000,000.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// All figures as Markdown: a heading and a table for each bench.
pub(crate) fn table(figures: &[Figure]) -> String {
    use comfy_table::{ContentArrangement, Table, presets::ASCII_MARKDOWN};
    let mut text = String::new();
    for of_one in figures.chunk_by(|one, next| one.bench == next.bench) {
        let Some(first) = of_one.first() else { continue };
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "with", "median (lowest-highest)", "ratio", "goal", "note"]);
        table.add_rows(of_one.iter().map(Figure::cells));
        text += &format!("### {}\n\n{table}\n\n", first.bench);
    }
    text
}

/// Runs every variant in each round, in turn, and returns the rounds of each.
///
/// # Errors
///
/// The first of a run.
pub(crate) async fn interleaved<V: Copy>(
    rounds: usize,
    variants: &[V],
    mut run: impl AsyncFnMut(V) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::new(); variants.len()];
    for _ in 0..rounds {
        for (variant, values) in variants.iter().zip(&mut values) {
            values.push(run(*variant).await?);
        }
    }
    Ok(values)
}
