//! The figures as a picture: medians with their spread, on logarithmic scales.

use crate::Result;
use crate::figure::{Figure, thousands};
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// What a panel shows: a bench, and of it what is counted in this unit with more and more of this.
struct Panel {
    bench: &'static str,
    unit: &'static str,
    over: &'static str,
    title: &'static str,
}

const PANELS: [Panel; 4] = [
    Panel {
        bench: "Durable tasks per second",
        unit: "/s",
        over: "launchers",
        title: "Durable tasks per second",
    },
    Panel { bench: "Latency", unit: "us", over: "launchers", title: "Latency in microseconds" },
    Panel {
        bench: "Peers: durable jobs per second",
        unit: "/s",
        over: "callers",
        title: "Durable jobs per second, peers",
    },
    Panel { bench: "Growth", unit: "ns/id", over: "ids", title: "Nanoseconds per id to open" },
];

const PANEL: (u32, u32) = (560, 380);

type Series = BTreeMap<String, Vec<(f64, f64, f64, f64)>>;

/// Draws the panels that there are figures for, two beside each other.
///
/// # Errors
///
/// That there is nothing to draw, or that the file cannot be written.
pub(crate) fn draw(path: &Path, figures: &[Figure]) -> Result<()> {
    let panels: Vec<_> = PANELS
        .iter()
        .map(|panel| (panel, series(panel, figures)))
        .filter(|(_, series)| !series.is_empty())
        .collect();
    if panels.is_empty() {
        return Err("there is nothing to draw: throughput, latency, peers or growth".into());
    }
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(2);
    let size = (PANEL.0 * u32::try_from(columns)?, PANEL.1 * u32::try_from(rows)?);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    for ((panel, series), area) in panels.iter().zip(root.split_evenly((rows, columns))) {
        one(panel, series, &area).map_err(|error| error.to_string())?;
    }
    root.present().map_err(|error| error.to_string())?;
    Ok(())
}

fn series(panel: &Panel, figures: &[Figure]) -> Series {
    let mut series = Series::new();
    for figure in figures.iter().filter(|f| f.bench == panel.bench && f.unit == panel.unit) {
        if let Some((_, at)) = figure.at.as_ref().filter(|(over, _)| *over == panel.over) {
            let by = figure.spread;
            let points = series.entry(figure.what.clone()).or_default();
            points.push((*at as f64, by.low, by.median, by.high));
        }
    }
    series
}

fn one<'a>(
    panel: &Panel,
    series: &Series,
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
) -> std::result::Result<(), Box<dyn std::error::Error + 'a>> {
    let points = || series.values().flatten();
    let least = |of: fn(&(f64, f64, f64, f64)) -> f64| points().map(of).fold(f64::MAX, f64::min);
    let most = |of: fn(&(f64, f64, f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let xs = (least(|p| p.0) * 0.8)..(most(|p| p.0) * 1.25);
    // Room below for the legend.
    let ys = (least(|p| p.1) / 3.0)..(most(|p| p.3) * 1.5);
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
    let label = |value: &f64| thousands(*value as u64);
    chart
        .configure_mesh()
        .x_desc(panel.over)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .max_light_lines(0)
        .draw()?;
    for (place, (name, points)) in series.iter().enumerate() {
        let colour = Palette99::pick(place).to_rgba();
        let line = points.iter().map(|(x, _, median, _)| (*x, *median));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|(x, low, median, high)| {
            ErrorBar::new_vertical(*x, *low, *median, *high, colour.filled(), 6)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 11))
        .draw()?;
    Ok(())
}
