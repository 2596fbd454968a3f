package dynamodb

import (
	"context"
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

// tablePause is how long to wait before a table that is being created is looked
// at again.
const tablePause = 250 * time.Millisecond

// check is a look at the table that is going on.
type check struct {
	done chan struct{} // closed when err is there
	err  error
}

// ready returns once the table is known to exist and to fit: at the first call
// of a store, and at once after that.
func (d *driver) ready(ctx context.Context) error {
	if d.usable.Load() {
		return nil
	}
	return d.check(ctx)
}

// check looks at the table, once for all that wait for it: not in the context of
// a call, whose end would be that of the others'.
func (d *driver) check(ctx context.Context) error {
	d.mu.Lock()
	c := d.checking
	if c == nil {
		c = &check{done: make(chan struct{})}
		if !d.running.Go(func() {
			c.err = d.checkTable(d.ctx)
			d.mu.Lock()
			d.checking = nil
			d.mu.Unlock()
			close(c.done)
		}) {
			d.mu.Unlock()
			return valkeyrie.ErrClosed
		}
		d.checking = c
	}
	d.mu.Unlock()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkTable sees to it that there is a table that fits.
func (d *driver) checkTable(ctx context.Context) error {
	created := false
	for {
		t, err := d.describe(ctx)
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing) && d.opts.Create:
			if err := d.createTable(ctx); err != nil {
				return err
			}
			created = true
			continue
		case err != nil:
			return err
		case t.TableStatus == types.TableStatusCreating:
			created = true // by another one, who may not get to the end
			if store.Sleep(ctx, tablePause) != nil {
				return ctx.Err()
			}
			continue
		}
		if err := fits(t); err != nil {
			return err
		}
		if created && d.opts.Create {
			d.enableTTL(ctx)
		}
		d.doubtful.Store(false)
		d.usable.Store(true)
		return nil
	}
}

func (d *driver) describe(ctx context.Context) (*types.TableDescription, error) {
	answer, err := read(ctx, d, func(ctx context.Context) (*dynamodb.DescribeTableOutput, error) {
		return d.db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: d.table})
	})
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", *d.table, err)
	}
	return answer.Table, nil
}

// fits is an error when the table has other keys than ours.
func fits(t *types.TableDescription) error {
	attributes := make(map[string]types.ScalarAttributeType)
	for _, a := range t.AttributeDefinitions {
		attributes[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	var keys []string
	for _, k := range t.KeySchema {
		name := aws.ToString(k.AttributeName)
		keys = append(keys, fmt.Sprintf("%s %s (%s)", k.KeyType, name, attributes[name]))
	}
	if has := strings.Join(keys, ", "); has != "HASH pk (S), RANGE sk (S)" {
		return fmt.Errorf("table %q has the keys %s and not HASH pk (S), RANGE sk (S): give another table in Options.Table, which Options.Create creates",
			aws.ToString(t.TableName), has)
	}
	return nil
}

// createTable creates the table; that another one was quicker is no error.
func (d *driver) createTable(ctx context.Context) error {
	_, err := read(ctx, d, func(ctx context.Context) (*dynamodb.CreateTableOutput, error) {
		in := &dynamodb.CreateTableInput{
			TableName:   d.table,
			BillingMode: types.BillingModePayPerRequest,
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String(attrPartition), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String(attrKey), KeyType: types.KeyTypeRange},
			},
			AttributeDefinitions: []types.AttributeDefinition{
				{AttributeName: aws.String(attrPartition), AttributeType: types.ScalarAttributeTypeS},
				{AttributeName: aws.String(attrKey), AttributeType: types.ScalarAttributeTypeS},
			},
		}
		if !d.opts.NoStream {
			in.StreamSpecification = &types.StreamSpecification{
				StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeKeysOnly,
			}
		}
		return d.db.CreateTable(ctx, in)
	})
	var exists *types.ResourceInUseException
	if errors.As(err, &exists) {
		return nil
	}
	if err == nil {
		d.log.Info("table created")
	}
	return err
}

// enableTTL lets the server remove what has expired. It is not needed for
// anything else, so that its failure is no error.
func (d *driver) enableTTL(ctx context.Context) {
	_, err := read(ctx, d, func(ctx context.Context) (*dynamodb.UpdateTimeToLiveOutput, error) {
		return d.db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
			TableName: d.table,
			TimeToLiveSpecification: &types.TimeToLiveSpecification{
				AttributeName: aws.String(attrSweep), Enabled: aws.Bool(true),
			},
		})
	})
	if err != nil && errorCode(err) != "ValidationException" { // it is on already
		d.log.Warn("the server's expiry cannot be turned on: expired items stay in the table", "attribute", attrSweep, "error", err)
	}
}
