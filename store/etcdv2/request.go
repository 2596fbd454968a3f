package etcdv2

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	client "go.etcd.io/etcd/client/v2"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// The client tries one endpoint after the other, also with a write that the one
// before may have applied. So each member has clients of its own, and call goes
// from one to the next where that is safe.

// member is one endpoint.
type member struct {
	at    int64     // its place in driver.members
	lanes sync.Pool // of *lane

	// suspected: the last request was not answered. Before a write goes to it, it
	// is asked something harmless, so that a write to a server that is away is
	// known not to have been applied.
	suspected atomic.Bool
}

// lane is a client that makes one request at a time, and sees what the client
// does not tell: whether the request was put on a connection, and the headers of
// an answer of which the body never came. It is the client's transport.
type lane struct {
	base    *http.Transport
	keys    client.KeysAPI
	members client.MembersAPI
	trace   *httptrace.ClientTrace

	ctx    context.Context // of the request
	alarm  *alarm          // put off by each sign of life, nil: none
	asked  bool            // a request was made
	sent   bool            // and may have left this process; only for writes
	status int             // of the answer, 0: none
	index  string          // its X-Etcd-Index
}

// errSecondRequest: etcd sent us elsewhere, or ended a watch without an event.
var errSecondRequest = errors.New("the server neither answered nor refused the request")

// errSilent: a server said nothing for too long.
var errSilent = errors.New("no answer within Config.ConnectionTimeout")

// newMember makes a member of a URL.
func newMember(base *http.Transport, url string, settings valkeyrie.Config) (*member, error) {
	open := func() (*lane, error) {
		l := &lane{base: base}
		// Both are called within RoundTrip. The transport tries again by itself
		// only what was not written, and then asks for another connection.
		l.trace = &httptrace.ClientTrace{
			GetConn: func(string) { l.sent = false },
			GotConn: func(httptrace.GotConnInfo) { l.sent = true },
		}
		c, err := client.New(client.Config{
			Endpoints: []string{url}, Transport: l, Username: settings.Username, Password: settings.Password,
		})
		if err != nil {
			return nil, &valkeyrie.InvalidConfigError{Backend: StoreName, Field: "endpoints", Reason: "the client refuses " + url, Err: err}
		}
		l.keys, l.members = client.NewKeysAPI(c), client.NewMembersAPI(c)
		return l, nil
	}
	first, err := open()
	if err != nil {
		return nil, err
	}
	m := new(member)
	m.lanes.New = func() any {
		l, _ := open() // went well with the same arguments
		return l
	}
	m.lanes.Put(first)
	return m, nil
}

// RoundTrip implements http.RoundTripper.
func (l *lane) RoundTrip(req *http.Request) (*http.Response, error) {
	if l.asked {
		return nil, errSecondRequest
	}
	l.asked = true
	if req.Method != http.MethodGet {
		req = req.WithContext(httptrace.WithClientTrace(l.ctx, l.trace))
	}
	resp, err := l.base.RoundTrip(req) // which the client cancels
	if err != nil {
		return nil, err
	}
	l.status, l.index = resp.StatusCode, resp.Header.Get("X-Etcd-Index")
	if l.alarm != nil && resp.ContentLength < 0 { // it does not come in one piece
		l.alarm.putOff()
		resp.Body = &body{resp.Body, l.alarm}
	}
	return resp, nil
}

// alarm ends a request when the server has been silent for too long. A long
// answer may take longer.
type alarm struct {
	*time.Timer
	after time.Duration
}

func (a *alarm) putOff() { a.Reset(a.after) }

// body is the body of an answer.
type body struct {
	io.ReadCloser
	alarm *alarm
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.alarm.putOff()
	return n, err
}

// CancelRequest implements client.CancelableTransport, which never calls it.
func (l *lane) CancelRequest(*http.Request) {}

// request is what is known of a request beyond the client's answer.
type request struct {
	sent   bool
	status int
	index  string
}

// ask makes one request.
func (m *member) ask(ctx context.Context, alarm *alarm, f func(context.Context, *lane) error) (request, error) {
	l := m.lanes.Get().(*lane)
	defer m.lanes.Put(l)
	l.ctx, l.alarm, l.asked, l.sent, l.status, l.index = ctx, alarm, false, false, 0, ""
	err := f(ctx, l)
	l.ctx, l.alarm = nil, nil
	return request{l.sent, l.status, l.index}, plainError(err)
}

// hasLeader is nil when the member answers and is part of a cluster that works.
func (m *member) hasLeader(ctx context.Context) error {
	asked, err := m.ask(ctx, nil, func(ctx context.Context, l *lane) error {
		_, err := l.members.Leader(ctx)
		return err
	})
	if asked.status != 0 && asked.status < http.StatusInternalServerError {
		return nil // whatever it thinks of the question
	}
	return err
}

// read makes a request that changes nothing, and returns who answered it.
func (d *driver) read(ctx context.Context, f func(context.Context, *lane) error) (*member, error) {
	return d.call(ctx, false, f)
}

// write makes a request that changes something. It is sent once at most.
func (d *driver) write(ctx context.Context, f func(context.Context, *lane) error) error {
	_, err := d.call(ctx, true, f)
	return err
}

// call makes a request to one member after the other until one answers, or until
// one that does not may have applied a write.
func (d *driver) call(ctx context.Context, write bool, f func(context.Context, *lane) error) (*member, error) {
	first, n := d.pinned.Load(), int64(len(d.members))
	var err error
	for i := range n {
		at := (first + i) % n
		m := d.members[at]
		begun := time.Now()
		var asked request
		if asked, err = d.attempt(ctx, m, write, f); answered(err) {
			if m.suspected.Load() {
				m.suspected.Store(false)
			}
			return m, mapError(err)
		}
		if ctx.Err() == nil || time.Since(begun) > patience {
			d.suspect(m)
		}
		err = unanswered(err, asked, write)
		ended := context.Cause(ctx)
		if ended == nil && d.conns.closed() {
			ended = valkeyrie.ErrClosed
		}
		switch {
		case errors.Is(err, valkeyrie.ErrAmbiguous) && ended != nil && !errors.Is(err, ended):
			return nil, store.Wrap(err, ended)
		case errors.Is(err, valkeyrie.ErrNotReachable) && ended == nil:
			continue
		case errors.Is(err, valkeyrie.ErrNotReachable):
			return nil, ended // which says nothing about the server
		}
		return nil, err
	}
	return nil, err
}

// attempt makes a request to a member, and gives up when that has been silent for
// as long as Config.ConnectionTimeout.
func (d *driver) attempt(ctx context.Context, m *member, write bool, f func(context.Context, *lane) error) (asked request, err error) {
	own, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &alarm{time.AfterFunc(d.timeout, func() { cancel(errSilent) }), d.timeout}
	defer a.Stop()
	if write && m.suspected.Load() {
		err = m.hasLeader(own)
	}
	if err == nil {
		asked, err = m.ask(own, a, f)
	}
	if err != nil && context.Cause(own) == errSilent {
		err = errSilent
	}
	return asked, err
}

// patience is how long a request whose context ended must have waited for its
// member to be suspected.
const patience = 500 * time.Millisecond

// suspect lets the next requests go to another member, and on new connections: a
// network that has forgotten one has likely forgotten the others.
func (d *driver) suspect(m *member) {
	m.suspected.Store(true)
	d.pinned.CompareAndSwap(m.at, (m.at+1)%int64(len(d.members)))
	d.transport.CloseIdleConnections()
}

// get reads a node; the answer to one that is not there has the index too.
func (d *driver) get(ctx context.Context, path string, opts client.GetOptions) (resp *client.Response, m *member, err error) {
	m, err = d.read(ctx, func(ctx context.Context, l *lane) (err error) {
		resp, err = l.keys.Get(ctx, path, &opts)
		return err
	})
	return resp, m, err
}

// set writes a node and returns its new modifiedIndex.
func (d *driver) set(ctx context.Context, path, value string, ttl time.Duration, opts client.SetOptions) (index uint64, err error) {
	opts.TTL, opts.NoValueOnSuccess = ttl, true
	err = d.write(ctx, func(ctx context.Context, l *lane) error {
		resp, err := l.keys.Set(ctx, path, value, &opts)
		if err == nil {
			index = resp.Index // that of this write: etcd reads both at once
		}
		return err
	})
	return index, err
}

// remove removes a node.
func (d *driver) remove(ctx context.Context, path string, opts client.DeleteOptions) error {
	return d.write(ctx, func(ctx context.Context, l *lane) error {
		_, err := l.keys.Delete(ctx, path, &opts)
		return err
	})
}
