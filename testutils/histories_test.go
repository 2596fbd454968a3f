package testutils

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
)

// at makes a call that took from one moment to another.
func at(call, ret int64, o operation) operation {
	o.call, o.ret = call, ret
	return o
}

func get(found string, revision uint64) operation {
	return operation{kind: opGet, found: found, revision: revision}
}

func failed(kind opKind, value string, err error) operation {
	return operation{kind: kind, value: value, err: err}
}

func TestHistoriesThatCanAndCannotBeExplained(t *testing.T) {
	put := func(v string) operation { return operation{kind: opPut, value: v} }
	create := func(v string, revision uint64) operation {
		return operation{kind: opCreate, value: v, found: v, revision: revision}
	}
	update := func(prev, v string, err error) operation {
		return operation{kind: opUpdate, prev: prev, value: v, err: err}
	}
	ambiguous := fmt.Errorf("cut: %w", valkeyrie.ErrAmbiguous)
	missing := failed(opGet, "", valkeyrie.ErrKeyNotFound)
	for name, c := range map[string]struct {
		want porcupine.CheckResult
		ops  []operation
	}{
		"a read during a put may see either": {porcupine.Ok, []operation{
			at(0, 1, put("a")), at(2, 9, put("b")), at(3, 4, get("a", 1)), at(5, 6, get("b", 2))}},
		"a read after a put must see it": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 3, put("b")), at(4, 5, get("a", 1))}},
		"a read that went back": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 9, put("b")), at(3, 4, get("b", 2)), at(5, 6, get("a", 1))}},
		"two creates": {porcupine.Illegal, []operation{at(0, 5, create("a", 1)), at(0, 5, create("b", 2))}},
		"a create after a delete": {porcupine.Ok, []operation{
			at(0, 1, create("a", 1)), at(2, 3, operation{kind: opDelete}), at(4, 5, create("b", 2))}},
		"two updates of one revision": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 9, update("a", "b", nil)), at(2, 9, update("a", "c", nil))}},
		"an update refused without a reason": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 3, update("a", "b", valkeyrie.ErrKeyModified))}},
		"an update that calls a modified key gone": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 3, put("b")), at(4, 5, update("a", "c", valkeyrie.ErrKeyNotFound))}},
		"a delete that two did": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 9, operation{kind: opDelete}), at(2, 9, operation{kind: opDelete})}},
		"an ambiguous put that was applied much later": {porcupine.Ok, []operation{
			at(0, 1, failed(opPut, "a", ambiguous)), at(2, 3, missing), at(4, 5, get("a", 1))}},
		"an ambiguous put that was not applied": {porcupine.Ok, []operation{
			at(0, 1, failed(opPut, "a", ambiguous)), at(2, 3, missing)}},
		"an ambiguous put that was applied twice": {porcupine.Illegal, []operation{
			at(0, 1, failed(opPut, "a", ambiguous)), at(2, 3, get("a", 1)), at(4, 5, operation{kind: opDelete}), at(6, 7, get("a", 2))}},
		"an ambiguous update whose condition did not hold": {porcupine.Ok, []operation{
			at(0, 1, put("a")), at(2, 3, update("x", "b", ambiguous)), at(4, 5, get("a", 1))}},
		"an ambiguous update that was applied against its condition": {porcupine.Illegal, []operation{
			at(0, 1, put("a")), at(2, 3, update("x", "b", ambiguous)), at(4, 5, get("b", 2))}},
		"an unknown error means that nothing was written": {porcupine.Illegal, []operation{
			at(0, 1, failed(opPut, "a", errors.New("broken pipe"))), at(2, 3, get("a", 1))}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &keyHistory{ops: c.ops}
			require.Equal(t, c.want, porcupine.CheckOperationsTimeout(keyModel, k.operations(), time.Minute))
		})
	}
}

func TestRevisionsAndErrorsOfAHistory(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		ops  []operation
	}{
		"sound":                     {"", []operation{get("a", 1), get("a", 1), get("b", 2)}},
		"one revision, two writes":  {"revision 1 is that of", []operation{get("a", 1), get("b", 1)}},
		"one write, two revisions":  {"has the revisions", []operation{get("a", 1), get("a", 2)}},
		"no revision":               {"revision 0", []operation{get("a", 0)}},
		"the pair of another write": {"of another write", []operation{{kind: opCreate, value: "a", found: "b", revision: 1}}},
		"ambiguous":                 {"", []operation{failed(opPut, "a", valkeyrie.ErrAmbiguous), get("a", 1)}},
		"not reachable, yet applied": {"failed without ErrAmbiguous",
			[]operation{failed(opPut, "a", valkeyrie.ErrNotReachable), get("a", 1)}},
		"cut off without ErrAmbiguous, yet applied": {"failed without ErrAmbiguous",
			[]operation{failed(opCreate, "a", context.DeadlineExceeded), get("a", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &keyHistory{ops: c.ops}
			if err := errors.Join(k.revisionsMatch(), k.errorsAreTrue()); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

// TestRunHistory runs the load that fault tests use, and closes one of the
// stores in the middle.
func TestRunHistory(t *testing.T) {
	e := newEnv(t, Harness{Backend: memory.StoreName, New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
		s, err := memory.New([]string{"history"}, cfg, nil)
		require.NoError(t, err)
		return s
	}}.withDefaults())
	other := e.open(nil)
	closing := time.AfterFunc(time.Second/2, func() { _ = other.Close() })
	defer closing.Stop()
	h := runHistory(e.ctx, e.dir, []kvstore{e.kv, other}, time.Second)
	h.mustExplain(e)
	answered, failed := h.counts()
	require.Positive(t, answered)
	require.Positive(t, failed, "one of the stores was closed")
	require.Greater(t, len(h.keys), len(h.slots), "keys with a long history are left for fresh ones")
}
