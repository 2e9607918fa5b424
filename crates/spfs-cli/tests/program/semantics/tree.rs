//! The tree that is looked at: three layers, each made by a script that runs in the directory.

use super::CHECKS;

/// Contents of the same bytes under these modes are in `modes/`.
pub const MODES: [u32; 9] = [0o644, 0o755, 0o444, 0o600, 0o711, 0o000, 0o4755, 0o2755, 0o1644];

/// Directories of these modes are in `dirs/`.
pub const DIRECTORY_MODES: [u32; 6] = [0o755, 0o700, 0o555, 0o1777, 0o2775, 0o711];

/// Files of these sizes are in `sizes/`, full of `x`.
pub const SIZES: [u64; 9] = [0, 1, 511, 512, 513, 4095, 4096, 4097, 1_048_577];

/// How many files are in `many/`.
pub const MANY: usize = 1500;

/// The scripts of the layers, bottom first, with the tags that the layers get.
pub fn layers(huge: u64) -> [(&'static str, String); 3] {
    [("low", low(huge)), ("mid", MID.to_owned()), ("top", TOP.to_owned())]
}

/// What the stack of all layers is called.
pub const STACK: &str = "low+mid+top";

/// The directory of a check: its name without spaces.
pub fn slug(name: &str) -> String {
    name.replace(' ', "-")
}

/// The first layer. `huge` is the size of the sparse file with a byte in its middle.
fn low(huge: u64) -> String {
    let octal = |modes: &[u32]| modes.iter().map(|mode| format!("{mode:o} ")).collect::<String>();
    let sizes: String = SIZES.iter().map(|size| format!("{size} ")).collect();
    let own: String =
        CHECKS.iter().filter(|check| check.edits).map(|check| format!("edit/{} ", slug(check.name))).collect();
    let half = huge / 2;
    format!(
        r#"set -eu; umask 022
mkdir modes dirs sizes equal links empty empty/in empty/in/side names bin many masks swap
for mode in {modes}; do printf '#!/bin/sh\necho same\n' > modes/$mode; chmod $mode modes/$mode; done
for mode in {directory_modes}; do mkdir dirs/$mode; echo inside > dirs/$mode/file; chmod $mode dirs/$mode; done
for size in {sizes}; do head -c $size /dev/zero | tr '\0' x > sizes/$size; done
for name in a b c; do echo equal > equal/$name; done
ln -s ../sizes/1 links/relative; ln -s ../dirs links/directory; ln -s nowhere links/dangling; ln -s loop links/loop
ln -s "$(head -c 4000 /dev/zero | tr '\0' l)" links/long; ln -s /proc/self/status links/outside
cp /usr/bin/true /usr/bin/readlink /usr/bin/sleep bin/
touch names/-dash 'names/with space' names/ünïcödé 'names/new
line' names/UPPER names/upper "names/$(head -c 255 /dev/zero | tr '\0' n)" 'names/quote"'"'" 'names/\back'
(cd many; seq {MANY} | xargs touch)
mkdir -p masks/dir/deeper masks/tree/x; echo 1 > masks/gone; echo 1 > masks/kept; echo 1 > masks/back
echo 1 > masks/dir/a; echo 1 > masks/dir/deeper/b; echo 1 > masks/tree/x/y; ln -s gone masks/link
echo 1 > swap/file; mkdir swap/dir; echo 1 > swap/dir/inner; ln -s file swap/link
truncate -s {huge} huge; printf x | dd of=huge bs=1 seek={half} conv=notrunc status=none
mkdir edit
for own in {own}; do
    mkdir -p $own/dir/sub $own/other; printf 'from below\n' | tee $own/file $own/same $own/dir/inner > $own/dir/sub/deep
    printf '#!/bin/sh\necho runs\n' > $own/program; chmod 755 $own/program
    printf 'from below\n' > $own/fixed; chmod 444 $own/fixed; ln -s file $own/link
done
"#,
        modes = octal(&MODES),
        directory_modes = octal(&DIRECTORY_MODES),
    )
}

/// The second layer: takes away, and puts one kind in the place of another.
const MID: &str = "set -eu; umask 022
rm masks/gone masks/back masks/link; rm -r masks/dir masks/tree/x
rm swap/file swap/link; rm -r swap/dir
mkdir swap/file; echo 2 > swap/file/inner; echo 2 > swap/dir; echo 2 > swap/link
";

/// The third layer: puts some of it back.
const TOP: &str = "set -eu; umask 022
echo 3 > masks/back; mkdir masks/dir; echo 3 > masks/dir/c
rm -r swap/file; rm swap/dir swap/link
echo 3 > swap/file; mkdir swap/dir; echo 3 > swap/dir/other; ln -s dir swap/link
";
