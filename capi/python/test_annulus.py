"""Reads a table with a session of every kind, made by capi/tests/programs.rs, which runs this.

ANNULUS_TEST_DIRECTORY holds the table and `next`, a segment to put into its place.
"""

import os
import pathlib
import shutil
import threading
import time
import unittest

from annulus import Error, Reader, Session, SlowDown, Status, Version

DIRECTORY = pathlib.Path(os.environ["ANNULUS_TEST_DIRECTORY"])
TABLE = DIRECTORY / "annulus-test-0123456789ab-sessions"
BEGAN_MS = 1_700_000_000_000
PATIENCE_S = 60


class ReaderReads(unittest.TestCase):
    def setUp(self) -> None:
        self.reader = Reader(TABLE)
        self.addCleanup(self.reader.close)

    def value(self, key: bytes) -> bytes | dict[bytes, bytes]:
        answer = self.reader.get(key)
        assert isinstance(answer, Session), answer
        return answer.value

    def test_a_live_session_with_all_that_is_known_of_it(self) -> None:
        birth = Version(BEGAN_MS << 16, 0x0123456789AB)
        answer = self.reader.get(b"bytes")
        assert isinstance(answer, Session)
        self.assertEqual((answer.value, answer.birth, answer.version), (b"value", birth, birth))
        self.assertEqual(answer.touched_ms, BEGAN_MS)
        self.assertEqual(answer.deadline_ms, BEGAN_MS + (1 << 46))
        self.assertGreater(answer.read_at_ms, BEGAN_MS)

    def test_values_of_every_kind(self) -> None:
        self.assertEqual(self.value(b"empty"), b"")
        self.assertEqual(self.value(b"\0key\xff"), b"\0\xff")
        self.assertEqual(self.value(b"large"), b"x" * 50_000)
        self.assertEqual(self.value(b"map"), {b"cart": b"3", b"user": b"ada"})

    def test_answers_that_are_no_session(self) -> None:
        for key, status in [
            (b"ended", Status.ENDED),
            (b"nobody", Status.MISS),
            (b"expired", Status.EXPIRED),
            (b"stale", Status.STALE),
            (b"damaged", Status.DAMAGED),
        ]:
            self.assertIs(self.reader.get(key), status)
            self.assertEqual(status.must_ask, status is not Status.ENDED)

    def test_a_session_that_is_used_too_much(self) -> None:
        self.assertEqual(self.value(b"cooled"), b"cool")
        for answer in [self.reader.get(b"slowed"), *self.reader.get_many([b"slowed"])]:
            assert isinstance(answer, SlowDown), answer
            self.assertTrue(0 < answer.retry_after_ms < 1 << 46)
            self.assertFalse(answer.must_ask)

    def test_many_are_as_one_by_one(self) -> None:
        keys = [b"bytes", b"large", b"map", b"nobody", b"ended", b"stale", b"large", b"empty"] * 5
        without_time = lambda answer: (
            (answer.value, answer.birth, answer.version) if isinstance(answer, Session) else answer
        )
        for _ in range(3):
            many = [without_time(answer) for answer in self.reader.get_many(keys)]
            self.assertEqual(many, [without_time(self.reader.get(key)) for key in keys])
        self.assertEqual(self.reader.get_many([]), [])

    def test_a_key_that_is_none_is_refused(self) -> None:
        for key in [b"", b"k" * 256]:
            with self.assertRaises(Error) as refused:
                self.reader.get(key)
            self.assertEqual(refused.exception.code, -1)
            with self.assertRaises(Error):
                self.reader.get_many([b"bytes", key])

    def test_threads_share_a_reader(self) -> None:
        wrong: list[object] = []

        def read(key: bytes, value: bytes) -> None:
            for _ in range(2_000):
                if self.value(key) != value:
                    wrong.append(key)

        works = [(b"bytes", b"value"), (b"large", b"x" * 50_000), (b"empty", b"")]
        threads = [threading.Thread(target=read, args=work) for work in works]
        for thread in threads:
            thread.start()
        for _ in range(100):
            self.reader.reopen()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class ReaderOpens(unittest.TestCase):
    def test_by_name(self) -> None:
        with Reader.table("test", "sessions", DIRECTORY) as reader:
            self.assertIsInstance(reader.get(b"bytes"), Session)
            self.assertFalse(reader.detached())

    def test_and_says_why_it_cannot(self) -> None:
        with self.assertRaises(Error) as failed:
            Reader(DIRECTORY / "none")
        self.assertEqual(failed.exception.code, -2)
        self.assertIn("none", str(failed.exception))
        with self.assertRaises(Error) as failed:
            Reader.table("test", "nothing", DIRECTORY)
        self.assertIn('no node has made table "nothing"', str(failed.exception))
        with self.assertRaises(Error) as failed:
            Reader(__file__)
        self.assertEqual(failed.exception.code, -3)

    def test_and_closes(self) -> None:
        reader = Reader(TABLE)
        reader.close()
        reader.close()
        for call in [lambda: reader.get(b"bytes"), reader.detached, reader.reopen]:
            with self.assertRaises(ValueError):
                call()

    def test_what_took_the_place_of_its_segment(self) -> None:
        place = DIRECTORY / "place"
        shutil.copy(TABLE, place)
        reader = Reader(place)
        self.addCleanup(reader.close)
        self.assertIs(reader.get(b"stale"), Status.STALE)
        os.replace(DIRECTORY / "next", place)
        self.assertTrue(reader.detached())
        begin = time.monotonic()
        while not isinstance(answer := reader.get(b"stale"), Session):
            self.assertLess(time.monotonic() - begin, PATIENCE_S)
        self.assertEqual(answer.value, b"fresh again")
        self.assertFalse(reader.detached())


if __name__ == "__main__":
    unittest.main()
