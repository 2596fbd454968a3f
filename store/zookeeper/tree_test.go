package zookeeper

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
	"github.com/kvtools/valkeyrie/store"
)

// open opens a store that is closed at the end of the test.
func open(t testing.TB, endpoints []string, cfg *valkeyrie.Config) valkeyrie.Store {
	t.Helper()
	s, err := New(endpoints, cfg, &Options{SessionTimeout: session})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// quiet is the zk.Logger of tests.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// raw opens the ZooKeeper client itself.
func raw(t testing.TB, endpoints []string) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect(endpoints, 20*time.Second, zk.WithLogger(quiet{}))
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		for range events {
		}
	})
	return c
}

// exists tells whether there is a node.
func exists(t testing.TB, c *zk.Conn, path string) bool {
	t.Helper()
	there, _, err := c.Exists(path)
	require.NoError(t, err)
	return there
}

// vanishes waits for a node to be removed.
func vanishes(t testing.TB, c *zk.Conn, path string) {
	t.Helper()
	require.Eventually(t, func() bool { return !exists(t, c, path) }, 20*time.Second, 20*time.Millisecond, path)
}

func TestNodesOfOtherToolsAreKeysAndOursAreTheirs(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	for _, theirs := range []struct {
		path string
		data []byte
	}{{"/tools", nil}, {"/tools/null", nil}, {"/tools/empty", []byte{}}, {"/tools/null/below", []byte("theirs")}} {
		_, err := c.Create(theirs.path, theirs.data, 0, zk.WorldACL(zk.PermAll))
		require.NoError(t, err)
	}
	pairs, err := s.List(ctx, "tools", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 2)
	assert.Equal(t, "tools/empty", pairs[0].Key)
	assert.Equal(t, []byte{}, pairs[0].Value)
	assert.Equal(t, "tools/null/below", pairs[1].Key)
	there, err := s.Exists(ctx, "tools/null", nil)
	require.NoError(t, err)
	assert.False(t, there, "null data is a directory")
	_, p, err := s.AtomicPut(ctx, "tools/null/below", []byte("ours"), pairs[1], nil)
	require.NoError(t, err)
	data, stat, err := c.Get("/tools/null/below")
	require.NoError(t, err)
	assert.Equal(t, "ours", string(data), "a value is stored as it is")
	assert.Equal(t, p.LastIndex, uint64(stat.Mzxid))

	// Directories that somebody else made stay, although they are empty.
	require.NoError(t, s.Delete(ctx, "tools/null/below"))
	require.NoError(t, s.Delete(ctx, "tools/empty"))
	vanishes(t, c, "/tools/null/below")
	vanishes(t, c, "/tools/empty")
	assert.True(t, exists(t, c, "/tools/null"))
	require.NoError(t, c.Delete("/tools/null", -1))
	require.NoError(t, c.Delete("/tools", -1))
}

func TestImpliedParentsComeAndGo(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c := raw(t, endpoints)
	s := open(t, endpoints, &valkeyrie.Config{Prefix: "implied/root"})
	require.NoError(t, s.Put(ctx, "a/b/c/d", []byte("v"), nil))
	require.NoError(t, s.Put(ctx, "a/b", []byte("v"), nil)) // in between
	data, _, err := c.Get("/implied/root/a/b/c")
	require.NoError(t, err)
	assert.Nil(t, data)

	// A key that is deleted while it has children is a directory from then on.
	require.NoError(t, s.Delete(ctx, "a/b"))
	_, err = s.Get(ctx, "a/b", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.ErrorIs(t, s.Delete(ctx, "a/b"), valkeyrie.ErrKeyNotFound)
	p, err := s.Get(ctx, "a/b/c/d", nil)
	require.NoError(t, err)
	assert.Equal(t, "v", string(p.Value))

	require.NoError(t, s.Delete(ctx, "a/b/c/d"))
	vanishes(t, c, "/implied/root/a")
	assert.True(t, exists(t, c, "/implied/root"), "the prefix is not ours to remove")

	// What is deleted just before Close is removed with it.
	other, err := New(endpoints, &valkeyrie.Config{Prefix: "implied/root"}, nil)
	require.NoError(t, err)
	require.NoError(t, other.Put(ctx, "x/y", nil, nil))
	require.NoError(t, other.Delete(ctx, "x/y"))
	assert.True(t, exists(t, c, "/implied/root/x/y"), "for a while the node stays, as a directory")
	require.NoError(t, other.Close())
	assert.False(t, exists(t, c, "/implied/root/x"))
}

func TestAStalePairIsRefusedAfterDeleteAndCreate(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	_, old, err := s.AtomicPut(ctx, "stale", []byte("1"), nil, nil)
	require.NoError(t, err)
	_, before, err := c.Get("/stale")
	require.NoError(t, err)
	// Removed at once, as by another tool, it starts with the same version.
	require.NoError(t, c.Delete("/stale", -1))
	_, created, err := s.AtomicPut(ctx, "stale", []byte("2"), nil, nil)
	require.NoError(t, err)
	_, after, err := c.Get("/stale")
	require.NoError(t, err)
	require.Equal(t, before.Version, after.Version)
	require.NotEqual(t, before.Czxid, after.Czxid)

	_, _, err = s.AtomicPut(ctx, "stale", nil, old, nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	_, err = s.AtomicDelete(ctx, "stale", old)
	require.ErrorIs(t, err, valkeyrie.ErrKeyModified)
	// Deleted by this library, it goes on counting.
	_, err = s.AtomicDelete(ctx, "stale", created)
	require.NoError(t, err)
	_, _, err = s.AtomicPut(ctx, "stale", nil, nil, nil)
	require.NoError(t, err)
	_, last, err := c.Get("/stale")
	require.NoError(t, err)
	assert.Equal(t, after.Czxid, last.Czxid)
	assert.Greater(t, last.Version, after.Version)
	require.NoError(t, s.Delete(ctx, "stale"))
}

// The window that remains: a node that is removed and made again between the read
// of a conditional write and its write, up to the same version.
func TestAWriteThatHitALaterNodeSaysSo(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c := raw(t, endpoints)
	settings, err := store.Settings(StoreName, nil)
	require.NoError(t, err)
	d, err := newDriver(endpoints, settings, (&Options{SessionTimeout: session}).withDefaults(""))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	write := func() {
		_, err := d.Write(ctx, store.Write{Key: "window", Value: []byte("v")})
		require.NoError(t, err)
	}
	write()
	_, read, err := c.Get("/window")
	require.NoError(t, err)
	require.NoError(t, c.Delete("/window", -1))
	write()
	err = do(ctx, d.main, func(o *op) error {
		if err := o.ready(); err != nil {
			return err
		}
		return o.edit("/window", []byte("over")).setAt(read)
	})
	require.ErrorIs(t, err, valkeyrie.ErrAmbiguous)
	require.ErrorIs(t, err, errMoved)
	require.NoError(t, c.Delete("/window", -1))
}

func TestDeleteTreeOfAnyDepthAndSize(t *testing.T) {
	ctx := testserver.Within(t, 2*time.Minute)
	endpoints := testserver.ZooKeeper(t).Endpoints
	c, s := raw(t, endpoints), open(t, endpoints, nil)
	deep := "wood/deep" + strings.Repeat("/x", 300)
	require.NoError(t, s.Put(ctx, deep, []byte("v"), nil))
	// The names alone are more than a packet of 1 MB.
	const keys, writers = 3_000, 64
	long := strings.Repeat("long-", 100)
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := w; i < keys; i += writers {
				if err := s.Put(ctx, fmt.Sprintf("wood/wide/%s%d", long, i), nil, nil); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		require.NoError(t, <-errs)
	}
	require.NoError(t, s.Put(ctx, "wood", []byte("stays"), nil))
	require.NoError(t, s.Put(ctx, "woodcut/a", []byte("stays"), nil))
	pairs, err := s.List(ctx, "wood", nil)
	require.NoError(t, err)
	require.Len(t, pairs, keys+1)

	require.NoError(t, s.DeleteTree(ctx, "wood"))
	names, _, err := c.Children("/wood")
	require.NoError(t, err)
	assert.Empty(t, names)
	require.ErrorIs(t, s.DeleteTree(ctx, "wood"), valkeyrie.ErrKeyNotFound)
	there, err := s.Exists(ctx, "wood", nil)
	require.NoError(t, err)
	assert.True(t, there)
	require.NoError(t, s.DeleteTree(ctx, "woodcut"))
	vanishes(t, c, "/woodcut")
}

func TestDeleteTreeGoesOnOverWhatIsWrittenMeanwhile(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, testserver.ZooKeeper(t).Endpoints, nil)
	for round := range 5 {
		for i := range 100 {
			require.NoError(t, s.Put(ctx, fmt.Sprintf("busy/%d/k%d", i%10, i), nil, nil))
		}
		done := make(chan error, 1)
		go func() { done <- s.DeleteTree(ctx, "busy") }()
		for i := range 50 {
			require.NoError(t, s.Put(ctx, fmt.Sprintf("busy/%d/new%d-%d/k", i%10, round, i), nil, nil))
		}
		require.NoError(t, <-done)
	}
	_ = s.DeleteTree(ctx, "busy")
}

func TestZooKeepersOwnNodesAreNotKeys(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	endpoints := testserver.StartZooKeeper(t, testserver.ZooKeeperOptions{}).Endpoints
	s := open(t, endpoints, nil)
	_, err := s.List(ctx, "zookeeper", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
	require.NoError(t, s.Put(ctx, "zookeeper", []byte("a key like any other"), nil))
	require.NoError(t, s.Put(ctx, "zookeeper/quota", []byte("and below"), nil))
	pairs, err := s.List(ctx, "", nil)
	require.NoError(t, err)
	require.Len(t, pairs, 2)
	assert.Equal(t, "zookeeper", pairs[0].Key)
	assert.Equal(t, "zookeeper/quota", pairs[1].Key)
	require.NoError(t, s.DeleteTree(ctx, "zookeeper"))
	assert.True(t, exists(t, raw(t, endpoints), "/zookeeper/quota"))
}
