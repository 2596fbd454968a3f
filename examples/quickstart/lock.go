package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
)

// ledger is what the lock guards: it takes no entry from a holder that has
// been followed by another one.
type ledger struct {
	mu      sync.Mutex
	highest uint64 // token seen
}

// write makes an entry, or refuses.
func (l *ledger) write(token uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if token < l.highest {
		return fmt.Errorf("refused: token %d has been here", l.highest)
	}
	l.highest = token
	return nil
}

// lock lets two workers take turns, and shows what the tokens are good for.
func (d *demo) lock(ctx context.Context) error {
	d.out.step("One at a time, and nobody writes with a lock that was lost")
	var (
		book   ledger
		wg     sync.WaitGroup
		failed [2]error
		first  [2]uint64
	)
	for i, who := range []string{"ada", "ben"} {
		wg.Go(func() { first[i], failed[i] = d.work(ctx, who, &book) })
	}
	wg.Wait()
	if err := errors.Join(failed[:]...); err != nil {
		return err
	}
	who, token := "ada", first[0]
	if first[1] < token {
		who, token = "ben", first[1]
	}
	d.out.line(who, "wakes up late and writes with token %d once more", token)
	err := book.write(token)
	if err == nil {
		return errors.New("the ledger took an old token")
	}
	d.out.line("ledger", "%v", err)
	return nil
}

// work takes the lock twice and returns the token of the first time.
func (d *demo) work(ctx context.Context, who string, book *ledger) (uint64, error) {
	lock, err := d.kv.NewLock(ctx, "locks/ledger", &valkeyrie.LockOptions{Value: []byte(who), TTL: 5 * time.Second})
	if err != nil {
		return 0, err
	}
	var first uint64
	for range 2 {
		lost, err := lock.Lock(ctx)
		if err != nil {
			return 0, err
		}
		token := lock.Token()
		if first == 0 {
			first = token
		}
		if err := book.write(token); err != nil {
			return 0, fmt.Errorf("%s: %w", who, err)
		}
		d.out.line(who, "has the lock, token %d", token)
		select { // the work
		case <-time.After(200 * time.Millisecond):
		case <-lost:
			return 0, fmt.Errorf("%s lost the lock", who)
		}
		if err := lock.Unlock(ctx); err != nil {
			return 0, err
		}
	}
	return first, nil
}
