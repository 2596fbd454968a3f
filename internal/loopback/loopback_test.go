package loopback

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAReservedPortCanBeListenedOnAgainAndAgain(t *testing.T) {
	p, err := Reserve()
	require.NoError(t, err)
	defer p.Release()
	for range 3 {
		_, err := net.Dial("tcp4", p.Addr())
		require.Error(t, err, "a reserved port that nobody listens on refuses")

		ln, err := net.Listen("tcp4", p.Addr())
		require.NoError(t, err)
		c, err := net.Dial("tcp4", p.Addr())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, ln.Close())
	}
}

func TestNobodyElseGetsAReservedPort(t *testing.T) {
	seen := make(map[int]bool)
	for range 500 {
		p, err := Reserve()
		require.NoError(t, err)
		defer p.Release()
		require.False(t, seen[p.Number()], "port %d was given out twice", p.Number())
		seen[p.Number()] = true
	}
	for range 500 {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		require.False(t, seen[ln.Addr().(*net.TCPAddr).Port], "a listener on any port got a reserved one")
	}
}
