package etcdv3

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// errStreamEnded: the client ended a watch without saying why.
var errStreamEnded = errors.New("etcd client ended the watch")

// Watch implements store.Driver: a snapshot at one revision, and all events
// after it. The client resumes the watch where it was after a connection broke;
// compaction, and a member without a leader, end it with an error.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	c, err := d.client(ctx)
	if err != nil {
		return err
	}
	// Without a leader a partitioned member would go on and report nothing.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()

	revision, opts := int64(0), []clientv3.OpOption(nil)
	key := r.Key
	sink.Begin()
	if r.Tree {
		key = from(r.Key)
		opts = append(opts, clientv3.WithRange(end(r.Key)))
		revision, err = pages(ctx, c, key, end(r.Key), valkeyrie.ReadOptions{KeysOnly: r.KeysOnly}, func(p *valkeyrie.KVPair) bool {
			sink.Put(p)
			return true
		})
	} else {
		revision, err = snapshotOne(ctx, c, r, sink)
	}
	if err != nil {
		return err
	}
	sink.Synced()
	return follow(ctx, c.Watch(ctx, key, append(opts, clientv3.WithRev(revision+1))...), r.KeysOnly, sink)
}

// snapshotOne reports one key and returns the revision at which it was read.
func snapshotOne(ctx context.Context, c *clientv3.Client, r store.WatchRequest, sink store.Sink) (int64, error) {
	answer, err := c.Get(ctx, r.Key, readOptions(valkeyrie.ReadOptions{KeysOnly: r.KeysOnly})...)
	if err != nil {
		return 0, readError(err)
	}
	for _, kv := range answer.Kvs {
		sink.Put(pair(kv, r.KeysOnly))
	}
	return answer.Header.Revision, nil
}

// follow reports the events of a watch until it ends.
func follow(ctx context.Context, answers clientv3.WatchChan, keysOnly bool, sink store.Sink) error {
	for {
		select {
		case answer, more := <-answers:
			if !more {
				return errStreamEnded
			}
			if err := answer.Err(); err != nil {
				return readError(err)
			}
			for _, e := range answer.Events {
				if e.Type == clientv3.EventTypeDelete {
					sink.Delete(string(e.Kv.Key))
				} else {
					sink.Put(pair(e.Kv, keysOnly))
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
