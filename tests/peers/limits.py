# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end of every table of docs/limits.md: an errno, and all goes on."""
import errno
import resource

from peers import *


def needs_descriptors(count):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count:
        sys.exit(77)


@case("4096 segments, and ENOMEM; one less, and one more")
def segments():
    host, id, addr = owner()
    made = host.do("make_many", 5000, seconds=60)
    expect((made, host.errno), (4095, ENOMEM), "segments beside the first")
    attacher = Host()
    at = attacher.attach(id, addr, PAGE)
    expect(attacher.do("read", at), 65, "the first one's page")
    expect(host.do("remove", id), 0, "remove")
    expect(host.do("make_many", 2), 1, "one more")
    expect(host.errno, ENOMEM, "errno")


@case("4096 permits, and ENOMEM; one less, and one more")
def permits():
    host, id, addr = owner()
    attacher = Host()
    apid = attacher.do("get", id, RDWR)
    got = attacher.do("get_many", id, 5000, seconds=60)
    expect((got, attacher.errno), (4095, ENOMEM), "permits beside the first")
    at = attacher.do("attach", apid, addr, PAGE)
    expect(attacher.do("read", at), 65, "the first one's page")
    expect(attacher.do("release", apid), 0, "release")
    expect(attacher.do("get_many", id, 2), 1, "one more")


def gather(id, count):
    """That many processes with one connection each."""
    needs_descriptors(8192)
    crowd = Host()
    resource.prlimit(crowd.pid, resource.RLIMIT_NOFILE, (8192, 8192))
    if crowd.do("gather", count, socket_of(id), seconds=300) != count:
        sys.exit(77)
    return crowd


@case("4096 processes are attached, and ENOMEM for the next; they end, and there is room")
def table():
    taken(owner)


@case("the same on Linux before 6.5")
def table_before():
    taken(lambda: owner(**old_kernel()))


def taken(owner_of_all):
    honest, id, addr = owner_of_all()
    old = Host()
    at = old.attach(id, addr, 1 << 20)
    before = descriptors(honest.service())
    crowd = gather(id, 4095)
    eventually(lambda: descriptors(honest.service()) >= before + 4095, "all are taken")
    new = Host()
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    expect(old.do("read", at + 0x80000), 65, "an old one's page")
    # What the program attaches itself is not taken by them.
    _, id_there, there = owner(byte=66)
    expect(honest.do("read", honest.attach(id_there, there, PAGE)), 66, "a page for the owner")
    # The processes end, and their connections stay: those count for nobody.
    expect(crowd.do("disperse"), 4095, "ends")
    eventually(lambda: new.do("get", id, RDWR) > 0, "there is room again")
    expect(new.do("read", new.attach(id, addr, PAGE)), 65, "a page")
    expect(old.do("read", at + 0xC0000), 65, "an old one's page")


@case("128 processes take sixteen connections each: others get their places, one by one")
def second_ones():
    needs_descriptors(8192)
    honest, id, addr = owner()
    old = Host()
    at = old.attach(id, addr, 1 << 20)
    before = descriptors(honest.service())
    crowd = gather(id, 2047)
    read, write = os.pipe()
    children = []
    for _ in range(128):
        child = os.fork()
        if child == 0:
            kept = [dial(id, 60) for _ in range(16)]
            os.write(write, b"1")
            signal.pause()
            os._exit(len(kept))
        children.append(child)
    for _ in children:
        os.read(read, 1)
    eventually(lambda: descriptors(honest.service()) >= before + 4095, "all places are taken")
    for k in range(8):
        new = Host()
        got = new.do("get", id, RDWR)
        expect((got > 0, new.errno), (True, 0), "xpmem_get")
        expect(new.do("read", new.do("attach", got, addr + k * PAGE, PAGE)), 65, "a page")
    expect(old.do("read", at + 0x80000), 65, "an old one's page")
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    crowd.kill()


@case("as many descriptors are under way as the user may have: xpmem_get waits, and is ENOMEM after a second")
def under_way():
    if os.geteuid() == 0:
        # There is no limit for root.
        sys.exit(77)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    honest, id, addr = owner()
    old, new = Host(), Host()
    at = old.attach(id, addr, 1 << 20)
    new.make()
    pairs, file = [], os.open("/dev/null", os.O_RDONLY)
    try:
        while True:
            pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            send_fds(pairs[-1][0], b"x", [file] * 253)
    except OSError as error:
        expect(error.errno, errno.ETOOMANYREFS, "the end of it")
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    expect(old.do("read", at + 0x80000), 65, "a page for an old one")
    for pair in pairs:
        for s in pair:
            s.close()
    eventually(lambda: new.do("get", id, RDWR) > 0, "there is room again")
    expect(new.do("read", new.attach(id, addr, PAGE)), 65, "a page")


@case("4096 lent mappings: one peer gets half of them, the next waits or is SIGBUS; others get theirs")
def loans():
    needs_descriptors(8192)
    honest = Host(XPMEM_WAIT="1")
    resource.prlimit(honest.pid, resource.RLIMIT_NOFILE, (8192, 8192))
    files = honest.do("map_files", 2100, 70)
    expect(files > 0, True, f"files, errno {honest.errno}")
    id = honest.make()
    greedy, other = Host(), Host()
    at = greedy.attach(id, files, 2100 * 2 * PAGE)
    there = other.attach(id, files, 2100 * 2 * PAGE)
    # In parts: the whole takes as long as the machine has no time for it.
    for k in range(0, 2048, 256):
        got = greedy.do("loads", at + k * 2 * PAGE, 256, 2 * PAGE, 70)
        expect(got, 256, f"lent mappings from {k} on")
    last = 2048 * 2 * PAGE
    expect(greedy.do("read", at + last), SIGBUS, "the next")
    expect(other.do("loads", there + last, 52, 2 * PAGE, 70), 52, "those of another")
    expect(greedy.do("read", at + last), 70, "what another has been lent")
    # A place is free again when a mapping has gone.
    next = honest.do("map_files", 40, 71)
    more = greedy.attach(id, next, 80 * PAGE)
    expect(greedy.do("read", more), SIGBUS, "more than is left")
    expect(honest.do("munmap", files, PAGE * 2 * 60), 0, "munmap of the first")
    eventually(lambda: greedy.do("read", more) == 71, "it is lent")


@case("600 threads drop pages by raw calls at one moment: nothing old is left")
def changes():
    count = 600
    honest, id, addr = owner(count * PAGE)
    attacher = Host()
    at = attacher.attach(id, addr, count * PAGE)
    expect(attacher.do("loads", at, count, PAGE, 65), count, "pages")
    expect(honest.do("drop_all", addr, count, seconds=60), 0, "pages with something old")
    expect(attacher.do("loads", at, count, PAGE, 77), count, "new pages at the attacher")


@case("200 threads call at once, which is more than there are places for calls")
def calls():
    honest, id, addr = owner()
    attacher = Host()
    attacher.make()
    expect(attacher.do("get_all", id, 200), 200, "permits")


# ---- the ends of tables that a test cannot fill: they are made small
def of_tests():
    """The library with switches for tests."""
    library = os.path.join(BUILD, "fault-injection", "lib")
    if not os.path.exists(os.path.join(library, "libxpmem.so.0")):
        sys.exit(77)
    return dict(LD_LIBRARY_PATH=library)


def old_kernel():
    """A program whose library does with what Linux 6.1 has."""
    return dict(of_tests(), XPMEM_TEST_OLD_KERNEL="1")


def small(places, **env):
    """A program whose library has no more than so many places in each of them."""
    return Host(XPMEM_TEST_PLACES=str(places), **of_tests(), **env)


@case("the end of the table of attachments: ENOMEM, one less and one more")
def pieces():
    honest, id, addr = owner()
    # 1,024 are kept for what the program cuts.
    attacher = small(1024 + 50)
    apid = attacher.do("get", id, RDWR)
    first = attacher.do("attach", apid, addr, PAGE)
    expect(first > 0, True, "attachment")
    got = attacher.do("attach_many", apid, addr, 100)
    expect((got, attacher.errno), (49, ENOMEM), "attachments beside the first")
    expect(attacher.do("detach", first), 0, "detach")
    expect(attacher.do("attach_many", apid, addr, 2), 1, "one more")


@case("a window is cut into more pieces than there are places: they are SIGBUS, and all goes on")
def cuts():
    honest, id, addr = owner(1 << 24)
    attacher = small(1024 + 50)
    at = attacher.attach(id, addr, 1 << 24)
    expect(attacher.do("cut", at, 1500), 0, "cut")
    expect(attacher.do("read", at), 65, "the first piece")
    expect(attacher.do("read", at + 2 * 1400 * PAGE), SIGBUS, "a piece that has no place")
    expect(attacher.do("read", at + PAGE), SIGSEGV, "what was cut out")
    honest.quit()
    expect(attacher.do("read", at), SIGBUS, "the first piece")
    expect(attacher.do("make", 0, PAGE, 0o600) > 0, True, "a call")


@case("the end of the table of ranges: what is not shared yet is SIGBUS, until another has gone")
def ranges():
    honest = small(50, XPMEM_WAIT="0.2")
    files = honest.do("map_files", 100, 70)
    attacher = Host()
    at = attacher.attach(honest.make(), files, 100 * 2 * PAGE)
    got = attacher.do("loads", at, 100, 2 * PAGE, 70)
    expect(40 < got < 50, True, f"{got} ranges")
    expect(attacher.do("loads", at, got, 2 * PAGE, 70), got, "they stay")
    expect(honest.do("munmap", files, PAGE), 0, "munmap of the first")
    eventually(lambda: attacher.do("read", at + got * 2 * PAGE) == 70, "one more")


@case("more threads are in calls of libc than there are guards: nothing old is left")
def guards():
    count = 100
    honest = small(4)
    addr = honest.do("map", count * PAGE, 65)
    attacher = Host()
    at = attacher.attach(honest.make(), addr, count * PAGE)
    expect(attacher.do("loads", at, count, PAGE, 65), count, "pages")
    expect(honest.do("drop_all", addr, count, 1), 0, "pages with something old")
    expect(attacher.do("loads", at, count, PAGE, 77), count, "new pages at the attacher")


@case("more threads than can be stopped: SIGBUS, until some have ended")
def stops():
    honest = small(16, XPMEM_WAIT="0.2")
    addr = honest.do("map", 1 << 20, 65)
    attacher = Host()
    at = attacher.attach(honest.make(), addr, 1 << 20)
    expect(honest.do("sleepers", 20), 20, "threads")
    expect(attacher.do("read", at + 0x80000), SIGBUS, "a page")
    expect(honest.do("wake"), 0, "wake")
    eventually(lambda: attacher.do("read", at + 0x80000) == 65, "the page")


@case("more threads wait for pages than there are places: all are served")
def waiters():
    honest, id, addr = owner(1 << 26)
    attacher = small(1024 + 50)
    at = attacher.attach(id, addr, 1 << 26)
    honest.do("vfork", 1000)
    expect(attacher.do("touch_all", at, 1500, 32768), 1500, "threads")
    eventually(lambda: attacher.do("touched", 65) == 1500, "all threads are served")


def unshown(**env):
    """An owner in a PID namespace that does not show us."""
    needs_descriptors(8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    honest = Host(apart=True, **env)
    if honest.do("map", PAGE, 65) == "dead":
        sys.exit(77)
    honest.pid = children_of(honest.process.pid)[0]
    addr = honest.do("map", 1 << 20, 65)
    return honest, honest.make(), addr


@case("processes that the owner's PID namespace does not show are told apart: sixteen connections for one")
def unseen():
    release = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
    if release < (6, 9):
        sys.exit(77)
    honest, id, addr = unshown()
    kept, answers = take(id, 40)
    expect((answers.count(DONE), answers[-1]), (16, FULL), "connections, and the last")
    new = Host()
    expect(new.do("read", new.attach(id, addr, PAGE)), 65, "a page for another")


@case("where they are not, 2048 connections for all of them, and ENOMEM")
def unseen_before():
    honest, id, addr = unshown(**old_kernel())
    kept, answers = take(id, 2049)
    expect((answers.count(DONE), answers[-1]), (2048, FULL), "connections, and the last")
    new = Host()
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    # Who is shown has places still.
    mate = Host(beside=honest)
    expect(mate.do("read", mate.attach(id, addr, PAGE)), 65, "a page for one of the namespace")
    for s in kept:
        s.close()
    eventually(lambda: new.do("get", id, RDWR) > 0, "there is room again")
