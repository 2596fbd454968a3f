package dynamodb

import (
	"math"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

func TestItemsComeBackAsTheyWentIn(t *testing.T) {
	for name, i := range map[string]item{
		"plain":     {key: "a/b", value: []byte("v"), revision: 1},
		"empty":     {key: "a", value: []byte{}, revision: math.MaxUint64},
		"mortal":    {key: "a", value: []byte{0}, revision: 1, expires: 1},
		"hold":      {key: "a", value: []byte{}, revision: 1, expires: math.MaxInt64 / 2, token: math.MaxUint64, owner: "o", lease: time.Minute},
		"tombstone": {key: "a", value: []byte{}, revision: 1, expires: 1, token: 5},
	} {
		got, err := decode(i.encode())
		require.NoError(t, err, name)
		assert.Equal(t, &i, got, name)
	}
	a := item{key: "a/b/c", revision: 1}.encode()
	assert.Equal(t, text("a"), a[attrPartition], "the first segment")
	assert.NotContains(t, a, attrValue, "older servers refuse an empty one")
}

func TestForeignItemsAreCorrupt(t *testing.T) {
	for name, change := range map[string]func(attributes){
		"no revision":               func(a attributes) { delete(a, attrRevision) },
		"revision 0":                func(a attributes) { a[attrRevision] = number(uint64(0)) },
		"revision not a number":     func(a attributes) { a[attrRevision] = text("1") },
		"revision a fraction":       func(a attributes) { a[attrRevision] = &types.AttributeValueMemberN{Value: "1.5"} },
		"revision negative":         func(a attributes) { a[attrRevision] = &types.AttributeValueMemberN{Value: "-1"} },
		"value a string":            func(a attributes) { a[attrValue] = text("v") },
		"expiry a string":           func(a attributes) { a[attrExpires] = text("soon") },
		"expiry too large":          func(a attributes) { a[attrExpires] = number(uint64(math.MaxUint64)) },
		"token a string":            func(a attributes) { a[attrToken] = text("1") },
		"owner a number":            func(a attributes) { a[attrOwner] = number(uint64(1)) },
		"lease longer than a clock": func(a attributes) { a[attrLease] = number(uint64(math.MaxInt64)) },
	} {
		a := item{key: "some/key", value: []byte("v"), revision: 7, expires: 9, token: 1, owner: "o", lease: time.Second}.encode()
		change(a)
		_, err := decode(a)
		require.ErrorIs(t, err, valkeyrie.ErrCorrupt, name)
		assert.ErrorContains(t, err, `"some/key"`, name)
	}
	_, err := decode(attributes{attrRevision: number(uint64(1))})
	require.ErrorIs(t, err, valkeyrie.ErrCorrupt, "no key")
}

// FuzzDecode puts one attribute of any content and type into an item: it is
// decoded to something that encodes to the same, or corrupt.
func FuzzDecode(f *testing.F) {
	f.Add(attrRevision, uint8(1), "18446744073709551615", []byte("v"))
	f.Add(attrExpires, uint8(1), "-1", []byte{})
	f.Add(attrLease, uint8(1), "9223372036854775807", []byte{0})
	f.Add(attrValue, uint8(2), "", []byte(nil))
	f.Add(attrOwner, uint8(0), "", []byte("x"))
	f.Fuzz(func(t *testing.T, name string, kind uint8, s string, b []byte) {
		a := item{key: "k", value: []byte("v"), revision: 7}.encode()
		a[name] = []types.AttributeValue{
			text(s), &types.AttributeValueMemberN{Value: s}, &types.AttributeValueMemberB{Value: b},
			&types.AttributeValueMemberNULL{Value: true}, nil,
		}[kind%5]
		i, err := decode(a)
		if err != nil {
			require.ErrorIs(t, err, valkeyrie.ErrCorrupt)
			if name != attrKey {
				require.ErrorContains(t, err, `"k"`)
			}
			require.Nil(t, i)
			return
		}
		require.Equal(t, name != attrPartition && name != attrKey || s == "k" && kind%5 == 0, inPlace(a))
		require.NotZero(t, i.revision)
		require.NotNil(t, i.value)
		i.owner = "o" // what is no hold has no lease to write
		again, err := decode(i.encode())
		require.NoError(t, err)
		require.Equal(t, i, again)
	})
}

func TestTTLsAreRoundedUp(t *testing.T) {
	now := time.UnixMilli(1000)
	assert.EqualValues(t, 1001, expiry(now, 1))
	assert.EqualValues(t, 1002, expiry(now, time.Millisecond+1))
	assert.EqualValues(t, 2000, expiry(now, time.Second))
	assert.Positive(t, expiry(time.Now(), math.MaxInt64), "no overflow")
	soon := time.Now().Add(time.Minute).UnixMilli()
	assert.GreaterOrEqual(t, sweepTime(soon)*1000, soon, "the server removes nothing before it has expired")
	assert.GreaterOrEqual(t, sweepTime(1), time.Now().Unix(), "nor the token of a lock that was released just now")
}

func TestRevisionsDiffer(t *testing.T) {
	seen := make(map[uint64]bool)
	for range 100_000 {
		r := newRevision()
		require.NotZero(t, r)
		require.False(t, seen[r])
		seen[r] = true
	}
}
