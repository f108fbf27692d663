# SPDX-License-Identifier: MIT OR Apache-2.0
"""Honest programs beside peers that lie, stall or die.

    run.py [--seconds N] [--seed N] [--list] [NAME...]

Each case is a process of its own in a folder of its own. The random ones, fuzz_* and
storm_*, take N seconds each. Ends with the closing line of the other suites.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import peers

# Of what a case does nothing takes long; a machine may have little time for it.
PATIENCE = 400


def run(function, seed, seconds):
    """One case in a child; 0, 77 or another status, and what it said."""
    place = tempfile.mkdtemp(prefix="xpmem-peers.")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.setsid()
        os.environ["XPMEM_DIR"] = place
        random.seed(seed)
        status = 1
        try:
            if function.__code__.co_argcount:
                function(seconds)
            else:
                function()
            status = 0
        except SystemExit as end:
            status = end.code
        except BaseException as why:  # what a case says in the end, whatever it is
            import traceback

            text = f"{type(why).__name__}: {why}\n" + traceback.format_exc()
            os.write(write, text[-4000:].encode())
        finally:
            peers.kill_everybody()
            os._exit(status or 0)
    os.close(write)
    deadline = time.monotonic() + PATIENCE + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    with os.fdopen(read, "rb") as out:
        said = out.read().decode(errors="replace")
    shutil.rmtree(place, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code, said or f"status {code}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    for module in ("lies", "slow", "starved", "limits", "fuzz", "storm"):
        if os.path.exists(os.path.join(peers.HERE, module + ".py")):
            __import__(module)
    passed = skipped = 0
    failures = []
    for name, what, function in peers.cases:
        if options.names and not any(name.startswith(n) for n in options.names):
            continue
        if options.list:
            print(f"{name}: {what}")
            continue
        began = time.monotonic()
        code, said = run(function, options.seed, options.seconds)
        took = f"({time.monotonic() - began:.1f} s)"
        if code == 0:
            passed += 1
            print(f"ok: {name}: {what} {took}", flush=True)
        elif code == 77:
            skipped += 1
            print(f"skipped: {name}: this machine cannot", flush=True)
        else:
            failures.append((name, said.split("\n", 1)[0]))
            print(said)
            print(f"FAILED: {name}: {what} {took} (--seed {options.seed})", flush=True)
    if options.list:
        return 0
    # Once more, where whoever looks at the end of the output sees it.
    for name, why in failures:
        print(f"FAILED: {name}: {why}")
    tail = f", {skipped} skipped" if skipped else ""
    failed = len(failures)
    print(f"{passed} passed, {failed} failed{tail}")
    return 77 if skipped and not passed and not failed else int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
