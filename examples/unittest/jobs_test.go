package unittest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
)

// open returns a store for one test. It keeps the same contract as the servers.
func open(t *testing.T, endpoints ...string) valkeyrie.Store {
	t.Helper()
	kv, err := memory.New(endpoints, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestOnlyOneOwner(t *testing.T) {
	// Two instances of the service: stores with the same name share their data.
	here, there := open(t, t.Name()), open(t, t.Name())
	defer here.Close()
	defer there.Close()
	if err := New(here).Claim(t.Context(), "migrate", "ada", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := New(there).Claim(t.Context(), "migrate", "ben", time.Minute); !errors.Is(err, ErrTaken) {
		t.Errorf("ben's claim: %v, want ErrTaken", err)
	}
	owner, err := New(there).Owner(t.Context(), "migrate")
	if err != nil || owner != "ada" {
		t.Errorf("the owner is %q (%v), want ada", owner, err)
	}
}

// In a bubble of testing/synctest an hour passes at once.
func TestAClaimEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := open(t)
		defer kv.Close()
		jobs := New(kv)
		if err := jobs.Claim(t.Context(), "migrate", "ada", time.Hour); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := jobs.Wait(t.Context(), "migrate"); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < time.Hour || waited > time.Hour+time.Minute {
			t.Errorf("waited %v, want an hour", waited)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	kv := open(t)
	defer kv.Close()
	jobs := New(kv)
	if err := jobs.Claim(t.Context(), "migrate", "ada", time.Hour); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := jobs.Wait(ctx, "migrate"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v, want the context's error", err)
	}
}

// What the service does when its store fails is tested with a store that does.
type away struct{ valkeyrie.Store }

func (away) Get(context.Context, string, *valkeyrie.ReadOptions) (*valkeyrie.KVPair, error) {
	return nil, valkeyrie.ErrNotReachable
}

func TestAnOutageIsAnError(t *testing.T) {
	kv := open(t)
	defer kv.Close()
	if _, err := New(away{kv}).Owner(t.Context(), "migrate"); !errors.Is(err, valkeyrie.ErrNotReachable) {
		t.Errorf("Owner: %v, want ErrNotReachable", err)
	}
}
