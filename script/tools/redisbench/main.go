// Command redisbench compares the Redis backend with redigo's pool, rueidis and
// go-redis: the same load on the same server, by turns in short slices, so that
// what else the machine does hits all alike. It prints the median slice of each.
// make redisbench runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/gomodule/redigo/redis"
)

// client is one of those that are compared.
type client struct {
	name     string
	get, put func(ctx context.Context, key string) error
	list     func(ctx context.Context, dir string) (int, error) // nil: not compared
}

const keys = 1000

// most is up to how many goroutines make calls.
var most = 256

var value = make([]byte, 100)

func key(i int) string { return fmt.Sprintf("redisbench/%02d/key-%05d", i%16, i) }

func main() {
	log.SetFlags(0)
	server := flag.String("server", "", "the program of a server to start; otherwise -addr")
	addr := flag.String("addr", "127.0.0.1:6379", "a server that runs; keys below redisbench/ are written")
	rounds := flag.Int("rounds", 15, "slices a client and load")
	slice := flag.Duration("slice", 200*time.Millisecond, "how long one slice takes")
	loads := flag.String("loads", "calls,lists", "what to compare")
	flag.IntVar(&most, "most", most, "calls by up to so many goroutines")
	flag.Parse()
	if err := run(*server, *addr, *rounds, *slice, *loads); err != nil {
		log.Fatal("redisbench: ", err)
	}
}

// run starts a server, if one is to be started, and compares.
func run(server, addr string, rounds int, slice time.Duration, loads string) error {
	if server != "" {
		started, stop, err := start(server)
		if err != nil {
			return err
		}
		defer stop()
		addr = started
	}
	clients, stop, err := open(addr)
	if err != nil {
		return err
	}
	defer stop()
	return compare(clients, rounds, slice, loads)
}

// start starts a server that keeps nothing, and waits until it answers.
func start(program string) (addr string, stop func(), err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = free.Addr().String()
	if err := free.Close(); err != nil {
		return "", nil, err
	}
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command(program, "--bind", "127.0.0.1", "--port", port, "--save", "")
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := redis.Dial("tcp", addr)
		if err == nil {
			return addr, stop, c.Close()
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, err
		}
	}
}

// compare runs all loads and prints a line for each.
func compare(clients []client, rounds int, slice time.Duration, loads string) error {
	// A context that can end, as those of services: it must cost nobody too much.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer out.Flush()
	fmt.Fprint(out, "load\t")
	for _, c := range clients {
		fmt.Fprintf(out, "%s\t", c.name)
	}
	fmt.Fprintf(out, "%s is faster than\t\n", clients[0].name)
	if strings.Contains(loads, "calls") {
		if err := compareCalls(ctx, out, clients, rounds, slice); err != nil {
			return err
		}
	}
	if strings.Contains(loads, "lists") {
		return compareLists(ctx, out, clients, rounds)
	}
	return nil
}

// compareCalls compares Get and Put.
func compareCalls(ctx context.Context, out *tabwriter.Writer, clients []client, rounds int, slice time.Duration) error {
	for _, goroutines := range []int{1, 64, 256} {
		if goroutines > most {
			break
		}
		for _, load := range []string{"Get", "Put"} {
			took, err := turns(clients, rounds, func(c client) (float64, error) {
				if load == "Put" {
					return spread(ctx, goroutines, slice, c.put)
				}
				for _, key := range names { // each has a layout of its own
					if err := c.put(ctx, key); err != nil {
						return 0, err
					}
				}
				return spread(ctx, goroutines, slice, c.get)
			})
			if err != nil {
				return err
			}
			report(out, fmt.Sprintf("%s, %d goroutines", load, goroutines), clients, took)
		}
	}
	return nil
}

// turns measures each client so many times by turns, and returns their medians.
func turns(clients []client, rounds int, measure func(c client) (float64, error)) ([]float64, error) {
	all := make([][]float64, len(clients))
	for r := range rounds {
		for n := range clients {
			i := (n + r) % len(clients) // nobody always follows the same one
			took, err := measure(clients[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", clients[i].name, err)
			}
			all[i] = append(all[i], took)
		}
	}
	medians := make([]float64, len(clients))
	for i, took := range all {
		slices.Sort(took)
		medians[i] = took[len(took)/2]
	}
	return medians, nil
}

// spread makes calls by so many goroutines for a while, and returns the seconds a call.
func spread(ctx context.Context, goroutines int, d time.Duration, f func(ctx context.Context, key string) error) (float64, error) {
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var over atomic.Bool
	var wg sync.WaitGroup
	began := time.Now()
	for g := range goroutines {
		wg.Go(func() {
			n := int64(0)
			for i := g; !over.Load(); i++ {
				if err := f(ctx, names[i%keys]); err != nil {
					failed.Store(&err)
					break
				}
				n++
			}
			calls.Add(n)
		})
	}
	time.Sleep(d)
	over.Store(true)
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return took.Seconds() / float64(calls.Load()), nil
}

var names = func() (all []string) {
	for i := range keys {
		all = append(all, key(i))
	}
	return all
}()

// report prints a line.
func report(out *tabwriter.Writer, load string, clients []client, took []float64) {
	fmt.Fprintf(out, "%s\t", load)
	faster := ""
	for i := range clients {
		if took[i] == 0 {
			fmt.Fprint(out, "\t")
			continue
		}
		fmt.Fprintf(out, "%v\t", time.Duration(took[i]*1e9).Round(10*time.Nanosecond))
		if i > 0 {
			faster += fmt.Sprintf(" %s × %.2f", clients[i].name, took[i]/took[0])
		}
	}
	fmt.Fprintf(out, "%s\t\n", faster)
	out.Flush()
}
