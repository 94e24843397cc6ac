"""What the Python programs here compare with, and what they say at the end."""

import sys
import time

URLS = sys.argv[1:]
count = 0


def same(what, got, wanted):
    global count
    count += 1
    if got != wanted:
        sys.exit(f"{what}: expected {wanted!r}, got {got!r}")


def holds(what, is_so):
    same(what, bool(is_so), True)


def refused(what, error, text, attempt):
    """That it is refused with such an error, whose text begins so."""
    try:
        got = attempt()
    except error as refusal:
        holds(f"{what}: {refusal}", str(refusal).startswith(text))
    else:
        sys.exit(f"{what}: expected {text!r}, got {got!r}")


def until(what, is_so):
    """Waits until something is so, for at most a minute."""
    end = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"timed out waiting for {what}")
        time.sleep(0.02)


def done(client):
    print(f"{client:<26} {count} answers as they should be")
