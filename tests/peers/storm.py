# SPDX-License-Identifier: MIT OR Apache-2.0
"""Owners, attachers and services are stopped, continued and killed, and every sum is right."""
from peers import *

SIZE_OF_ALL = 1 << 20


class Party:
    """An owner, the byte that all its memory has, and who looks at it."""

    def __init__(self):
        self.host = Host()
        self.byte = random.randrange(1, 128)
        self.addr = self.host.do("map", SIZE_OF_ALL, self.byte)
        self.file = self.host.do("map_file", SIZE_OF_ALL, self.byte)
        self.id = self.host.make()
        self.windows = []


class Window:
    def __init__(self, party, host, source):
        self.party, self.host = party, host
        self.addr = host.attach(party.id, source, SIZE_OF_ALL)


def look(window):
    """What an attacher sees is what its owner wrote last, or SIGBUS."""
    party = window.party
    seen = window.host.do("sum", window.addr, SIZE_OF_ALL, seconds=60)
    alive = party.host.process.poll() is None
    if seen == SIGBUS:
        return False
    expect(seen, sum_of(party.byte, SIZE_OF_ALL), f"sum, owner {'alive' if alive else 'dead'}")
    return True


@case("stops and kills of owners and attachers, with sums")
def storm_all(seconds):
    ends = time.monotonic() + seconds
    parties, attachers, counts = [], [], dict.fromkeys(("looks", "sigbus", "kills", "stops", "writes"), 0)
    while time.monotonic() < ends:
        while len(parties) < 3:
            parties.append(Party())
        while len(attachers) < 4:
            attachers.append(Host())
        party, host = random.choice(parties), random.choice(attachers)
        if len(party.windows) < 6:
            party.windows.append(Window(party, host, random.choice([party.addr, party.file])))
        window = random.choice(party.windows)
        action = random.random()
        if action < 0.35:
            # A new content, all of it before anybody looks again.
            party.byte = random.randrange(1, 128)
            for there in (party.addr, party.file):
                expect(party.host.do("fill", there, SIZE_OF_ALL, party.byte), 0, "fill")
            counts["writes"] += 1
        elif action < 0.45:
            # The memory goes, and other memory comes.
            party.windows = [w for w in party.windows if w.host.process.poll() is None]
            for there in (party.addr, party.file):
                expect(party.host.do("munmap", there, SIZE_OF_ALL), 0, "munmap")
            party.byte = random.randrange(1, 128)
            party.addr = party.host.do("map", SIZE_OF_ALL, party.byte)
            party.file = party.host.do("map_file", SIZE_OF_ALL, party.byte)
            for old in party.windows:
                got = old.host.do("read", old.addr + random.randrange(SIZE_OF_ALL))
                expect(got in (party.byte, SIGBUS), True, f"{got} where memory went away")
            party.windows = []
            continue
        elif action < 0.6:
            # Stands while its owner writes, and may miss a second of it.
            window.host.stop()
            party.byte = random.randrange(1, 128)
            for there in (party.addr, party.file):
                expect(party.host.do("fill", there, SIZE_OF_ALL, party.byte), 0, "fill")
            if random.random() < 0.3:
                expect(party.host.do("mprotect", party.file, SIZE_OF_ALL, 1), 0, "mprotect")
                expect(party.host.do("mprotect", party.file, SIZE_OF_ALL, 3), 0, "mprotect")
            window.host.go_on()
            counts["stops"] += 1
        elif action < 0.7:
            host.kill()
            attachers.remove(host)
            for other in parties:
                other.windows = [w for w in other.windows if w.host is not host]
            counts["kills"] += 1
            continue
        elif action < 0.76:
            party.host.kill()
            parties.remove(party)
            counts["kills"] += 1
        counts["looks"] += 1
        if not look(window):
            counts["sigbus"] += 1
            if window in party.windows:
                party.windows.remove(window)
    expect(counts["looks"] > counts["sigbus"], True, f"{counts}")
    for host in attachers + [p.host for p in parties]:
        host.quit()


def helpers(host):
    """The services of a program: one, none while it is replaced, or what ends a last one."""
    found = []
    for pid in children_of(host.pid):
        try:
            if open(f"/proc/{pid}/comm").read().strip() == "xpmem-service":
                found.append(pid)
        except OSError:
            pass
    return found


def strike(host, counts):
    """Kills or stops the service of a program, and perhaps the task that follows it."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        for pid in helpers(host):
            stops = random.random() < 0.15
            try:
                os.kill(pid, signal.SIGSTOP if stops else signal.SIGKILL)
            except ProcessLookupError:
                continue
            counts["stops" if stops else "kills"] += 1
            if stops and random.random() < 0.7:
                time.sleep(random.random() * 0.3)
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
        time.sleep(random.random() * 0.004)


# A program may have seventeen in its life.
SERVICES = 14


@case("services alone are killed and stopped while pages are shared and written, with sums")
def storm_services(seconds):
    ends = time.monotonic() + seconds
    counts = dict.fromkeys(("rounds", "looks", "sigbus", "kills", "stops"), 0)
    while time.monotonic() < ends:
        party, attachers = Party(), [Host(), Host()]
        shared = party.host.do("map_shared", SIZE_OF_ALL, party.byte)
        for _ in range(SERVICES):
            sources = [party.addr, party.file, shared]
            windows = [Window(party, host, source) for host in attachers for source in random.sample(sources, 2)]
            victim = random.choice([party.host, party.host, *attachers])
            # All of them are at work: pages come to be shared, are looked at and written.
            for host in attachers:
                at = random.choice([w for w in windows if w.host is host]).addr
                host.tell("sum", at, SIZE_OF_ALL)
            party.host.tell("fill", random.choice(sources), SIZE_OF_ALL, party.byte)
            time.sleep(random.random() * 0.01)
            strike(victim, counts)
            expect(party.host.hear(), 0, "fill")
            right = sum_of(party.byte, SIZE_OF_ALL)
            for host in attachers:
                seen = host.hear()
                counts["looks"] += 1
                counts["sigbus"] += seen == SIGBUS
                expect(seen in (right, SIGBUS), True, f"{seen}, not {right}")
            for source in sources:
                expect(party.host.do("sum", source, SIZE_OF_ALL), right, "the owner's own sum")
            # New content, which nobody may miss.
            party.byte = random.randrange(1, 128)
            for source in sources:
                expect(party.host.do("fill", source, SIZE_OF_ALL, party.byte), 0, "fill")
            for window in windows:
                if look(window):
                    counts["looks"] += 1
            party.id = party.host.do("make", 0, -1, 0o600)
            expect(party.id > 0, True, f"xpmem_make, errno {party.host.errno}")
            counts["rounds"] += 1
            if time.monotonic() > ends:
                break
        for host in (party.host, *attachers):
            host.quit()
    print(f"storm_services: {counts}", flush=True)
    expect(counts["looks"] > counts["sigbus"], True, f"{counts}")
