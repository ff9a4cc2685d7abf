package main

import (
	"bytes"
	"fmt"
	"io"
)

// The byte at offset i of the pattern is i mod patternPeriod.
const patternPeriod = 251

var pattern = func() []byte {
	b := make([]byte, bufferSize+patternPeriod)
	for i := range b {
		b[i] = byte(i % patternPeriod)
	}
	return b
}()

// patternAt returns up to bufferSize bytes of the pattern.
func patternAt(offset, size int64) []byte {
	return pattern[offset%patternPeriod:][:min(size, bufferSize)]
}

// writePattern writes the first size bytes of the pattern.
func writePattern(w io.Writer, size int64) error {
	for offset := int64(0); offset < size; {
		n, err := w.Write(patternAt(offset, size-offset))
		if err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// readPattern reads size bytes and compares them with the pattern.
func (in *input) readPattern(size int64) error {
	b, free := in.peer.buffer()
	defer free()
	for offset := int64(0); offset < size; {
		n, err := in.Read(b[:min(int64(len(b)), size-offset)])
		for got := b[:n]; len(got) > 0; {
			want := patternAt(offset, int64(len(got)))
			if !bytes.Equal(got[:len(want)], want) {
				return fmt.Errorf("not the pattern near offset %d", offset)
			}
			got = got[len(want):]
			offset += int64(len(want))
		}
		if err != nil && offset < size {
			return fmt.Errorf("after %d of %d bytes: %w", offset, size, err)
		}
	}
	return nil
}

// discard reads size bytes.
func (in *input) discard(size int64) error {
	b, free := in.peer.buffer()
	defer free()
	for size > 0 {
		n, err := in.Read(b[:min(int64(len(b)), size)])
		size -= int64(n)
		if err != nil && size > 0 {
			return fmt.Errorf("%d bytes short: %w", size, err)
		}
	}
	return nil
}
