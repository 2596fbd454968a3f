package testutils

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
)

// explainWithin bounds the search for an order of one key's calls.
const explainWithin = 30 * time.Second

// answered tells whether the store gave a definite answer.
func (o operation) answered() bool {
	return o.err == nil || errors.Is(o.err, valkeyrie.ErrKeyNotFound) ||
		errors.Is(o.err, valkeyrie.ErrKeyExists) || errors.Is(o.err, valkeyrie.ErrKeyModified)
}

// mayHaveApplied tells whether a failed call may have written something, now or
// at any time later. Only ErrAmbiguous says so by the contract; the search for
// an order is more lenient, and mustExplain names an error that lied by itself.
func (o operation) mayHaveApplied() bool {
	return o.kind != opGet && !o.answered() &&
		(errors.Is(o.err, valkeyrie.ErrAmbiguous) || errors.Is(o.err, valkeyrie.ErrNotReachable) ||
			errors.Is(o.err, context.Canceled) || errors.Is(o.err, context.DeadlineExceeded))
}

// mustExplain checks that for each key there is one order of all calls, each
// taking effect at one moment between its call and its return, that explains
// every answer; that revisions and values belong together; and that no write
// was seen whose error said that it was not applied.
func (h *history) mustExplain(e *env) {
	e.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, k := range h.keys {
		require.NoError(e, k.revisionsMatch(), key)
		require.NoError(e, k.errorsAreTrue(), key)
		switch porcupine.CheckOperationsTimeout(keyModel, k.operations(), explainWithin) {
		case porcupine.Ok:
		case porcupine.Illegal:
			require.FailNow(e, "not linearizable: no order of the calls on "+key+" explains all answers", "%s", k)
		case porcupine.Unknown:
			require.FailNow(e, fmt.Sprintf("no answer within %s to whether the %d calls on %s (%d with unknown outcome) are linearizable;"+
				" that is a failure, as nothing is proven: lower maxCalls or maxUnknown", explainWithin, len(k.ops), key, k.unknown))
		}
	}
}

// String lists the calls in the order in which they were made.
func (k *keyHistory) String() string {
	ops := slices.SortedFunc(slices.Values(k.ops), func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	var b strings.Builder
	for _, o := range ops {
		b.WriteString("\n  " + o.String())
	}
	return b.String()
}

// revisionsMatch checks that a revision names one write and one only: every
// value is written once in a history.
func (k *keyHistory) revisionsMatch() error {
	values, revisions := make(map[uint64]string), make(map[string]uint64)
	for _, o := range k.ops {
		if o.err != nil || o.revision == 0 && o.kind != opGet && o.kind != opCreate && o.kind != opUpdate {
			continue
		}
		if o.revision == 0 {
			return fmt.Errorf("a stored pair has revision 0: %s", o)
		}
		if o.kind != opGet && o.found != o.value {
			return fmt.Errorf("AtomicPut returned the pair of another write, %q: %s", o.found, o)
		}
		if v, ok := values[o.revision]; ok && v != o.found {
			return fmt.Errorf("revision %d is that of %q and of %q", o.revision, v, o.found)
		}
		if r, ok := revisions[o.found]; ok && r != o.revision {
			return fmt.Errorf("one write of %q has the revisions %d and %d", o.found, r, o.revision)
		}
		values[o.revision], revisions[o.found] = o.found, o.revision
	}
	return nil
}

// errorsAreTrue checks that no value was read whose write returned an error
// other than ErrAmbiguous.
func (k *keyHistory) errorsAreTrue() error {
	read := make(map[string]operation)
	for _, o := range k.ops {
		if o.kind == opGet && o.err == nil {
			read[o.found] = o
		}
	}
	for _, o := range k.ops {
		if o.value == "" || o.err == nil || errors.Is(o.err, valkeyrie.ErrAmbiguous) {
			continue
		}
		if r, ok := read[o.value]; ok {
			return fmt.Errorf("the write\n  %s\nfailed without ErrAmbiguous, so it was not applied, but was read:\n  %s", o, r)
		}
	}
	return nil
}

// operations turns the calls into porcupine's. Failed reads say nothing. A write
// that may have been applied returns at the end of time: put last in the order
// it disturbs nobody, which stands for "was not applied".
func (k *keyHistory) operations() []porcupine.Operation {
	var ops []porcupine.Operation
	for _, o := range k.ops {
		switch {
		case o.answered():
		case o.mayHaveApplied():
			o.ret = math.MaxInt64
		default:
			continue
		}
		ops = append(ops, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Return: o.ret})
	}
	return ops
}

// keyModel is a key by itself. Its state is the value, empty when the key is
// absent: no two writes of a history have the same value, so that the value
// tells whether the key is at the revision of a previous pair.
var keyModel = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) { return input.(operation).step(state.(string)) },
}

// step tells whether the call may have had its answer with the key in this
// state, and what state it left.
func (o operation) step(state string) (legal bool, after string) {
	after, want := o.apply(state)
	switch {
	case o.mayHaveApplied():
		return true, after // a condition that does not hold leaves the state as it is
	case o.kind == opGet && o.err == nil:
		return want == nil && o.found == state, state
	case want == nil:
		return o.err == nil, after
	}
	return errors.Is(o.err, want), state
}

// apply is the contract of each call: the state after it, and the error that it
// must return.
func (o operation) apply(state string) (after string, want error) {
	absent := state == ""
	switch o.kind {
	case opGet:
		if absent {
			return state, valkeyrie.ErrKeyNotFound
		}
		return state, nil
	case opPut:
		return o.value, nil
	case opCreate:
		if !absent {
			return state, valkeyrie.ErrKeyExists
		}
		return o.value, nil
	case opDelete:
		if absent {
			return state, valkeyrie.ErrKeyNotFound
		}
		return "", nil
	}
	switch { // a conditional write
	case absent:
		return state, valkeyrie.ErrKeyNotFound
	case state != o.prev:
		return state, valkeyrie.ErrKeyModified
	case o.kind == opAtomicDelete:
		return "", nil
	}
	return o.value, nil
}
