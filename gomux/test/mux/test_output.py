"""
Tests for L{gomux._mux.output}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gomux._mux.output import Output


class OutputTests(SynchronousTestCase):
    """
    L{Output}
    """

    def test_everySize(self) -> None:
        """
        Whatever the sizes that bytes are written and taken in, they come out
        as they were, and are counted.
        """
        data = bytes(range(60))
        for written in range(1, 61):
            for taken in range(1, 61):
                output = Output()
                for start in range(0, 60, written):
                    output.append(data[start : start + written])
                self.assertEqual(output.size, 60)
                got = b""
                while output.size:
                    part = output.take(min(taken, output.size))
                    got += part
                    self.assertEqual(output.size, 60 - len(got))
                self.assertEqual(got, data)

    def test_mixed(self) -> None:
        """
        Bytes may be added between takes.
        """
        output = Output()
        output.append(b"abcdef")
        self.assertEqual(bytes(output.take(2)), b"ab")
        output.append(b"gh")
        self.assertEqual(bytes(output.take(5)), b"cdefg")
        output.append(b"i")
        self.assertEqual(bytes(output.take(2)), b"hi")
        self.assertEqual(output.size, 0)

    def test_notCopied(self) -> None:
        """
        What lies within one piece is not copied.
        """
        output = Output()
        data = bytes(100)
        output.append(data)
        part = output.take(40)
        assert isinstance(part, memoryview)
        self.assertIs(part.obj, data)
        part = output.take(60)
        assert isinstance(part, memoryview)
        self.assertIs(part.obj, data)
        output.append(data)
        self.assertIs(output.take(100), data)
