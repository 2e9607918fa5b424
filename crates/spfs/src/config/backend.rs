//! The names of the ways in which /spfs can be shown.

/// How /spfs is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// The best that works here.
    #[default]
    Auto,
    /// The metadata image, for root.
    Image,
    /// The metadata server.
    Server,
    /// Plain directories of links, made once for each view.
    Render,
    /// A server that has the data too.
    Full,
}

impl Backend {
    /// Every name, as it is shown, with what it means: ours, then those of the existing program.
    pub const NAMES: &[(&str, Backend)] = &[
        ("auto", Backend::Auto),
        ("image", Backend::Image),
        ("server", Backend::Server),
        ("render", Backend::Render),
        ("fuse", Backend::Full),
        ("OverlayFsWithRenders", Backend::Render),
        ("OverlayFsWithFuse", Backend::Server),
        ("FuseOnly", Backend::Full),
        ("WinFsp", Backend::Auto),
    ];

    /// The names alone.
    pub const CHOICES: &[&str] = &{
        let mut names = [""; Self::NAMES.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::NAMES[at].0;
            at += 1;
        }
        names
    };

    /// What a name means, whatever its case.
    pub fn of(name: &str) -> Option<Backend> {
        Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, backend)| *backend)
    }
}
