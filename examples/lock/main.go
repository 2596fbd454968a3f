// Command lock shows a lock whose holder does not notice in time that it lost
// it, and how the lock's token protects what it guards all the same.
//
//	go run ./examples/lock
//	go run ./examples/lock -store etcdv3 -endpoints 127.0.0.1:2379
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/examples/internal/backends"
)

func main() { backends.Main(run) }

const key = "examples/lock/account"

// account is what the lock guards. It remembers the greatest token that it has
// seen and refuses smaller ones: their holders have been followed by another. A
// database does the same with a column and a condition.
type account struct {
	mu      sync.Mutex
	token   uint64
	balance int
}

var errFenced = errors.New("refused: somebody who got the lock later was here")

func (a *account) add(token uint64, amount int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token < a.token {
		return errFenced
	}
	a.token = token
	a.balance += amount
	return nil
}

func run(ctx context.Context, target backends.Target) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var guarded account
	ada, err := newWorker(ctx, target, "ada")
	if err != nil {
		return err
	}
	defer ada.kv.Close()
	ben, err := newWorker(ctx, target, "ben")
	if err != nil {
		return err
	}
	defer ben.kv.Close()

	lost, err := ada.lock.Lock(ctx) // waits; ctx governs the waiting, not the hold
	if err != nil {
		return err
	}
	token := ada.lock.Token() // goes along with everything that ada writes
	if err := guarded.add(token, 10); err != nil {
		return err
	}
	fmt.Printf("ada has the lock and adds 10: balance %d\n", guarded.balance)
	if _, err := ben.lock.TryLock(ctx); !errors.Is(err, valkeyrie.ErrLockHeld) {
		return fmt.Errorf("ben should not get the lock, but: %w", err)
	}
	fmt.Println("ben cannot have it now")

	// Somebody deletes the key; it could as well be that ada's machine hung for
	// longer than the TTL. Who looks at lost stops now. Ada has looked just before.
	if err := ben.kv.Delete(ctx, key); err != nil {
		return err
	}
	if _, err := ben.lock.Lock(ctx); err != nil {
		return err
	}
	if err := guarded.add(ben.lock.Token(), 5); err != nil {
		return err
	}
	fmt.Printf("ben has the lock and adds 5: balance %d\n", guarded.balance)

	fmt.Println("ada goes on as if nothing had happened:", guarded.add(token, 1000))
	<-lost // closed at the latest when the hold can no longer be proven
	fmt.Println("ada notices that the lock is lost")
	if err := ada.lock.Unlock(ctx); !errors.Is(err, valkeyrie.ErrLockNotHeld) {
		return fmt.Errorf("ada should not hold the lock any more, but: %w", err)
	}
	if err := ben.lock.Unlock(ctx); err != nil {
		return err
	}
	fmt.Printf("the balance is %d\n", guarded.balance)
	return nil
}

// worker is a client with a store and a lock of its own.
type worker struct {
	kv   valkeyrie.Store
	lock valkeyrie.Locker
}

func newWorker(ctx context.Context, target backends.Target, name string) (*worker, error) {
	kv, err := target.Open()
	if err != nil {
		return nil, err
	}
	// While it is held, Get of the key tells who holds it.
	lock, err := kv.NewLock(ctx, key, &valkeyrie.LockOptions{Value: []byte(name), TTL: 10 * time.Second})
	if err != nil {
		_ = kv.Close()
		return nil, err
	}
	return &worker{kv, lock}, nil
}
