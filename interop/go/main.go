// Command gomux-go-peer is the Go reference as a program. The live tests run this
// project against it, and the benchmarks compare with it. ../README.rst describes
// its command line, its output and the line protocol.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/Acebond/gomux"
)

const (
	bufferSize = 64 << 10
	// The reference can deadlock when it is closed under load, because its lock
	// order is inconsistent. Wait for a close no longer than this.
	closeTimeout = 5 * time.Second
)

// A peer is this process: its options, and the muxes that are up.
type peer struct {
	psk       string
	target    string
	readSize  int
	readDelay time.Duration
	drives    []string
	buffers   sync.Pool // of *[]byte, one application read each
	exit      chan int

	closing sync.WaitGroup // the closes of muxes that are under way

	mu       sync.Mutex
	sessions []*session
	next     int // of sessions, the one that carries the next connection
	driving  bool
}

// say prints one line of the protocol between this program and its caller.
func say(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
}

func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func main() {
	p := &peer{exit: make(chan int, 1)}
	flag.StringVar(&p.psk, "psk", "", "pre-shared `key`")
	listen := flag.String("listen", "", "accept muxes on `host:port`")
	connect := flag.String("connect", "", "open one mux to `host:port`")
	forward := flag.String("forward", "", "carry each connection to `host:port` as a stream")
	flag.StringVar(&p.target, "target", "", "connect each stream of the peer to `host:port`")
	flag.IntVar(&p.readSize, "read-size", bufferSize, "`bytes` per application read")
	readDelay := flag.Int("read-delay", 0, "`milliseconds` before each application read")
	flag.Func("drive", "run `driver` on the first mux (repeatable)", func(s string) error {
		p.drives = append(p.drives, s)
		return nil
	})
	flag.Parse()
	if p.psk == "" || (*listen == "") == (*connect == "") || flag.NArg() > 0 || p.readSize < 1 {
		flag.Usage()
		os.Exit(2)
	}
	p.readDelay = time.Duration(*readDelay) * time.Millisecond
	p.buffers.New = func() any {
		b := make([]byte, p.readSize)
		return &b
	}

	if err := p.start(*listen, *connect, *forward); err != nil {
		complain("%v", err)
		os.Exit(1)
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM, os.Interrupt)
	code := 0
	select {
	case code = <-p.exit:
	case <-terminate:
	}
	p.closeAll()
	// A mux that was closed by a command is no longer among them, but its CloseMux
	// may still be unwritten.
	p.closing.Wait()
	os.Exit(code)
}

func (p *peer) start(listen, connect, forward string) error {
	if forward != "" {
		l, err := net.Listen("tcp", forward)
		if err != nil {
			return err
		}
		say("forwarding %v", l.Addr())
		go p.forward(l)
	}
	if listen != "" {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		say("listening %v", l.Addr())
		go p.accept(l)
		return nil
	}
	conn, err := net.Dial("tcp", connect)
	if err != nil {
		return err
	}
	s := p.add(gomux.Client(conn, p.psk))
	go func() {
		err := s.run()
		if len(p.drives) > 0 {
			return // the driver reports
		}
		if isGraceful(err) {
			p.quit(0)
		} else {
			p.quit(1)
		}
	}()
	return nil
}

func (p *peer) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			complain("accept: %v", err)
			p.quit(1)
			return
		}
		s := p.add(gomux.Server(conn, p.psk))
		go s.run()
	}
}

// quit ends the program with an exit code. Only the first call has an effect.
func (p *peer) quit(code int) {
	select {
	case p.exit <- code:
	default:
	}
}

// add registers a mux that has just come up, and starts the drivers on the first.
func (p *peer) add(mux *gomux.Mux) *session {
	s := &session{
		peer:     p,
		mux:      mux,
		subjects: make(chan *input, 16),
		reports:  make(chan string, 1024),
		down:     make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = append(p.sessions, s)
	say("mux up")
	if len(p.drives) > 0 && !p.driving {
		p.driving = true
		go s.driveAll(p.drives)
	}
	return s
}

func (p *peer) remove(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.sessions {
		if other == s {
			p.sessions = append(p.sessions[:i], p.sessions[i+1:]...)
			return
		}
	}
}

func (p *peer) closeAll() {
	p.mu.Lock()
	sessions := append([]*session(nil), p.sessions...)
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Add(1)
		go func(s *session) {
			defer wg.Done()
			s.close()
		}(s)
	}
	wg.Wait()
}

// A session is one mux and the state that its streams share.
type session struct {
	peer     *peer
	mux      *gomux.Mux
	subjects chan *input   // streams that asked for steps, for a control stream to take
	reports  chan string   // digests of what collect streams got
	down     chan struct{} // closed when the end of the mux has been said
}

// run serves the streams that the peer opens until the mux ends.
func (s *session) run() error {
	defer s.peer.remove(s)
	for {
		stream, err := s.mux.AcceptStream()
		if err != nil {
			say("mux down: %v", err)
			close(s.down)
			return err
		}
		go s.serve(stream)
	}
}

func (s *session) close() {
	s.peer.closing.Add(1)
	defer s.peer.closing.Done()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.mux.Close()
	}()
	select {
	case <-done:
	case <-time.After(closeTimeout):
		complain("close: no end within %v", closeTimeout)
	}
}

func isGraceful(err error) bool {
	return errors.Is(err, gomux.ErrPeerClosedConn) || errors.Is(err, gomux.ErrClosedConn)
}

// buffer returns a buffer for one application read, and a function that gives the
// buffer back.
func (p *peer) buffer() ([]byte, func()) {
	b := p.buffers.Get().(*[]byte)
	return *b, func() { p.buffers.Put(b) }
}

// An input reads a stream with the read size and delay of the command line.
type input struct {
	*gomux.Stream
	peer *peer
	rest []byte // read with the last line, and not part of it
}

func (s *session) input(stream *gomux.Stream) *input {
	return &input{Stream: stream, peer: s.peer}
}

func (in *input) Read(p []byte) (int, error) {
	if len(in.rest) > 0 {
		n := copy(p, in.rest)
		in.rest = in.rest[n:]
		return n, nil
	}
	if in.peer.readDelay > 0 {
		time.Sleep(in.peer.readDelay)
	}
	// A longer read may be credited in a frame that no reference peer accepts.
	return in.Stream.Read(p[:min(len(p), in.peer.readSize)])
}

// line reads one line and returns it without its newline.
func (in *input) line() (string, error) {
	var line []byte
	for {
		var b [512]byte
		n, err := in.Read(b[:])
		for i, c := range b[:n] {
			if c == '\n' {
				in.rest = append(append([]byte(nil), b[i+1:n]...), in.rest...)
				return string(append(line, b[:i]...)), nil
			}
		}
		line = append(line, b[:n]...)
		if err != nil {
			return "", fmt.Errorf("in a line: %w", err)
		}
	}
}

// drain reads the stream until EOF and returns the number of bytes.
func (in *input) drain() (int64, error) {
	b, free := in.peer.buffer()
	defer free()
	var total int64
	for {
		n, err := in.Read(b)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
