package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/kvtools/valkeyrie/store"
)

// Watch implements store.Driver by blocking queries. Each answer is all that is
// watched, which the sink compares with what it knows.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	l := listing{prefix: r.Key, one: !r.Tree, wait: d.opts.WaitTime}
	for {
		pairs := 0
		index, err := d.list(ctx, l, func(kv *api.KVPair) bool {
			if pairs++; pairs == 1 {
				sink.Begin()
			}
			sink.Put(pair(kv, r.KeysOnly))
			return true
		})
		if err != nil {
			return err
		}
		if index != l.index {
			if pairs == 0 {
				sink.Begin()
			}
			sink.Synced()
		}
		if pairs == 0 && l.index != 0 {
			if err := store.Sleep(ctx, absentPause); err != nil {
				return err
			}
		}
		l.index = next(l.index, index)
	}
}

// next is the index to ask for after an answer. One that went back says that the
// server has lost its state, or was restored; then nothing may be waited for.
func next(asked, answered uint64) uint64 {
	if answered < asked {
		return 0
	}
	return answered
}

// absentPause slows down queries about what does not exist: those return for
// writes elsewhere, too, as often as there are such.
const absentPause = 20 * time.Millisecond
