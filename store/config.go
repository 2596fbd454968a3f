package store

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/kvtools/valkeyrie"
)

// Settings returns a copy of cfg with every default filled in. A nil cfg is one
// without settings. It returns an *valkeyrie.InvalidConfigError for values that
// cannot be right. A backend's New calls it before anything else.
func Settings(backend string, cfg *valkeyrie.Config) (valkeyrie.Config, error) {
	var c valkeyrie.Config
	if cfg != nil {
		c = *cfg
	}
	if c.ConnectionTimeout < 0 {
		return c, &valkeyrie.InvalidConfigError{Backend: backend, Field: "Config.ConnectionTimeout",
			Reason: fmt.Sprintf("is %v; give a positive time, or 0 for the default", c.ConnectionTimeout)}
	}
	if c.ConnectionTimeout == 0 {
		c.ConnectionTimeout = valkeyrie.DefaultConnectionTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if _, err := normalKey(c.Prefix); err != nil {
		return c, &valkeyrie.InvalidConfigError{Backend: backend, Field: "Config.Prefix",
			Reason: "must follow the rules for keys", Err: err}
	}
	return c, nil
}

// checkedOptions returns a copy of a backend's options, all zero for nil, for the backend
// to fill in its defaults. In no option does a negative number mean anything: it
// is an *valkeyrie.InvalidConfigError.
func checkedOptions[O any](backend string, opts *O) (O, error) {
	var filled O
	if opts != nil {
		filled = *opts
	}
	fields := reflect.ValueOf(filled)
	for i := range fields.NumField() {
		if f := fields.Field(i); f.CanInt() && f.Int() < 0 {
			return filled, &valkeyrie.InvalidConfigError{Backend: backend, Field: "Options." + fields.Type().Field(i).Name,
				Reason: fmt.Sprintf("is %v; give a positive value, or 0 for the default", f.Interface())}
		}
	}
	return filled, nil
}

// Open is what the New of a backend does: it fills in the settings, checks the
// options and makes a store of the driver that prepare makes of both.
func Open[O any](backend string, cfg *valkeyrie.Config, opts *O, prepare func(settings valkeyrie.Config, given O) (Driver, error)) (valkeyrie.Store, error) {
	settings, err := Settings(backend, cfg)
	if err != nil {
		return nil, err
	}
	given, err := checkedOptions(backend, opts)
	if err != nil {
		return nil, err
	}
	d, err := prepare(settings, given)
	if err != nil {
		return nil, err
	}
	return New(d, &settings)
}

// Register registers a backend by its typed constructor. A backend calls it in
// its init function.
func Register[O any](name string, open func(endpoints []string, cfg *valkeyrie.Config, opts *O) (valkeyrie.Store, error)) {
	valkeyrie.Register(name, func(endpoints []string, cfg *valkeyrie.Config) (valkeyrie.Store, error) {
		opts, err := backendOptions[O](name, cfg)
		if err != nil {
			return nil, err
		}
		return open(endpoints, cfg, opts)
	})
}

// backendOptions returns cfg.Backend as the backend's own options type, nil
// when there are none, and an *valkeyrie.InvalidConfigError when it is of
// another type.
func backendOptions[T any](backend string, cfg *valkeyrie.Config) (*T, error) {
	if cfg == nil || cfg.Backend == nil {
		return nil, nil
	}
	opts, ok := cfg.Backend.(*T)
	if !ok {
		return nil, &valkeyrie.InvalidConfigError{Backend: backend, Field: "Config.Backend",
			Reason: fmt.Sprintf("is a %T; this backend takes a %T", cfg.Backend, opts)}
	}
	return opts, nil
}

// wirePrefix is what stands before every key on the wire: empty, or ending in "/".
func wirePrefix(prefix string, leadingSlash bool) string {
	clean, _ := normalKey(prefix) // Settings has checked it
	if clean != "" {
		clean += "/"
	}
	if leadingSlash && strings.HasPrefix(prefix, "/") {
		clean = "/" + clean
	}
	return clean
}
