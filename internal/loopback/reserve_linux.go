package loopback

import (
	"errors"
	"os"
	"syscall"
)

// reserve binds a socket that never listens. Linux lets others bind the same
// port if both set SO_REUSEADDR and none listens yet, but never picks a bound
// port for a socket that asks for any, nor for an outgoing connection.
func reserve() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	number, err := bind(fd)
	if err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	return &Port{number: number, release: func() { _ = syscall.Close(fd) }}, nil
}

// bind binds the socket to any port of 127.0.0.1 and returns which.
func bind(fd int) (int, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	in4, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return 0, errors.New("getsockname: not an IPv4 address")
	}
	return in4.Port, nil
}
