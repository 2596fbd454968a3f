package dynamodb

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// The attributes of an item. None is a reserved word of DynamoDB's expressions.
const (
	attrPartition = "pk"
	attrKey       = "sk"
	attrValue     = "val"
	attrRevision  = "rev"
	attrExpires   = "exp_ms"
	attrSweep     = "exp_s"
	attrToken     = "lock_token"
	attrOwner     = "lock_owner"
	attrLease     = "lock_ms"
)

const (
	// sweepAfter is how much later than its expiry the server may remove an
	// item. It keeps the token of a lock for longer than clocks differ.
	sweepAfter = 24 * time.Hour

	// ttlSlack is how long a key may be there after its TTL, so that it is there
	// for all of it although the request took a moment to arrive.
	ttlSlack = 250 * time.Millisecond
)

type attributes = map[string]types.AttributeValue

// item is what is stored of a key.
type item struct {
	key      string
	value    []byte // nil where it was not read
	revision uint64
	expires  int64 // Unix milliseconds; 0: never

	// token is that of the last hold of a lock. What was a lock once keeps it.
	token uint64
	owner string        // of the hold; empty when it is none
	lease time.Duration // TTL of the hold
}

// partition is the partition key of a key or a directory.
func partition(key string) string {
	first, _, _ := strings.Cut(key, "/")
	return first
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number[N int64 | uint64](n N) types.AttributeValue { // none of ours is negative
	return &types.AttributeValueMemberN{Value: strconv.FormatUint(uint64(n), 10)}
}

// primaryKey is how an item is addressed.
func primaryKey(key string) attributes {
	return attributes{attrPartition: text(partition(key)), attrKey: text(key)}
}

// encode returns the attributes of an item.
func (i item) encode() attributes {
	a := primaryKey(i.key)
	a[attrRevision] = number(i.revision)
	if len(i.value) > 0 { // older servers refuse empty ones
		a[attrValue] = &types.AttributeValueMemberB{Value: i.value}
	}
	if i.expires != 0 {
		a[attrExpires], a[attrSweep] = number(i.expires), number(sweepTime(i.expires))
	}
	if i.token != 0 {
		a[attrToken] = number(i.token)
	}
	if i.owner != "" {
		a[attrOwner], a[attrLease] = text(i.owner), number(store.RoundUp(i.lease, time.Millisecond).Milliseconds())
	}
	return a
}

// sweepTime is the second from which the server may remove an item.
func sweepTime(expires int64) int64 {
	return (max(expires, time.Now().UnixMilli()) + sweepAfter.Milliseconds()) / 1000
}

// tombstone is an item that counts as absent, by the clock of everybody, and
// keeps the token of a lock.
func tombstone(key string, token uint64) item {
	return item{key: key, revision: newRevision(), expires: 1, token: token}
}

// expiry is when a TTL that begins now is over.
func expiry(now time.Time, ttl time.Duration) int64 {
	return now.UnixMilli() + store.RoundUp(ttl, time.Millisecond).Milliseconds()
}

// decode returns the item that attributes stand for; an error that is
// valkeyrie.ErrCorrupt when they are none of ours.
func decode(a attributes) (*item, error) {
	d := decoder{attributes: a}
	i := &item{
		key:      d.text(attrKey, true),
		revision: d.number(attrRevision, true),
		expires:  int64(d.number(attrExpires, false)),
		token:    d.number(attrToken, false),
		owner:    d.text(attrOwner, false),
		value:    d.bytes(attrValue),
	}
	lease := d.number(attrLease, false)
	i.lease = time.Duration(lease) * time.Millisecond
	switch {
	case d.bad != "":
	case i.revision == 0:
		d.bad = attrRevision
	case i.expires < 0:
		d.bad = attrExpires
	case lease > math.MaxInt64/uint64(time.Millisecond):
		d.bad = attrLease
	default:
		return i, nil
	}
	return nil, &corruptItem{key: i.key, token: i.token, attribute: d.bad}
}

// decoder reads attributes and notes one that is not as it should be.
type decoder struct {
	attributes
	bad string
}

func (d *decoder) text(name string, needed bool) string {
	switch a := d.attributes[name].(type) {
	case *types.AttributeValueMemberS:
		return a.Value
	case nil:
		if !needed {
			return ""
		}
	}
	d.bad = name
	return ""
}

func (d *decoder) number(name string, needed bool) uint64 {
	switch a := d.attributes[name].(type) {
	case *types.AttributeValueMemberN:
		if n, err := strconv.ParseUint(a.Value, 10, 64); err == nil {
			return n
		}
	case nil:
		if !needed {
			return 0
		}
	}
	d.bad = name
	return 0
}

// bytes returns a value that is never nil.
func (d *decoder) bytes(name string) []byte {
	switch a := d.attributes[name].(type) {
	case *types.AttributeValueMemberB:
		if a.Value != nil {
			return a.Value
		}
	case nil:
	default:
		d.bad = name
	}
	return []byte{}
}

// expired tells whether the item is over for those who read.
func (i *item) expired(now time.Time) bool {
	return i.expires != 0 && i.expires <= now.UnixMilli()
}

// pair returns the pair of an item.
func (i *item) pair(keysOnly bool) *valkeyrie.KVPair {
	p := &valkeyrie.KVPair{Key: i.key, LastIndex: i.revision}
	if !keysOnly {
		p.Value = i.value
	}
	return p
}
