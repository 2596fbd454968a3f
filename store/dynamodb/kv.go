package dynamodb

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// keysOnly leaves the values out of what is read.
var keysOnly = aws.String(strings.Join([]string{attrPartition, attrKey, attrRevision, attrExpires, attrToken, attrOwner, attrLease}, ", "))

func projection(withoutValues bool) *string {
	if withoutValues {
		return keysOnly
	}
	return nil
}

// Conditions of writes. :now is the writer's clock in milliseconds.
const (
	isAbsent  = "(attribute_not_exists(" + attrKey + ") OR " + attrExpires + " <= :now)"
	isAlive   = "(attribute_not_exists(" + attrExpires + ") OR " + attrExpires + " > :now)"
	isThere   = "attribute_exists(" + attrKey + ") AND " + isAlive
	isAt      = attrRevision + " = :revision AND " + isAlive
	noToken   = "attribute_not_exists(" + attrToken + ")"
	sameToken = attrToken + " = :token"
)

// newRevision draws a revision; see the package's documentation.
func newRevision() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		if r := binary.LittleEndian.Uint64(b[:]); r != 0 {
			return r
		}
	}
}

// enter is the first step of every call on a key.
func (d *driver) enter(ctx context.Context, key string) error {
	if len(key) > maxWireKey {
		return fmt.Errorf("%w: with Config.Prefix it is %d bytes long, and DynamoDB takes %d", valkeyrie.ErrInvalidKey, len(key), maxWireKey)
	}
	return d.ready(ctx)
}

// Get implements store.Driver.
func (d *driver) Get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	if err := d.enter(ctx, key); err != nil {
		return nil, err
	}
	i, err := d.get(ctx, key, opts)
	switch {
	case err != nil:
		return nil, err
	case i == nil || i.expired(time.Now()):
		return nil, valkeyrie.ErrKeyNotFound
	}
	return i.pair(opts.KeysOnly), nil
}

// get reads an item, nil when there is none. It may have expired.
func (d *driver) get(ctx context.Context, key string, opts valkeyrie.ReadOptions) (*item, error) {
	in := &dynamodb.GetItemInput{
		TableName: d.table, Key: primaryKey(key),
		ConsistentRead:       aws.Bool(!opts.AllowStale),
		ProjectionExpression: projection(opts.KeysOnly),
	}
	answer, err := read(ctx, d, func(ctx context.Context) (*dynamodb.GetItemOutput, error) { return d.db.GetItem(ctx, in) })
	if err != nil || len(answer.Item) == 0 {
		return nil, err
	}
	return decode(answer.Item)
}

// condition is what must hold of an item for a write.
type condition struct {
	expression string
	values     attributes
}

// withToken adds to a condition that the item has that token of a lock, or none.
// A write that overwrites one must carry it on.
func (c condition) withToken(token uint64) condition {
	if token == 0 {
		return c.and(noToken)
	}
	return c.and(sameToken).with(":token", number(token))
}

func (c condition) and(expression string) condition {
	if c.expression != "" {
		expression = c.expression + " AND " + expression
	}
	return condition{expression, c.values}
}

func (c condition) with(name string, value types.AttributeValue) condition {
	values := attributes{name: value}
	for n, v := range c.values {
		values[n] = v
	}
	return condition{c.expression, values}
}

// at is the condition of a write at a revision, or of one that needs the key.
func at(revision uint64) condition {
	c := condition{expression: isThere, values: attributes{":now": number(time.Now().UnixMilli())}}
	if revision != 0 {
		c.expression = isAt
		c.values[":revision"] = number(revision)
	}
	return c
}

// Write implements store.Driver: one request, or a second one when the key was a
// lock before, whose token has to be carried on, or when what is there cannot be
// read and is to be overwritten.
func (d *driver) Write(ctx context.Context, w store.Write) (store.Written, error) {
	if err := d.enter(ctx, w.Key); err != nil {
		return store.Written{}, err
	}
	i := item{key: w.Key, value: w.Value, revision: newRevision()}
	var sent time.Time
	var corrupt *corruptItem
	for {
		found, err := d.put(ctx, func() (item, condition) {
			sent = time.Now()
			if w.TTL > 0 {
				i.expires = expiry(sent, w.TTL) + ttlSlack.Milliseconds()
			}
			c := condition{}
			switch {
			case w.Create:
				c = condition{isAbsent, attributes{":now": number(sent.UnixMilli())}}
			case w.IfRevision != 0:
				c = at(w.IfRevision)
			case corrupt != nil:
				return i, c // whatever its token is
			}
			return i, c.withToken(i.token)
		})
		if err == nil {
			break
		}
		if errors.As(err, &corrupt) && !w.Create && w.IfRevision == 0 {
			i.token = corrupt.token
			continue
		}
		if conditionFailed(err) == nil {
			return store.Written{}, err
		}
		if refusal := refused(found, w.Create, w.IfRevision); refusal != nil {
			return store.Written{}, refusal
		}
		i.token = found.lastToken()
	}
	if w.TTL > 0 && time.Since(sent) > ttlSlack {
		// It may have been applied just now, and has to be there for the TTL from
		// then on. That this fails only means that it expires that bit earlier.
		_ = d.extend(ctx, w.Key, i.revision, w.TTL+ttlSlack)
	}
	return store.Written{Revision: i.revision}, nil
}

// lastToken is the token that an item carries.
func (i *item) lastToken() uint64 {
	if i == nil {
		return 0
	}
	return i.token
}

// refused tells why a condition did not hold, as far as it is about what is there
// and not about the token of a lock; nil when the write may be tried again.
func refused(found *item, create bool, revision uint64) error {
	gone := found == nil || found.expired(time.Now())
	switch {
	case create && !gone:
		return valkeyrie.ErrKeyExists
	case revision != 0 && gone:
		return valkeyrie.ErrKeyNotFound
	case revision != 0 && found.revision != revision:
		return valkeyrie.ErrKeyModified
	}
	return nil
}

// put writes an item if a condition holds. build is called for each attempt, as
// TTLs begin with it. When the condition does not hold, put returns what is there.
func (d *driver) put(ctx context.Context, build func() (item, condition)) (*item, error) {
	var key string
	_, err := write(ctx, d, func(ctx context.Context) (*dynamodb.PutItemOutput, error) {
		i, c := build()
		key = i.key
		in := &dynamodb.PutItemInput{
			TableName: d.table, Item: i.encode(), ExpressionAttributeValues: c.values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		}
		if c.expression != "" {
			in.ConditionExpression = &c.expression
		}
		return d.db.PutItem(ctx, in)
	})
	return d.failed(ctx, key, err)
}

// failed returns the item that did not fulfil the condition of a write, along
// with the error. The server sends it, unless it is an old one; it also sends
// nothing when there is no item.
func (d *driver) failed(ctx context.Context, key string, err error) (*item, error) {
	refusal := conditionFailed(err)
	if refusal == nil {
		return nil, err
	}
	var found *item
	var readErr error
	if len(refusal.Item) > 0 {
		found, readErr = decode(refusal.Item)
	} else {
		found, readErr = d.get(ctx, key, valkeyrie.ReadOptions{KeysOnly: true})
	}
	if readErr != nil {
		return nil, readErr
	}
	return found, err
}

// Delete implements store.Driver: one request; what was a lock before is
// overwritten by an item that counts as absent and carries the token on.
func (d *driver) Delete(ctx context.Context, key string, revision uint64) error {
	if err := d.enter(ctx, key); err != nil {
		return err
	}
	token := uint64(0)
	for {
		found, err := d.remove(ctx, key, revision, token)
		if corrupt := (*corruptItem)(nil); revision == 0 && errors.As(err, &corrupt) {
			return d.clear(ctx, corrupt)
		}
		if conditionFailed(err) == nil {
			return err
		}
		if found == nil || found.expired(time.Now()) {
			return valkeyrie.ErrKeyNotFound
		}
		if refusal := refused(found, false, revision); refusal != nil {
			return refusal
		}
		token = found.token
	}
}

// remove makes one attempt at a deletion.
func (d *driver) remove(ctx context.Context, key string, revision, token uint64) (*item, error) {
	if token != 0 {
		return d.put(ctx, func() (item, condition) { return tombstone(key, token), at(revision).withToken(token) })
	}
	_, err := write(ctx, d, func(ctx context.Context) (*dynamodb.DeleteItemOutput, error) {
		c := at(revision).withToken(0)
		return d.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{
			TableName: d.table, Key: primaryKey(key),
			ConditionExpression: &c.expression, ExpressionAttributeValues: c.values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		})
	})
	return d.failed(ctx, key, err)
}

// Renew implements store.Driver.
func (d *driver) Renew(ctx context.Context, key string, revision uint64, ttl time.Duration) (store.Written, error) {
	if err := d.enter(ctx, key); err != nil {
		return store.Written{}, err
	}
	return store.Written{Revision: revision}, d.extend(ctx, key, revision, ttl+ttlSlack)
}

// extend lets a key that is at a revision expire ttl from now. Doing it twice
// does no harm, so that it is repeated like a read.
func (d *driver) extend(ctx context.Context, key string, revision uint64, ttl time.Duration) error {
	_, err := read(ctx, d, func(ctx context.Context) (*dynamodb.UpdateItemOutput, error) {
		c := at(revision)
		expires := expiry(time.Now(), ttl)
		c = c.with(":expires", number(expires)).with(":sweep", number(sweepTime(expires)))
		return d.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: d.table, Key: primaryKey(key),
			UpdateExpression:    aws.String("SET " + attrExpires + " = :expires, " + attrSweep + " = :sweep"),
			ConditionExpression: &c.expression, ExpressionAttributeValues: c.values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		})
	})
	found, err := d.failed(ctx, key, err)
	if conditionFailed(err) == nil {
		return err
	}
	if refusal := refused(found, false, revision); refusal != nil {
		return refusal
	}
	return valkeyrie.ErrKeyNotFound // it had expired by the clock of this process
}
