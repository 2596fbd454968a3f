package redis

import (
	"sync"
	"sync/atomic"

	"github.com/gomodule/redigo/redis"
)

// command is one command of a batch.
type command struct {
	name string
	args []any
}

// call is a command, or a batch of them that are sent with nothing in between,
// on its way through a pipe. A call goes through one pipe once.
type call struct {
	command
	batch []command // instead of the one command
	reads bool      // changes nothing, so that it may be sent again

	reply   any   // the answer to a command
	replies []any // the answers to a batch, a redis.Error where it was one
	err     error // the answer to a command when it is an error; a *noReply

	state atomic.Int32
	done  chan struct{} // capacity 1: filled when the call was answered or failed
	room  [8]any        // for args
}

// The states of a call. Who moves it out of waiting decides what becomes of it.
const (
	waiting   = iota // in the queue
	sent             // taken by the writer
	abandoned        // its caller has left before that
)

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

// newCall makes a call of a command. free it when it was answered.
func newCall(reads bool, name string, args ...any) *call {
	c := calls.Get().(*call)
	c.name, c.reads = name, reads
	c.args = append(c.room[:0], args...)
	return c
}

// newBatch makes a call of several commands.
func newBatch(reads bool, batch []command) *call {
	c := calls.Get().(*call)
	c.batch, c.reads = batch, reads
	return c
}

// free gives a call back that was answered. One whose caller left must not be
// given back: the pipe still has it.
func (c *call) free() {
	c.reset()
	calls.Put(c)
}

// reset makes a call that was answered or failed ready to be sent.
func (c *call) reset() {
	*c = call{done: c.done}
}

// again makes a call with the same commands.
func (c *call) again() *call {
	if c.batch != nil {
		return newBatch(c.reads, c.batch)
	}
	return newCall(c.reads, c.name, c.args...)
}

// size is how many replies a call waits for.
func (c *call) size() int {
	if c.batch != nil {
		return len(c.batch)
	}
	return 1
}

// smallCall is up to how many bytes the arguments of a small call have: what the
// socket of any system takes without waiting.
const smallCall = 16 << 10

// small tells whether a call surely fits into the buffers of a connection.
func (c *call) small() bool {
	if c.batch != nil {
		return false
	}
	bytes := 0
	for _, arg := range c.args {
		switch arg := arg.(type) {
		case string:
			bytes += len(arg)
		case []byte:
			bytes += len(arg)
		}
	}
	return bytes <= smallCall
}

// answer takes the next reply; true when it was the last one.
func (c *call) answer(reply any, err error) bool {
	if c.batch == nil {
		c.reply, c.err = reply, err
		return true
	}
	if err != nil {
		reply = err.(redis.Error)
	}
	if c.replies == nil {
		c.replies = make([]any, 0, len(c.batch))
	}
	c.replies = append(c.replies, reply)
	return len(c.replies) == len(c.batch)
}

// finish tells the caller that the call is over.
func (c *call) finish() { c.done <- struct{}{} } // has room: it happens once
