package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// forward listens on 127.0.0.1 of the network namespace it is started in and
// carries each connection to an address inside another one, so that the
// cluster's API is reached without a change to the host's own network.
// Arguments: namespace file, address to dial, file to write the port to, and
// optionally the port to listen on.
func forward(args []string) error {
	if len(args) < 3 || len(args) > 4 {
		return fmt.Errorf("want: forward NETNS-FILE ADDRESS PORT-FILE [PORT]")
	}
	port := "0"
	if len(args) == 4 {
		port = args[3]
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil && port != "0" {
		// The port of an earlier run may be taken by now.
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	sockets, err := socketsIn(args[0])
	if err != nil {
		return err
	}
	// Written beside and renamed: a reader sees a whole number or nothing.
	chosen := listener.Addr().(*net.TCPAddr).Port
	if err := os.WriteFile(args[2]+".new", fmt.Appendln(nil, chosen), 0o644); err != nil {
		return err
	}
	if err := os.Rename(args[2]+".new", args[2]); err != nil {
		return err
	}
	for {
		near, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer near.Close()
			far, err := sockets.dial(args[1])
			if err != nil {
				fmt.Fprintln(os.Stderr, "forward:", err)
				return
			}
			defer far.Close()
			splice(near.(*net.TCPConn), far)
		}()
	}
}

// splice copies both ways until both ends have said all they had to say.
func splice(a, b *net.TCPConn) {
	var both sync.WaitGroup
	for _, pair := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(pair[1], pair[0])
			if err != nil {
				// One broken direction must not leave the other waiting for ever.
				pair[0].Close()
				pair[1].Close()
				return
			}
			pair[1].CloseWrite()
		})
	}
	both.Wait()
}

// namespace makes connections on a thread that has moved into it.
type namespace struct {
	wanted chan request
}

type request struct {
	address string
	answer  chan result
}

type result struct {
	conn *net.TCPConn
	err  error
}

func socketsIn(path string) (*namespace, error) {
	n := &namespace{wanted: make(chan request)}
	ready := make(chan error)
	go func() {
		// Never unlocked: a thread that changed its namespace must not be
		// given back to the runtime.
		runtime.LockOSThread()
		file, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		ready <- err
		if err != nil {
			return
		}
		for r := range n.wanted {
			r.answer <- connect(r.address)
		}
	}()
	return n, <-ready
}

func (n *namespace) dial(address string) (*net.TCPConn, error) {
	r := request{address: address, answer: make(chan result, 1)}
	n.wanted <- r
	got := <-r.answer
	return got.conn, got.err
}

// connect runs on the thread in the namespace. A plain net.Dial of one literal
// address makes its socket on the calling goroutine, hence on that thread.
func connect(address string) result {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return result{err: err}
	}
	conn, err := net.DialTCP("tcp4", nil, to)
	return result{conn: conn, err: err}
}
