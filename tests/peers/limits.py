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
    expect(new.do("read", new.attach(id, addr, PAGE)), 65, "there is room again")


@case("4096 lent mappings; the next waits or is SIGBUS, and is lent when another has gone")
def loans():
    needs_descriptors(8192)
    honest = Host()
    resource.prlimit(honest.pid, resource.RLIMIT_NOFILE, (8192, 8192))
    files = honest.do("map_files", 4097, 70)
    expect(files > 0, True, f"files, errno {honest.errno}")
    attacher = Host()
    at = attacher.attach(honest.make(), files, 4097 * 2 * PAGE)
    expect(attacher.do("loads", at, 4097, 2 * PAGE, 70, seconds=150), 4096, "lent mappings")
    last = 4096 * 2 * PAGE
    # It waits for a while, or is SIGBUS: nothing else.
    attacher.tell("read", at + last)
    expect(attacher.hear(1) in ("hangs", SIGBUS), True, "the next")
    expect(honest.do("munmap", files, PAGE), 0, "munmap of the first")
    eventually(lambda: 70 in (attacher.hear(2), attacher.do("read", at + last)), "the last is lent", 60)


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
