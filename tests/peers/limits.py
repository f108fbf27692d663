# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end of every table of docs/limits.md: an errno, and all goes on."""
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


@case("4096 connections, and ENOMEM for the next; they end, and there is room")
def table():
    needs_descriptors(8192)
    honest, id, addr = owner()
    old = Host()
    at = old.attach(id, addr, 1 << 20)
    read, write = os.pipe()
    children = []
    # The sixteen that one process may have, of as many processes as it takes.
    for _ in range(4096 // 16):
        child = os.fork()
        if child == 0:
            kept = []
            try:
                for _ in range(16):
                    kept.append(dial(id, 30))
                    kept[-1].send(message(HELLO))
                    m, fds = receive(kept[-1])
                    os.write(write, b"1" if m.status == DONE else b"0")
                    for fd in fds:
                        os.close(fd)
            except OSError:
                os.write(write, b"0")
            signal.pause()
            os._exit(0)
        children.append(child)
    answers = b""
    while len(answers) < 4096:
        answers += os.read(read, 4096)
    expect(answers.count(b"1"), 4095, "connections beside the first")
    new = Host()
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    expect(old.do("read", at + 0x80000), 65, "an old one's page")
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    eventually(lambda: new.do("get", id, RDWR) > 0, "there is room again")
    expect(new.do("read", new.attach(id, addr, PAGE)), 65, "a page")


@case("4096 lent mappings; the next waits or is SIGBUS, and is lent when another has gone")
def loans():
    needs_descriptors(8192)
    honest = Host(XPMEM_WAIT="1")
    resource.prlimit(honest.pid, resource.RLIMIT_NOFILE, (8192, 8192))
    files = honest.do("map_files", 4097, 70)
    expect(files > 0, True, f"files, errno {honest.errno}")
    attacher = Host()
    at = attacher.attach(honest.make(), files, 4097 * 2 * PAGE)
    # In parts: the whole takes as long as the machine has no time for it.
    for k in range(0, 4096, 256):
        got = attacher.do("loads", at + k * 2 * PAGE, 256, 2 * PAGE, 70)
        expect(got, 256, f"lent mappings from {k} on")
    last = 4096 * 2 * PAGE
    expect(attacher.do("read", at + last), SIGBUS, "the next")
    expect(honest.do("munmap", files, PAGE), 0, "munmap of the first")
    eventually(lambda: attacher.do("read", at + last) == 70, "the last is lent")


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
def small(places, **env):
    """A program whose library has no more than so many places in each of them."""
    library = os.path.join(BUILD, "fault-injection", "lib")
    if not os.path.exists(os.path.join(library, "libxpmem.so.0")):
        sys.exit(77)
    return Host(LD_LIBRARY_PATH=library, XPMEM_TEST_PLACES=str(places), **env)


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


@case("2048 connections of processes that the owner's PID namespace does not show, and ENOMEM")
def unseen():
    needs_descriptors(8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    honest = Host(apart=True)
    if honest.do("map", PAGE, 65) == "dead":
        sys.exit(77)
    honest.pid = children_of(honest.process.pid)[0]
    addr = honest.do("map", 1 << 20, 65)
    id = honest.make()
    kept, answers = [], []
    for _ in range(2049):
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
    expect((answers.count(DONE), answers[-1]), (2048, FULL), "connections, and the last")
    new = Host()
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    # Who is shown has places still.
    mate = Host(beside=honest)
    expect(mate.do("read", mate.attach(id, addr, PAGE)), 65, "a page for one of the namespace")
    for s in kept:
        s.close()
    eventually(lambda: new.do("get", id, RDWR) > 0, "there is room again")
