package main

import (
	"fmt"
	"strings"
)

// How many bytes must pass to show that a direction is open: more than a frame,
// less than a window.
const halfCloseSize = 70000

// halfCloseOrders returns all orders of the four events and of each subset of
// them. The events: the local or the remote side closes its writing or its reading
// half.
func halfCloseOrders() [][]string {
	var orders [][]string
	var extend func(order []string)
	extend = func(order []string) {
		for _, event := range []string{"lw", "lr", "rw", "rr"} {
			if strings.Contains(strings.Join(order, ","), event) {
				continue
			}
			longer := append(append([]string(nil), order...), event)
			orders = append(orders, longer)
			extend(longer)
		}
	}
	extend(nil)
	return orders
}

func (s *session) driveHalfClose(argument string) (result, error) {
	orders := [][]string{strings.Split(argument, ",")}
	if argument == "all" {
		orders = halfCloseOrders()
	}
	for _, order := range orders {
		if err := s.halfClose(order); err != nil {
			return nil, fmt.Errorf("%v: %w", strings.Join(order, ","), err)
		}
	}
	return result{"count": len(orders)}, nil
}

// A subject is a stream under test, and the control stream that tells the peer
// which steps to do on its end of the stream.
type subject struct {
	*input
	control *input
	closed  map[string]bool
}

func (s *session) halfClose(order []string) error {
	in, err := s.open("steps")
	if err != nil {
		return err
	}
	defer in.Close()
	control, err := s.open("control")
	if err != nil {
		return err
	}
	defer control.Close()
	t := &subject{in, control, map[string]bool{}}
	if err := t.check(); err != nil {
		return err
	}
	for _, event := range order {
		if err := t.close(event); err != nil {
			return fmt.Errorf("at %v: %w", event, err)
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("after %v: %w", event, err)
		}
	}
	if err := t.input.Close(); err != nil {
		return err
	}
	return t.remote("close")
}

func (t *subject) close(event string) error {
	t.closed[event] = true
	switch event {
	case "lw":
		return t.CloseWrite()
	case "lr":
		return t.CloseRead()
	case "rw":
		return t.remote("closewrite")
	case "rr":
		return t.remote("closeread")
	}
	return fmt.Errorf("no such event")
}

func (t *subject) remote(format string, args ...any) error {
	if _, err := fmt.Fprintf(t.control, format+"\n", args...); err != nil {
		return err
	}
	return t.control.expect("ok")
}

// check checks that each direction carries data if both its ends are open, and fails
// as it should if one is closed.
func (t *subject) check() error {
	if err := t.checkOut(); err != nil {
		return fmt.Errorf("outwards: %w", err)
	}
	if err := t.checkIn(); err != nil {
		return fmt.Errorf("inwards: %w", err)
	}
	return nil
}

func (t *subject) checkOut() error {
	switch {
	case t.closed["lw"] && t.closed["rr"]:
		return nil
	case t.closed["lw"]:
		return t.remote("eof")
	case t.closed["rr"]:
		return t.writeFails()
	}
	if err := writePattern(t, halfCloseSize); err != nil {
		return err
	}
	return t.remote("read %d", halfCloseSize)
}

func (t *subject) checkIn() error {
	switch {
	case t.closed["rw"] && t.closed["lr"]:
		return nil
	case t.closed["rw"]:
		return t.atEnd()
	case t.closed["lr"]:
		return t.remote("write-fails")
	}
	if err := t.remote("send %d", halfCloseSize); err != nil {
		return err
	}
	return t.readPattern(halfCloseSize)
}
