package dynamodb

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/kvtools/valkeyrie"
)

// corruptItem is the error of an item that cannot be read.
type corruptItem struct {
	key       string
	token     uint64 // of a lock, as far as it can be read
	attribute string // that is not as it should be
}

// Error implements error.
func (e *corruptItem) Error() string {
	return fmt.Sprintf("key %q: %v: attribute %q is missing or not as this library writes it", e.key, valkeyrie.ErrCorrupt, e.attribute)
}

// Unwrap makes it an ErrCorrupt.
func (e *corruptItem) Unwrap() error { return valkeyrie.ErrCorrupt }

// inPlace tells whether an item is where its key belongs. Another one was written
// by another tool; no call that names its key would ever see it.
func inPlace(a attributes) bool {
	key := decoder{attributes: a}
	return key.text(attrPartition, true) == partition(key.text(attrKey, true))
}

// clear deletes an item that cannot be read.
func (d *driver) clear(ctx context.Context, c *corruptItem) error {
	if c.token != 0 {
		_, err := d.put(ctx, func() (item, condition) { return tombstone(c.key, c.token), condition{} })
		return err
	}
	_, err := write(ctx, d, func(ctx context.Context) (*dynamodb.DeleteItemOutput, error) {
		return d.db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: d.table, Key: primaryKey(c.key)})
	})
	return err
}
