// Package configfuzz fuzzes the constructors of the backends: whatever endpoints,
// Config and Options say, New panics not, waits not and changes nothing global;
// what it refuses it names, and a store that it made closes without a trace.
package configfuzz

import (
	"crypto/tls"
	"log"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/kvtools/valkeyrie"
)

// patience is how long New may take on a busy machine. It does not wait for a
// server, and the longest ConnectionTimeout that is tried is much longer.
const patience = 10 * time.Second

// endpoints are those that each backend is tried with, one a line.
var endpoints = []string{
	"", "\n", " ", "127.0.0.1:1", "127.0.0.1", "[::1]:1", "::1", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:",
	":1", "http://127.0.0.1:1", "https://127.0.0.1:1", "http://u:p@127.0.0.1:1/path?q=v#f", "unix:///nowhere", "tcp://127.0.0.1:1",
	"://", "%", "http://%zz", "http://[", "http://127.0.0.1:1:1", "\x00", "127.0.0.1:1\n127.0.0.1:2", "127.0.0.1:1,127.0.0.1:2",
	"http://127.0.0.1:1\n127.0.0.1:1", "http://127.0.0.1:1\nhttps://127.0.0.1:2",
}

// Run fuzzes open, the constructor of a backend.
func Run[O any](f *testing.F, backend string, open func([]string, *valkeyrie.Config, *O) (valkeyrie.Store, error)) {
	for i, e := range endpoints {
		f.Add(e, "", "", int64(0), "", int64(0), uint64(0))
		f.Add(e, "/p//", "secret\n", int64(time.Hour), "text", int64(-1), ^uint64(0)>>i)
	}
	f.Add("127.0.0.1:1", "../p", "", int64(-1), "", int64(0), uint64(0))
	f.Add("127.0.0.1:1", "p", "s", int64(time.Nanosecond), strings.Repeat("long", 1<<14), int64(1<<62), ^uint64(0))
	f.Fuzz(func(t *testing.T, lines, prefix, secret string, timeout int64, text string, number int64, choice uint64) {
		given := fields{text: text, number: number, choice: choice}
		var at []string
		if lines != "" {
			at = strings.Split(lines, "\n")
		}
		cfg := valkeyrie.Config{Prefix: prefix, ConnectionTimeout: time.Duration(timeout)}
		for _, s := range []*string{&cfg.Username, &cfg.Password, &cfg.Token} {
			if given.next() {
				*s = secret
			}
		}
		if given.next() {
			cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		var opts O
		given.fill(reflect.ValueOf(&opts).Elem())
		try(t, backend, reflect.TypeFor[O](), func() (valkeyrie.Store, error) { return open(at, &cfg, &opts) })
	})
}

// try makes a store and closes it.
func try(t *testing.T, backend string, options reflect.Type, open func() (valkeyrie.Store, error)) {
	running, before, began := goleak.IgnoreCurrent(), globals(), time.Now()
	s, err := open()
	require.Less(t, time.Since(began), patience, "New waits for something")
	if err == nil {
		require.NoError(t, s.Close())
	} else {
		require.Nil(t, s)
		var bad *valkeyrie.InvalidConfigError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, backend, bad.Backend)
		require.True(t, names(bad.Field, options), "it names %q, which is no field", bad.Field)
		require.NotEmpty(t, bad.Reason)
		require.ErrorContains(t, err, backend+": "+bad.Field+": "+bad.Reason)
	}
	require.Equal(t, before, globals(), "New changes what is not its own")
	require.NoError(t, goleak.Find(running), "something is left running")
}

// globals is what of the process a library could change.
func globals() []any {
	return []any{*http.DefaultClient, http.DefaultTransport, slog.Default(), log.Writer(), log.Flags(), os.Environ()}
}

// names tells whether a field of InvalidConfigError is one that the user can
// find: "endpoints", "environment", or a path below Config or Options.
func names(field string, options reflect.Type) bool {
	top, path, _ := strings.Cut(field, ".")
	in, ok := map[string]reflect.Type{"Config": reflect.TypeFor[valkeyrie.Config](), "Options": options}[top]
	if !ok {
		return field == "endpoints" || field == "environment"
	}
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, ".")
		if in.Kind() == reflect.Pointer {
			in = in.Elem()
		}
		f, ok := in.FieldByName(name)
		if !ok {
			return false
		}
		in = f.Type
	}
	return true
}

// fields says what to fill the fields of Options with. The bits of choice say
// which ones are set.
type fields struct {
	text   string
	number int64
	choice uint64
}

func (f *fields) next() bool {
	yes := f.choice&1 == 1
	f.choice >>= 1
	return yes
}

// fill sets the fields of a struct. Those of types of other packages, such as a
// client's configuration, are left alone.
func (f *fields) fill(v reflect.Value) {
	for i := range v.NumField() {
		if !f.next() {
			continue
		}
		switch field := v.Field(i); field.Kind() {
		case reflect.String:
			field.SetString(f.text)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Int, reflect.Int64:
			field.SetInt(f.number)
		case reflect.Uint32:
			field.SetUint(uint64(uint32(f.number)))
		case reflect.Pointer:
			if field.Type().Elem().PkgPath() == v.Type().PkgPath() {
				field.Set(reflect.New(field.Type().Elem()))
				f.fill(field.Elem())
			}
		}
	}
}
