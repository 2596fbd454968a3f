package main

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// page prints lines of two columns: who, and what. It is safe for concurrent use.
type page struct {
	mu     sync.Mutex
	w      io.Writer
	colour bool
	steps  int
	people map[string]int // who has appeared, numbered
}

// newPage returns a page on the file, in colour if that is a terminal and the
// user has not said NO_COLOR.
func newPage(f *os.File) *page {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &page{w: f, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// paint colours a text.
func (p *page) paint(code, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title prints a headline and a line that explains it.
func (p *page) title(headline, explained string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "\n%s\n%s\n", p.paint("1", headline), p.paint("2", explained))
}

// step prints the headline of the next step.
func (p *page) step(headline string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
	fmt.Fprintf(p.w, "\n%s\n", p.paint("1", fmt.Sprintf("%d. %s", p.steps, headline)))
}

// line prints what somebody did or saw; everybody has a colour.
func (p *page) line(who, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.people == nil {
		p.people = make(map[string]int)
	}
	if _, known := p.people[who]; !known {
		p.people[who] = len(p.people)
	}
	colours := []string{"32", "36", "33", "35", "34"} // all but red, which would be alarming
	name := p.paint(colours[p.people[who]%len(colours)], fmt.Sprintf("%-8s", who))
	fmt.Fprintf(p.w, "   %s %s\n", name, fmt.Sprintf(format, args...))
}
