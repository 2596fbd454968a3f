package dynamodb

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/corrupttest"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

func TestDamagedItems(t *testing.T) {
	s := open(t, nil, &Options{Table: "damaged", Create: true, NoStream: true, PollInterval: 50 * time.Millisecond})
	damages := make(map[string]func(string))
	for name, change := range map[string]func(attributes){
		"no revision":               func(a attributes) { delete(a, attrRevision) },
		"no revision, but a token":  func(a attributes) { delete(a, attrRevision); a[attrToken] = number(uint64(7)) },
		"a revision that is text":   func(a attributes) { a[attrRevision] = text("1") },
		"a value that is text":      func(a attributes) { a[attrValue] = text("v") },
		"an expiry that is text":    func(a attributes) { a[attrExpires] = text("soon") },
		"a token that is a boolean": func(a attributes) { a[attrToken] = &types.AttributeValueMemberBOOL{Value: true} },
		"a token below zero":        func(a attributes) { a[attrToken] = &types.AttributeValueMemberN{Value: "-1"} },
		"an owner that is a number": func(a attributes) { a[attrOwner] = number(uint64(1)) },
		"a lease without end":       func(a attributes) { a[attrLease] = &types.AttributeValueMemberN{Value: "1e30"} },
	} {
		damages[name] = func(key string) {
			a := item{key: key, value: []byte("v"), revision: 7}.encode()
			change(a)
			rawItem(t, "damaged", a)
		}
	}
	require.NoError(t, s.Put(testserver.Within(t, time.Minute), "ready", nil, nil)) // the table is there
	corrupttest.Run(t, s, "corrupt", damages)
}

func TestTheTokenOfADamagedLockIsCarriedOn(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, &Options{Table: "tokens", Create: true, NoStream: true})
	require.NoError(t, s.Put(ctx, "ready", nil, nil))
	last := uint64(time.Now().Add(time.Hour).UnixMicro()) // greater than one made of the time
	for name, repair := range map[string]func(key string) error{
		"Put":        func(key string) error { return s.Put(ctx, key, nil, nil) },
		"Delete":     func(string) error { return nil }, // which is below
		"DeleteTree": func(string) error { return s.DeleteTree(ctx, "lock") },
	} {
		key := "lock/" + name
		a := item{key: key, token: last}.encode()
		delete(a, attrRevision)
		rawItem(t, "tokens", a)
		require.NoError(t, repair(key))
		if name != "DeleteTree" {
			require.NoError(t, s.Delete(ctx, key))
		}
		l, err := s.NewLock(ctx, key, nil)
		require.NoError(t, err)
		_, err = l.TryLock(ctx)
		require.NoError(t, err)
		assert.Equal(t, last+1, l.Token(), name)
		require.NoError(t, l.Unlock(ctx))
	}
}

func TestItemsOutsideTheirPartitionAreNobodys(t *testing.T) {
	ctx := testserver.Within(t, time.Minute)
	s := open(t, nil, &Options{Table: "astray", Create: true, NoStream: true})
	require.NoError(t, s.Put(ctx, "a/b", nil, nil))
	astray := item{key: "a/c", revision: 1}.encode()
	astray[attrPartition] = text("elsewhere")
	rawItem(t, "astray", astray)
	for _, opts := range []*valkeyrie.ReadOptions{nil, {KeysOnly: true}} {
		pairs, err := s.List(ctx, "", opts)
		require.NoError(t, err)
		require.Len(t, pairs, 1, "what is listed can be read")
		assert.Equal(t, "a/b", pairs[0].Key)
	}
	_, err := s.Get(ctx, "a/c", nil)
	require.ErrorIs(t, err, valkeyrie.ErrKeyNotFound)
}
