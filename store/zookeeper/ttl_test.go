package zookeeper

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestKeysOfAStoreThatIsGoneExpireAndTheirRecordsGo(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	_, err := s.Exists(ctx, "k", nil) // it looks for records from now on
	require.NoError(t, err)
	gone, err := New(endpoints, nil, &Options{SessionTimeout: session})
	require.NoError(t, err)
	ttl := &valkeyrie.WriteOptions{TTL: time.Second}
	require.NoError(t, gone.Put(ctx, "a", []byte("v"), ttl))
	require.NoError(t, gone.Put(ctx, "a/child", []byte("permanent"), nil))
	require.NoError(t, gone.Put(ctx, "b/c", []byte("v"), ttl))
	require.NoError(t, gone.Put(ctx, "d", []byte("v"), ttl))
	require.NoError(t, gone.Put(ctx, "e", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Hour}))
	require.NoError(t, s.Put(ctx, "d", []byte("somebody else's"), nil))
	_, stat, err := c.Get("/a")
	require.NoError(t, err)
	assert.Zero(t, stat.EphemeralOwner, "it has children")
	require.NoError(t, gone.Close())

	for _, key := range []string{"a", "b/c"} {
		require.Eventually(t, func() bool {
			there, err := s.Exists(ctx, key, nil)
			return err == nil && !there
		}, harness(nil).CrashBound+time.Second, 10*time.Millisecond, key)
	}
	for _, key := range []string{"a/child", "d", "e"} {
		there, err := s.Exists(ctx, key, nil)
		require.NoError(t, err)
		assert.True(t, there, key)
	}
	const dir = "/.valkeyrie/ttl/open"
	owners, _, err := c.Children(dir)
	require.NoError(t, err)
	records := 0
	for _, o := range owners {
		names, _, err := c.Children(child(dir, o))
		require.NoError(t, err)
		records += len(names)
	}
	assert.Equal(t, 1, records, "that of e")
	vanishes(t, c, "/b")
}

// mortalVariable makes TestKeysOfAProcessThatWasKilledExpire be the process that
// puts the keys. Its value is the server's address.
const mortalVariable = "VALKEYRIE_ZOOKEEPER_MORTAL"

// beMortal puts keys with a TTL and lives on until it is killed.
func beMortal(t *testing.T, addr string) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, []string{addr}, nil)
	require.NoError(t, s.Put(ctx, "leaf/plain", []byte("v"), &valkeyrie.WriteOptions{TTL: 2 * time.Second}))
	require.NoError(t, s.Put(ctx, "leaf/kept", []byte("v"), &valkeyrie.WriteOptions{TTL: 2 * time.Second, KeepAlive: true}))
	require.NoError(t, s.Put(ctx, "above", []byte("v"), &valkeyrie.WriteOptions{TTL: 2 * time.Second}))
	require.NoError(t, s.Put(ctx, "above/stays", []byte("v"), nil))
	require.NoError(t, s.Put(ctx, "long", []byte("v"), &valkeyrie.WriteOptions{TTL: time.Hour}))
	_, err := os.Stdout.WriteString("put\n")
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
}

// TestKeysOfAProcessThatWasKilledExpire has no other store that could delete them
// until the bound is over: the first call of one that is opened then must not see
// them.
func TestKeysOfAProcessThatWasKilledExpire(t *testing.T) {
	if addr := os.Getenv(mortalVariable); addr != "" {
		beMortal(t, addr)
		return
	}
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	c := raw(t, endpoints)
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	child.Env = append(os.Environ(), mortalVariable+"="+endpoints[0])
	in, err := child.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines, said := bufio.NewReader(out), ""
	for said != "put" {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		said = strings.TrimSpace(line)
	}
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	over := time.Now().Add(2*time.Second + harness(nil).CrashBound)
	for _, path := range []string{"/leaf/plain", "/leaf/kept", "/above"} {
		assert.True(t, exists(t, c, path), path)
	}
	time.Sleep(time.Until(over))

	s := open(t, endpoints, nil)
	l, err := s.NewLock(ctx, "leaf/plain", nil)
	require.NoError(t, err)
	_, err = l.TryLock(ctx)
	require.NoError(t, err, "nothing is in the way of a lock")
	require.NoError(t, l.Unlock(ctx))
	pairs, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 2)
	assert.Equal(t, "above/stays", pairs[0].Key)
	assert.Equal(t, "long", pairs[1].Key)
	vanishes(t, c, "/leaf")
}
