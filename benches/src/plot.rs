//! Plots of what a table shows badly.

use crate::figures::{Row, Spread, of_contender, rows};
use crate::rounds::Outcome;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

type Plotted = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (720, 420);
const FONT: &str = "sans-serif";
/// Distinct also without colours to most eyes: blue, orange, green.
const COLOURS: [RGBColor; 3] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 140, 100),
];

/// Writes `NAME.svg` for each series of cases, and `ratios.svg`, to `dir`.
///
/// # Errors
/// They cannot be written.
pub fn write(dir: &Path, outcomes: &[Outcome]) -> Plotted {
    let mut names: Vec<&str> = Vec::new();
    for series in outcomes.iter().filter_map(|o| o.series.as_ref()) {
        if !names.contains(&series.name) {
            names.push(series.name);
        }
    }
    for name in names {
        let of = |o: &&Outcome| o.series.as_ref().is_some_and(|s| s.name == name);
        let cases: Vec<_> = outcomes.iter().filter(of).collect();
        series(&dir.join(format!("{name}.svg")), &cases)?;
    }
    let single = outcomes.iter().filter(|o| o.series.is_none());
    ratios(
        &dir.join("ratios.svg"),
        &single.flat_map(rows).collect::<Vec<_>>(),
    )
}

/// The values of each contender over the series, with their range.
fn series(path: &Path, cases: &[&Outcome]) -> Plotted {
    let Some(first) = cases.first().and_then(|o| Some((o, o.series.as_ref()?))) else {
        return Ok(());
    };
    let (first, axis) = first;
    let points = |contender: &str| -> Vec<(f64, Spread)> {
        let point = |o: &&Outcome| {
            let x = o.series.as_ref()?.at as f64;
            Some((x, of_contender(o, contender, 0)?))
        };
        cases.iter().filter_map(point).collect()
    };
    let all: Vec<_> = first.contenders.iter().map(|c| (*c, points(c))).collect();
    let values = || all.iter().flat_map(|(_, points)| points);
    let most = |all: &mut dyn Iterator<Item = f64>| all.fold(0.0, f64::max).max(1.0) * 1.05;
    let right = most(&mut values().map(|p| p.0));
    let top = most(&mut values().map(|p| p.1.max));

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc(axis.axis)
        .y_desc(first.metrics[0].unit)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style((FONT, 13))
        .draw()?;
    for ((name, points), colour) in all.iter().zip(COLOURS) {
        let medians = points.iter().map(|(x, s)| (*x, s.median));
        chart
            .draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))?
            // The plot's maker guesses texts narrower than they are: room for the box around.
            .label(format!("{name:<24}"))
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        chart.draw_series(medians.map(|at| Circle::new(at, 3, colour.filled())))?;
        let range = |(x, s): &(f64, Spread)| {
            PathElement::new(vec![(*x, s.min), (*x, s.max)], colour.stroke_width(1))
        };
        chart.draw_series(points.iter().map(range))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 13))
        .draw()?;
    root.present()?;
    Ok(())
}

/// For each row the ratio and its range, turned so that right of 1 is better.
fn ratios(path: &Path, rows: &[Row]) -> Plotted {
    let better = |row: &Row| -> Option<(String, Spread, bool)> {
        let ratio = row.ratio.filter(|_| row.unsupported.is_none())?;
        let turned = if row.higher_is_better {
            ratio
        } else {
            Spread {
                min: 1.0 / ratio.max,
                median: 1.0 / ratio.median,
                max: 1.0 / ratio.min,
            }
        };
        Some((format!("{} / {}", row.what, row.peer), turned, row.dirty))
    };
    let lines: Vec<_> = rows.iter().filter_map(better).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let right = lines.iter().map(|l| l.1.max).fold(1.0, f64::max) * 1.1;
    let height = 80 + 24 * lines.len() as u32;
    let root = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let count = lines.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(230)
        .build_cartesian_2d(0.0..right, 0.0..count)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .disable_y_mesh()
        .y_labels(0)
        .x_desc("chanio : peer (above 1 is better for chanio; grey: no clean round)")
        .label_style((FONT, 13))
        .draw()?;
    chart.draw_series([PathElement::new(vec![(1.0, 0.0), (1.0, count)], BLACK)])?;
    for (n, (name, spread, dirty)) in lines.iter().enumerate() {
        let y = count - n as f64 - 0.5;
        let colour = if *dirty {
            RGBColor(150, 150, 150)
        } else {
            COLOURS[0]
        };
        let ends = vec![(spread.min, y), (spread.max, y)];
        chart.draw_series([PathElement::new(ends, colour.stroke_width(2))])?;
        chart.draw_series([Circle::new((spread.median, y), 4, colour.filled())])?;
        let at = chart.backend_coord(&(0.0, y));
        root.draw(&Text::new(name.clone(), (at.0 - 222, at.1 - 7), (FONT, 13)))?;
    }
    root.present()?;
    Ok(())
}
