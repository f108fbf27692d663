# SPDX-License-Identifier: MIT OR Apache-2.0
"""Peers that lie: they hurt themselves alone."""
from peers import *


@case("a false owner cannot answer for another's window")
def cross():
    honest, id, addr = owner()
    attacher = Host()
    at = attacher.attach(id, addr, 1 << 20)
    liar = FalseOwner()
    _, s = liar.grant(attacher)
    page = at + 0x80000
    evil = os.memfd_create("evil")
    os.pwrite(evil, b"E" * (1 << 20), 0)
    me = os.pidfd_open(os.getpid())
    attacher.tell("touch_all", at + 0x40000, 32, 4096)
    for serial in range(80):
        lie = dict(cookie=page, id=1, lo=addr + 0x80000, hi=addr + (1 << 20), flags=SHARE, serial=serial)
        send_fds(s, message(ANSWER, ELSEWHERE, addr=0, **lie), [evil, me])
        s.send(message(ANSWER, HOLE, **lie))
        s.send(message(ANSWER, DONE, **lie))
    s.send(message(RECALL, lo=0, hi=TOP, serial=5))
    time.sleep(0.2)
    expect(attacher.hear(), 32, "threads")
    eventually(lambda: attacher.do("touched", 65) == 32, "threads read what the honest owner has")
    expect(attacher.do("read", page), 65, "the honest owner's page")
    expect(attacher.do("write", page, 90), 0, "store")
    expect(honest.do("read", addr + 0x80000), 90, "the store at the honest owner")


@case("a late answer, or one to another question, is not used")
@also_with_huge_pages
def late():
    attacher, liar = Host(), FalseOwner()
    attacher.make()
    apid, s = liar.grant(attacher)
    base = 0x10000
    at = liar.attach(attacher, s, apid, 1 << 20)
    attacher.tell("read", at)
    m = liar.asked(s)
    expect((m.verb, m.addr, m.lo, m.hi), (SHARE, base, base, base + (1 << 20)), "question")
    os.pwrite(liar.space, b"A" * 0x100000, base)
    # Of another question, or another kind of question: a hole is no answer.
    s.send(m.answer(HOLE, serial=m.serial - 1))
    s.send(m.answer(HOLE, flags=GET))
    s.send(m.answer(HOLE, cookie=m.cookie + PAGE))
    expect(attacher.hear(0.3), "hangs", "a touch that has no answer")
    s.send(m.answer(DONE, lo=base, hi=base + PAGE))
    expect(attacher.hear(), ord("A"), "the page")
    # An answer for a page that was not asked for is a lie: SIGBUS for its own window.
    attacher.tell("read", at + 0x10000)
    m = liar.asked(s)
    s.send(m.answer(DONE, lo=base + 0x80000, hi=base + 0x90000))
    expect(attacher.hear(), SIGBUS, "a page that the answer does not have")


@case("an owner that never says what pages there are: the attach ends, a touch can be killed, and is SIGBUS at its end")
def silent():
    process = subprocess.Popen(["sleep", "1000"])
    liar = FalseOwner()
    with huge_pages():
        asked = []
        for attacher in Host(), Host():
            attacher.make()
            apid, s = liar.grant(attacher, process=process.pid)
            attacher.tell("attach", apid, 0, 1 << 20)
            asked.append((attacher, s))
        for attacher, _ in asked:
            at = attacher.hear()
            expect(at > 0, True, "an attach")
            attacher.tell("read", at)
            expect(attacher.hear(0.3), "hangs", "a touch that has no answer")
    (killed, _), (left, s) = asked
    killed.kill()
    process.kill()
    process.wait()
    s.close()
    expect(left.hear(), SIGBUS, "the touch, when the owner has ended")


@case("a file on huge pages takes no more room than the window has")
@also_with_huge_pages
def huge_file():
    if not hasattr(os, "MFD_HUGETLB"):
        return
    attacher, liar = Host(), FalseOwner()
    attacher.make()
    apid, s = liar.grant(attacher)
    page = 2 << 20
    file = os.memfd_create("toolarge", os.MFD_HUGETLB)
    os.ftruncate(file, 4 * page)
    for first, size in ((page, page + PAGE), (page, 1 << 19), (page + PAGE, page)):
        at = liar.attach(attacher, s, apid, size, first - 0x10000)
        attacher.tell("read", at)
        m = liar.asked(s)
        send_fds(s, m.answer(ELSEWHERE, id=1, addr=0, lo=m.lo, hi=m.hi), [file, os.pidfd_open(os.getpid())])
        # There may be no such page free.
        expect(attacher.hear() in (0, SIGBUS), True, "a page of the file, or none")
        for line in open(f"/proc/{attacher.pid}/maps"):
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if "toolarge" in line:
                expect((at <= start, end <= at + size), (True, True), f"{start:#x}-{end:#x} of {at:#x}+{size:#x}")
        expect(attacher.do("detach", at), 0, "detach")
    os.close(file)


@case("a file that cannot be mapped, as the kernel finds too late, leaves the window in its place")
@also_with_huge_pages
def unmappable():
    attacher, liar = Host(), FalseOwner()
    attacher.make()
    apid, s = liar.grant(attacher)
    at = liar.attach(attacher, s, apid, 1 << 20)
    # What stands there is gone when a socket refuses.
    file = socket.socket(socket.AF_UNIX)
    attacher.tell("read", at)
    m = liar.asked(s)
    send_fds(s, m.answer(ELSEWHERE, id=1, addr=0, lo=m.lo, hi=m.hi), [file.fileno()])
    expect(attacher.hear(), SIGBUS, "a page of that file")
    # Nothing else can come to stand there, and the next answer is used.
    os.pwrite(liar.space, b"A", m.lo)
    attacher.tell("read", at)
    m = liar.asked(s)
    s.send(m.answer(DONE))
    expect(attacher.hear(), ord("A"), "the page")
    expect(attacher.do("detach", at), 0, "detach")


@case("an answer for a terabyte costs no more than one for a chunk")
@also_with_huge_pages
def terabyte():
    attacher, liar = Host(), FalseOwner()
    attacher.make()
    apid, s = liar.grant(attacher, hi=TOP - PAGE)
    at = liar.attach(attacher, s, apid, 1 << 40)
    os.pwrite(liar.space, b"A", 0x10000)
    attacher.tell("read", at)
    m = liar.asked(s)
    s.send(m.answer(DONE, lo=0, hi=TOP))
    expect(attacher.hear(), ord("A"), "the page")
    expect(attacher.do("make", 0, PAGE, 0o600) > 0, True, "a call after it")
    expect(processor_time(attacher.service()) < 5, True, "the service's time")


@case("a request for a gigabyte is served in a piece")
def whole():
    honest, id, addr = owner()
    big = honest.do("map", 1 << 30, 0)
    s = dial(id)
    before = resident(honest.pid)
    s.send(message(SHARE, id=id, addr=big, lo=big, hi=big + (1 << 30), flags=WHOLE))
    m, _ = receive(s)
    expect((m.status, m.lo, m.hi - m.lo), (DONE, big, 256 << 10), "answer")
    grown = resident(honest.pid) - before
    expect(grown < 8 << 20, True, f"grown by {grown}")


@case("who acknowledges more than it was told is hung up on")
def acknowledged():
    honest, id, addr = owner()
    s = dial(id)
    s.send(message(NOTED, lo=1))
    expect(hears_the_end(s), True, "hung up")
    expect(honest.do("make", 0, PAGE, 0o600) > 0, True, "a call")


@case("another version is refused cleanly, on both sides")
def version():
    honest, id, _ = owner()
    for other in (1, VERSION + 1, 0):
        s = dial(id)
        s.send(message(HELLO, version=other))
        expect(hears_the_end(s), True, f"an attacher of version {other} is hung up on")
        attacher, liar = Host(), FalseOwner()
        attacher.tell("get", liar.segid, RDWR)
        s = liar.accept()
        m, _ = receive(s)
        expect(m.version, VERSION, "version of the question")
        me = os.pidfd_open(os.getpid())
        send_fds(s, message(ANSWER, flags=HELLO, serial=m.serial, version=other), [liar.space, me])
        expect((attacher.hear(), attacher.errno), (-1, ENOENT), f"xpmem_get from an owner of version {other}")
        attacher.quit()
    expect(Host().do("get", id, RDWR) > 0, True, "xpmem_get")


@case("what is no address space is refused")
def spaces():
    attacher = Host()
    attacher.make()
    pipe, _ = os.pipe()
    me = os.pidfd_open(os.getpid())
    plain = os.open(__file__, os.O_RDONLY)
    for name, fds in (
        ("unsealed", [space(seal=False), me]),
        ("small", [space(size=PAGE), me]),
        ("a file", [plain, me]),
        ("no process", [space(), pipe]),
        ("one descriptor", [space()]),
        ("swapped", [me, space()]),
        ("three", [space(), pipe, me]),
    ):
        liar = FalseOwner()
        attacher.tell("get", liar.segid, RDWR)
        s = liar.accept()
        m, _ = receive(s)
        send_fds(s, m.answer(), fds)
        expect((attacher.hear(), attacher.errno), (-1, ENOENT), name)
        expect(hears_the_end(s), True, f"{name}: hung up")
        liar.close()


@case("descriptors that nobody wants are refused, or closed, and nobody waits for it")
def unwanted():
    honest, id, addr = owner()
    attacher, liar = Host(), FalseOwner()
    at = attacher.attach(id, addr, 1 << 20)
    apid, s = liar.grant(attacher)
    services = honest.service(), attacher.service()
    time.sleep(0.2)
    before = [descriptors(pid) for pid in services]

    def lingering():
        """A socket whose last close waits for an hour."""
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        client.setblocking(False)
        try:
            while True:
                client.send(b"x" * 65536)
        except BlockingIOError:
            pass
        kept.append(server)
        return client.detach()

    kept = []
    to_owner = dial(id)
    unsent = [
        (to, verb, [lingering() if k == 0 else os.open("/dev/null", os.O_RDONLY) for k in range(count)])
        for to, verb in ((s, ANSWER), (to_owner, NOTED))
        for count in (1, 3, 253)
    ]
    # They stand while we close ours: they are the last.
    with standing(*services):
        for to, verb, fds in unsent:
            try:
                send_fds(to, message(verb, flags=SHARE), fds)
            except PermissionError:
                expect(to is to_owner, True, "it is an owner that takes none")
                hold_on = socket.socket(fileno=fds[0])
                hold_on.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
                fds[0] = hold_on.detach()
            for fd in fds:
                os.close(fd)
    # What lingers does so for an hour.
    expect(attacher.do("read", at + 0x80000, seconds=300), 65, "a page")
    expect(honest.do("make", 0, PAGE, 0o600, seconds=300) > 0, True, "a call")
    for pid, count in zip(services, before):
        # The one that lingers holds up whoever closes it, and what waits behind it.
        expect(descriptors(pid) - count <= 260, True, f"{descriptors(pid)} descriptors, {count} before")
    for server in kept:
        server.close()
    # Whoever closed them goes on, and nothing is left.
    eventually(
        lambda: all(descriptors(pid) <= count + 1 for pid, count in zip(services, before)),
        "all descriptors are closed",
    )


@case("one process cannot take all connections")
def connections():
    honest, id, addr = owner()
    kept, answers = take(id, 40)
    expect((answers.count(DONE), answers.count(FULL)), (16, 24), "taken and refused")
    attacher = Host()
    at = attacher.attach(id, addr, PAGE)
    expect(attacher.do("read", at), 65, "another process")
    for s in kept:
        s.close()
    eventually(lambda: Message(hello_of(id)).status == DONE, "there is room again")


def hello_of(id):
    with dial(id) as s:
        try:
            s.send(message(HELLO, serial=1))
        except BrokenPipeError:
            pass
        data = s.recv(SIZE)
        return data if len(data) == SIZE else message(ANSWER, FULL)


@case("a descriptor that was closed is not unwatched for another")
def deaf():
    attacher, id, addr = owner()
    process = subprocess.Popen(["sleep", "1000"])
    liar = FalseOwner()
    _, s = liar.grant(attacher, process=process.pid)
    service = attacher.service()
    os.kill(service, signal.SIGSTOP)
    # At one moment: the owner ends, new attachers come, the connection ends.
    process.kill()
    process.wait()
    new = [dial(id) for _ in range(6)]
    s.close()
    os.kill(service, signal.SIGCONT)
    time.sleep(0.2)
    for s in new:
        s.send(message(HELLO))
        expect(receive(s)[0].status, DONE, "a new attacher is heard")


@case("recalls without number, of nothing and of everything")
def recalls():
    honest, id, addr = owner()
    attacher, liar = Host(), FalseOwner()
    file = honest.do("map_file", 1 << 16, 70)
    at = attacher.attach(id, file, 1 << 16)
    expect(attacher.do("read", at), 70, "a lent file")
    apid, s = liar.grant(attacher)
    s.settimeout(0.05)
    for k in range(20000):
        try:
            s.send(message(RECALL, lo=0, hi=TOP, serial=k))
        except (TimeoutError, socket.timeout):
            break
    expect(attacher.do("read", at + PAGE), 70, "the lent file")
    expect(attacher.do("make", 0, PAGE, 0o600) > 0, True, "a call")
    expect(honest.do("munmap", file, 1 << 16), 0, "munmap")
    expect(attacher.do("read", at), SIGBUS, "the file, taken back")


@case("what one peer does to the file that all have been given does not reach the others")
def the_file():
    seal_future_write, seal_seal = 0x10, 1
    for lie in (
        lambda fd: fcntl.fcntl(fd, 1033, seal_future_write),
        lambda fd: fcntl.fcntl(fd, 1033, seal_seal),
        lambda fd: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND),
        lambda fd: os.fchmod(fd, 0),
        lambda fd: os.lseek(fd, 12345, os.SEEK_SET),
        lambda fd: fcntl.flock(fd, fcntl.LOCK_EX),
        lambda fd: os.ftruncate(fd, 0),
    ):
        honest, id, addr = owner()
        data = honest.do("own_data", 67)
        attacher = Host()
        at = attacher.attach(id, addr, 1 << 20)
        there = attacher.attach(id, data, 1 << 20)
        expect(attacher.do("read", at), 65, "a page")
        liar = dial(id)
        liar.send(message(HELLO))
        fds = receive(liar)[1]
        try:
            lie(fds[0])
        except OSError:
            pass
        for k in range(1, 16):
            expect(attacher.do("read", at + k * 65536), 65, "another page")
            expect(attacher.do("read", there + k * 65536), 67, "a page of the program's file")
        expect(honest.do("munmap", addr, 1 << 16), 0, "munmap")
        expect(attacher.do("read", at), SIGBUS, "what was unmapped")
        expect(honest.do("fill", addr + (1 << 16), 1 << 16, 66), 0, "fill")
        expect(attacher.do("sum", at + (1 << 16), 1 << 16), sum_of(66, 1 << 16), "what was written")
        late = Host()
        expect(late.do("read", late.attach(id, addr + (1 << 16), PAGE)), 66, "a later attacher's page")
        for fd in fds:
            os.close(fd)
        liar.close()
        for host in (late, attacher, honest):
            host.quit()


@case("a file that is lent is opened anew: what a peer does to it does not reach the program's own")
def opened_anew():
    honest, id, addr = owner()
    file = honest.do("map_file", 1 << 16, 70)
    own = {n for n in os.listdir(f"/proc/{honest.pid}/fd") if "memfd:host" in os.readlink(f"/proc/{honest.pid}/fd/{n}")}
    expect(len(own), 1, "descriptors of the file")
    state = f"/proc/{honest.pid}/fdinfo/{own.pop()}"
    before = open(state).read()
    s = dial(id)
    s.send(message(SHARE, id=id, addr=file, lo=file, hi=file + (1 << 16)))
    m, fds = receive(s)
    expect(m.status, ELSEWHERE, "answer")
    expect(os.pread(fds[0], 1, PAGE), b"F", "the file")
    os.lseek(fds[0], 12345, os.SEEK_SET)
    fcntl.fcntl(fds[0], fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)
    fcntl.flock(fds[0], fcntl.LOCK_EX)
    os.close(fds[0])
    expect(open(state).read(), before, "position, flags and locks of the program's descriptor")


@case("a peer that fills holes of the file: memory is shared beside that with its content, and none is left behind")
def filled():
    size = 1 << 24
    honest, id, addr = owner(size)
    attacher = Host()
    at = attacher.attach(id, addr, size)
    liar = dial(id)
    liar.send(message(HELLO))
    fds = receive(liar)[1]
    child = os.fork()
    if child == 0:
        while True:
            os.posix_fallocate(fds[0], addr + random.randrange(size // PAGE - 16) * PAGE, 16 * PAGE)
    try:
        for k in range(0, size, 1 << 16):
            expect(attacher.do("read", at + k), 65, f"a page at {k:#x}")
        expect(attacher.do("sum", at, size), sum_of(65, size), "sum")
        expect(honest.do("sum", addr, size), sum_of(65, size), "the owner's sum")
        expect(honest.do("munmap", addr, 1 << 20), 0, "munmap")
        expect(attacher.do("read", at + 3 * PAGE), SIGBUS, "what was unmapped")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
