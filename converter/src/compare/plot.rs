//! A scatter plot as SVG: one point for each model, the ones that no other beats on both axes
//! filled.

use super::html::escape;
use super::table::Better;

/// A point with its name.
pub struct Point {
    pub name: String,
    pub x: f64,
    pub y: f64,
}

/// An axis: what it shows, and which end is the good one.
pub struct Axis {
    pub title: &'static str,
    pub better: Better,
    /// The least span to show, so that differences that mean nothing look like nothing.
    pub least_span: f64,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 360.0;
/// Room for labels: left, right, top, bottom.
const MARGINS: [f64; 4] = [70.0, 20.0, 20.0, 50.0];

/// Draws points; the first is the reference.
pub fn svg(points: &[Point], x: &Axis, y: &Axis) -> String {
    let [left, right, top, bottom] = MARGINS;
    let (x_values, y_values) = (points.iter().map(|p| p.x), points.iter().map(|p| p.y));
    let xs = Scale::new(x_values, x.least_span, left, WIDTH - right);
    let ys = Scale::new(y_values, y.least_span, HEIGHT - bottom, top);
    let mut body = String::new();
    for tick in &xs.ticks {
        let (at, label) = (xs.place(*tick), xs.label(*tick));
        body += &format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n",
            HEIGHT - bottom,
            HEIGHT - bottom + 18.0
        );
    }
    for tick in &ys.ticks {
        let (at, label) = (ys.place(*tick), ys.label(*tick));
        body += &format!(
            "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
            WIDTH - right,
            left - 8.0,
            at + 4.0
        );
    }
    for (index, point) in points.iter().enumerate() {
        let (px, py) = (xs.place(point.x), ys.place(point.y));
        let class = match index {
            0 => "reference",
            _ if beaten(point, &points[1..], x.better, y.better) => "beaten",
            _ => "best",
        };
        // Names stay inside: those on the right end before their point.
        let (anchor, offset) = if px > WIDTH * 0.6 {
            ("end", -9.0)
        } else {
            ("start", 9.0)
        };
        let name = escape(&point.name);
        body += &format!(
            "<circle class=\"{class}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\">\
             <title>{name}: {}, {}</title></circle>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name}</text>\n",
            xs.label(point.x),
            ys.label(point.y),
            px + offset,
            py - 7.0
        );
    }
    let arrow = |axis: &Axis| match axis.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    let (middle_x, middle_y) = ((left + WIDTH - right) / 2.0, (top + HEIGHT - bottom) / 2.0);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_title} against {x_title}\">\n\
         {body}\
         <text class=\"axis\" x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{x_title} ({})</text>\n\
         <text class=\"axis\" transform=\"translate(16 {middle_y}) rotate(-90)\" \
         text-anchor=\"middle\">{y_title} ({})</text>\n</svg>\n",
        HEIGHT - 10.0,
        arrow(x),
        arrow(y),
        x_title = escape(x.title),
        y_title = escape(y.title),
    )
}

/// Whether another point is at least as good on both axes, and better on one.
fn beaten(point: &Point, others: &[Point], x: Better, y: Better) -> bool {
    let better = |a: f64, b: f64, end: Better| match end {
        Better::Lower => a < b,
        Better::Higher => a > b,
    };
    others.iter().any(|other| {
        let worse = better(point.x, other.x, x) || better(point.y, other.y, y);
        let ahead = better(other.x, point.x, x) || better(other.y, point.y, y);
        ahead && !worse
    })
}

/// From values to places, with ticks at round numbers.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    ticks: Vec<f64>,
    digits: usize,
}

impl Scale {
    /// Ticks wanted; the round step that comes closest gives a few more or fewer.
    const TICKS: f64 = 5.0;

    fn new(
        values: impl Iterator<Item = f64> + Clone,
        least_span: f64,
        start: f64,
        end: f64,
    ) -> Scale {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least.is_finite() && most.is_finite() {
            (least, most)
        } else {
            (0.0, 1.0)
        };
        // A span of nothing, or of rounding alone, still needs a width.
        let found = most - least;
        let span = found.max(most.abs() * 1e-4).max(least_span).max(1e-9);
        let margin = 0.1 * span + (span - found) / 2.0;
        let (from, to) = (least - margin, most + margin);
        let rough = (to - from) / Self::TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|x| x * power);
        let step = step.min_by(|a, b| (a - rough).abs().total_cmp(&(b - rough).abs()));
        let step = step.unwrap_or(rough);
        let first = (from / step).ceil() as i64;
        let last = (to / step).floor() as i64;
        Scale {
            from,
            to,
            start,
            end,
            ticks: (first..=last).map(|i| i as f64 * step).collect(),
            digits: (-step.log10().floor()).max(0.0) as usize,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    fn label(&self, value: f64) -> String {
        format!("{value:.*}", self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::new([24.5, 90.8].into_iter(), 0.0, 0.0, 100.0);
        assert_eq!(scale.ticks, [20.0, 40.0, 60.0, 80.0]);
        assert_eq!(scale.label(20.0), "20");
        let fine = Scale::new([0.9612, 0.9997].into_iter(), 0.0, 0.0, 100.0);
        assert_eq!(fine.ticks.len(), 5);
        assert_eq!(fine.label(fine.ticks[0]), "0.96");
        for scale in [
            Scale::new([3.0, 3.0].into_iter(), 0.0, 0.0, 1.0),
            Scale::new([0.0].into_iter(), 0.0, 0.0, 1.0),
            Scale::new(std::iter::empty(), 0.0, 0.0, 1.0),
        ] {
            assert!((1..20).contains(&scale.ticks.len()));
            assert!(scale.place(3.0).is_finite());
        }
    }

    #[test]
    fn points_that_are_worse_on_both_axes_are_beaten() {
        let point = |x, y| Point {
            name: "a<b".to_owned(),
            x,
            y,
        };
        let points = [
            point(1.0, 5.0),
            point(2.0, 4.0),
            point(2.0, 5.0),
            point(3.0, 3.0),
        ];
        let beaten: Vec<bool> = points
            .iter()
            .map(|p| super::beaten(p, &points, Better::Lower, Better::Lower))
            .collect();
        assert_eq!(beaten, [false, false, true, false]);
        let axis = |title| Axis {
            title,
            better: Better::Lower,
            least_span: 0.0,
        };
        let svg = svg(&points, &axis("size"), &axis("KL"));
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b") && !svg.contains("NaN"));
    }
}
