"""Counts what a test target has shown. Every target ends with the line `N passed, M failed` and, where something was left
out, says by name what."""

import contextlib
import time


class Skipped(Exception):
    """Why something cannot be tested here."""


class Tally:
    def __init__(self):
        self.began = time.monotonic()
        self.passed, self.failed, self.skipped = 0, [], []

    @contextlib.contextmanager
    def check(self, name):
        """A check: passed where its body ends, failed where it raises; the next one runs either way."""
        began = time.monotonic()
        try:
            yield
        except Skipped as why:
            self.skipped.append(name)
            print(f"SKIPPED {name}: {why}", flush=True)
        except Exception as error:  # whatever goes wrong in a check is that check's failure
            self.failed.append(name)
            print(f"FAILED  {name} ({time.monotonic() - began:.0f} s): {type(error).__name__}: {error}", flush=True)
        else:
            self.passed += 1
            print(f"passed  {name} ({time.monotonic() - began:.0f} s)", flush=True)

    def add(self, passed, failed):
        """What a script inside the machine counted for itself: a number, and names."""
        self.passed += passed
        self.failed += failed

    def conclude(self):
        """Prints the last line; the exit status."""
        for kind, names in (("failed", self.failed), ("SKIPPED", self.skipped)):
            if names:
                print(f"{kind}: {', '.join(names)}")
        print(f"in {time.monotonic() - self.began:.0f} s")
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed else 0
