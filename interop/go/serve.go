package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/Acebond/gomux"
)

// serve serves one stream that the peer opened.
func (s *session) serve(stream *gomux.Stream) {
	if s.peer.target != "" {
		s.peer.connectTarget(stream)
		return
	}
	in := s.input(stream)
	line, err := in.line()
	if err == nil {
		command, argument, _ := strings.Cut(line, " ")
		if command == "steps" {
			s.subjects <- in // its control stream closes it
			return
		}
		err = s.command(in, command, argument)
	}
	stream.Close()
	if err != nil && err != io.EOF && !isGraceful(err) {
		complain("stream end %q: %v", line, err)
	}
}

func (s *session) command(in *input, command, argument string) error {
	switch command {
	case "sink":
		return withSize(argument, func(size int64) error {
			if err := in.discard(size); err != nil {
				return err
			}
			return answerAndWait(in, "ok")
		})
	case "source":
		return withSize(argument, func(size int64) error {
			if err := writePattern(in, size); err != nil {
				return err
			}
			_, err := in.drain()
			return err
		})
	case "close-after":
		return withSize(argument, func(size int64) error { return writePattern(in, size) })
	case "echo":
		if err := s.peer.move(in, in); err != nil {
			return err
		}
		return in.CloseWrite()
	case "idle":
		return answerAndWait(in, "ok")
	case "hash":
		digest, err := in.digest()
		if err != nil {
			return err
		}
		if _, err := in.Write([]byte(digest + "\n")); err != nil {
			return err
		}
		return in.CloseWrite()
	case "collect":
		digest, err := in.digest()
		s.reports <- digest
		return err
	case "report":
		return answerAndWait(in, <-s.reports)
	case "rss":
		return answerAndWait(in, strconv.FormatInt(residentBytes(), 10))
	case "control":
		return (<-s.subjects).obey(in)
	case "closemux":
		s.close()
		return nil
	case "open":
		answer, err := json.Marshal(s.drive(argument))
		if err != nil {
			return err
		}
		return answerAndWait(in, string(answer))
	}
	return fmt.Errorf("unknown command %q", command)
}

func withSize(argument string, run func(size int64) error) error {
	size, err := strconv.ParseInt(argument, 10, 64)
	if err != nil {
		return err
	}
	return run(size)
}

// answerAndWait sends one line and waits until the opener closes the stream.
func answerAndWait(in *input, line string) error {
	if _, err := in.Write([]byte(line + "\n")); err != nil {
		return err
	}
	_, err := in.drain()
	return err
}

func hexDigest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// digest reads the stream until EOF and hashes its data.
func (in *input) digest() (string, error) {
	h := sha256.New()
	err := in.peer.move(h, in)
	return hexDigest(h), err
}

// obey does the steps that the lines of a control stream ask for, and answers each
// line when its step is done.
func (in *input) obey(control *input) error {
	defer in.Close()
	for {
		line, err := control.line()
		if err != nil {
			return nil // the control stream ends with the test
		}
		answer := "ok"
		if err := in.step(line); err != nil {
			answer = "failed: " + err.Error()
		}
		if _, err := control.Write([]byte(answer + "\n")); err != nil {
			return err
		}
	}
}

func (in *input) step(line string) error {
	name, argument, _ := strings.Cut(line, " ")
	switch name {
	case "closewrite":
		return in.CloseWrite()
	case "closeread":
		return in.CloseRead()
	case "close":
		return in.Close()
	case "send":
		return withSize(argument, func(size int64) error { return writePattern(in, size) })
	case "read":
		return withSize(argument, in.readPattern)
	case "eof":
		return in.atEnd()
	case "write-fails":
		return in.writeFails()
	}
	return fmt.Errorf("unknown step %q", name)
}

func (in *input) atEnd() error {
	n, err := in.drain()
	if n > 0 {
		return fmt.Errorf("%d bytes where the end was expected", n)
	}
	return err
}

func (in *input) writeFails() error {
	if _, err := in.Write([]byte{0}); err == nil {
		return fmt.Errorf("a write to a closed direction succeeded")
	}
	return nil
}
