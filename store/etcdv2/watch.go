package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// errHistory: etcd has forgotten what came after the last event, or is far ahead.
var errHistory = errors.New("etcd is ahead of a watch")

// errWentBack: etcd has less than it had, as after its data was restored.
var errWentBack = errors.New("the index of etcd went back")

// behind is how many writes of the whole server a watch may be behind. Beyond
// that, and a tenth of the keys that it watches, it takes another snapshot, which
// is quicker than one request for each event that it missed.
const behind = 50

// Watch implements store.Driver: a snapshot, and all events after its index. As
// etcd answers with one event at a time and keeps 1,000 of them, a busy server
// may be ahead of a watch: then there is another snapshot.
func (d *driver) Watch(ctx context.Context, r store.WatchRequest, sink store.Sink) error {
	for {
		w := watch{d: d, r: r, sink: sink, known: make(map[string]struct{})}
		if err := w.snapshot(ctx); err != nil {
			return err
		}
		if err := w.follow(ctx); !errors.Is(err, errHistory) {
			return err
		}
	}
}

// watch is one snapshot and what follows it.
type watch struct {
	d     *driver
	r     store.WatchRequest
	sink  store.Sink
	by    *member
	after uint64              // the index of the last event, or of the snapshot
	known map[string]struct{} // the keys that exist
}

// snapshot reports what there is.
func (w *watch) snapshot(ctx context.Context) error {
	f, err := w.d.look(ctx, wirePath(w.r.Key), true, w.r.Tree)
	if err != nil {
		return err
	}
	w.by, w.after = f.by, f.index
	w.sink.Begin()
	if w.r.Tree {
		walk(f.node, w.r.Key, w.r.KeysOnly, func(p *valkeyrie.KVPair) bool {
			w.put(p)
			return true
		})
	} else if n := valueOf(f.node); n != nil {
		w.put(pair(w.r.Key, n, w.r.KeysOnly))
	}
	w.sink.Synced()
	return nil
}

func (w *watch) put(p *valkeyrie.KVPair) {
	w.known[p.Key] = struct{}{}
	w.sink.Put(p)
}

func (w *watch) remove(key string) {
	delete(w.known, key)
	w.sink.Delete(key)
}

// follow reports events until it cannot go on.
func (w *watch) follow(ctx context.Context) error {
	for {
		event, err := w.next(ctx)
		if err != nil {
			return err
		}
		if event != nil {
			w.after = event.Node.ModifiedIndex
			w.apply(event)
		}
	}
}

// next waits for an event; nil when none came for as long as Options.PollInterval.
func (w *watch) next(ctx context.Context) (event *client.Response, err error) {
	poll, cancel := context.WithTimeout(ctx, w.d.poll)
	defer cancel()
	asked, err := w.by.ask(poll, nil, func(ctx context.Context, l *lane) (err error) {
		event, err = l.keys.Watcher(wirePath(w.r.Key), &client.WatcherOptions{AfterIndex: w.after, Recursive: true}).Next(ctx)
		return err
	})
	begun, _ := strconv.ParseUint(asked.index, 10, 64) // etcd's index when the poll began
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case asked.status == http.StatusOK && asked.index != "" && begun < w.after:
		return nil, errWentBack
	case code(err) == client.ErrorCodeEventIndexCleared, err == nil && begun > event.Node.ModifiedIndex+uint64(behind+len(w.known)/10):
		return nil, errHistory
	case answered(err):
		return event, mapError(err)
	case poll.Err() == nil || asked.status == 0: // broken or silent
		w.d.suspect(w.by)
		return nil, unanswered(err, asked, false)
	}
	// Nothing had happened when the poll began: etcd may forget what was before. A
	// member that is cut off from the others would go on like this for ever.
	w.after = max(w.after, begun)
	probe, cancel := context.WithTimeout(ctx, min(w.d.timeout, w.d.poll))
	defer cancel()
	if err := w.by.hasLeader(probe); err != nil {
		w.d.suspect(w.by)
		return nil, fmt.Errorf("%w: a member that was watched: %w", valkeyrie.ErrNotReachable, err)
	}
	return nil, nil
}

// apply reports an event.
func (w *watch) apply(event *client.Response) {
	gone := event.Action == "delete" || event.Action == "expire" || event.Action == "compareAndDelete"
	key, ours := keyOf(event.Node.Key)
	switch {
	case !ours:
	case event.Node.Dir && gone: // and with it all that was in it
		for known := range w.known {
			if known == key || strings.HasPrefix(known, key+"/") {
				w.remove(known)
			}
		}
	case event.Node.Dir, !w.wants(key):
	case gone:
		w.remove(key)
	default:
		w.put(pair(key, event.Node, w.r.KeysOnly))
	}
}

// wants tells whether a key is watched. etcd also tells of what is below a key,
// and of the directory itself.
func (w *watch) wants(key string) bool {
	if w.r.Tree {
		return strings.HasPrefix(key, w.r.Key)
	}
	return key == w.r.Key
}
