# SPDX-License-Identifier: MIT OR Apache-2.0
"""Honest programs (host.c), and the protocol of src/user/protocol/wire.rs, to lie in."""
import array
import fcntl
import glob
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(HERE, "..", "..", "build")
HOST = os.environ.get("XPMEM_TEST_HOST") or os.path.join(BUILD, "tests", "peers-host")

PAGE = 4096
RDONLY, RDWR = 1, 2
SIGBUS, SIGSEGV = -signal.SIGBUS, -signal.SIGSEGV
ENOENT, ENOMEM, EACCES, ENOSYS = 2, 12, 13, 38

# ---- src/user/protocol/wire.rs
VERSION = 2
HELLO, GET, SHARE, QUERY, REMOVED, ANSWER, NOTED, RECALL = range(1, 9)
DONE, HOLE, GONE, DENIED, BAD, ELSEWHERE, FULL = range(7)
WHOLE, LAYOUT = 1, 2
IN_WHOLE_PAGES = 1 << 34
WINDOW = 32
TOP = 1 << 47 if os.uname().machine == "x86_64" else 1 << 48
SIZE = 64
M64 = (1 << 64) - 1


def message(verb, status=0, cookie=0, id=0, addr=0, lo=0, hi=0, flags=0, serial=0, version=VERSION):
    words = [verb | status << 32, cookie, id, addr, lo, hi, flags, version | serial << 16]
    return struct.pack("<8Q", *(w & M64 for w in words))


class Message:
    def __init__(self, data):
        first, self.cookie, self.id, self.addr, self.lo, self.hi, self.flags, last = struct.unpack("<8Q", data)
        self.verb, self.status = first & 0xFFFFFFFF, first >> 32
        self.version, self.serial = last & 0xFFFF, last >> 16

    def answer(self, status=DONE, **more):
        fields = dict(cookie=self.cookie, id=self.id, addr=self.addr, lo=self.lo, hi=self.hi, serial=self.serial)
        fields.update(more)
        fields.setdefault("flags", self.verb)
        return message(ANSWER, status, **fields)


# ---- sockets
def folder():
    return os.path.join(os.environ["XPMEM_DIR"], f"xpmem-{os.geteuid()}")


def socket_of(id):
    return os.path.join(folder(), f"{id >> 23:010x}")


def dial(id, timeout=30.0):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(timeout)
    while True:
        try:
            s.connect(socket_of(id))
            return s
        except BlockingIOError:
            # As many wait to be accepted as may.
            time.sleep(0.01)


def send_fds(s, data, fds):
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive(s):
    """A message and its descriptors; None at the end."""
    data, control, _, _ = s.recvmsg(SIZE, socket.CMSG_SPACE(8))
    fds = []
    for level, kind, content in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += array.array("i", content[: len(content) // 4 * 4])
    return (Message(data), fds) if len(data) == SIZE else (None, fds)


def hears_the_end(s, seconds=30.0):
    """Whether the other side hangs up."""
    s.settimeout(seconds)
    try:
        while True:
            m, fds = receive(s)
            for fd in fds:
                os.close(fd)
            if m is None:
                return True
    except (TimeoutError, socket.timeout, BlockingIOError):
        return False
    except OSError:
        return True


# ---- honest programs
class Host:
    def __init__(self, apart=False, beside=None, **env):
        """With `apart` in a PID namespace of its own, or in that of another `beside`."""
        everything = dict(os.environ, XPMEM_BACKEND="user", **env)
        command, root = [HOST], os.geteuid() == 0
        if apart:
            user = [] if root else ["--user", "--map-root-user"]
            command = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", HOST]
        elif beside:
            user = [] if root else ["--user", "--preserve-credentials"]
            command = ["nsenter", "--target", str(beside.pid), *user, "--pid", "--mount", HOST]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=everything, bufsize=0
        )
        self.pid = self.process.pid
        self.rest = b""
        self.errno = 0
        everybody.append(self)

    def tell(self, *words):
        self.process.stdin.write((" ".join(str(w) for w in words) + "\n").encode())

    def hear(self, seconds=60.0):
        """The answer; "hangs" or "dead" where there is none."""
        end = time.monotonic() + seconds
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            poll = select.poll()
            poll.register(self.process.stdout, select.POLLIN)
            if left <= 0 or not poll.poll(left * 1000):
                return "hangs"
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return "dead"
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        _, value, errno = line.split()
        self.errno = int(errno)
        return int(value)

    def do(self, *words, seconds=60.0):
        self.tell(*words)
        return self.hear(seconds)

    def service(self):
        """The pid of its service."""
        for path in glob.glob(f"/proc/{self.pid}/task/*/children"):
            for child in open(path).read().split():
                try:
                    if open(f"/proc/{child}/comm").read().strip() == "xpmem-service":
                        return int(child)
                except OSError:
                    pass
        raise AssertionError("no service")

    def make(self):
        """Exports everything; the segid."""
        id = self.do("make", 0, -1, 0o600)
        if id == -1 and self.errno == ENOSYS:
            sys.exit(77)
        assert id > 0, (id, self.errno)
        return id

    def attach(self, id, addr, size):
        """The address here of [addr, addr + size) there."""
        apid = self.do("get", id, RDWR)
        assert apid > 0, (apid, self.errno)
        at = self.do("attach", apid, addr, size)
        assert at > 0, (at, self.errno)
        return at

    def stop(self, sig=signal.SIGSTOP):
        """The program and its service."""
        os.kill(self.service(), sig)
        os.kill(self.pid, sig)

    def go_on(self):
        self.stop(signal.SIGCONT)

    def quit(self):
        """Ends in peace, and leaves nothing."""
        self.process.stdin.close()
        expect(self.process.wait(60), 0, "exit status")
        self.process.stdout.close()
        everybody.remove(self)

    def kill(self):
        """The program; a service of its that stands is continued, and ends too."""
        helpers = children_of(self.pid)
        self.process.kill()
        self.process.wait()
        for pid in helpers:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.process.stdin.close()
        self.process.stdout.close()
        everybody.remove(self)


everybody = []


def kill_everybody():
    for host in list(everybody):
        host.kill()


def children_of(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            found += [int(p) for p in open(path).read().split()]
        except OSError:
            pass
    return found


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_time(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid, kind="VmRSS"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise AssertionError(kind)


def owner(size=1 << 20, byte=65, **env):
    """An honest program that exports memory: it, its segid, and the address."""
    host = Host(**env)
    addr = host.do("map", size, byte)
    return host, host.make(), addr


# ---- a false owner
def space(seal=True, size=TOP):
    """What an owner hands out as its address space."""
    fd = os.memfd_create("false", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seal:
        fcntl.fcntl(fd, 1033, 2 | 4)  # F_ADD_SEALS: F_SEAL_SHRINK | F_SEAL_GROW
    return fd


class FalseOwner:
    def __init__(self):
        self.token = random.getrandbits(39) | 1 << 39
        self.segid = self.token << 23
        os.makedirs(folder(), mode=0o711, exist_ok=True)
        self.path = socket_of(self.segid)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(100)
        self.space = space()

    def accept(self, timeout=30.0):
        self.listener.settimeout(timeout)
        s, _ = self.listener.accept()
        s.settimeout(timeout)
        return s

    def hello(self, s, process=None):
        """Takes an attacher as an honest owner would."""
        m, _ = receive(s)
        assert m.verb == HELLO, m.verb
        process = os.pidfd_open(process or os.getpid())
        send_fds(s, m.answer(flags=HELLO), [self.space, process])
        os.close(process)

    def grant(self, host, lo=0x10000, hi=0x7FFF0000, process=None):
        """An honest program's permit, and the connection."""
        host.tell("get", self.segid, RDWR)
        s = self.accept()
        self.hello(s, process)
        m, _ = receive(s)
        assert m.verb == GET, m.verb
        s.send(m.answer(lo=lo, hi=hi))
        apid = host.hear()
        assert apid > 0, (apid, host.errno)
        return apid, s

    def attach(self, host, s, apid, size, offset=0):
        """The address where an honest program attaches part of what it was granted. On a
        machine with huge pages it asks first what pages there are, and is told: small ones."""
        host.tell("attach", apid, offset, size)
        poll = select.poll()
        for source in (host.process.stdout, s):
            poll.register(source, select.POLLIN)
        while s.fileno() in [fd for fd, _ in poll.poll()]:
            m, _ = receive(s)
            if m.verb == SHARE and m.flags == WHOLE:
                s.send(m.answer(HOLE))
            elif m.verb == SHARE:
                expect(m.flags, LAYOUT, "what is asked at attach")
                s.send(m.answer(flags=SHARE | IN_WHOLE_PAGES, addr=PAGE))
        at = host.hear()
        assert at > 0, (at, host.errno)
        return at

    def asked(self, s):
        """The next question for pages."""
        while True:
            m, _ = receive(s)
            if m.verb == SHARE:
                return m

    def close(self):
        self.listener.close()
        os.close(self.space)
        if os.path.exists(self.path):
            os.unlink(self.path)


def sum_of(byte, size):
    """What `sum` answers for bytes that are all the same: a signed long."""
    total = int.from_bytes(bytes([byte] * 8), "little") * (size // 8) & M64
    return total - (1 << 64) if total >> 63 else total


# ---- cases
cases = []


def case(what):
    def add(function):
        cases.append((function.__name__, what, function))
        return function

    return add


class huge_pages:
    """While there may be one on this machine, where this may be said."""

    path = "/proc/sys/vm/nr_overcommit_hugepages"

    def __enter__(self):
        self.before = None
        if os.access(self.path, os.W_OK):
            self.before = open(self.path).read()
            open(self.path, "w").write(str(max(1, int(self.before))))

    def __exit__(self, *_):
        if self.before is not None:
            open(self.path, "w").write(self.before)


def also_with_huge_pages(function):
    def twice():
        function()
        with huge_pages():
            function()

    twice.__name__ = function.__name__
    return twice


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")


def waits_no_second(calls, what):
    """None of these waits for a peer, which would be a second each: one that took less
    is enough to say so, whatever the machine has done meanwhile."""
    times = []
    for call in calls:
        began = time.monotonic()
        call()
        times.append(time.monotonic() - began)
    if min(times) >= 1:
        raise AssertionError(f"{what}: {[round(t, 2) for t in times]} s")


class standing:
    """Services that stand still for less than the time after which they are ended. The
    body runs again where the machine has made that longer."""

    LONGEST = 1.5

    def __init__(self, *services):
        self.services = services

    def __enter__(self):
        for pid in self.services:
            os.kill(pid, signal.SIGSTOP)
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        for pid in self.services:
            os.kill(pid, signal.SIGCONT)
        self.too_long = time.monotonic() - self.began > self.LONGEST


def eventually(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.01)


def take(id, count):
    """Connections to an owner, and what it has answered to each."""
    kept, answers = [], []
    for _ in range(count):
        s = dial(id)
        try:
            s.send(message(HELLO))
        except BrokenPipeError:
            pass
        m, fds = receive(s)
        answers.append(m.status)
        for fd in fds:
            os.close(fd)
        kept.append(s)
    return kept, answers
