// Command benchratio reads the output of the benchmarks that testutils.Benchmark
// makes and prints, for each load, the store's figure beside that of the
// backend's own client, and their ratio:
//
//	go test -run=- -bench=. ./store/boltdb | go run ./internal/benchratio
//
// Figures are medians of all repetitions. The ratio is one of throughput: 2.0
// means that the store does twice as much in the same time as the client alone.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchratio:", err)
		os.Exit(1)
	}
}

// line is a result of "go test -bench": the benchmark, the load, the side, the
// number of the repetition and of processors, the number of calls, the figures.
var line = regexp.MustCompile(`^Benchmark([^/\s]*)/(\S+)/(store|native)(?:#\d+)?(?:-\d+)?\s+\d+\s+(.*)$`)

// sides are the figures of one load in nanoseconds.
type sides struct {
	name          string
	store, native []float64
}

// run reads results and prints the table.
func run(in io.Reader, out io.Writer) error {
	loads, failed, err := read(in)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tstore\tnative\tratio\t")
	for _, l := range loads {
		store, native := median(l.store), median(l.native)
		ratio := "-"
		if store > 0 && native > 0 {
			ratio = fmt.Sprintf("%.2f", native/store)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", l.name, duration(store), duration(native), ratio)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(loads) == 0 {
		return fmt.Errorf("no benchmarks in the input")
	}
	if failed != "" {
		return fmt.Errorf("the benchmarks failed: %s", failed)
	}
	return nil
}

// read collects the figures of each load, in the order of the input. A failed
// benchmark must not look like a short table.
func read(in io.Reader) (loads []*sides, failed string, err error) {
	byName := make(map[string]*sides)
	pkg := ""
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		text := scanner.Text()
		if p, ok := strings.CutPrefix(text, "pkg: "); ok {
			pkg = p[strings.LastIndex(p, "/")+1:] + "."
		}
		if failed == "" && (strings.HasPrefix(text, "FAIL") || strings.Contains(text, "--- FAIL")) {
			failed = text
		}
		m := line.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		for _, f := range figures(m[4]) {
			name := pkg + m[1] + " " + m[2] + f.what
			l := byName[name]
			if l == nil {
				l = &sides{name: name}
				byName[name] = l
				loads = append(loads, l)
			}
			if m[3] == "store" {
				l.store = append(l.store, f.ns)
			} else {
				l.native = append(l.native, f.ns)
			}
		}
	}
	return loads, failed, scanner.Err()
}

// figure is a time; what is empty for that of a call, and otherwise names it.
type figure struct {
	what string
	ns   float64
}

// figures finds the times among the pairs of figure and unit: "ns/op", and what
// a benchmark reports besides, such as "after-put-ns/op".
func figures(text string) (found []figure) {
	fields := strings.Fields(text)
	for i := 1; i < len(fields); i += 2 {
		what, ok := strings.CutSuffix(fields[i], "ns/op")
		ns, err := strconv.ParseFloat(fields[i-1], 64)
		if !ok || err != nil {
			continue
		}
		if what != "" {
			what = " " + strings.TrimSuffix(what, "-")
		}
		found = append(found, figure{what, ns})
	}
	return found
}

// median returns the middle figure, 0 when there is none.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(figures))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// duration shows nanoseconds with three digits or so.
func duration(ns float64) string {
	if ns == 0 {
		return "-"
	}
	d := time.Duration(ns)
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return fmt.Sprintf("%.1fns", ns)
}
