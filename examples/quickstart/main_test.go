package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runOnce runs the program and returns what it printed.
func runOnce(t *testing.T, path string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &page{w: &out}, path), "printed until then:\n%s", &out)
	t.Log(out.String())
	return out.String()
}

// tokens returns the fencing tokens in the order in which they were printed.
func tokens(t *testing.T, out string) []uint64 {
	t.Helper()
	var all []uint64
	for _, m := range regexp.MustCompile(`has the lock, token (\d+)`).FindAllStringSubmatch(out, -1) {
		n, err := strconv.ParseUint(m[1], 10, 64)
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}

func TestTwoRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quickstart.db")
	first := runOnce(t, path)
	second := runOnce(t, path)

	for _, out := range []string{first, second} {
		require.Contains(t, out, "list     3 services: mail/1, web/1, web/2\n")
		require.Contains(t, out, "watch    - services/mail/1\n")
		require.Contains(t, out, "list     2 services: web/1, web/2\n")
		require.Contains(t, out, "bob      is refused (ErrKeyModified)")
		require.Contains(t, out, "ledger   refused: token")
		require.NotContains(t, out, "\x1b", "no colour but on a terminal")
	}
	require.Contains(t, first, "this is the first run")
	require.Contains(t, first, "watch    + config/limit     115\n")
	require.Contains(t, second, "welcome back: this is run 2")
	require.Contains(t, second, "run 1 changed config/limit from 100")
	require.Contains(t, second, "watch    + config/limit     130\n", "the setting survived the first run")

	all := append(tokens(t, first), tokens(t, second)...)
	require.Len(t, all, 8)
	for i := 1; i < len(all); i++ {
		require.Greater(t, all[i], all[i-1], "tokens grow, also over runs")
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "such", "directory", "quickstart.db")
	err := run(t.Context(), &page{w: new(strings.Builder)}, path)
	require.ErrorContains(t, err, path)
}
