package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Acebond/gomux"
)

// A result is what one driver prints, as one line of JSON.
type result map[string]any

type driver struct {
	numbers int // how many numbers it takes
	run     func(s *session, n []int64) (result, error)
}

var drivers map[string]driver

func init() { // not a literal: drivers run commands that run drivers
	drivers = map[string]driver{
		"sink":          {3, (*session).driveSink},
		"source":        {2, (*session).driveSource},
		"verify-source": {2, (*session).driveVerifySource},
		"echo":          {2, (*session).driveEcho},
		"echo-beside":   {3, (*session).driveEchoBeside},
		"opens":         {1, (*session).driveOpens},
		"idle":          {1, (*session).driveIdle},
		"hash":          {2, (*session).driveHash},
		"echo-hash":     {2, (*session).driveEchoHash},
		"close-after":   {2, (*session).driveCloseAfter},
		"write-close":   {2, (*session).driveWriteClose},
	}
}

// driveAll runs the drivers of the command line, closes the mux and ends the program.
func (s *session) driveAll(drives []string) {
	code := 0
	for _, drive := range drives {
		r := s.drive(drive)
		line, err := json.Marshal(r)
		if err != nil {
			line = []byte(err.Error())
		}
		say("%s", line)
		if r["ok"] != true {
			code = 1
		}
		if r["held"] == true {
			bufio.NewReader(os.Stdin).ReadString('\n')
		}
	}
	s.close()
	select {
	case <-s.down:
	case <-time.After(closeTimeout):
		complain("no end of the mux within %v", closeTimeout)
	}
	s.peer.quit(code)
}

// drive runs one driver.
func (s *session) drive(line string) result {
	started := time.Now()
	r, err := s.driveLine(line)
	if r == nil {
		r = result{}
	}
	name, _, _ := strings.Cut(line, " ")
	r["driver"] = name
	r["ok"] = err == nil
	if err != nil {
		r["error"] = err.Error()
	}
	if _, found := r["seconds"]; !found {
		r["seconds"] = time.Since(started).Seconds()
	}
	if n, found := r["bytes"].(int64); found {
		r["rate"] = float64(n) / r["seconds"].(float64)
	}
	return r
}

func (s *session) driveLine(line string) (result, error) {
	name, argument, _ := strings.Cut(line, " ")
	switch name {
	case "open":
		return s.driveOpen(argument)
	case "halfclose":
		return s.driveHalfClose(argument)
	case "closemux":
		return s.driveCloseMux(argument)
	}
	d, found := drivers[name]
	fields := strings.Fields(argument)
	if !found || len(fields) != d.numbers {
		return nil, fmt.Errorf("no such driver: %q", line)
	}
	numbers := make([]int64, len(fields))
	for i, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return d.run(s, numbers)
}

// open opens a stream and sends a command on it.
func (s *session) open(format string, args ...any) (*input, error) {
	stream, err := s.mux.OpenStream()
	if err != nil {
		return nil, err
	}
	in := s.input(stream)
	if _, err := fmt.Fprintf(in, format+"\n", args...); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// ask opens a stream, sends a command, and reads the one line of its answer.
func (s *session) ask(command string) (string, error) {
	in, err := s.open("%s", command)
	if err != nil {
		return "", err
	}
	defer in.Close()
	return in.line()
}

func (in *input) expect(want string) error {
	line, err := in.line()
	if err != nil {
		return err
	}
	if line != want {
		return fmt.Errorf("got %q, not %q", line, want)
	}
	return nil
}

// each opens a number of streams and runs a function on all of them at the same
// time. The bytes are distributed evenly; the first streams get the remainder.
func each(total, streams int64, run func(i, size int64) error) (result, error) {
	started := time.Now()
	errs := make([]error, streams)
	var wg sync.WaitGroup
	for i := range errs {
		size := total / streams
		if int64(i) < total%streams {
			size++
		}
		wg.Add(1)
		go func(i int, size int64) {
			defer wg.Done()
			errs[i] = run(int64(i), size)
		}(i, size)
	}
	wg.Wait()
	return result{
		"bytes":   total,
		"streams": streams,
		"seconds": time.Since(started).Seconds(),
	}, errors.Join(errs...)
}

// writeSized writes the pattern in writes of one size. A flag can stop it early.
func (in *input) writeSized(size, writeSize int64, stop *atomic.Bool, written *atomic.Int64) error {
	b := make([]byte, min(size, writeSize))
	for i := range b {
		b[i] = byte(i % patternPeriod)
	}
	for size > 0 && !stop.Load() {
		n, err := in.Write(b[:min(size, writeSize)])
		if err != nil {
			return err
		}
		size -= int64(n)
		written.Add(int64(n))
	}
	return nil
}

func (s *session) driveSink(n []int64) (result, error) {
	var stop atomic.Bool
	var written atomic.Int64
	r, err := each(n[0], n[1], func(_, size int64) error {
		in, err := s.open("sink %d", size)
		if err != nil {
			return err
		}
		defer in.Close()
		if err := in.writeSized(size, n[2], &stop, &written); err != nil {
			return err
		}
		return in.expect("ok")
	})
	r["write_size"] = n[2]
	return r, err
}

func (s *session) driveSource(n []int64) (result, error) {
	return s.source(n, (*input).discard)
}

func (s *session) driveVerifySource(n []int64) (result, error) {
	return s.source(n, (*input).readPattern)
}

func (s *session) source(n []int64, read func(in *input, size int64) error) (result, error) {
	return each(n[0], n[1], func(_, size int64) error {
		in, err := s.open("source %d", size)
		if err != nil {
			return err
		}
		defer in.Close()
		return read(in, size)
	})
}

func (s *session) driveEcho(n []int64) (result, error) {
	in, err := s.open("echo")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	size, times := n[0], make([]float64, n[1])
	message, answer := patternOf(size), make([]byte, size)
	for i := range times {
		started := time.Now()
		if _, err := in.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(in, answer); err != nil {
			return nil, err
		}
		times[i] = float64(time.Since(started).Nanoseconds()) / 1e3
	}
	if string(answer) != string(message) {
		return nil, errors.New("the echo differs")
	}
	slices.Sort(times)
	return result{
		"size":  size,
		"count": n[1],
		"p50":   percentile(times, 50),
		"p99":   percentile(times, 99),
	}, nil
}

func patternOf(size int64) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i % patternPeriod)
	}
	return b
}

// percentile returns the smallest of the sorted values that p percent of them do
// not exceed.
func percentile(sorted []float64, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

const (
	endless = int64(1) << 50
	warmUp  = 1 << 20 // bytes that each sink takes before the echo starts
)

func (s *session) driveEchoBeside(n []int64) (result, error) {
	sinks := n[2]
	var stop atomic.Bool
	var written atomic.Int64
	var running sync.WaitGroup
	warm := make(chan error, sinks)
	for range sinks {
		in, err := s.open("sink %d", endless)
		if err != nil {
			return nil, err
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer in.Close()
			err := in.writeSized(warmUp, bufferSize, &stop, new(atomic.Int64))
			warm <- err
			if err == nil {
				in.writeSized(endless, bufferSize, &stop, &written)
			}
		}()
	}
	defer running.Wait()
	defer stop.Store(true)
	for range sinks {
		if err := <-warm; err != nil {
			return nil, err
		}
	}
	before, started := written.Load(), time.Now()
	r, err := s.driveEcho(n[:2])
	if err != nil {
		return nil, err
	}
	seconds := time.Since(started).Seconds()
	r["sinks"] = sinks
	r["seconds"] = seconds
	r["sink_rate"] = float64(written.Load()-before) / seconds
	return r, nil
}

func (s *session) driveOpens(n []int64) (result, error) {
	started := time.Now()
	for i := int64(0); i < n[0]; i++ {
		in, err := s.open("idle")
		if err != nil {
			return nil, err
		}
		if err := in.expect("ok"); err != nil {
			in.Close()
			return nil, err
		}
		if err := in.Close(); err != nil {
			return nil, err
		}
	}
	seconds := time.Since(started).Seconds()
	return result{"count": n[0], "seconds": seconds, "rate": float64(n[0]) / seconds}, nil
}

func (s *session) driveIdle(n []int64) (result, error) {
	peerBefore, err := s.ask("rss")
	if err != nil {
		return nil, err
	}
	before := residentBytes()
	if err := s.openIdle(n[0]); err != nil {
		return nil, err
	}
	after := residentBytes()
	peerAfter, err := s.ask("rss")
	if err != nil {
		return nil, err
	}
	return result{
		"count":           n[0],
		"held":            true,
		"rss_before":      before,
		"rss_after":       after,
		"peer_rss_before": json.Number(peerBefore),
		"peer_rss_after":  json.Number(peerAfter),
	}, nil
}

// openIdle opens streams that stay open until the mux ends.
func (s *session) openIdle(count int64) error {
	for i := int64(0); i < count; i++ {
		in, err := s.open("idle")
		if err != nil {
			return err
		}
		if err := in.expect("ok"); err != nil {
			return err
		}
	}
	return nil
}

// residentBytes returns the resident memory of the process, after freed memory has
// been returned to the system.
func residentBytes() int64 {
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// writeRandom writes pseudo-random bytes and adds them to a hash.
func (in *input) writeRandom(seed, size int64, h hash.Hash) error {
	source := rand.New(rand.NewSource(seed))
	b := make([]byte, bufferSize)
	for size > 0 {
		part := b[:min(size, bufferSize)]
		source.Read(part)
		h.Write(part)
		if _, err := in.Write(part); err != nil {
			return err
		}
		size -= int64(len(part))
	}
	return in.CloseWrite()
}

func (s *session) driveHash(n []int64) (result, error) {
	return each(n[0], n[1], func(i, size int64) error {
		in, err := s.open("hash")
		if err != nil {
			return err
		}
		defer in.Close()
		h := sha256.New()
		if err := in.writeRandom(i, size, h); err != nil {
			return err
		}
		if err := in.expect(hexDigest(h)); err != nil {
			return err
		}
		return in.atEnd()
	})
}

func (s *session) driveEchoHash(n []int64) (result, error) {
	return each(n[0], n[1], func(i, size int64) error {
		in, err := s.open("echo")
		if err != nil {
			return err
		}
		defer in.Close()
		sent := sha256.New()
		writing := make(chan error, 1)
		go func() { writing <- in.writeRandom(i, size, sent) }()
		digest, err := in.digest()
		if err != nil {
			return err
		}
		if err := <-writing; err != nil {
			return err
		}
		if digest != hexDigest(sent) {
			return errors.New("what came back differs from what was sent")
		}
		return nil
	})
}

func (s *session) driveCloseAfter(n []int64) (result, error) {
	size, count := n[0], n[1]
	for i := int64(0); i < count; i++ {
		in, err := s.open("close-after %d", size)
		if err != nil {
			return nil, err
		}
		if err := in.readPattern(size); err != nil {
			return nil, fmt.Errorf("stream %d: %w", i, err)
		}
		if err := in.atEnd(); err != nil {
			return nil, fmt.Errorf("stream %d: %w", i, err)
		}
		in.Close()
	}
	return result{"bytes": size * count, "count": count}, nil
}

func (s *session) driveWriteClose(n []int64) (result, error) {
	size, count := n[0], n[1]
	h := sha256.New()
	writePattern(h, size)
	for i := int64(0); i < count; i++ {
		in, err := s.open("collect")
		if err != nil {
			return nil, err
		}
		if err := writePattern(in, size); err != nil {
			return nil, err
		}
		if err := in.Close(); err != nil {
			return nil, err
		}
		digest, err := s.ask("report")
		if err != nil {
			return nil, err
		}
		if digest != hexDigest(h) {
			return nil, fmt.Errorf("stream %d: the peer did not get all that was sent before the close", i)
		}
	}
	return result{"bytes": size * count, "count": count}, nil
}

func (s *session) driveOpen(command string) (result, error) {
	answer, err := s.ask("open " + command)
	if err != nil {
		return nil, err
	}
	var r result
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		return nil, err
	}
	if r["ok"] != true {
		return nil, fmt.Errorf("the peer's driver: %v", r["error"])
	}
	return result{"peer": r}, nil
}

// driveCloseMux has this side or the peer close the mux while idle streams are
// open. All of them must end.
func (s *session) driveCloseMux(argument string) (result, error) {
	side, number, _ := strings.Cut(argument, " ")
	count, err := strconv.ParseInt(number, 10, 64)
	if err != nil || (side != "local" && side != "remote") {
		return nil, fmt.Errorf("not SIDE STREAMS: %q", argument)
	}
	ends := make(chan error, count)
	for i := int64(0); i < count; i++ {
		in, err := s.open("idle")
		if err != nil {
			return nil, err
		}
		if err := in.expect("ok"); err != nil {
			return nil, err
		}
		go func() {
			_, err := in.drain()
			ends <- err
		}()
	}
	if side == "local" {
		s.close()
	} else if _, err := s.open("closemux"); err != nil {
		return nil, err
	}
	for i := int64(0); i < count; i++ {
		// While this side closes the mux, it may notice that the peer closed the
		// connection, and report that as the reason instead.
		if err := <-ends; side == "remote" && !errors.Is(err, gomux.ErrPeerClosedConn) {
			return nil, fmt.Errorf("a stream ended with %v", err)
		}
	}
	return result{"streams": count}, nil
}
