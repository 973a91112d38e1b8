//! A scatter plot as SVG: one mark for each model, those that no other beats on both axes filled,
//! and names that do not lie on each other.

use super::html::escape;
use super::table::Better;

/// A point with its name.
pub struct Point {
    pub name: String,
    pub x: f64,
    pub y: f64,
    pub role: Role,
}

/// What a point stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Reference,
    Variant,
    /// What another engine ran.
    Other,
}

/// An axis: what it shows, and which end is the good one.
pub struct Axis {
    pub title: &'static str,
    pub better: Better,
    /// The least span to show, so that differences that mean nothing look like nothing.
    pub least_span: f64,
    /// Whether it is logarithmic, for values above 0.
    pub log: bool,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 360.0;
/// Room for labels: left, right, top, bottom.
const MARGINS: [f64; 4] = [70.0, 20.0, 20.0, 50.0];

/// Draws points.
pub fn svg(points: &[Point], x: &Axis, y: &Axis) -> String {
    let [left, right, top, bottom] = MARGINS;
    let (x_values, y_values) = (points.iter().map(|p| p.x), points.iter().map(|p| p.y));
    let xs = Scale::new(x_values, x, left, WIDTH - right);
    let ys = Scale::new(y_values, y, HEIGHT - bottom, top);
    let mut body = grid(&xs, &ys);
    let places = points.iter().map(|p| (xs.place(p.x), ys.place(p.y)));
    let places: Vec<(f64, f64)> = places.collect();
    let names: Vec<&str> = points.iter().map(|p| p.name.as_str()).collect();
    let labels = labels(&places, &names);
    let mut marks = String::new();
    for (index, (point, &(px, py))) in points.iter().zip(&places).enumerate() {
        let name = escape(&point.name);
        let Label {
            x: lx,
            y: ly,
            anchor,
            lead,
        } = &labels[index];
        if let Some((to_x, to_y)) = lead {
            body += &format!(
                "<line class=\"lead\" x1=\"{px:.1}\" y1=\"{py:.1}\" x2=\"{to_x:.1}\" y2=\"{to_y:.1}\"/>\n"
            );
        }
        let beaten = match point.role {
            Role::Reference => "",
            _ if beaten(point, points, x.better, y.better) => " beaten",
            _ => "",
        };
        let title = format!(
            "<title>{name}: {}, {}</title>",
            xs.exact(point.x),
            ys.exact(point.y)
        );
        marks += &match point.role {
            Role::Other => format!(
                "<rect class=\"mark other{beaten}\" x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\">\
                 {title}</rect>",
                px - 4.5,
                py - 4.5
            ),
            role => format!(
                "<circle class=\"mark{}{beaten}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\">{title}</circle>",
                if role == Role::Reference {
                    " reference"
                } else {
                    ""
                }
            ),
        };
        marks += &format!(
            "<text class=\"name\" x=\"{lx:.1}\" y=\"{ly:.1}\" text-anchor=\"{anchor}\">{name}</text>\n"
        );
    }
    let arrow = |axis: &Axis| match axis.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    let (middle_x, middle_y) = ((left + WIDTH - right) / 2.0, (top + HEIGHT - bottom) / 2.0);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_title} against {x_title}\">\n\
         {body}{marks}\
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

/// Lines at the ticks of both axes, with their numbers.
fn grid(xs: &Scale, ys: &Scale) -> String {
    let [left, right, top, bottom] = MARGINS;
    let mut text = String::new();
    for tick in &xs.ticks {
        let (at, label) = (xs.place(*tick), xs.label(*tick));
        text += &format!(
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n",
            HEIGHT - bottom,
            HEIGHT - bottom + 18.0
        );
    }
    for tick in &ys.ticks {
        let (at, label) = (ys.place(*tick), ys.label(*tick));
        text += &format!(
            "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
            WIDTH - right,
            left - 8.0,
            at + 4.0
        );
    }
    text
}

/// Where the name of a point stands, and where a line leads to from the point if that is far off.
struct Label {
    x: f64,
    y: f64,
    anchor: &'static str,
    lead: Option<(f64, f64)>,
}

/// A box: left, top, right, bottom.
type Area = [f64; 4];

/// What a letter of 12 px takes at most, nearly always.
const LETTER: f64 = 7.4;

/// Places names beside their points, each at the nearest place that is free.
fn labels(places: &[(f64, f64)], names: &[&str]) -> Vec<Label> {
    let [left, right, top, bottom] = MARGINS;
    let mark = |&(x, y): &(f64, f64)| [x - 7.0, y - 7.0, x + 7.0, y + 7.0];
    let mut taken: Vec<Area> = places.iter().map(mark).collect();
    let mut labels = vec![];
    for (&(x, y), name) in places.iter().zip(names) {
        let width = LETTER * name.chars().count() as f64;
        let place = |&(dx, dy): &(f64, f64)| {
            let (anchor, from) = match dx {
                dx if dx > 0.0 => ("start", x + dx),
                dx if dx < 0.0 => ("end", x + dx - width),
                _ => ("middle", x - width / 2.0),
            };
            // The letters stand on the line y; they reach 10 above it and 3 below.
            let area = [from, y + dy - 10.0, from + width, y + dy + 3.0];
            (
                Label {
                    x: x + dx,
                    y: y + dy,
                    anchor,
                    lead: None,
                },
                area,
            )
        };
        let free = |area: &Area| {
            let inside = area[0] >= left && area[2] <= WIDTH - right + 8.0;
            let inside = inside && area[1] >= top - 12.0 && area[3] <= HEIGHT - bottom;
            inside && !taken.iter().any(|other| overlap(area, other))
        };
        // Beside the point first, then ever farther, on all sides.
        let far = (1..12).flat_map(|ring| {
            let up = 14.0 * f64::from(ring);
            [-1.0, 1.0].into_iter().flat_map(move |side| {
                [9.0, -9.0, 30.0, -30.0, 60.0, -60.0].map(|dx| (dx, 4.0 + side * up))
            })
        });
        let near = [(9.0, 4.0), (-9.0, 4.0), (0.0, -10.0), (0.0, 19.0)];
        let candidates = near.into_iter().chain(far);
        let found = candidates.map(|at| place(&at)).find(|(_, area)| free(area));
        let (mut label, area) = found.unwrap_or_else(|| place(&near[0]));
        let (to_x, to_y) = (x.clamp(area[0], area[2]), y.clamp(area[1], area[3]));
        if (to_x - x).hypot(to_y - y) > 16.0 {
            label.lead = Some((to_x, to_y));
        }
        taken.push(area);
        labels.push(label);
    }
    labels
}

fn overlap(a: &Area, b: &Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Whether another point, the reference apart, is at least as good on both axes, and better on one.
fn beaten(point: &Point, others: &[Point], x: Better, y: Better) -> bool {
    let better = |a: f64, b: f64, end: Better| match end {
        Better::Lower => a < b,
        Better::Higher => a > b,
    };
    let mut others = others.iter().filter(|p| p.role != Role::Reference);
    others.any(|other| {
        let worse = better(point.x, other.x, x) || better(point.y, other.y, y);
        let ahead = better(other.x, point.x, x) || better(other.y, point.y, y);
        ahead && !worse
    })
}

/// From values to places, with ticks at round numbers.
struct Scale {
    /// Ends, of the logarithms where those are shown.
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    ticks: Vec<f64>,
    digits: usize,
    log: bool,
}

impl Scale {
    /// Ticks wanted; the round step that comes closest gives a few more or fewer.
    const TICKS: f64 = 5.0;

    fn new(values: impl Iterator<Item = f64> + Clone, axis: &Axis, start: f64, end: f64) -> Scale {
        let log = axis.log;
        let values = values.map(|value| if log { value.log10() } else { value });
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if least.is_finite() && most.is_finite() {
            (least, most)
        } else {
            (0.0, 1.0)
        };
        // A span of nothing, or of rounding alone, still needs a width.
        let found = most - least;
        let span = found.max(most.abs() * 1e-4).max(axis.least_span).max(1e-9);
        let margin = 0.1 * span + (span - found) / 2.0;
        let (from, to) = (least - margin, most + margin);
        let mut scale = Scale {
            from,
            to,
            start,
            end,
            ticks: vec![],
            digits: 0,
            log,
        };
        if log {
            // 1, 2 and 5 of each power of ten.
            let powers = from.floor() as i32..=to.ceil() as i32;
            let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|x| x * 10f64.powi(power)));
            scale.ticks = ticks.filter(|x| (from..=to).contains(&x.log10())).collect();
            return scale;
        }
        let rough = (to - from) / Self::TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|x| x * power);
        let step = step.min_by(|a, b| (a - rough).abs().total_cmp(&(b - rough).abs()));
        let step = step.unwrap_or(rough);
        let first = (from / step).ceil() as i64;
        let last = (to / step).floor() as i64;
        scale.ticks = (first..=last).map(|i| i as f64 * step).collect();
        scale.digits = (-step.log10().floor()).max(0.0) as usize;
        scale
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    fn label(&self, value: f64) -> String {
        let digits = match self.log {
            true => (-(value.log10() + 1e-9).floor()).max(0.0) as usize,
            false => self.digits,
        };
        format!("{value:.digits$}")
    }

    /// A value, not a tick.
    fn exact(&self, value: f64) -> String {
        match self.log {
            true => format!("{value:.2e}"),
            false => format!("{value:.*}", self.digits + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(log: bool) -> Axis {
        Axis {
            title: "size",
            better: Better::Lower,
            least_span: 0.0,
            log,
        }
    }

    fn scale(values: &[f64], log: bool) -> Scale {
        Scale::new(values.iter().copied(), &axis(log), 0.0, 100.0)
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let linear = scale(&[24.5, 90.8], false);
        assert_eq!(linear.ticks, [20.0, 40.0, 60.0, 80.0]);
        assert_eq!(linear.label(20.0), "20");
        let fine = scale(&[0.9612, 0.9997], false);
        assert_eq!(fine.ticks.len(), 5);
        assert_eq!(fine.label(fine.ticks[0]), "0.96");
        for values in [&[3.0, 3.0][..], &[0.0], &[]] {
            let scale = scale(values, false);
            assert!((1..20).contains(&scale.ticks.len()));
            assert!(scale.place(3.0).is_finite());
        }
        let log = scale(&[0.004, 0.3], true);
        let labels: Vec<String> = log.ticks.iter().map(|&x| log.label(x)).collect();
        assert_eq!(labels, ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]);
        // Tenfold is as far anywhere.
        let distance = |a, b| log.place(b) - log.place(a);
        assert!((distance(0.01, 0.1) - distance(0.02, 0.2)).abs() < 1e-9);
    }

    #[test]
    fn names_do_not_lie_on_each_other_or_on_marks() {
        // All in one corner, where there is the least room, and some on one spot.
        let places = [
            (530.0, 30.0),
            (530.0, 30.0),
            (530.0, 34.0),
            (520.0, 30.0),
            (525.0, 40.0),
        ];
        let names = [
            "q4-rounded",
            "q4",
            "llama.cpp Q4_K_M",
            "llama.cpp Q4_0",
            "f16",
        ];
        let labels = labels(&places, &names);
        let area = |(label, name): (&Label, &&str)| {
            let width = LETTER * name.chars().count() as f64;
            let from = match label.anchor {
                "start" => label.x,
                "end" => label.x - width,
                _ => label.x - width / 2.0,
            };
            [from, label.y - 10.0, from + width, label.y + 3.0]
        };
        let areas: Vec<Area> = labels.iter().zip(&names).map(area).collect();
        for (index, a) in areas.iter().enumerate() {
            assert!(a[0] >= MARGINS[0] && a[2] <= WIDTH && a[1] >= 0.0 && a[3] <= HEIGHT);
            for b in &areas[index + 1..] {
                assert!(!overlap(a, b), "{a:?} {b:?}");
            }
            for (x, y) in places {
                assert!(!overlap(a, &[x - 5.0, y - 5.0, x + 5.0, y + 5.0]), "{a:?}");
            }
        }
    }

    #[test]
    fn points_that_are_worse_on_both_axes_are_beaten() {
        let point = |x, y, role| Point {
            name: "a<b".to_owned(),
            x,
            y,
            role,
        };
        let points = [
            point(0.0, 0.0, Role::Reference),
            point(1.0, 5.0, Role::Variant),
            point(2.0, 4.0, Role::Other),
            point(2.0, 5.0, Role::Variant),
            point(3.0, 3.0, Role::Variant),
        ];
        let beaten: Vec<bool> = points[1..]
            .iter()
            .map(|p| super::beaten(p, &points, Better::Lower, Better::Lower))
            .collect();
        assert_eq!(beaten, [false, false, true, false]);
        let svg = svg(&points, &axis(false), &axis(false));
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches("<rect").count(), 1);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b") && !svg.contains("NaN"));
    }
}
