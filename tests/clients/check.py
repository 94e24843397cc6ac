"""What the Python programs here compare with, and what they say at the end."""

import sys
import time

URLS = sys.argv[1:]
later_on = []
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


def later(command, attempt):
    """What the door may not do yet: then it has to say so; else it has to do it."""
    try:
        attempt()
    except Exception as refusal:  # Whatever a library makes of the answer.
        if "unknown command" not in str(refusal) and "no permissions" not in str(refusal):
            raise
        if command not in later_on:
            later_on.append(command)


def until(what, is_so):
    """Waits until something is so, for at most a minute."""
    end = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"timed out waiting for {what}")
        time.sleep(0.02)


def done(client):
    not_yet = f"; not yet: {', '.join(later_on)}" if later_on else ""
    print(f"{client:<26} {count} answers as they should be{not_yet}")
