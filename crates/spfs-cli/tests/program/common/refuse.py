"""Runs a command on a machine that refuses some system calls: python3 refuse.py RULE... -- COMMAND...

A rule is SYSCALL=ERRNO, or SYSCALL:TEXT=ERRNO where TEXT is the name of a file system (fsopen) or of an option
(fsconfig); `clone:namespaces` is a clone that makes a namespace. The rules hold for all that the command starts. Where
a text decides, the kernel asks this program (seccomp's user notification), which reads it in the caller's memory and
lets the others go on; it ends with the last process that is under the rules. Nothing here needs a privilege.
"""
import ctypes, errno, fcntl, os, platform, select, socket, struct, sys

ARM = platform.machine() == "aarch64"
NUMBERS = {
    "clone": 220 if ARM else 56, "clone3": 435, "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433,
    "inotify_init1": 26 if ARM else 294, "mount": 40 if ARM else 165, "mount_setattr": 442, "move_mount": 429,
    "open_tree": 428, "pivot_root": 41 if ARM else 155, "setns": 268 if ARM else 308, "setxattr": 5 if ARM else 188,
    "umount2": 39 if ARM else 166, "unshare": 97 if ARM else 272,
}
SECCOMP = 277 if ARM else 317
TEXT_IN = {"fsopen": 0, "fsconfig": 2}  # the argument that has the text
NAMESPACES = 0x7E020000 | 0x80
ALLOW, REFUSE, ASK = 0x7FFF0000, 0x00050000, 0x7FC00000


def program(rules):
    """The rules as a filter in classic BPF: struct sock_filter {u16 code; u8 jt, jf; u32 k}."""
    code = [(0x20, 0, 0, 0)]  # the number of the call
    for call, text, number in rules:
        verdict = (0x06, 0, 0, ASK if call in TEXT_IN and text else REFUSE | number)
        if text == "namespaces":
            code += [(0x15, 0, 4, NUMBERS[call]), (0x20, 0, 0, 16), (0x45, 0, 1, NAMESPACES), verdict, (0x20, 0, 0, 0)]
        else:
            code += [(0x15, 0, 1, NUMBERS[call]), verdict]
    return b"".join(struct.pack("HBBI", *step) for step in code + [(0x06, 0, 0, ALLOW)])


def install(rules):
    """Puts this process under the rules; where somebody is to be asked, the descriptor to answer on."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = program(rules)
    held = ctypes.create_string_buffer(steps)
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(held)))
    asked = any(text and call in TEXT_IN for call, text, _ in rules)
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS
        sys.exit("refuse.py: prctl: " + os.strerror(ctypes.get_errno()))
    found = libc.syscall(SECCOMP, 1, 8 if asked else 0, filter_)  # SECCOMP_FILTER_FLAG_NEW_LISTENER
    if found < 0:
        sys.exit("refuse.py: seccomp: " + os.strerror(ctypes.get_errno()))
    return found if asked else None


def text_of(pid, address):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(64).split(b"\0")[0].decode()


def answer(listener, rules):
    """Answers until nobody is left who could ask."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while all(not event & select.POLLHUP for _, event in poll.poll()):
        asked = bytearray(80)
        try:
            fcntl.ioctl(listener, 0xC0502100, asked)  # SECCOMP_IOCTL_NOTIF_RECV
            token, pid, _, number = struct.unpack_from("QIIi", asked)
            arguments = struct.unpack_from("6Q", asked, 32)
            verdict = 0
            for call, text, refusal in rules:
                if NUMBERS[call] == number and arguments[TEXT_IN[call]]:
                    verdict = refusal if text_of(pid, arguments[TEXT_IN[call]]) == text else verdict
            go_on = 0 if verdict else 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
            fcntl.ioctl(listener, 0xC0182101, struct.pack("QqiI", token, 0, -verdict, go_on))
        except OSError:
            continue  # whoever asked has gone


def main():
    words = sys.argv[1:]
    end = words.index("--")
    rules = []
    for word in words[:end]:
        call, _, number = word.partition("=")
        call, _, text = call.partition(":")
        rules.append((call, text, getattr(errno, number)))
    ours, theirs = socket.socketpair()
    between = os.fork()
    if between == 0:
        theirs.close()
        if os.fork() == 0:
            os.setsid()
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            ours.close()
            null = os.open("/dev/null", os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            if descriptors:
                answer(descriptors[0], [rule for rule in rules if rule[1] and rule[0] in TEXT_IN])
        os._exit(0)
    os.waitpid(between, 0)
    ours.close()
    listener = install(rules)
    socket.send_fds(theirs, [b"x"], [listener] if listener is not None else [])
    theirs.close()
    if listener is not None:
        os.close(listener)
    os.execvp(words[end + 1], words[end + 1:])


main()
