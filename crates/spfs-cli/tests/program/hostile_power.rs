//! Power that is cut: what was said to be done is there when the machine is back, and all that is there is sound.
//!
//! A file system on a loop device is shut down under programs that write (`EXT4_IOC_SHUTDOWN`, nothing is flushed, as
//! `godown` of xfstests does it), which are all killed at that moment; then it is mounted again.

use crate::common::{Caller, Home, full};

/// What is going on when the power fails; a file in `acks` for whatever was reported as done, with what must be there.
/// `$ROUND` varies what is written.
const WORK: &str = r#"
ack() { printf '%s\n' "$2" > "acks/.$1" && mv "acks/.$1" "acks/$1"; }
listing='find . -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum'
tree() {
    rm -rf tree.$1
    mkdir -p tree.$1/sub$(($1 % 5))/below
    for n in $(seq $((($1 * 7 + ROUND) % 40 + 1))); do echo "$ROUND $1 $n" > tree.$1/sub$(($1 % 5))/below/$n; done
    head -c 700000 /dev/urandom > tree.$1/large
}
trees() {
    i=0
    while i=$((i + 1)); do
        tree $i
        spfs commit --path tree.$i --tag tree/$i && ack tree.$i "$(cd tree.$i && eval "$listing")"
        spfs push --to file:$PWD/disk/remote tree/$i && ack pushed.$i ""
        spfs push --to grpc://$address tree/$i && ack served.$i ""
    done
}
runtimes() {
    i=0
    while i=$((i + 1)); do
        spfs run - -- sh -c "echo $ROUND $i > /spfs/file; spfs commit layer --tag run/$i" && ack run.$i "$ROUND $i"
        spfs run --rerun kept --edit -- sh -c "echo $ROUND $i > /spfs/$i; spfs commit layer --tag kept/$i" &&
            ack kept.$i "$ROUND $i"
    done
}
stream() {
    i=0
    while i=$((i + 1)); do
        echo $i > number
        spfs write --tag stream --file number && ack stream.$i $i
    done
}
# It was another boot.
cat /proc/sys/kernel/random/uuid > boot && mount --bind boot /proc/sys/kernel/random/boot_id
spfs server --listen 127.0.0.1:0 -r ./disk/served > server.out &
until address=$(grep -oE '127\.0\.0\.1:[0-9]+' server.out | head -1) && [ -n "$address" ]; do sleep 0.05; done
spfs run --keep-runtime --runtime-name kept - -- true && ack durable. ""
trees & runtimes & stream &
wait
"#;

/// What must be true when the power is back. Prints what is not.
const LOOK: &str = r#"
listing='find . -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum'
is() { [ "$2" = "$3" ] || echo "$1: \"$2\" instead of \"$3\""; }
spfs check > said 2>&1 || cat said
for remote in remote served; do
    [ ! -e disk/$remote ] || spfs check -r file:$PWD/disk/$remote > said 2>&1 || cat said
done
for ack in $(ls acks); do
    i=${ack#*.} wanted=$(cat acks/$ack)
    case $ack in
        tree.*) is $ack "$(spfs run tree/$i -- sh -c "cd /spfs; $listing")" "$wanted" ;;
        pushed.*) spfs info -r file:$PWD/disk/remote tree/$i > /dev/null ;;
        served.*) spfs info -r file:$PWD/disk/served tree/$i > /dev/null ;;
        run.*) is $ack "$(spfs run run/$i -- cat /spfs/file)" "$wanted" ;;
        kept.*) is $ack "$(spfs run kept/$i -- cat /spfs/$i)" "$wanted" ;;
        stream.*) is $ack "$(spfs log stream | awk 'END { print (NR >= '$i') }')" 1 ;;
    esac
done
works() { "$@" > said 2>&1 || { echo "$@"; cat said; }; }
works spfs run - -- sh -c 'echo new > /spfs/new; spfs commit layer --tag after'
is after "$(spfs read after new)" new
works spfs write --tag stream --file /dev/null
[ ! -e acks/durable. ] || { works spfs run --rerun kept -- true; works spfs runtime rm --remove-durable kept; }
works spfs clean --dry-run
"#;

/// One cut: `$1` seconds after all has begun.
const ROUND: &str = r#"
truncate -s 400M image
mkfs.ext4 -q -F image
mkdir -p disk acks run
mount -o loop image disk
device=$(findmnt -no SOURCE disk)
export SPFS_STORAGE_ROOT=$PWD/disk/store XDG_RUNTIME_DIR=$PWD/run
spfs init repo disk/remote > /dev/null && spfs init repo disk/served > /dev/null
# As the first process of a namespace it takes all others with it.
unshare --pid --fork --kill-child --mount-proc sh work > work.out 2>&1 &
work=$!
sleep $1
echo safe > disk/safe && sync disk/safe
/usr/bin/python3 -c 'import fcntl, os, struct
disk = os.open("disk", os.O_RDONLY)
os.write(os.open("disk/lost", os.O_WRONLY | os.O_CREAT), b"lost")
fcntl.ioctl(disk, 0x8004587d, struct.pack("I", 2))'
kill -9 $work
wait $work 2> /dev/null || true
until umount disk 2> /dev/null; do sleep 0.05; done
# Others may have seen the mount until they ended.
while [ -e /sys/fs/ext4/${device##*/} ]; do sleep 0.05; done
rm -rf run/*
mount -o loop image disk
# A machine needs a minute to come back; until then a lock counts whose content was lost.
find disk -name '*.lock' -exec touch -d '2 minutes ago' {} +
# That something was lost, and what was synchronized was not: else this is no cut.
[ "$(cat disk/safe)" = safe ] && [ "$(cat disk/lost 2> /dev/null)" != lost ] || echo "the power was not cut"
ls acks | sed 's/\..*//' | sort | uniq -c | tr -s ' \n' ' ' >&2
sh look
umount -l disk
"#;

#[test]
fn what_was_done_before_a_power_cut_is_there_after_it() {
    // Only root may mount a disk; what is written does not depend on who writes.
    if rustix::process::geteuid().is_root() {
        (0..if full() { 40 } else { 2 }).for_each(cut);
    }
}

fn cut(round: u32) {
    let home = Home::new(Caller::Root);
    home.write("work", WORK);
    home.write("look", LOOK);
    // From the first moments, when the repository is being made, to some seconds later.
    let seconds = 0.2 + f64::from(round * 7 % 10) * 0.4 + f64::from(round) * 0.01;
    let code = format!("set -- {seconds}; export ROUND={round}\n{ROUND}");
    let out = home.command(["unshare", "--mount", "sh", "-euc", &code].map(str::to_owned).to_vec()).run();
    eprintln!("{seconds} s: {}", out.ok().stderr);
    out.stdout_is("");
}
