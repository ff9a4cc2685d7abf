package main

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/Acebond/gomux"
)

// forward carries each connection that l accepts as a stream. The muxes take turns.
func (p *peer) forward(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			complain("forward: %v", err)
			p.quit(1)
			return
		}
		go p.forwardOne(conn.(*net.TCPConn))
	}
}

func (p *peer) forwardOne(conn *net.TCPConn) {
	s := p.pick()
	if s == nil {
		conn.Close()
		return
	}
	stream, err := s.mux.OpenStream()
	if err != nil {
		conn.Close()
		complain("forward: %v", err)
		return
	}
	p.carry(stream, conn)
}

func (p *peer) pick() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sessions) == 0 {
		return nil
	}
	p.next = (p.next + 1) % len(p.sessions)
	return p.sessions[p.next]
}

func (p *peer) connectTarget(stream *gomux.Stream) {
	conn, err := net.Dial("tcp", p.target)
	if err != nil {
		stream.Close()
		complain("target: %v", err)
		return
	}
	p.carry(stream, conn.(*net.TCPConn))
}

// carry copies both directions between a stream and a connection, each until its EOF.
func (p *peer) carry(stream *gomux.Stream, conn *net.TCPConn) {
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		p.carryOut(stream, conn)
	}()
	go func() {
		defer wg.Done()
		p.carryIn(conn, &input{Stream: stream, peer: p})
	}()
	wg.Wait()
	stream.Close()
	conn.Close()
}

// A writeError is an error of the side that a move was writing to.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// carryOut copies the connection's input to the stream.
func (p *peer) carryOut(stream *gomux.Stream, conn *net.TCPConn) {
	err := p.move(stream, conn)
	switch {
	case err == nil:
		stream.CloseWrite()
	case errors.Is(err, gomux.ErrWriteClosed):
		conn.CloseRead()
	default:
		stream.Close()
		conn.Close()
	}
}

// carryIn copies the stream's input to the connection.
func (p *peer) carryIn(conn *net.TCPConn, stream *input) {
	err := p.move(conn, stream)
	switch {
	case err == nil:
		conn.CloseWrite()
	case errors.As(err, new(writeError)):
		stream.CloseRead()
	default:
		conn.SetLinger(0) // cut short, not ended: let the other side see it
		conn.Close()
	}
}

// move copies in application reads until the end of r.
func (p *peer) move(w io.Writer, r io.Reader) error {
	b, free := p.buffer()
	defer free()
	for {
		n, err := r.Read(b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return writeError{err}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
