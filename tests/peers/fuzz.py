# SPDX-License-Identifier: MIT OR Apache-2.0
"""Messages of all kinds, with descriptors of all kinds, at both sides.

The honest ones beside go on and see what they should; nothing grows without end.
"""
from peers import *


def some_descriptor():
    kind = random.randrange(12)
    if kind == 0:
        read, write = os.pipe()
        os.close(write)
        return read
    if kind == 1:
        return os.open("/tmp", os.O_RDONLY)
    if kind == 2:
        return os.open("/etc/passwd", os.O_PATH)
    if kind == 3:
        return space()
    if kind == 4:
        return space(size=PAGE)
    if kind == 5:
        return space(seal=False)
    if kind == 6:
        try:
            return os.memfd_create("huge", 4)
        except OSError:
            return os.open("/dev/null", os.O_RDWR)
    if kind == 7:
        return os.open("/dev/zero", os.O_RDWR)
    if kind == 8:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()
    if kind == 9:
        return os.open("/proc/self/maps", os.O_RDONLY)
    if kind == 10:
        return os.eventfd(1)
    return os.pidfd_open(os.getpid())


def some_number(near, size):
    edges = [0, 1, PAGE - 1, PAGE, 2 * PAGE - 1, near, near + 1, near + size - 1, TOP - PAGE, TOP - 1, TOP]
    edges += [TOP + 1, 1 << 47, 1 << 63, M64, M64 & -PAGE, (1 << 63) - 1]
    which = random.random()
    if which < 0.5:
        return random.choice(edges)
    if which < 0.8:
        return near + random.randrange(size)
    return random.getrandbits(64)


def some_message(near, size, ids, question=None):
    """Anything; now and then an answer to a question."""
    lo, hi = some_number(near, size), some_number(near, size)
    if random.random() < 0.5:
        lo, hi = min(lo, hi), max(lo, hi)
    verb = random.choice([1, 2, 3, 3, 3, 4, 5, 6, 6, 7, 8]) if random.random() < 0.95 else random.getrandbits(32)
    status = random.choice([0, 0, 0, 1, 2, 3, 4, 5, 6, random.getrandbits(31)])
    flags = random.choice([0, 1, 2, 3, 3, 4, 6, 8, 3 | 1 << 32, random.getrandbits(64)])
    fields = dict(cookie=some_number(near, size), serial=random.choice([0, 1, 2, 3, random.getrandbits(48)]))
    if question is not None and random.random() < 0.7:
        verb, flags = ANSWER, question.verb
        fields = dict(cookie=question.cookie, serial=question.serial)
        if random.random() < 0.5:
            lo, hi = question.lo, question.hi
    version = VERSION if random.random() < 0.99 else random.getrandbits(16)
    addr, id = some_number(near, size), random.choice(ids + [0, M64, random.getrandbits(64)])
    data = message(verb, status, id=id, addr=addr, lo=lo, hi=hi, flags=flags, version=version, **fields)
    if random.random() < 0.01:
        data = data[: random.randrange(SIZE)]
    elif random.random() < 0.01:
        data += b"x" * random.randrange(1, 4000)
    return data


def utter(s, data):
    """Sends it, with descriptors or without; whether the connection still stands."""
    fds = []
    if random.random() < 0.2:
        fds = [some_descriptor() for _ in range(random.choice([1, 1, 2, 2, 3, 7, 30]))]
    try:
        send_fds(s, data, fds) if fds else s.send(data)
    except (BlockingIOError, PermissionError, TimeoutError, socket.timeout):
        pass
    except OSError:
        return False
    finally:
        for fd in fds:
            os.close(fd)
    return True


def hear(s):
    """A message if there is one, and whether the connection still stands."""
    try:
        m, fds = receive(s)
    except BlockingIOError:
        return None, True
    except OSError:
        return None, False
    for fd in fds:
        os.close(fd)
    return m, m is not None


@case("random messages at an owner")
def fuzz_owner(seconds):
    size = 1 << 26
    honest, id, addr = owner(size)
    ids = [id, id, honest.do("make", addr, 1 << 16, 0o400), id ^ 1 << 22, id + 1]
    file = honest.do("map_file", 1 << 20, 66)
    attacher = Host()
    at = attacher.attach(id, addr, size)
    there = attacher.attach(id, file, 1 << 20)
    service = honest.service()
    before = descriptors(service)
    ends = time.monotonic() + seconds
    connections, count = [], 0
    while time.monotonic() < ends:
        if len(connections) < 12 and random.random() < 0.3:
            s = dial(id)
            s.setblocking(False)
            connections.append(s)
        if not connections:
            continue
        s = random.choice(connections)
        near = addr if random.random() < 0.8 else file
        stands = utter(s, some_message(near, size if near == addr else 1 << 20, ids))
        for _ in range(random.randrange(3)):
            stands = stands and hear(s)[1]
        if not stands or random.random() < 0.003:
            connections.remove(s)
            s.close()
        count += 1
        if count % 300 == 0:
            page = random.randrange(size // PAGE) * PAGE
            expect(attacher.do("read", at + page), 65, "an honest one's page")
            expect(attacher.do("read", there + page % (1 << 20)), 66, "a lent page")
            expect(honest.do("read", addr + page), 65, "the owner's own page")
            made = honest.do("make", addr, PAGE, 0o600)
            expect(made > 0, True, f"a call of the owner, errno {honest.errno}")
            expect(honest.do("remove", made), 0, "another")
            expect(descriptors(service) < before + 60, True, "descriptors")
    for s in connections:
        s.close()
    expect(attacher.do("sum", at, size), sum_of(65, size), "sum")
    eventually(lambda: descriptors(service) <= before + 2, "no descriptor is left")
    attacher.quit()
    honest.quit()


@case("random answers of false owners at an attacher")
def fuzz_attacher(seconds):
    size = 1 << 22
    honest, id, addr = owner(size)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        attacher = Host()
        at = attacher.attach(id, addr, size)
        service = attacher.service()
        liar = FalseOwner()
        apid, s = liar.grant(attacher, lo=0x10000, hi=0x10000 + size)
        window = liar.attach(attacher, s, apid, 1 << 21)
        s.setblocking(False)
        attacher.do("touch_all", window, 16, PAGE)
        question = None
        for count in range(3000):
            m, stands = hear(s)
            if m is not None and m.verb in (HELLO, GET, SHARE, QUERY):
                question = m
            stands = stands and utter(s, some_message(0x10000, size, [liar.segid], question))
            if not stands:
                break
            if count % 200 == 0:
                page = random.randrange(size // PAGE) * PAGE
                expect(attacher.do("read", at + page), 65, "the honest owner's page")
        s.close()
        page = random.randrange(size // PAGE) * PAGE
        expect(attacher.do("read", at + page), 65, "the honest owner's page")
        expect(attacher.do("read", window + (1 << 20)), SIGBUS, "a false owner's page, after its end")
        expect(attacher.do("detach", window), 0, "detach")
        expect(attacher.do("release", apid), 0, "release")
        eventually(lambda: descriptors(service) < 40, "no descriptor is left")
        expect(attacher.do("sum", at, size), sum_of(65, size), "sum")
        attacher.quit()
        liar.close()
