# SPDX-License-Identifier: MIT OR Apache-2.0
"""Attachers that get no processor: the time in which they could not run is not theirs."""
from peers import *

FILE = 1 << 16


class Crowd:
    """Processes on one processor, where one that hides hardly ever runs."""

    def __init__(self):
        self.processor = max(os.sched_getaffinity(0))
        self.pids = []

    def spawn(self, body):
        pid = os.fork()
        if pid == 0:
            try:
                os.sched_setaffinity(0, [self.processor])
                body()
            finally:
                os._exit(1)
        self.pids.append(pid)
        return pid

    def crowd(self, burners):
        for _ in range(burners):
            self.spawn(burn)

    def disperse(self):
        for pid in self.pids[1:]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        del self.pids[1:]

    def end(self):
        self.disperse()
        os.kill(self.pids[0], signal.SIGKILL)
        os.waitpid(self.pids.pop(), 0)


def burn(*_):
    while True:
        pass


def hide():
    """From now on the caller runs when nobody else wants to."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def state(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]


def delay(pid="self"):
    """How long a process has waited for a processor, in seconds."""
    return int(open(f"/proc/{pid}/schedstat").read().split()[1]) / 1e9


def borrower(id, files):
    """A connection to which files of the owner's are lent."""
    s = dial(id)
    for file in files:
        s.send(message(SHARE, id=id, addr=file, lo=file, hi=file + FILE))
        expect(receive(s)[0].status, ELSEWHERE, "a lent file")
    s.settimeout(None)
    return s


def recalled(burners):
    """An attacher of whom a file is recalled answers as soon as it runs, beside so many
    others. Answers how long it has waited for a processor, how long the rest of the time
    was until its answer, and whether it was hung up on."""
    honest, id, _ = owner()
    file = honest.do("map_file", FILE, 70)
    heard, told = os.pipe()

    def attacher():
        s = borrower(id, [file])
        hide()
        s.send(Message(s.recv(SIZE)).answer(flags=RECALL))
        waited, now = delay(), time.monotonic()
        os.write(told, struct.pack("<dd", waited, now))
        try:
            s.send(message(QUERY, id=id))
            goes_on = receive(s)[0] is not None
        except OSError:
            goes_on = False
        os.write(told, struct.pack("<?", not goes_on))
        time.sleep(1000)

    crowd = Crowd()
    pid = crowd.spawn(attacher)
    try:
        time.sleep(0.1)
        crowd.crowd(burners)
        eventually(lambda: os.sched_getscheduler(pid) == os.SCHED_IDLE and state(pid) == "S", "it listens")
        before, began = delay(pid), time.monotonic()
        honest.tell("munmap", file, FILE)
        after, now = struct.unpack("<dd", os.read(heard, 16))
        crowd.disperse()
        (cut,) = struct.unpack("<?", os.read(heard, 1))
        expect(honest.hear(), 0, "munmap")
        return after - before, now - began - (after - before), cut
    finally:
        crowd.end()
        honest.kill()


@case("who waits for a processor when a recall comes is waited for")
def starved():
    burners = 4
    for _ in range(20):
        waited, rest, cut = recalled(burners)
        # A shorter wait tests nothing, and the rest of the time is the attacher's own.
        if rest < 0.5 and 1.3 < waited < 5:
            return expect(cut, False, f"hung up on after {waited:.2f} s without a processor")
        if waited >= 5:
            burners = max(1, burners // 2)
        elif waited <= 1.3:
            burners = min(16, burners * 2)
    sys.exit(77)


@case("who always waits for a processor, and never answers, is waited for once")
def starving():
    honest, id, _ = owner()
    files = [honest.do("map_file", FILE, 70) for _ in range(5)]
    heard, told = os.pipe()

    def attacher():
        connection = borrower(id, files)
        os.write(told, b"!")
        hide()
        burn(connection)

    crowd = Crowd()
    crowd.spawn(attacher)
    try:
        expect(os.read(heard, 1), b"!", "the attacher")
        crowd.crowd(1)

        def unmap(file):
            expect(honest.do("munmap", file, FILE, seconds=300), 0, "munmap")

        unmap(files[0])
        waits_no_second([lambda file=file: unmap(file) for file in files[1:]], "four more")
    finally:
        crowd.end()
