# SPDX-License-Identifier: MIT OR Apache-2.0
"""Peers that are slow, stand still, or end: the others go on.

What must end is given many seconds: the machine may have little time for all of this.
"""
import threading

from peers import *

MANY = 1 << 26


@case("600 threads are all served, and 1000 whose own service stood still")
def threads():
    honest, id, addr = owner(MANY)
    attacher = Host()
    at = attacher.attach(id, addr, MANY)
    expect(attacher.do("touch_all", at, 600, 65536), 600, "threads")
    eventually(lambda: attacher.do("touched", 65) == 600, "600 threads are served")
    attacher.quit()
    for _ in range(10):
        attacher = Host()
        at = attacher.attach(id, addr, MANY)
        with standing(attacher.service()) as stood:
            expect(attacher.do("touch_all", at, 1000, 65536), 1000, "threads")
            time.sleep(0.3)
        if not stood.too_long:
            break
        attacher.kill()
    eventually(lambda: attacher.do("touched", 65) == 1000, "1000 threads are served")
    attacher.quit()


@case("a thread of the owner is in vfork for two seconds: 3 x 240 threads are served")
def vforked():
    honest, id, addr = owner(MANY)
    attachers = [Host() for _ in range(3)]
    at = [attacher.attach(id, addr, MANY) for attacher in attachers]
    honest.do("vfork", 2000)
    for attacher, there in zip(attachers, at):
        expect(attacher.do("touch_all", there, 240, 65536), 240, "threads")
    for attacher in attachers:
        eventually(lambda: attacher.do("touched", 65) == 240, "all threads are served", 60)


@case("an owner that has too many to accept: xpmem_get waits until it accepts again")
def crowded():
    attacher, liar = Host(), FalseOwner()
    attacher.make()
    liar.listener.listen(0)
    waiting = []
    try:
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            waiting[-1].setblocking(False)
            waiting[-1].connect(liar.path)
    except BlockingIOError:
        pass
    attacher.tell("get", liar.segid, RDWR)
    expect(attacher.hear(0.5), "hangs", "xpmem_get meanwhile")
    for s in waiting:
        s.close()
    m = None
    while m is None:
        s = liar.accept()
        m, _ = receive(s)
    expect(m.verb, HELLO, "the attacher's first word")
    send_fds(s, m.answer(flags=HELLO), [liar.space, os.pidfd_open(os.getpid())])
    m, _ = receive(s)
    s.send(m.answer(lo=0x10000, hi=0x20000))
    expect(attacher.hear() > 0, True, "xpmem_get")


@case("who asks much waits for himself: 5000 questions, and one")
def loud():
    honest, id, addr = owner(1 << 24)
    attacher = Host()
    at = attacher.attach(id, addr, 1 << 24)
    honest.do("vfork", 1500)
    loud = dial(id)
    loud.settimeout(30)
    answered = set()

    def listen():
        while len(answered) < 5000:
            m, _ = receive(loud)
            if m is None:
                return
            answered.add(m.cookie)

    def ask():
        noted = 0
        for k in range(5000):
            loud.send(message(SHARE, cookie=k, id=id, addr=addr, lo=addr, hi=addr + PAGE))
            if len(answered) - noted > 50:
                loud.send(message(NOTED, lo=50))
                noted += 50

    workers = [threading.Thread(target=f, daemon=True) for f in (ask, listen)]
    for worker in workers:
        worker.start()
    time.sleep(0.2)
    expect(attacher.do("read", at + 0x800000), 65, "the other one's page")
    eventually(lambda: len(answered) == 5000, "every question is answered", 60)


@case("questions of one who does not read are answered when it reads")
def unread():
    honest, id, addr = owner()
    s = dial(id)
    s.settimeout(0.2)
    sent = 0
    try:
        while sent < 20000:
            s.send(message(SHARE, cookie=sent, id=id, addr=addr, lo=addr, hi=addr + PAGE))
            sent += 1
    except (TimeoutError, socket.timeout):
        pass
    expect(sent < 20000, True, "it is read no further")
    used = processor_time(honest.service())
    attacher = Host()
    expect(attacher.do("read", attacher.attach(id, addr, 1 << 20)), 65, "another one")
    time.sleep(1)
    expect(processor_time(honest.service()) - used < 0.5, True, "the service sleeps")
    s.settimeout(20)
    expect(sorted(receive(s)[0].cookie for _ in range(sent)), list(range(sent)), "answers")


@case("who does not acknowledge is hung up on, once somebody waits for it")
def unacknowledged():
    honest, id, addr = owner()
    shared = honest.do("map_shared", 1 << 24, 66)
    attacher = Host()
    at = attacher.attach(id, shared, 1 << 24)
    s = dial(id)
    s.send(message(SHARE, id=id, addr=addr, lo=addr, hi=addr + PAGE))
    expect(receive(s)[0].status, DONE, "answer")
    time.sleep(1.5)
    s.send(message(QUERY, id=id))
    expect(receive(s)[0].status, DONE, "as long as nobody waits it is heard")
    expect(attacher.do("read", at + 0x800000), 66, "shared memory")
    expect(hears_the_end(s), True, "it is hung up on")
    # It keeps its end open: nobody waits for it again.
    others = [honest.do("map_shared", 1 << 20, 67) for _ in range(4)]
    windows = [attacher.attach(id, other, 1 << 20) for other in others]

    def more(there):
        expect(attacher.do("read", there + 0x80000), 67, "more shared memory")

    waits_no_second([lambda there=there: more(there) for there in windows], "more waits for it")


@case("who does not answer a recall costs one munmap a second, and no other")
def unrecalled():
    for how in ("munmap", "raw_munmap"):
        honest, id, addr = owner()
        files = [honest.do("map_file", 1 << 16, 70) for _ in range(4)]
        s = dial(id)
        for file in files:
            s.send(message(SHARE, id=id, addr=file, lo=file, hi=file + (1 << 16)))
            expect(receive(s)[0].status, ELSEWHERE, "a lent file")
        attacher = Host()
        at = attacher.attach(id, addr, 1 << 20)
        used = processor_time(honest.service())
        honest.tell(how, files[0], 1 << 16)
        expect(attacher.do("read", at + 0x80000), 65, "a page for another meanwhile")
        expect(honest.hear(), 0, how)
        expect(processor_time(honest.service()) - used < 0.5, True, "the service sleeps meanwhile")

        def unmap(file):
            expect(honest.do(how, file, 1 << 16), 0, how)

        waits_no_second([lambda file=file: unmap(file) for file in files[1:]], "three more")
        expect(hears_the_end(s), True, "it is hung up on")


@case("who comes again after that is waited for half as long each time")
def again():
    honest, id, addr = owner()

    def visit():
        file = honest.do("map_file", 1 << 16, 70)
        s = dial(id)
        s.send(message(SHARE, id=id, addr=file, lo=file, hi=file + (1 << 16)))
        expect(receive(s)[0].status, ELSEWHERE, "a lent file")
        expect(honest.do("munmap", file, 1 << 16), 0, "munmap")
        expect(hears_the_end(s), True, "it is hung up on")
        s.close()

    visit()
    waits_no_second([visit] * 6, "six more of one process")


def frozen(honest, attacher, change):
    """The attacher stands still, service and all, while something changes."""
    attacher.stop()
    try:
        change()
    finally:
        attacher.go_on()


@case("xpmem_remove cuts off an attacher that stands still")
def removed():
    honest, id, addr = owner()
    attacher = Host()
    at = attacher.attach(id, addr, 1 << 20)
    expect(attacher.do("read", at), 65, "page")

    def change():
        expect(honest.do("remove", id), 0, "remove")
        expect(honest.do("fill", addr, 1 << 20, 66), 0, "new content")

    frozen(honest, attacher, change)
    expect(attacher.do("read", at), SIGBUS, "what it had")
    expect(attacher.do("write", at + PAGE, 1), SIGBUS, "a store")
    expect(honest.do("read", addr + PAGE), 66, "the owner's memory")


@case("an attacher that stood still finds new data or SIGBUS, never old data")
def thawed():
    honest, id, addr = owner(1 << 22)
    file = honest.do("map_file", 1 << 16, 70)
    shared = honest.do("map_shared", 1 << 22, 71)
    attacher, other = Host(), Host()
    at = attacher.attach(id, addr, 1 << 22)
    there = attacher.attach(id, file, 1 << 16)
    expect(attacher.do("read", at), 65, "a page")
    expect(attacher.do("read", there), 70, "a lent file")
    # Questions of it are under way while it stands.
    attacher.do("touch_all", at, 64, 65536)

    def change():
        expect(honest.do("munmap", file, 1 << 16), 0, "munmap of the file")
        expect(honest.do("munmap", addr, 1 << 22), 0, "munmap")
        again = honest.do("map", 1 << 22, 66)
        elsewhere = other.attach(id, again, 1 << 22)
        expect(other.do("sum", elsewhere, 1 << 22) > 0, True, "another one's look")
        mate = other.attach(id, shared, 1 << 22)
        expect(other.do("read", mate + (1 << 21)), 71, "shared memory")
        return again

    frozen(honest, attacher, change)
    for k in range(0, 1 << 22, 1 << 16):
        got = attacher.do("read", at + k)
        expect(got in (66, SIGBUS), True, f"{got} at {k:#x}")
    expect(attacher.do("read", there), SIGBUS, "the file, whose owner has hung up")
    # It may come again.
    new, size = honest.do("map", 1 << 20, 68), 1 << 20
    expect(attacher.do("read", attacher.attach(id, new, size)), 68, "a new permit")


@case("mprotect and xpmem_remove wait a second for an attacher that stands still, once")
def once():
    honest, id, addr = owner()
    attacher, other = Host(), Host()
    at = attacher.attach(id, addr, 1 << 20)
    there = other.attach(id, addr, 1 << 20)
    expect(attacher.do("read", at), 65, "page")
    expect(other.do("read", there), 65, "page")

    def change():
        expect(honest.do("mprotect", addr, 1 << 20, 1), 0, "mprotect")

        def protect(protection):
            expect(honest.do("mprotect", addr, 1 << 20, protection), 0, "mprotect")
            expect(other.do("read", there), 65, "page of another")

        calls = [lambda p=p: protect(p) for p in (3, 1, 3)]
        waits_no_second(calls, "what came after the first")
        waits_no_second([lambda: expect(honest.do("remove", honest.make()), 0, "remove")] * 4, "xpmem_remove")

    frozen(honest, attacher, change)
    expect(attacher.do("read", at), SIGBUS, "its attachment")
    expect(other.do("write", there, 70), 0, "the other's store")
    expect(honest.do("read", addr), 70, "the store at the owner")


@case("an owner that stood still goes on, and loses nobody")
def owner_thawed():
    honest, id, addr = owner(1 << 22)
    attacher = Host()
    at = attacher.attach(id, addr, 1 << 22)
    honest.stop()
    attacher.tell("read", at + 0x200000)
    expect(attacher.hear(1.5), "hangs", "a page of one that stands")
    honest.go_on()
    expect(attacher.hear(), 65, "the page")
    # Both at once, as a job is suspended.
    honest.stop()
    attacher.stop()
    time.sleep(1.5)
    attacher.go_on()
    honest.go_on()
    expect(attacher.do("read", at + 0x300000), 65, "another page")


@case("the memory of an owner that has ended is taken away while others are served")
def emptied():
    size = 1 << 29
    for _ in range(10):
        honest, id, addr = owner()
        attacher = Host()
        at = attacher.attach(id, addr, 1 << 20)
        dying = Host()
        source = dying.do("map_shared", size, 66)
        there = attacher.attach(dying.make(), source, size)
        expect(attacher.do("sum", there, size), sum_of(66, size), "sum")
        dying.kill()
        eventually(lambda: attacher.do("read", there) == SIGBUS, "its first page is gone")
        # What this answers is heard while the last page is there still: most times.
        served = attacher.do("read", at), attacher.do("read", there + size - PAGE)
        expect(served[0], 65, "a page of another owner")
        eventually(lambda: attacher.do("read", there + size - PAGE) == SIGBUS, "its last page is gone")
        attacher.kill()
        honest.kill()
        if served[1] == 66:
            return
    raise AssertionError("nobody was served meanwhile")


@case("no descriptor is left: new attachers are refused with ENOMEM, and later taken")
def no_descriptor():
    import resource

    honest = Host(XPMEM_WAIT="1")
    addr = honest.do("map", 1 << 20, 65)
    id = honest.make()
    old = Host()
    at = old.attach(id, addr, 1 << 20)
    expect(old.do("read", at + 0x80000), 65, "a page")
    with_file = old.attach(id, honest.do("map_file", 1 << 20, 66), 1 << 20)
    with_relatives = old.attach(id, honest.do("map_shared", 1 << 20, 67), 1 << 20)
    service = honest.service()
    limits = resource.prlimit(service, resource.RLIMIT_NOFILE)
    resource.prlimit(service, resource.RLIMIT_NOFILE, (highest(service) + 1, limits[1]))
    waiting = [Host() for _ in range(5)]
    for host in waiting:
        host.tell("get", id, RDWR)
    for host in waiting:
        expect((host.hear(), host.errno), (-1, ENOMEM), "xpmem_get")
    used = processor_time(service)
    time.sleep(1)
    expect(processor_time(service) - used < 0.3, True, "the service sleeps")
    expect(old.do("read", at + 0x80000), 65, "a page for an old one")
    expect(old.do("read", at + 0xE0000), 65, "one that has not been shared yet")
    expect(old.do("read", with_file), SIGBUS, "a file, for which one is needed")
    expect(old.do("read", with_relatives), SIGBUS, "memory that another may have, which one is needed to see")
    expect(honest.do("sum", addr, 1 << 20), sum_of(65, 1 << 20), "the owner's memory")
    resource.prlimit(service, resource.RLIMIT_NOFILE, limits)
    expect(old.do("read", with_file), 66, "the file")
    expect(old.do("read", with_relatives), 67, "the memory")
    expect(waiting[0].do("read", waiting[0].attach(id, addr, PAGE)), 65, "a new attacher")
    # And where the attacher has none left itself.
    new = Host()
    new.make()
    service = new.service()
    resource.prlimit(service, resource.RLIMIT_NOFILE, (highest(service) + 1, limits[1]))
    expect((new.do("get", id, RDWR), new.errno), (-1, ENOMEM), "xpmem_get")
    resource.prlimit(service, resource.RLIMIT_NOFILE, limits)
    expect(new.do("get", id, RDWR) > 0, True, "xpmem_get")


def highest(pid):
    """The limit that leaves no number free. Now and then a service has one more, for a
    look at its program."""
    lowest = []
    for _ in range(30):
        numbers = {int(n) for n in os.listdir(f"/proc/{pid}/fd")}
        lowest.append(next(n for n in range(len(numbers) + 1) if n not in numbers))
        time.sleep(0.02)
    return min(lowest) - 1
