// The way from the host into the cluster's network. It must never change the
// host's own network, nor listen anywhere but on loopback.

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

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
	// Held open: the file's path ends with the process it is named after.
	namespace, err := os.Open(args[0])
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
			far, err := dialIn(namespace, args[1])
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

// dialIn connects from inside the namespace. A thread that has moved there can
// not be given back to the runtime: it stays locked and so ends with the
// goroutine, one thread a connection.
func dialIn(namespace *os.File, address string) (*net.TCPConn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	answer := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			answer <- result{err: err}
			return
		}
		// One literal address: its socket is made on this thread.
		dialer := net.Dialer{Timeout: 10 * time.Second}
		conn, err := dialer.Dial("tcp4", address)
		answer <- result{conn, err}
	}()
	got := <-answer
	if got.err != nil {
		return nil, got.err
	}
	return got.conn.(*net.TCPConn), nil
}
