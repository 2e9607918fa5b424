//! Rows, and the table that is made of them.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::bench::Result;

/// One measured line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub who: String,
    pub work: String,
    /// What was compared, with times.
    pub measured: String,
    /// The number that the target speaks of.
    pub value: f64,
    pub unit: String,
    /// The most that is allowed; none for lines that are only for orientation.
    pub target: Option<f64>,
}

impl Row {
    /// A ratio with a target.
    pub fn ratio(
        who: &str,
        work: impl Into<String>,
        value: f64,
        target: Option<f64>,
        measured: impl Into<String>,
    ) -> Row {
        Row::new(who, work, value, "×", target, measured)
    }

    /// A number with a unit.
    pub fn new(
        who: &str,
        work: impl Into<String>,
        value: f64,
        unit: &str,
        target: Option<f64>,
        measured: impl Into<String>,
    ) -> Row {
        Row { who: who.into(), work: work.into(), measured: measured.into(), value, unit: unit.into(), target }
    }

    /// What could not be measured here, and why.
    pub fn not_run(who: &str, work: impl Into<String>, why: impl Into<String>) -> Row {
        Row::new(who, work, f64::NAN, "", None, why)
    }

    /// The row as one line for another process of the benchmark.
    pub fn to_line(&self) -> String {
        let target = self.target.map_or("-".to_owned(), |target| target.to_string());
        [&self.who, &self.work, &self.value.to_string(), &self.unit, &target, &self.measured]
            .map(|s| s.as_str())
            .join("\t")
    }

    /// Reads such a line.
    pub fn from_line(line: &str) -> Result<Row> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [who, work, value, unit, target, measured] = fields[..] else { return Err(format!("not a row: {line}")) };
        let number = |text: &str| text.parse::<f64>().map_err(|err| format!("{text}: {err}"));
        let target = if target == "-" { None } else { Some(number(target)?) };
        Ok(Row::new(who, work, number(value)?, unit, target, measured))
    }

    fn verdict(&self) -> &'static str {
        match self.target {
            _ if self.value.is_nan() => "not run",
            None => "",
            Some(target) if self.value <= target => "met",
            Some(_) => "**missed**",
        }
    }

    fn amount(&self, value: f64) -> String {
        if value.is_nan() {
            return String::new();
        }
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.digits$} {}", self.unit)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.map_or(String::new(), |target| format!(" (at most {})", self.amount(target)));
        write!(f, "{}: {}{target} {}: {}", self.work, self.amount(self.value), self.verdict(), self.measured)
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| who | work | at most | measured | | medians |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let target = row.target.map_or(String::new(), |target| row.amount(target));
        let value = row.amount(row.value);
        text +=
            &format!("| {} | {} | {target} | {value} | {} | {} |\n", row.who, row.work, row.verdict(), row.measured);
    }
    text
}

/// Puts the results into docs/performance.md, between its two marks.
pub fn put(document: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let old = fs::read_to_string(&path).map_err(|err| format!("{}: {err}", path.display()))?;
    let (begin, end) = ("<!-- results -->\n", "<!-- end of results -->");
    let (Some(from), Some(to)) = (old.find(begin), old.find(end)) else {
        return Err(format!("{}: the marks of the results are missing", path.display()));
    };
    let new = format!("{}{begin}{document}{}", &old[..from], &old[to..]);
    fs::write(&path, new).map_err(|err| format!("{}: {err}", path.display()))
}
