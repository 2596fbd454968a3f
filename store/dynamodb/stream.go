package dynamodb

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/kvtools/valkeyrie/store"
)

const (
	// readPause is how long to wait before a shard is read again.
	readPause = 150 * time.Millisecond

	// linger is how long the stream is read on when nobody wants to know, so that
	// lock after lock does not begin anew each time.
	linger = 5 * time.Second
)

var (
	errNoStream    = errors.New("the table has no stream")
	errStreamEnded = errors.New("the table's stream was turned off")
	errUnwanted    = errors.New("nobody reads the stream")
)

// reader reads the table's stream for all subscriptions of a store: each shard
// from where it is now, and those that follow it from their beginning. As records
// are only hints, the order among shards does not matter. Whatever goes wrong,
// an iterator that expired or records that are gone, ends it, and the watches
// begin again with a snapshot.
type reader struct {
	d          *driver
	ctx        context.Context // ends with the reader, the reason as its cause
	cancel     context.CancelCauseFunc
	positioned chan struct{} // closed when it misses nothing from now on
	finished   chan string   // shards that are read to their end
	shards     sync.WaitGroup

	mu            sync.Mutex
	subscriptions map[*subscription]struct{}
	wanted        time.Time // last
}

func newReader(d *driver) *reader {
	r := &reader{
		d: d, positioned: make(chan struct{}), finished: make(chan string),
		subscriptions: make(map[*subscription]struct{}), wanted: time.Now(),
	}
	r.ctx, r.cancel = context.WithCancelCause(d.ctx)
	return r
}

// add is false when the reader has ended.
func (r *reader) add(s *subscription) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.subscriptions[s] = struct{}{}
	return true
}

func (r *reader) remove(s *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.subscriptions, s)
	r.wanted = time.Now()
}

// leave ends the reader when it has not been wanted for a while.
func (r *reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.subscriptions) == 0 && time.Since(r.wanted) > linger {
		r.cancel(errUnwanted)
	}
}

// hint tells all subscriptions of keys.
func (r *reader) hint(keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.subscriptions {
		for _, key := range keys {
			s.hint(key)
		}
	}
}

// run owns the reader and its shards.
func (r *reader) run() {
	err := r.read()
	r.cancel(err)
	r.shards.Wait()
}

func (r *reader) read() error {
	t, err := r.d.describe(r.ctx)
	if err != nil {
		return err
	}
	if t.StreamSpecification == nil || !aws.ToBool(t.StreamSpecification.StreamEnabled) {
		r.d.polling.Do(func() {
			r.d.log.Info("the table has no stream: watches compare what they read", "every", r.d.opts.PollInterval)
		})
		return errNoStream
	}
	f := follower{reader: r, arn: t.LatestStreamArn, known: make(map[string]bool), childless: make(map[string]bool)}
	if err := f.position(); err != nil {
		return err
	}
	close(r.positioned)
	return f.follow()
}

// records returns the keys of the next records of a shard, and where they end.
func (r *reader) records(iterator *string) (keys []string, next *string, err error) {
	answer, err := read(r.ctx, r.d, func(ctx context.Context) (*dynamodbstreams.GetRecordsOutput, error) {
		return r.d.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: iterator})
	})
	if err != nil {
		return nil, nil, err
	}
	for _, record := range answer.Records {
		if key, ok := record.Dynamodb.Keys[attrKey].(*types.AttributeValueMemberS); ok {
			keys = append(keys, key.Value)
		}
	}
	return keys, answer.NextShardIterator, nil
}

// readShard reads a shard to its end.
func (r *reader) readShard(shard string, iterator *string) {
	for iterator != nil {
		keys, next, err := r.records(iterator)
		pause := readPause
		switch {
		case throttled(err): // there are other readers: later is early enough
			pause = time.Second
		case err != nil:
			r.cancel(err)
			return
		default:
			r.hint(keys)
			iterator = next
		}
		if store.Sleep(r.ctx, pause) != nil {
			return
		}
	}
	select {
	case r.finished <- shard:
	case <-r.ctx.Done():
	}
}
