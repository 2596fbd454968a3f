package zookeeper

import (
	"context"
	"sync/atomic"

	"github.com/go-zookeeper/zk"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// op is one call of the driver. As the client's calls take no context, it runs in
// a goroutine of its own, which its caller leaves behind when the context ends;
// it then ends at its next step. The state tells both sides what the other did.
type op struct {
	ctx   context.Context
	c     *client
	*gate // of the session, when ready has returned it
	state atomic.Int32
}

// The states of an op.
const (
	opReading  int32 = iota // nothing has been written
	opWriting               // a write may have been applied
	opFinished              // its answer is there
	opLeft                  // the caller has gone
)

// answer is what a call returned.
type answer[T any] struct {
	value T
	err   error
}

// run runs f within ctx and the life of the driver. When the caller has gone
// before f returned a value, late gets it.
func run[T any](ctx context.Context, c *client, f func(o *op) (T, error), late func(T)) (T, error) {
	o := &op{ctx: ctx, c: c}
	done := make(chan answer[T], 1)
	var none T
	if !c.d.calls.Go(func() {
		value, err := f(o)
		if was := o.state.Swap(opFinished); was == opLeft && err == nil && late != nil {
			late(value)
		}
		done <- answer[T]{value, err}
	}) {
		return none, valkeyrie.ErrClosed
	}
	var err error
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-c.d.ctx.Done():
		err = valkeyrie.ErrClosed
	}
	for {
		switch was := o.state.Load(); {
		case was == opFinished:
			a := <-done
			return a.value, a.err
		case !o.state.CompareAndSwap(was, opLeft):
		case was == opWriting:
			return none, store.Wrap(valkeyrie.ErrAmbiguous, err)
		default:
			return none, err
		}
	}
}

// do is run for what returns only an error.
func do(ctx context.Context, c *client, f func(o *op) error) error {
	_, err := run(ctx, c, func(o *op) (struct{}, error) { return struct{}{}, f(o) }, nil)
	return err
}

// ready waits for a session, as client.ready does.
func (o *op) ready() (err error) {
	o.gate, err = o.c.ready(o.ctx, false)
	return err
}

// writing is called before each request that writes. After an error the request
// must not be sent: the caller has gone, and was told that nothing was written.
func (o *op) writing() error {
	if o.state.CompareAndSwap(opReading, opWriting) || o.state.Load() == opWriting {
		return nil
	}
	return o.gone()
}

// left tells whether the caller has gone.
func (o *op) left() bool { return o.state.Load() == opLeft }

func (o *op) gone() error {
	if err := context.Cause(o.ctx); err != nil {
		return err
	}
	return valkeyrie.ErrClosed
}

// sync is client.sync, unless the caller has gone.
func (o *op) sync() error {
	if o.left() {
		return o.gone()
	}
	return readError(o.c.sync(o.conn))
}

// set writes a node's data.
func (o *op) set(path string, data []byte, version int32) (*zk.Stat, error) {
	if err := o.writing(); err != nil {
		return nil, err
	}
	stat, err := o.conn.Set(path, data, version)
	o.settle(err)
	return stat, err
}

// multi runs operations in one atomic request.
func (o *op) multi(ops ...any) ([]zk.MultiResponse, error) {
	if err := o.writing(); err != nil {
		return nil, err
	}
	results, err := o.conn.Multi(ops...)
	o.settle(err)
	return results, err
}

// settle notes the answer to a write. One that was refused was not applied.
func (o *op) settle(err error) {
	if err != nil && answered(err) {
		o.state.CompareAndSwap(opWriting, opReading)
	}
}
