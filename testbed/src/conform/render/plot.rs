//! Bars as SVG, beside what they were to be.

use crate::conform::report::Measured;
use plotters::prelude::*;

const SIZE: (u32, u32) = (460, 240);
const FONT: &str = "sans-serif";
/// Distinct also without colours to most eyes.
const BAR: RGBColor = RGBColor(0, 114, 178);
const EXPECTED: RGBColor = RGBColor(213, 94, 0);

/// An `<svg>` element.
///
/// # Errors
/// The plot cannot be drawn.
pub fn bars(measured: &Measured) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let values = measured
            .bars
            .iter()
            .flat_map(|bar| [bar.value, bar.expected]);
        let top = values.fold(0.0, f64::max).max(1e-9) * 1.2;
        let count = measured.bars.len() as f64;
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .caption(&measured.title, (FONT, 15))
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..count, 0.0..top)?;
        let label = |x: &f64| {
            let at = *x - 0.5;
            let whole = (at - at.round()).abs() < 1e-6 && at >= 0.0;
            let bar = whole
                .then(|| measured.bars.get(at.round() as usize))
                .flatten();
            bar.map_or(String::new(), |bar| bar.label.clone())
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * measured.bars.len() + 1)
            .x_label_formatter(&label)
            .y_labels(5)
            .y_desc(measured.unit.as_str())
            .label_style((FONT, 12))
            .draw()?;
        for (n, bar) in measured.bars.iter().enumerate() {
            let at = n as f64;
            let body = [(at + 0.2, 0.0), (at + 0.8, bar.value)];
            chart.draw_series([Rectangle::new(body, BAR.filled())])?;
            let line = [(at + 0.1, bar.expected), (at + 0.9, bar.expected)];
            chart.draw_series([PathElement::new(line, EXPECTED.stroke_width(2))])?;
            let text = format!("{:.2}", bar.value);
            let place = (at + 0.3, bar.value.max(bar.expected) + top * 0.07);
            chart.draw_series([Text::new(text, place, (FONT, 12))])?;
        }
        root.present()?;
    }
    Ok(svg)
}
