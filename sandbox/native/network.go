package native

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// The two places in a sandbox's network where something listens. The first is Lambda's own address
// of the Runtime API.
var (
	runtimeAPIAddress = netip.MustParseAddrPort("169.254.100.1:9001")
	servicesAddress   = netip.MustParseAddrPort("127.0.0.1:9002")
)

// listenBacklog is plenty for one function's connections.
const listenBacklog = 128

// makeNetwork puts the calling thread into a new network namespace with nothing but a loopback
// device and returns the two listeners. A socket keeps the namespace it was made in, so
// they serve the sandbox from this process: no virtual cable, no proxy, no route.
func makeNetwork() (runtimeAPI, services net.Listener, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, nil, fmt.Errorf("unshare network: %w", err)
	}
	if err := bringLoopbackUp(runtimeAPIAddress.Addr()); err != nil {
		return nil, nil, err
	}
	if runtimeAPI, err = listen(runtimeAPIAddress); err != nil {
		return nil, nil, err
	}
	if services, err = listen(servicesAddress); err != nil {
		return nil, nil, errors.Join(err, runtimeAPI.Close())
	}
	return runtimeAPI, services, nil
}

// bringLoopbackUp also gives the device a second address.
func bringLoopbackUp(second netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("configure loopback: %w", err)
	}
	defer unix.Close(fd)
	request := func(label string, number uint, set func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(label)
		if err != nil {
			return err
		}
		if err := set(r); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, number, r)
	}
	address := second.As4()
	err = request("lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil })
	if err == nil {
		err = request("lo:1", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(address[:]) })
	}
	if err == nil {
		// Without this the class of the address would make all of 169.254.0.0/16 local.
		err = request("lo:1", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 255}) })
	}
	if err != nil {
		return fmt.Errorf("configure loopback: %w", err)
	}
	return nil
}

// listen opens the socket on the calling thread, which net.Listen does not promise.
func listen(address netip.AddrPort) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	file := os.NewFile(uintptr(fd), address.String())
	defer file.Close() // the listener has a copy
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}
