# SPDX-License-Identifier: MIT OR Apache-2.0
"""Owners and attachers are stopped, continued and killed, and every sum is right."""
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
