//! Tables of figures: what each line is called, and how its values become one number.

use super::values::percentile;

/// How the values of a figure become the number that is shown.
#[derive(Clone, Copy)]
pub enum Of {
    Middle,
    NinetyFifth,
    Largest,
}

impl Of {
    pub fn shown(self, values: &[f64]) -> f64 {
        let percent = match self {
            Self::Middle => 50,
            Self::NinetyFifth => 95,
            Self::Largest => 100,
        };
        percentile(values, percent)
    }
}

/// A line of a table.
pub struct Line {
    pub what: &'static str,
    pub figure: &'static str,
    pub of: Of,
    pub unit: &'static str,
    /// The most that it should be.
    pub goal: Option<f64>,
}

pub const fn line(what: &'static str, figure: &'static str, of: Of, unit: &'static str, goal: Option<f64>) -> Line {
    Line { what, figure, of, unit, goal }
}
