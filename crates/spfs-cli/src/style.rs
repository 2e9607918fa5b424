//! The few colours of the program; `anstream` takes them out again where nobody would see them.

use anstyle::{AnsiColor, Color, Reset, Style};

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// The word `error:`, and what was removed.
pub const ERROR: Style = colour(AnsiColor::Red).bold();
/// The word `warning:`.
pub const WARNING: Style = colour(AnsiColor::Yellow).bold();
/// The word `hint:`.
pub const HINT: Style = colour(AnsiColor::Cyan).bold();
/// Headings.
pub const HEADING: Style = Style::new().bold();
/// Words to type.
pub const LITERAL: Style = colour(AnsiColor::Cyan);
/// What was added.
pub const ADDED: Style = colour(AnsiColor::Green);
/// What was removed.
pub const REMOVED: Style = colour(AnsiColor::Red);
/// What was changed.
pub const CHANGED: Style = colour(AnsiColor::Yellow);
/// The end of any of them.
pub const END: Reset = Reset;
